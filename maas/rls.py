"""Migration operations for row-level security (PostgreSQL manual, "Row Security Policies")."""

from typing import Any

from django.db.migrations.operations import RunSQL

TENANT = "nullif(current_setting('maas.tenant', true), '')::uuid"
USER = "nullif(current_setting('maas.user', true), '')::bigint"


class IsolateTenant(RunSQL):
    """Force row-level security on a table: the application's role sees the current tenant's rows, the system role all.

    `using` replaces the condition for reading and writing, `also_read` widens reading alone.
    """

    def __init__(self, table: str, *, using: str = f"tenant_id = {TENANT}", also_read: str | None = None) -> None:
        self.args = (table, using, also_read)
        read = f"CREATE POLICY tenant_read ON {table} FOR SELECT TO maas_app USING ({also_read});" if also_read else ""
        super().__init__(
            sql=f"""
                ALTER TABLE {table} ENABLE ROW LEVEL SECURITY;
                ALTER TABLE {table} FORCE ROW LEVEL SECURITY;
                CREATE POLICY tenant ON {table} TO maas_app USING ({using}) WITH CHECK ({using});
                {read}
                CREATE POLICY system ON {table} TO maas_system USING (true) WITH CHECK (true);
            """,
            reverse_sql=f"""
                DROP POLICY tenant ON {table}; DROP POLICY IF EXISTS tenant_read ON {table}; DROP POLICY system ON {table};
                ALTER TABLE {table} NO FORCE ROW LEVEL SECURITY; ALTER TABLE {table} DISABLE ROW LEVEL SECURITY;
            """,
        )

    def deconstruct(self) -> tuple[str, list[Any], dict[str, Any]]:
        table, using, also_read = self.args
        return self.__class__.__name__, [table], {"using": using, "also_read": also_read}


class AppendOnly(RunSQL):
    """Take UPDATE and DELETE away from the application and the system: rows are only ever added."""

    def __init__(self, table: str) -> None:
        self.table = table
        super().__init__(
            sql=f"REVOKE UPDATE, DELETE ON {table} FROM maas_app, maas_system",
            reverse_sql=f"GRANT UPDATE, DELETE ON {table} TO maas_app, maas_system",
        )

    def deconstruct(self) -> tuple[str, list[Any], dict[str, Any]]:
        return self.__class__.__name__, [self.table], {}
