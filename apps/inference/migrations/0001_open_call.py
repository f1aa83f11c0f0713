from django.db import migrations

# Who calls, and which version is behind the name that they call: one question for both. The catalogue is read as the key's
# tenant, under row-level security like everybody's; PostgreSQL forgets the setting at the end of the transaction.
OPEN_CALL = """
CREATE FUNCTION maas_open_call(wanted bytea, named text, marked text, numbered integer) RETURNS TABLE (
    is_old boolean, id uuid, name varchar, last4 varchar, scopes jsonb, allowed_models jsonb, allowed_addresses jsonb, limits jsonb,
    old_expires_at timestamptz, expires_at timestamptz, revoked_at timestamptz, last_used_at timestamptz, created_at timestamptz,
    tenant_id uuid, tenant_name varchar, tenant_slug varchar, tenant_plan varchar, tenant_require_mfa boolean,
    tenant_suspended_at timestamptz, tenant_created_at timestamptz, version_id uuid
) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    found record;
BEGIN
    SELECT * INTO found FROM maas_find_key(wanted);
    IF found.id IS NULL THEN
        RETURN;
    END IF;
    PERFORM set_config('maas.tenant', found.tenant_id::text, true);
    RETURN QUERY SELECT
        found.is_old, found.id, found.name, found.last4, found.scopes, found.allowed_models, found.allowed_addresses, found.limits,
        found.old_expires_at, found.expires_at, found.revoked_at, found.last_used_at, found.created_at,
        found.tenant_id, found.tenant_name, found.tenant_slug, found.tenant_plan, found.tenant_require_mfa,
        found.tenant_suspended_at, found.tenant_created_at, maas_find_version(named, marked, numbered);
END
$$;
REVOKE ALL ON FUNCTION maas_open_call(bytea, text, text, integer) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION maas_open_call(bytea, text, text, integer) TO maas_app, maas_system;
"""


class Migration(migrations.Migration):
    initial = True

    dependencies = [
        ('accounts', '0003_operator'),
        ('catalog', '0002_find_version'),
    ]

    operations = [
        migrations.RunSQL(OPEN_CALL, "DROP FUNCTION maas_open_call(bytea, text, text, integer)"),
    ]
