"""Django's migrate, run as the role that owns the tables."""

from typing import Any

from django.core.management.commands.migrate import Command as Migrate
from django.db import connections


class Command(Migrate):
    help = Migrate.help + " Runs as the database role maas_owner."

    def handle(self, *args: Any, **options: Any) -> None:
        connection = connections[options["database"]]
        with connection.cursor() as cursor:
            cursor.execute("SET ROLE maas_owner")
        try:
            super().handle(*args, **options)
        finally:
            connection.close()
