from importlib import import_module

from django.db import migrations

# `maas_settle` takes arrays, and JSON is neither made nor read on the way: lines by column, and what lines have in common
# once, in the arrays that a line's place points into. Nearly always that is one place, so its statements are written out
# for one; `maas_pay` and `maas_months` do the same for several. Locks and their order are those of migration 0003.
FUNCTIONS = """
DROP FUNCTION maas_settle(jsonb, timestamptz);

-- The month in which each place is charged: that of its reservation, which is held from now on, or none where that is closed
-- or another tenant's; `beside` without a reservation.
CREATE FUNCTION maas_months(tenants uuid[], holds uuid[], beside date) RETURNS date[]
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    RETURN (
        WITH held AS MATERIALIZED (
            SELECT id, tenant_id, period FROM usage_reservation WHERE id = ANY (holds) AND closed_at IS NULL ORDER BY id FOR UPDATE
        ) SELECT array_agg(CASE WHEN hold IS NULL THEN beside ELSE held.period END ORDER BY place)
          FROM unnest(tenants, holds) WITH ORDINALITY AS given (tenant, hold, place)
          LEFT JOIN held ON held.id = hold AND held.tenant_id = tenant);
END
$$;

-- Count units as used in every row that counts them, and take them from what is reserved, place by place.
CREATE FUNCTION maas_pay(tenants uuid[], months date[], keys uuid[], models text[], holds uuid[], totals bigint[]) RETURNS void
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    UPDATE usage_reservation r SET settled = r.settled + s.total FROM (
        SELECT hold, sum(total)::bigint AS total FROM unnest(holds, totals) AS given (hold, total) WHERE total <> 0 GROUP BY 1
    ) s WHERE r.id = s.hold;
    PERFORM 1 FROM usage_allowance a WHERE a.scope = 'tenant' AND (a.tenant_id, a.period) IN (
        SELECT tenant, in_month FROM unnest(tenants, months, totals) AS given (tenant, in_month, total) WHERE total <> 0)
        ORDER BY a.tenant_id, a.period FOR UPDATE;
    UPDATE usage_allowance a SET reserved = a.reserved - s.back, used = a.used + s.total FROM (
        SELECT tenant, in_month, counted.scope, counted.subject, sum(total)::bigint AS total,
               sum(CASE WHEN hold IS NULL THEN 0 ELSE total END)::bigint AS back
        FROM unnest(tenants, months, keys, models, holds, totals) AS given (tenant, in_month, key, model, hold, total)
        CROSS JOIN LATERAL (VALUES ('tenant', ''), ('key', replace(key::text, '-', '')), ('model', model)) AS counted (scope, subject)
        WHERE total <> 0 AND counted.subject IS NOT NULL GROUP BY 1, 2, 3, 4
    ) s WHERE a.tenant_id = s.tenant AND a.period = s.in_month AND a.scope = s.scope AND a.subject = s.subject;
END
$$;

-- Write lines of the ledger; the sources that were new come back. A line that names a reservation is charged to it, in the
-- month of the reservation, and only while that is open. `sources`, in order, `quantities`, `charges` and `places` have an
-- element a line; the others one a place, and `totals` are the sums of its `charges`.
CREATE FUNCTION maas_settle(
    moment timestamptz, sources text[], quantities bigint[], charges bigint[], places integer[],
    tenants uuid[], periods date[], kinds text[], models text[], versions integer[], measures text[], counts integer[],
    keys uuid[], jobs uuid[], holds uuid[], totals bigint[]
) RETURNS text[] LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
    this_month date := date_trunc('month', moment, 'UTC') AT TIME ZONE 'UTC';
    is_one boolean := cardinality(holds) = 1;
    month date := this_month;
    months date[];
    added text[];
BEGIN
    IF NOT is_one THEN
        months := maas_months(tenants, holds, this_month);
    ELSE
        IF holds[1] IS NOT NULL THEN
            SELECT r.period INTO month FROM usage_reservation r
                WHERE r.id = holds[1] AND r.tenant_id = tenants[1] AND r.closed_at IS NULL FOR UPDATE;
        END IF;
        months := ARRAY[month];
    END IF;
    IF array_position(holds, NULL) IS NOT NULL THEN
        PERFORM maas_hold_month(tenant, this_month) FROM (
            SELECT DISTINCT tenants[place] FROM unnest(charges, places) AS line (charge, place)
            WHERE charge <> 0 AND holds[place] IS NULL ORDER BY 1) AS beside (tenant);
    END IF;
    WITH fresh AS (
        INSERT INTO usage_usagerecord
            (source, period, tenant_id, created_at, kind, model, version, unit, quantity, units, requests, key_id, job_id)
        SELECT line.source, periods[place], tenants[place],
               CASE WHEN months[place] = this_month THEN moment ELSE
                   greatest(months[place]::timestamp AT TIME ZONE 'UTC', least(moment,
                       (months[place] + interval '1 month') AT TIME ZONE 'UTC' - interval '1 microsecond')) END,
               kinds[place], models[place], versions[place], measures[place], line.quantity, charge, counts[place], keys[place], jobs[place]
        FROM unnest(sources, quantities, charges, places) AS line (source, quantity, charge, place)
        WHERE months[place] IS NOT NULL ON CONFLICT (period, source) DO NOTHING RETURNING source
    ) SELECT array_agg(source) INTO added FROM fresh;
    IF added IS NULL THEN
        RETURN '{}';
    END IF;
    IF cardinality(added) < cardinality(sources) THEN
        -- Some were there before, or not paid for. Of a source that came twice the first line was written.
        totals := ARRAY(
            SELECT coalesce(sum(charge), 0)::bigint FROM generate_subscripts(holds, 1) AS mine LEFT JOIN (
                SELECT DISTINCT ON (line.source) charge, place
                FROM unnest(sources, charges, places) WITH ORDINALITY AS line (source, charge, place, number)
                WHERE line.source = ANY (added) AND months[place] IS NOT NULL ORDER BY line.source, number
            ) AS written ON place = mine GROUP BY mine ORDER BY mine);
    END IF;
    IF NOT is_one THEN
        PERFORM maas_pay(tenants, months, keys, models, holds, totals);
    ELSIF totals[1] <> 0 THEN
        IF holds[1] IS NOT NULL THEN
            UPDATE usage_reservation r SET settled = r.settled + totals[1] WHERE r.id = holds[1];
        END IF;
        PERFORM 1 FROM usage_allowance a
            WHERE a.tenant_id = tenants[1] AND a.period = month AND a.scope = 'tenant' AND a.subject = '' FOR UPDATE;
        UPDATE usage_allowance a
        SET reserved = a.reserved - CASE WHEN holds[1] IS NULL THEN 0 ELSE totals[1] END, used = a.used + totals[1]
        WHERE a.tenant_id = tenants[1] AND a.period = month AND (a.scope = 'tenant'
            OR (a.scope = 'key' AND a.subject = replace(keys[1]::text, '-', '')) OR (a.scope = 'model' AND a.subject = models[1]));
    END IF;
    RETURN added;
END
$$;
"""
GONE = """
DROP FUNCTION maas_settle(
    timestamptz, text[], bigint[], bigint[], integer[], uuid[], date[], text[], text[], integer[], text[], integer[], uuid[], uuid[],
    uuid[], bigint[]), maas_pay(uuid[], date[], uuid[], text[], uuid[], bigint[]), maas_months(uuid[], uuid[], date);
"""


def settle_before() -> str:
    """`maas_settle` as migration 0003 made it."""
    written: str = import_module("apps.usage.migrations.0003_allowances").FUNCTIONS
    return written[written.index("CREATE FUNCTION maas_settle(") : written.index("-- A month that has not begun")]


class Migration(migrations.Migration):

    dependencies = [
        ("usage", "0003_allowances"),
    ]

    operations = [
        migrations.RunSQL(FUNCTIONS, GONE + settle_before()),
    ]
