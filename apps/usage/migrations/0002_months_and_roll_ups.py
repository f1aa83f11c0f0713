import django.db.models.deletion
import maas.ids
from django.db import migrations, models

from maas.rls import AppendOnly, IsolateTenant

# Months can be made and dropped by the owner alone, so the functions run as the owner. They do what their names say and
# nothing else: a month that exists is left as it is, and one is dropped only when its archive holds every line.
LEDGER = """
ALTER TABLE usage_usagerecord NO FORCE ROW LEVEL SECURITY;
ALTER TABLE usage_usagerecord RENAME TO usage_unpartitioned;

CREATE TABLE usage_usagerecord (
    period date NOT NULL CHECK (extract(day FROM period) = 1),
    source varchar(120) NOT NULL,
    tenant_id uuid NOT NULL REFERENCES accounts_tenant (id) DEFERRABLE INITIALLY DEFERRED,
    created_at timestamptz NOT NULL,
    kind varchar(12) NOT NULL,
    model varchar(120) NOT NULL,
    version integer NOT NULL,
    unit varchar(20) NOT NULL,
    quantity bigint NOT NULL,
    units bigint NOT NULL,
    requests integer NOT NULL,
    key_id uuid,
    job_id uuid,
    PRIMARY KEY (period, source)
) PARTITION BY RANGE (period);
CREATE INDEX usage_by_time ON usage_usagerecord (tenant_id, created_at);
CREATE TABLE usage_usagerecord_default PARTITION OF usage_usagerecord DEFAULT;

CREATE FUNCTION maas_isolate_usage_month(name text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    -- The ledger is read and written by its own name alone; the policies hold for whoever is given more one day.
    EXECUTE format('REVOKE ALL ON %1$I FROM maas_app, maas_system;
        ALTER TABLE %1$I ENABLE ROW LEVEL SECURITY;
        ALTER TABLE %1$I FORCE ROW LEVEL SECURITY;
        CREATE POLICY tenant ON %1$I TO maas_app USING (tenant_id = nullif(current_setting(''maas.tenant'', true), '''')::uuid);
        CREATE POLICY system ON %1$I TO maas_system USING (true)', name);
END
$$;

CREATE FUNCTION maas_make_usage_month(month date) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp SET lock_timeout = '10s' AS $$
DECLARE
    name text := 'usage_usagerecord_' || to_char(month, 'YYYY_MM');
    until date := (month + interval '1 month')::date;
    moved bigint;
BEGIN
    IF month IS NULL OR extract(day FROM month) <> 1 THEN
        RAISE EXCEPTION '% is not the first day of a month.', month;
    END IF;
    PERFORM pg_advisory_xact_lock(hashtext('usage months'));
    IF to_regclass('public.' || name) IS NOT NULL THEN
        RETURN 0;
    END IF;
    EXECUTE format('CREATE TABLE public.%I (LIKE usage_usagerecord INCLUDING CONSTRAINTS)', name);
    LOCK TABLE usage_usagerecord_default IN ACCESS EXCLUSIVE MODE;
    EXECUTE format('WITH stray AS (DELETE FROM usage_usagerecord_default WHERE period >= $1 AND period < $2 RETURNING *)
        INSERT INTO %I SELECT * FROM stray', name) USING month, until;
    GET DIAGNOSTICS moved = ROW_COUNT;
    PERFORM maas_isolate_usage_month(name);
    EXECUTE format('ALTER TABLE usage_usagerecord ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', name, month, until);
    RETURN moved;
END
$$;

CREATE FUNCTION maas_drop_usage_month(month date) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp SET lock_timeout = '10s' AS $$
DECLARE
    name text := 'usage_usagerecord_' || to_char(month, 'YYYY_MM');
    archived bigint := (SELECT lines FROM usage_archivedmonth WHERE period = month);
    found bigint;
BEGIN
    IF month >= date_trunc('month', now() AT TIME ZONE 'UTC') THEN
        RAISE EXCEPTION 'Month % is not over.', to_char(month, 'YYYY-MM');
    END IF;
    PERFORM pg_advisory_xact_lock(hashtext('usage months'));
    LOCK TABLE usage_usagerecord IN ACCESS EXCLUSIVE MODE;
    EXECUTE format('SELECT count(*) FROM usage_usagerecord WHERE period = %L', month) INTO found;
    IF archived IS DISTINCT FROM found THEN
        RAISE EXCEPTION 'Month % holds % lines and its archive %.', to_char(month, 'YYYY-MM'), found, coalesce(archived, 0);
    END IF;
    EXECUTE format('ALTER TABLE usage_usagerecord DETACH PARTITION %I', name);
    EXECUTE format('DROP TABLE %I', name);
    RETURN found;
END
$$;

CREATE FUNCTION maas_gather_usage() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    INSERT INTO usage_usagefresh
        (id, created_at, tenant_id, period, hour, model, unit, key_id, job_id, records, requests, quantity, units)
    SELECT gen_random_uuid(), now(), tenant_id, period, date_trunc('hour', created_at, 'UTC'), model, unit, key_id, job_id,
           count(*), sum(requests), sum(quantity), sum(units)
    FROM gained WHERE kind <> 'void' GROUP BY tenant_id, period, 5, model, unit, key_id, job_id;
    RETURN NULL;
END
$$;
CREATE TRIGGER gather AFTER INSERT ON usage_usagerecord REFERENCING NEW TABLE AS gained
    FOR EACH STATEMENT EXECUTE FUNCTION maas_gather_usage();

REVOKE ALL ON FUNCTION maas_isolate_usage_month(text), maas_make_usage_month(date), maas_drop_usage_month(date), maas_gather_usage() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION maas_make_usage_month(date), maas_drop_usage_month(date) TO maas_system;
"""

