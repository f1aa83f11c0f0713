import django.db.models.deletion
import maas.ids
from django.conf import settings
from django.db import migrations, models

from maas.rls import IsolateTenant

# The key's owner may be suspended: read with the key, so that it holds from the next call on.
FIND_KEY = """
DROP FUNCTION maas_find_key(bytea);
CREATE FUNCTION maas_find_key(wanted bytea) RETURNS TABLE (
    is_old boolean, id uuid, name varchar, last4 varchar, scopes jsonb, allowed_models jsonb, allowed_addresses jsonb, limits jsonb,
    old_expires_at timestamptz, expires_at timestamptz, revoked_at timestamptz, last_used_at timestamptz, created_at timestamptz,
    tenant_id uuid, tenant_name varchar, tenant_slug varchar, tenant_plan varchar, tenant_require_mfa boolean,
    tenant_suspended_at timestamptz, tenant_created_at timestamptz
) LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT k.hash <> wanted, k.id, k.name, k.last4, k.scopes, k.allowed_models, k.allowed_addresses, k.limits,
           k.old_expires_at, k.expires_at, k.revoked_at, k.last_used_at, k.created_at,
           t.id, t.name, t.slug, t.plan, t.require_mfa, t.suspended_at, t.created_at
    FROM accounts_apikey k JOIN accounts_tenant t ON t.id = k.tenant_id WHERE k.hash = wanted OR k.old_hash = wanted
$$;
REVOKE ALL ON FUNCTION maas_find_key(bytea) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION maas_find_key(bytea) TO maas_app, maas_system;
"""


class Migration(migrations.Migration):

    dependencies = [
        ('accounts', '0002_keys_and_invitations'),
    ]

    operations = [
        migrations.AlterModelOptions(
            name='tenant',
            options={'verbose_name': 'organisation'},
        ),
        migrations.AlterModelOptions(
            name='user',
            options={'verbose_name': 'person', 'verbose_name_plural': 'people'},
        ),
        migrations.AddField(
            model_name='tenant',
            name='suspended_at',
            field=models.DateTimeField(null=True),
        ),
        migrations.AddField(
            model_name='tenant',
            name='suspended_reason',
            field=models.CharField(default='', max_length=300),
        ),
        migrations.CreateModel(
            name='Visit',
            fields=[
                ('id', models.UUIDField(default=maas.ids.uuid7, editable=False, primary_key=True, serialize=False)),
                ('created_at', models.DateTimeField(auto_now_add=True)),
                ('reason', models.CharField(max_length=300)),
                ('session', models.BinaryField()),
                ('ended_at', models.DateTimeField(null=True)),
                ('tenant', models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='accounts.tenant')),
                ('user', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='+', to=settings.AUTH_USER_MODEL)),
            ],
            options={
                'indexes': [models.Index(condition=models.Q(('ended_at', None)), fields=['created_at'], name='open_visit')],
            },
        ),
        IsolateTenant('accounts_visit'),
        migrations.RunSQL(FIND_KEY, migrations.RunSQL.noop),
    ]
