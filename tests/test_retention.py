"""What is kept no longer goes in time, with an event; whatever a crash leaves between rows and bytes is put right."""

import json
from datetime import timedelta

import pytest
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from django.utils import timezone

from apps.files import bodies, orphans, services
from apps.files.models import File
from apps.jobs import parts, sweeping
from apps.jobs import services as jobs
from apps.jobs.models import Job
from maas import ids
from maas.storage import StorageAway
from maas.tenancy import as_tenant
from tests.test_files import exists, make


@pytest.fixture
def aged(monkeypatch):
    """Whatever lies in storage is old enough."""
    monkeypatch.setattr(orphans, "OLD", timedelta(seconds=-1))
    monkeypatch.setattr(sweeping, "LEFT", timedelta(seconds=-1))


def expire(cast, **which) -> None:
    with as_tenant(cast.tenant.id):
        File.objects.filter(**which).update(expires_at=timezone.now() - timedelta(seconds=1))


def told(cast, action: str) -> list[dict]:
    with as_tenant(cast.tenant.id):
        from apps.audit.models import Entry

        return [
            json.loads(entry.body) for entry in Entry.objects.filter(tenant_id=cast.tenant.id) if json.loads(entry.body)["action"] == action
        ]


def test_a_file_that_expires_is_told_once_and_is_not_a_deleted_one(cast) -> None:
    file = make(cast.tenant, expires_in=3600)
    expire(cast, pk=file.pk)
    services.sweep_files()
    services.sweep_files()
    assert not exists(file)
    assert [(entry["target"], entry["label"]) for entry in told(cast, "file.expired")] == [(ids.encode(ids.FILE, file.id), "lines.jsonl")]
    assert told(cast, "file.deleted") == []


def test_the_input_of_an_unfinished_batch_outlives_its_time_until_the_batch_ends(cast) -> None:
    file = make(cast.tenant, expires_in=3600)
    job = jobs.create_batch(cast.tenant, input_file_id=ids.encode(ids.FILE, file.id), endpoint="/v1/predictions", completion_window="24h")
    expire(cast, pk=file.pk)
    services.sweep_files()
    assert exists(file) and told(cast, "file.expired") == []
    jobs.cancel_batch(cast.tenant, job.id)
    services.sweep_files()
    assert not exists(file) and len(told(cast, "file.expired")) == 1


def test_a_crash_between_bytes_and_row_is_put_right_by_the_next_sweep(cast, monkeypatch) -> None:
    first, second = make(cast.tenant), make(cast.tenant)
    services.delete_file(cast.tenant, first.id)
    bodies.delete_body(cast.tenant.id, first.id)  # and then it died
    services.delete_file(cast.tenant, second.id)
    real = bodies.delete_body
    monkeypatch.setattr(bodies, "delete_body", lambda *_: (_ for _ in ()).throw(StorageAway("away")))
    services.sweep_files()  # dies before the bytes
    with as_tenant(cast.tenant.id):
        assert File.objects.filter(purged_at=None).count() == 2
    monkeypatch.setattr(bodies, "delete_body", real)
    services.sweep_files()
    assert not exists(first) and not exists(second)
    with as_tenant(cast.tenant.id):
        assert File.objects.filter(purged_at=None).count() == 0


def test_bytes_that_no_row_speaks_for_are_removed_and_all_others_stay(cast, aged) -> None:
    kept, gone, late = make(cast.tenant), make(cast.tenant), make(cast.tenant)
    begun = services.begin_file(cast.tenant, filename="a", purpose="batch")
    services.write_file(begun, [b"x"])
    with as_tenant(cast.tenant.id):
        File.objects.filter(pk=gone.pk).delete()
        File.objects.filter(pk=late.pk).update(purged_at=timezone.now())
    foreign = default_storage.save(f"tenants/{cast.tenant.id.hex}/notes", ContentFile(b"x"))
    orphans.sweep_bodies()
    assert [exists(file) for file in (kept, begun, gone, late)] == [True, True, False, False]
    assert default_storage.exists(foreign)


def test_young_bytes_are_left_alone(cast) -> None:
    file = make(cast.tenant)
    with as_tenant(cast.tenant.id):
        File.objects.filter(pk=file.pk).delete()
    orphans.sweep_bodies()
    assert exists(file)


def test_parts_that_came_after_their_job_was_tidied_go_too(cast, aged) -> None:
    file = make(cast.tenant)
    begin = {"input_file_id": ids.encode(ids.FILE, file.id), "endpoint": "/v1/predictions", "completion_window": "24h"}
    running, tidied = jobs.create_batch(cast.tenant, **begin), jobs.create_batch(cast.tenant, **begin)
    with as_tenant(cast.tenant.id):
        Job.objects.filter(pk=tidied.pk).update(finished_at=timezone.now(), tidied_at=timezone.now())
    nobodys = ids.uuid7()
    for job_id in (running.id, tidied.id, nobodys):
        parts.write_part(job_id, 0, 1, b"a", b"b")
    sweeping.sweep_parts()
    there = [default_storage.exists(parts.part_path(job_id, 0, 1)) for job_id in (running.id, tidied.id, nobodys)]
    assert there == [True, False, False]


def test_a_storage_that_is_away_keeps_a_job_untidied(cast, monkeypatch) -> None:
    job = jobs.create_batch(
        cast.tenant, input_file_id=ids.encode(ids.FILE, make(cast.tenant).id), endpoint="/v1/predictions", completion_window="24h"
    )
    with as_tenant(cast.tenant.id):
        Job.objects.filter(pk=job.pk).update(state="cancelled", finished_at=timezone.now() - timedelta(hours=1))
    monkeypatch.setattr(parts, "delete_parts", lambda _: (_ for _ in ()).throw(StorageAway("away")))
    sweeping.sweep_jobs()
    with as_tenant(cast.tenant.id):
        assert Job.objects.get(pk=job.pk).tidied_at is None
    monkeypatch.undo()
    sweeping.sweep_jobs()
    with as_tenant(cast.tenant.id):
        assert Job.objects.get(pk=job.pk).tidied_at is not None
