from typing import Any

from django.apps import AppConfig
from django.db import connections
from django.db.models.signals import post_migrate


class UsageConfig(AppConfig):
    name = "apps.usage"
    label = "usage"

    def ready(self) -> None:
        post_migrate.connect(make_months, sender=self)


def make_months(*, using: str, **arguments: Any) -> None:
    """Every migrate leaves the months that come next; the owner who migrates may make them."""
    from apps.usage.partitions import make_partition, months_ahead

    with connections[using].cursor() as cursor:
        cursor.execute("SELECT to_regprocedure('maas_make_usage_month(date)') IS NOT NULL")
        if cursor.fetchone()[0]:
            for period in months_ahead():
                make_partition(period)
