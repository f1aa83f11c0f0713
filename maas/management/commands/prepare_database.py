"""Make the three roles and the schema that they share. Safe to run again."""

from typing import Any

import psycopg
from django.conf import settings
from django.core.management.base import BaseCommand

ROLES = ("maas_owner", "maas_app", "maas_system")
STATEMENTS = """
GRANT USAGE ON SCHEMA public TO maas_owner, maas_app, maas_system;
GRANT CREATE ON SCHEMA public TO maas_owner;
ALTER DEFAULT PRIVILEGES FOR ROLE maas_owner IN SCHEMA public
    GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO maas_app, maas_system;
ALTER DEFAULT PRIVILEGES FOR ROLE maas_owner IN SCHEMA public GRANT USAGE, SELECT ON SEQUENCES TO maas_app, maas_system;
"""
MISSING = """
SELECT wanted FROM unnest(%s::text[]) wanted LEFT JOIN pg_roles ON rolname = wanted WHERE rolname IS NULL
"""


class Command(BaseCommand):
    help = "Make the roles maas_owner, maas_app and maas_system, and let the login of DATABASE_URL take them."

    def handle(self, *args: Any, **options: Any) -> None:
        with psycopg.connect(**_address(), autocommit=True) as connection:
            for (role,) in connection.execute(MISSING, [list(ROLES)]).fetchall():
                connection.execute(f"CREATE ROLE {role} NOLOGIN NOBYPASSRLS")
            for role in ROLES:
                connection.execute(f"GRANT {role} TO current_user")
            connection.execute(STATEMENTS)


def _address() -> dict[str, Any]:
    database = settings.DATABASES["default"]
    names = {"dbname": "NAME", "user": "USER", "password": "PASSWORD", "host": "HOST", "port": "PORT"}
    return {key: str(database[name]) for key, name in names.items() if database.get(name)}