# As apps.usage.periods reads it: the time inside the first identifier; when it was recorded for one that holds no time.
PERIOD = """
date_trunc('month', CASE WHEN source ~ '^((reversal:)?|slice:)[0-9a-f]{12}7[0-9a-f]{3}[89ab][0-9a-f]{15}'
    THEN to_timestamp(('x0000' || substring(substring(source from '[0-9a-f]{32}') for 12))::bit(64)::bigint / 1000.0)
    ELSE created_at END, 'UTC')
"""
MOVE = f"""
SELECT maas_make_usage_month(month::date) FROM (
    SELECT DISTINCT {PERIOD} AT TIME ZONE 'UTC' FROM usage_unpartitioned
) AS months (month) WHERE month BETWEEN now() - interval '10 years' AND now() + interval '2 months';
INSERT INTO usage_usagerecord (
    period, source, tenant_id, created_at, kind, model, version, unit, quantity, units, requests, key_id, job_id
) SELECT ({PERIOD} AT TIME ZONE 'UTC')::date, source, tenant_id, created_at, kind, model, version, unit, quantity, units, requests, key_id, job_id
  FROM usage_unpartitioned;
SET CONSTRAINTS ALL IMMEDIATE;
DROP TABLE usage_unpartitioned;
"""

PROTECT = """
SELECT maas_isolate_usage_month('usage_usagerecord_default');
GRANT SELECT ON usage_usagerecord_default TO maas_system;
CREATE POLICY move ON usage_usagerecord_default TO maas_owner USING (true);
CREATE POLICY count ON usage_usagerecord FOR SELECT TO maas_owner USING (true);

REVOKE INSERT, UPDATE, DELETE ON usage_usagefresh, usage_usagehourly, usage_usagedaily FROM maas_app;
REVOKE INSERT, UPDATE ON usage_usagefresh FROM maas_system;
REVOKE DELETE ON usage_usagehourly, usage_usagedaily FROM maas_system;
CREATE POLICY gather ON usage_usagefresh FOR INSERT TO maas_owner WITH CHECK (true);

REVOKE ALL ON usage_archivedmonth FROM maas_app;
GRANT SELECT (period) ON usage_archivedmonth TO maas_app;
"""

