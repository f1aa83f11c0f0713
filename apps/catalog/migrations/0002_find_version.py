from django.db import migrations

# The version behind a name, a number or an alias, as row-level security lets the caller see it.
FIND_VERSION = """
CREATE FUNCTION maas_find_version(named text, marked text, numbered integer) RETURNS uuid LANGUAGE sql STABLE AS $$
    SELECT version.id FROM catalog_model model JOIN catalog_version version ON version.model_id = model.id
    WHERE model.name = named AND model.status = 'ready'
        AND (model.tenant_id IS NULL OR model.tenant_id = nullif(current_setting('maas.tenant', true), '')::uuid)
        AND (version.number = numbered
            OR version.id = (SELECT alias.version_id FROM catalog_alias alias WHERE alias.model_id = model.id AND alias.name = marked))
$$;
"""


class Migration(migrations.Migration):

    dependencies = [
        ('catalog', '0001_initial'),
    ]

    operations = [
        migrations.RunSQL(FIND_VERSION, "DROP FUNCTION maas_find_version(text, text, integer)"),
    ]
