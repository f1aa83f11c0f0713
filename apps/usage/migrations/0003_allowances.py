import django.db.models.deletion
import maas.ids
from django.db import migrations, models

from maas.rls import IsolateTenant

# Order of locks, the same everywhere: reservations by id, then the tenant's row of a month, which stands for all rows of
# that tenant and month. Each statement of a function sees what was committed before it began, so what is read after a lock
# is what the lock protects.
FUNCTIONS = """
CREATE FUNCTION maas_allowances(of_tenant uuid, month date, of_key uuid, of_model text) RETURNS SETOF usage_allowance
LANGUAGE sql STABLE SET search_path = public, pg_temp AS $$
    SELECT * FROM usage_allowance WHERE tenant_id = of_tenant AND period = month AND (
        scope = 'tenant' OR (scope = 'key' AND subject = replace(of_key::text, '-', '')) OR (scope = 'model' AND subject = of_model))
$$;

-- Set `wanted` units aside in every row that counts them, or in none. Where there is plenty, up to `most`.
CREATE FUNCTION maas_reserve(
    new_id uuid, of_tenant uuid, month date, of_key uuid, of_model text, for_use text, for_job uuid, for_slice uuid,
    wanted bigint, most bigint, plenty bigint, seconds double precision,
    OUT granted bigint, OUT scope text, OUT subject text, OUT reason text, OUT room bigint
) LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
    of_month usage_allowance;
BEGIN
    SELECT * INTO of_month FROM usage_allowance a
        WHERE a.tenant_id = of_tenant AND a.period = month AND a.scope = 'tenant' FOR UPDATE;
    IF of_month.id IS NULL OR of_month.is_over THEN
        reason := CASE WHEN of_month.id IS NULL THEN 'not_begun' ELSE 'over' END;
        RETURN;
    END IF;
    SELECT a.scope, a.subject, a.reason, a.cap - a.used - a.reserved INTO scope, subject, reason, room
        FROM maas_allowances(of_tenant, month, of_key, of_model) a WHERE a.cap IS NOT NULL
        ORDER BY a.cap - a.used - a.reserved, a.scope LIMIT 1;
    IF room < wanted THEN
        RETURN;
    END IF;
    granted := wanted;
    IF most > wanted AND (room IS NULL OR room >= plenty) THEN
        granted := greatest(wanted, least(most, room / 64));
    END IF;
    UPDATE usage_allowance a SET reserved = a.reserved + granted
        WHERE a.id IN (SELECT id FROM maas_allowances(of_tenant, month, of_key, of_model));
    INSERT INTO usage_reservation (id, created_at, tenant_id, period, use, key_id, model, job_id, slice_id, units, settled, lease_until)
        VALUES (new_id, clock_timestamp(), of_tenant, month, for_use, of_key, of_model, for_job, for_slice, granted, 0,
                clock_timestamp() + make_interval(secs => seconds));
END
$$;

-- Give back what is left of reservations and close them; or, with `most`, give back that much of each and keep it open.
CREATE FUNCTION maas_release(which uuid[], most bigint) RETURNS integer
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
    given jsonb;
BEGIN
    PERFORM 1 FROM usage_reservation WHERE id = ANY (which) AND closed_at IS NULL ORDER BY id FOR UPDATE;
    WITH gone AS (
        SELECT id, least(units - settled, coalesce(most, units)) AS back FROM usage_reservation WHERE id = ANY (which) AND closed_at IS NULL
    ), changed AS (
        UPDATE usage_reservation r SET units = r.units - back, closed_at = CASE WHEN most IS NULL THEN clock_timestamp() END
        FROM gone WHERE r.id = gone.id RETURNING r.tenant_id, r.period, r.key_id, r.model, back
    ) SELECT jsonb_agg(to_jsonb(changed)) INTO given FROM changed;
    PERFORM maas_move(given, false);
    RETURN coalesce(jsonb_array_length(given), 0);
END
$$;

-- Take units from what is reserved, and count them as used or not. `given`: [{tenant_id, period, key_id, model, back, units}].
CREATE FUNCTION maas_move(given jsonb, as_used boolean) RETURNS void
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    PERFORM 1 FROM usage_allowance a WHERE a.scope = 'tenant' AND (a.tenant_id, a.period) IN (
        SELECT x.tenant_id, x.period FROM jsonb_to_recordset(given) AS x (tenant_id uuid, period date))
        ORDER BY a.tenant_id, a.period FOR UPDATE;
    UPDATE usage_allowance a
    SET reserved = a.reserved - s.back, used = a.used + CASE WHEN as_used THEN s.units ELSE 0 END
    FROM (
        SELECT x.tenant_id, x.period, place.scope, place.subject, sum(x.back)::bigint AS back, sum(x.units)::bigint AS units
        FROM jsonb_to_recordset(given) AS x (tenant_id uuid, period date, key_id uuid, model text, back bigint, units bigint)
        CROSS JOIN LATERAL (VALUES ('tenant', ''), ('key', replace(x.key_id::text, '-', '')), ('model', x.model)) AS place (scope, subject)
        WHERE place.subject IS NOT NULL GROUP BY 1, 2, 3, 4
    ) s
    WHERE a.tenant_id = s.tenant_id AND a.period = s.period AND a.scope = s.scope AND a.subject = s.subject;
END
$$;

-- Write lines of the ledger; the sources that were new come back. A line that names a reservation is charged to it, in the
-- month of the reservation, and only while that is open.
CREATE FUNCTION maas_settle(given jsonb, moment timestamptz) RETURNS text[]
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
    this_month date := date_trunc('month', moment, 'UTC') AT TIME ZONE 'UTC';
    charged jsonb;
BEGIN
    PERFORM 1 FROM usage_reservation WHERE id IN (
        SELECT x.reservation FROM jsonb_to_recordset(given) AS x (reservation uuid)) ORDER BY id FOR UPDATE;
    PERFORM maas_hold_month(tenant_id, this_month) FROM (
        SELECT DISTINCT x.tenant_id FROM jsonb_to_recordset(given) AS x (tenant_id uuid, reservation uuid, units bigint)
        WHERE x.reservation IS NULL AND x.units <> 0 ORDER BY 1) AS beside;
    WITH line AS (
        SELECT x.*, coalesce(r.period, this_month) AS month FROM jsonb_to_recordset(given) AS x (
            source text, period date, tenant_id uuid, kind text, model text, version integer, unit text, quantity bigint,
            units bigint, requests integer, key_id uuid, job_id uuid, reservation uuid)
        LEFT JOIN usage_reservation r ON r.id = x.reservation AND r.tenant_id = x.tenant_id AND r.closed_at IS NULL
        WHERE x.reservation IS NULL OR r.id IS NOT NULL
    ), added AS (
        INSERT INTO usage_usagerecord
            (source, period, tenant_id, created_at, kind, model, version, unit, quantity, units, requests, key_id, job_id)
        SELECT source, period, tenant_id, greatest(month::timestamp AT TIME ZONE 'UTC', least(moment,
                   (month + interval '1 month') AT TIME ZONE 'UTC' - interval '1 microsecond')),
               kind, model, version, unit, quantity, units, requests, key_id, job_id
        FROM line ORDER BY source ON CONFLICT (period, source) DO NOTHING RETURNING source
    )
    SELECT jsonb_agg(jsonb_build_object('source', source, 'tenant_id', tenant_id, 'period', month, 'key_id', key_id, 'model', model,
               'units', units, 'reservation', reservation, 'back', CASE WHEN reservation IS NULL THEN 0 ELSE units END))
    INTO charged FROM line JOIN added USING (source);
    UPDATE usage_reservation r SET settled = r.settled + s.units FROM (
        SELECT x.reservation, sum(x.units)::bigint AS units
        FROM jsonb_to_recordset(charged) AS x (reservation uuid, units bigint) GROUP BY 1) s WHERE r.id = s.reservation;
    PERFORM maas_move((SELECT jsonb_agg(x) FROM jsonb_array_elements(charged) AS x WHERE (x ->> 'units')::bigint <> 0), true);
    RETURN ARRAY(SELECT x ->> 'source' FROM jsonb_array_elements(charged) AS x);
END
$$;

-- A month that has not begun has no row that could be locked.
CREATE FUNCTION maas_hold_month(of_tenant uuid, month date) RETURNS void
LANGUAGE sql SET search_path = public, pg_temp AS $$
    SELECT pg_advisory_xact_lock(hashtextextended('allowances ' || of_tenant::text || month::text, 0))
$$;
"""
GONE = """
DROP FUNCTION maas_settle(jsonb, timestamptz), maas_release(uuid[], bigint), maas_move(jsonb, boolean), maas_hold_month(uuid, date),
    maas_reserve(uuid, uuid, date, uuid, text, text, uuid, uuid, bigint, bigint, bigint, double precision),
    maas_allowances(uuid, date, uuid, text);
"""


