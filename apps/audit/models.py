"""The log, and where each tenant's chain ends."""

from typing import Any

from django.db import models
from django.db.models import Func

from maas import ids
from maas.ids import AUDIT


def _read(path: str, cast: str = "text") -> Func:
    """A part of the entry's text, such as `actor,kind`, as SQL."""
    return Func("body", template=f"((%(expressions)s)::jsonb #>> '{{{path}}}')::{cast}")


def _generated(path: str, field: "models.Field[Any, Any] | None" = None, cast: str = "text") -> models.GeneratedField:
    return models.GeneratedField(expression=_read(path, cast), output_field=field or models.TextField(), db_persist=True)


class Entry(models.Model):
    """One thing that was done. `body` is all of it, as canonical JSON: what the chain covers and what is shown.

    The columns that filters need are made from it by the database. `seq` and `hash` are given by a trigger when the
    transaction commits (see the migration): no other transaction ever sees an entry without them.
    """

    id = models.UUIDField(primary_key=True, default=ids.uuid7, editable=False)
    tenant = models.ForeignKey("accounts.Tenant", on_delete=models.PROTECT, related_name="+")
    body = models.TextField()
    seq = models.BigIntegerField(null=True)
    hash = models.BinaryField(null=True)
    at = _generated("at", models.BigIntegerField(), "bigint")  # Unix milliseconds
    action = _generated("action")
    actor_kind = _generated("actor,kind")
    actor_id = _generated("actor,id")
    actor_name = _generated("actor,name")
    target = _generated("target")
    label = _generated("label")
    address = _generated("address")
    result = _generated("result")

    class Meta:
        constraints = [models.UniqueConstraint(fields=["tenant", "seq"], name="one_entry_a_number")]
        indexes = [models.Index(fields=["tenant", "at"])]

    @property
    def public_id(self) -> str:
        """aud_... as the API spells it."""
        return ids.encode(AUDIT, self.pk)


class Head(models.Model):
    """The end of a tenant's chain, written by the trigger alone; `anchored_seq` is how far anchors were written."""

    tenant = models.OneToOneField("accounts.Tenant", primary_key=True, on_delete=models.PROTECT, related_name="+")
    seq = models.BigIntegerField()
    hash = models.BinaryField()
    anchored_seq = models.BigIntegerField(default=0, db_default=0)
