"""Whether what a tenant has used and reserved is what the ledger and the reservations say, row by row, in one statement."""

from django.db import connection

from apps.accounts.models import Tenant
from maas.tenancy import as_tenant

ROWS = """
SELECT a.period, a.scope, a.subject, a.used, a.reserved,
    (SELECT coalesce(sum(units), 0)::bigint FROM usage_usagerecord r WHERE r.created_at >= a.period::timestamp AT TIME ZONE 'UTC'
        AND r.created_at < (a.period + interval '1 month') AT TIME ZONE 'UTC'
        AND CASE a.scope WHEN 'tenant' THEN true WHEN 'key' THEN replace(r.key_id::text, '-', '') = a.subject ELSE r.model = a.subject END),
    (SELECT coalesce(sum(units - settled), 0)::bigint FROM usage_reservation r WHERE r.period = a.period
        AND CASE a.scope WHEN 'tenant' THEN true WHEN 'key' THEN replace(r.key_id::text, '-', '') = a.subject ELSE r.model = a.subject END)
FROM usage_allowance a WHERE a.scope = 'tenant' OR a.cap IS NOT NULL ORDER BY 1, 2, 3
"""


def audit_books(tenant: Tenant) -> dict[str, int]:
    """Units used and reserved over all months; AssertionError for a row that is not what its parts add up to."""
    with as_tenant(tenant.id), connection.cursor() as cursor:
        cursor.execute(ROWS)
        rows = cursor.fetchall()
    wrong = [row for row in rows if (row[3], row[4]) != (row[5], row[6])]
    assert not wrong, f"period, scope, subject, used, reserved, by the ledger, by the reservations: {wrong}"
    mine = [row for row in rows if row[1] == "tenant"]
    return {"used": sum(row[3] for row in mine), "reserved": sum(row[4] for row in mine)}