class Migration(migrations.Migration):

    dependencies = [
        ('accounts', '0002_keys_and_invitations'),
        ('usage', '0002_months_and_roll_ups'),
    ]

    operations = [
        migrations.CreateModel(
            name='Allowance',
            fields=[
                ('id', models.UUIDField(default=maas.ids.uuid7, editable=False, primary_key=True, serialize=False)),
                ('created_at', models.DateTimeField(auto_now_add=True)),
                ('period', models.DateField()),
                ('scope', models.CharField(choices=[('tenant', 'Organisation'), ('key', 'API key'), ('model', 'Model')], max_length=8)),
                ('subject', models.CharField(blank=True, default='', max_length=120)),
                ('cap', models.BigIntegerField(null=True)),
                ('reason', models.CharField(blank=True, default='', max_length=40)),
                ('used', models.BigIntegerField(default=0)),
                ('reserved', models.BigIntegerField(default=0)),
                ('alert_at', models.BigIntegerField(null=True)),
                ('is_over', models.BooleanField(default=False)),
                ('tenant', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='accounts.tenant')),
            ],
            options={
                'indexes': [models.Index(condition=models.Q(('alert_at__isnull', False), ('is_over', False)), fields=['alert_at'], name='allowances_to_tell')],
                'constraints': [models.UniqueConstraint(fields=('tenant', 'period', 'scope', 'subject'), name='one_allowance'), models.CheckConstraint(condition=models.Q(('reserved__gte', 0)), name='reserved_not_below_zero')],
            },
        ),
        migrations.CreateModel(
            name='Reservation',
            fields=[
                ('id', models.UUIDField(default=maas.ids.uuid7, editable=False, primary_key=True, serialize=False)),
                ('created_at', models.DateTimeField(auto_now_add=True)),
                ('period', models.DateField()),
                ('use', models.CharField(choices=[('calls', 'Calls'), ('slice', 'Slice of a batch'), ('job', 'Job')], max_length=8)),
                ('key_id', models.UUIDField(null=True)),
                ('model', models.CharField(max_length=120, null=True)),
                ('job_id', models.UUIDField(null=True)),
                ('slice_id', models.UUIDField(null=True)),
                ('units', models.BigIntegerField()),
                ('settled', models.BigIntegerField(default=0)),
                ('lease_until', models.DateTimeField(null=True)),
                ('closed_at', models.DateTimeField(null=True)),
                ('tenant', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='accounts.tenant')),
            ],
            options={
                'indexes': [models.Index(condition=models.Q(('closed_at', None)), fields=['lease_until'], name='reservations_to_sweep'), models.Index(condition=models.Q(('closed_at', None)), fields=['tenant', 'period'], name='reservations_open'), models.Index(condition=models.Q(('closed_at', None), ('job_id__isnull', False)), fields=['job_id'], name='reservations_of_job'), models.Index(condition=models.Q(('closed_at', None), ('slice_id__isnull', False)), fields=['slice_id'], name='reservations_of_slice'), models.Index(condition=models.Q(('closed_at__isnull', False)), fields=['closed_at'], name='reservations_to_forget')],
                'constraints': [models.CheckConstraint(condition=models.Q(('settled__lte', models.F('units'))), name='settled_within_reserved')],
            },
        ),
        IsolateTenant('usage_allowance'),
        IsolateTenant('usage_reservation'),
        migrations.RunSQL(FUNCTIONS, GONE),
    ]
