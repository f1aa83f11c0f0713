from django.db import migrations

# A reference is checked row by row at the end of a transaction: a fifth of what a full batch of calls costs. A line that
# counts is checked all the same, because the trigger writes it into usage_usagefresh, once a batch, which keeps its
# reference, as the roll-ups that it moves to do; so a tenant with charges can be neither invented nor deleted. A line of
# kind 'void' counts nothing, is written under row-level security by the tenant that it names, and is not checked any more.
LOOSE = "ALTER TABLE usage_usagerecord DROP CONSTRAINT usage_usagerecord_tenant_id_fkey"
TIED = """
ALTER TABLE usage_usagerecord ADD CONSTRAINT usage_usagerecord_tenant_id_fkey
    FOREIGN KEY (tenant_id) REFERENCES accounts_tenant (id) DEFERRABLE INITIALLY DEFERRED
"""


class Migration(migrations.Migration):

    dependencies = [
        ("usage", "0004_settle_by_arrays"),
    ]

    operations = [
        migrations.RunSQL(LOOSE, TIED),
    ]
