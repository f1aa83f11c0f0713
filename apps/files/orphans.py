"""Bytes that no row speaks for, found by walking through the storage. They are rare: a process that died at the wrong moment."""

from collections.abc import Iterator
from datetime import timedelta
from itertools import islice
from uuid import UUID

from django.core.files.storage import default_storage
from django.utils import timezone

from apps.files import bodies
from apps.files.models import File
from maas.tenancy import SystemUse, as_system

AT_ONCE = 500  # bodies that are looked up together
OLD = timedelta(hours=48)  # a younger body may be that of an upload which still runs


def sweep_bodies() -> int:
    """Remove bodies that are old and have no row, or one that says they are gone; how many those were.

    A row is always there before its body, so a body without one will never be asked for.
    """
    count = 0
    found = _old_bodies()
    while some := list(islice(found, AT_ONCE)):
        kept = _kept([file_id for _, file_id in some])
        for tenant_id, file_id in some:
            if file_id not in kept:
                bodies.delete_body(tenant_id, file_id)
                count += 1
    return count


def _old_bodies() -> Iterator[tuple[UUID, UUID]]:
    """Bodies in storage as (tenant, file)."""
    young = timezone.now() - OLD
    for name, written_at in default_storage.walk(bodies.FOLDER):  # type: ignore[attr-defined]
        found = bodies.read_path(name)
        if found and written_at < young:
            yield found


def _kept(file_ids: list[UUID]) -> set[UUID]:
    with as_system(SystemUse.SWEEP):
        return set(File.objects.filter(pk__in=file_ids, purged_at=None).values_list("pk", flat=True))
