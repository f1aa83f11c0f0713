# ruff: noqa: S608  # every piece of SQL is a constant of this file
"""Roll-ups by hour and by day: the ledger, added up once.

Whatever adds a line to the ledger adds it to `usage_usagefresh` too, by a trigger and in the same transaction. A roll-up
takes what it finds there away and adds it to the hours and days, again in one transaction. So every line is in exactly
one of the two places at any moment: hours plus fresh are the ledger, with nothing to wait for and no day to compute anew.
"""

from django.db import connection

from maas.tenancy import SystemUse, as_system

SUMS = ("records", "requests", "quantity", "units")
ADDED = ", ".join(f"sum({name})::bigint AS {name}" for name in SUMS)


def _add_to(table: str, key: str, chosen: str) -> str:
    """Add what was taken to a roll-up; `key` names its columns, `chosen` says how to get them."""
    more = ", ".join(f"{name} = {table}.{name} + excluded.{name}" for name in SUMS)
    places = ", ".join(str(position + 3) for position in range(len(key.split(","))))
    return f"""INSERT INTO {table} (id, created_at, {key}, {", ".join(SUMS)})
        SELECT gen_random_uuid(), now(), {chosen}, {ADDED} FROM taken GROUP BY {places}
        ON CONFLICT ({key}) DO UPDATE SET {more}"""


ROLL_UP = f"""
WITH taken AS (DELETE FROM usage_usagefresh RETURNING *),
days AS ({
    _add_to(
        "usage_usagedaily",
        "tenant_id, day, model, unit, key_id, job_id",
        "tenant_id, (hour AT TIME ZONE 'UTC')::date, model, unit, key_id, job_id",
    )
})
{
    _add_to(
        "usage_usagehourly",
        "tenant_id, hour, period, model, unit, key_id, job_id",
        "tenant_id, hour, period, model, unit, key_id, job_id",
    )
}
"""


def roll_up() -> int:
    """Add what the ledger gained to its hours and days; the lines of the hours that changed.

    It can run at any time and in several places; one that dies leaves everything to the next.
    """
    with as_system(SystemUse.ROLL_UP_USAGE), connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(hashtext('roll_up'))")
        cursor.execute(ROLL_UP)
        return int(cursor.rowcount)
