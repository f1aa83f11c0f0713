"""Seal every stored secret anew with the first of MAAS_SEALING_KEYS, so that the others can be taken away."""

from collections.abc import Iterator
from typing import Any

from allauth.mfa.models import Authenticator
from django.apps import apps
from django.core.management.base import BaseCommand
from django.db import connection, models, transaction

from maas.sealing import SealedField, reseal
from maas.tenancy import SystemUse, as_system

MFA_SECRETS = ("secret", "seed")  # what allauth encrypts of an authenticator app and of recovery codes
STEP = 500  # rows of one transaction


class Command(BaseCommand):
    help = "Seal every stored secret with the first key of MAAS_SEALING_KEYS. Safe to run at any time, and again."

    def handle(self, *args: Any, **options: Any) -> None:
        for model, field in sealed_columns():
            count = sum(reseal_column(model, field))
            self.stdout.write(f"{model._meta.label}.{field.name}: {count} sealed anew")
        self.stdout.write(f"second factors: {reseal_factors()} sealed anew")


def sealed_columns() -> list[tuple[type[models.Model], Any]]:
    """Every sealed column of the product."""
    return [(model, field) for model in apps.get_models() for field in model._meta.fields if isinstance(field, SealedField)]


def reseal_column(model: type[models.Model], field: Any) -> Iterator[int]:
    """Rows sealed anew, step by step; the raw text is compared, so a change that happens meanwhile wins."""
    table, column, last = model._meta.db_table, field.column, None
    while True:
        with as_system(SystemUse.RESEAL), connection.cursor() as cursor:
            cursor.execute(
                f"SELECT id, {column} FROM {table} WHERE {column} IS NOT NULL AND (%s::uuid IS NULL OR id > %s) ORDER BY id LIMIT %s",  # noqa: S608
                [last, last, STEP],
            )
            rows = cursor.fetchall()
            changes = [(reseal(old), row_id, old) for row_id, old in rows]
            cursor.executemany(f"UPDATE {table} SET {column} = %s WHERE id = %s AND {column} = %s", changes)  # noqa: S608
        yield len(rows)
        if len(rows) < STEP:
            return
        last = rows[-1][0]


def reseal_factors() -> int:
    """The secrets of authenticator apps and recovery codes."""
    count = 0
    for row_id in Authenticator.objects.values_list("pk", flat=True):
        with transaction.atomic():
            row = Authenticator.objects.select_for_update().filter(pk=row_id).first()
            if row and any(row.data.get(name) for name in MFA_SECRETS):
                row.data.update({name: reseal(row.data[name]) for name in MFA_SECRETS if row.data.get(name)})
                row.save(update_fields=["data"])
                count += 1
    return count