TENANT = models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='accounts.tenant')
SUMS = [
    ('model', models.CharField(max_length=120)),
    ('unit', models.CharField(max_length=20)),
    ('key_id', models.UUIDField(null=True)),
    ('job_id', models.UUIDField(null=True)),
    ('records', models.BigIntegerField()),
    ('requests', models.BigIntegerField()),
    ('quantity', models.BigIntegerField()),
    ('units', models.BigIntegerField()),
]


def sums(name, fields, constraints):
    owned = [
        ('id', models.UUIDField(default=maas.ids.uuid7, editable=False, primary_key=True, serialize=False)),
        ('created_at', models.DateTimeField(auto_now_add=True)),
        ('tenant', TENANT),
    ]
    return migrations.CreateModel(name=name, fields=[*owned, *SUMS, *fields], options={'abstract': False, 'constraints': constraints} if constraints else {'abstract': False})


def once(name, *fields):
    columns = ('tenant', *fields, 'model', 'unit', 'key_id', 'job_id')
    return models.UniqueConstraint(fields=columns, name=name, nulls_distinct=False)


class Migration(migrations.Migration):

    dependencies = [
        ('accounts', '0001_initial'),
        ('usage', '0001_initial'),
    ]

    operations = [
        migrations.DeleteModel(name='UsageDaily'),
        sums('UsageFresh', [('period', models.DateField()), ('hour', models.DateTimeField())], []),
        sums('UsageHourly', [('period', models.DateField()), ('hour', models.DateTimeField())], [once('one_line_an_hour', 'hour', 'period')]),
        sums('UsageDaily', [('day', models.DateField())], [once('one_line_a_day', 'day')]),
        migrations.CreateModel(
            name='ArchivedMonth',
            fields=[
                ('period', models.DateField(primary_key=True, serialize=False)),
                ('file', models.TextField()),
                ('sha256', models.CharField(max_length=64)),
                ('lines', models.BigIntegerField()),
                ('records', models.BigIntegerField()),
                ('requests', models.BigIntegerField()),
                ('quantity', models.BigIntegerField()),
                ('units', models.BigIntegerField()),
                ('archived_at', models.DateTimeField(auto_now_add=True)),
            ],
        ),
        migrations.SeparateDatabaseAndState(
            database_operations=[migrations.RunSQL(LEDGER), migrations.RunSQL(MOVE)],
            state_operations=[
                migrations.DeleteModel(name='UsageRecord'),
                migrations.CreateModel(
                    name='UsageRecord',
                    fields=[
                        ('pk', models.CompositePrimaryKey('period', 'source', blank=True, editable=False, primary_key=True, serialize=False)),
                        ('created_at', models.DateTimeField(auto_now_add=True)),
                        ('period', models.DateField()),
                        ('source', models.CharField(max_length=120)),
                        ('kind', models.CharField(choices=[('prediction', 'Prediction'), ('slice', 'Slice of a batch'), ('void', 'Not answered in time'), ('reversal', 'Taken back')], max_length=12)),
                        ('model', models.CharField(max_length=120)),
                        ('version', models.IntegerField()),
                        ('unit', models.CharField(max_length=20)),
                        ('quantity', models.BigIntegerField()),
                        ('units', models.BigIntegerField()),
                        ('requests', models.IntegerField()),
                        ('key_id', models.UUIDField(null=True)),
                        ('job_id', models.UUIDField(null=True)),
                        ('tenant', TENANT),
                    ],
                    options={'indexes': [models.Index(fields=['tenant', 'created_at'], name='usage_by_time')]},
                ),
            ],
        ),
        IsolateTenant('usage_usagerecord'),
        AppendOnly('usage_usagerecord'),
        IsolateTenant('usage_usagefresh'),
        IsolateTenant('usage_usagehourly'),
        IsolateTenant('usage_usagedaily'),
        AppendOnly('usage_archivedmonth'),
        migrations.RunSQL(PROTECT),
    ]
