"""Batches of many organisations at once: who gets how much of the workers, and how long a small batch waits behind a large one.

Used by tests/test_batch_shares.py in short and by `python -m bench.batch_shares` in full.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from django.db import connection
from django.test import override_settings

from apps.accounts import services as accounts
from apps.accounts.models import Tenant
from apps.billing.plans import plan_of
from apps.files import services as files
from apps.jobs import services as jobs
from apps.jobs.models import Job, JobEvent
from maas import ids
from maas.tenancy import SystemUse, as_system, as_tenant
from tests.batch_parts import Part, batch_parts, wait_until
from tests.cast import make_user
from tests.conftest import HOME
from tests.tiny import NAME, picture

ENDPOINT = "/v1/predictions"
TENANTS = ("free",) * 4 + ("team",) * 3 + ("scale",) * 3  # weights 1, 2 and 4
TOLERANCE = 0.1  # of a share
FURTHER = 2  # slices of others that each worker may still take before a small batch is done
PATIENCE = 600.0
DONE = "SELECT tenant_id, sum(completed + failed) FROM jobs_job WHERE tenant_id = ANY(%s) GROUP BY tenant_id"
NO_LIMITS = ("requests_per_minute", "units_per_minute", "model_requests_per_minute", "model_units_per_minute", "concurrent_jobs",
             "included_units", "storage_gigabytes")  # fmt: skip


@dataclass
class Share:
    """What a tenant had done when half of all lines were, and what its weight says."""

    plan: str
    weight: int
    done: int
    part: float
    wanted: float

    @property
    def is_fair(self) -> bool:
        return abs(self.part / self.wanted - 1) <= TOLERANCE


@dataclass
class Crowd:
    """Organisations by plan; each has so many batches."""

    tenants: list[Tenant] = field(default_factory=list)
    jobs: list[Job] = field(default_factory=list)
    lines: int = 0


def plans_without_limits() -> str:
    """A file of plans that differ in nothing but their weight."""
    path = HOME / "plans-shares.toml"
    unlimited = "\n".join(f'{name} = "none"' for name in NO_LIMITS)
    path.write_text("\n".join(f"[{plan}]\n{unlimited}\n" for plan in ("free", "team", "scale")))
    return str(path)


@contextmanager
def shared_workers(*, workers: int, inputs: int) -> Iterator[dict[str, Part]]:
    """So many workers that cut slices of so many inputs, under plans without limits."""
    plans = plans_without_limits()
    with override_settings(MAAS_PLANS=plans), batch_parts(workers=workers, inputs=inputs, MAAS_PLANS=plans) as running:
        yield running


def make_on(plan: str) -> Tenant:
    """A new organisation on a plan."""
    owner = make_user(plan)
    name = f"{plan}-{ids.uuid7().hex[-10:]}"
    return accounts.create_tenant(owner, name=name, slug=name, plan=plan)


def start(tenant: Tenant, lines: int) -> Job:
    """A batch of so many pictures."""
    content = (json.dumps(_line(number)).encode() + b"\n" for number in range(lines))
    file = files.create_file(tenant, filename="lines.jsonl", purpose="batch", chunks=content)
    name = ids.encode(ids.FILE, file.id)
    return jobs.create_batch(tenant, input_file_id=name, endpoint=ENDPOINT, completion_window="24h")


def _line(number: int) -> dict[str, object]:
    body = {"model": NAME, "inputs": picture(number % 64), "parameters": {"top_k": 1}}
    return {"custom_id": f"line-{number}", "method": "POST", "url": ENDPOINT, "body": body}


# ---------- shares ----------
def measure_shares(*, batches: int, lines: int, workers: int = 2, inputs: int = 8) -> list[Share]:
    """Ten organisations with so many batches each, `lines` times its weight long, all waiting when the workers start; what
    each one had when half of all lines were done."""
    with override_settings(MAAS_PLANS=plans_without_limits()):
        crowd = Crowd([make_on(plan) for plan in TENANTS])
        for number in range(batches * len(crowd.tenants)):
            tenant = crowd.tenants[number % len(crowd.tenants)]
            count = lines * plan_of(tenant.plan).weight
            crowd.jobs.append(start(tenant, count))
            crowd.lines += count
    with shared_workers(workers=workers, inputs=inputs):
        return _watch(crowd)


def _watch(crowd: Crowd) -> list[Share]:
    """What was done before the last file was checked counts for nobody: until then not everybody was waiting."""
    wait_until(lambda: not _unchecked(crowd), PATIENCE, "every file is checked")
    before = _done(crowd.tenants)
    wait_until(lambda: sum(_done(crowd.tenants).values()) >= crowd.lines / 2, PATIENCE, "half of all lines are done")
    done = {tenant_id: lines - before[tenant_id] for tenant_id, lines in _done(crowd.tenants).items()}
    total, weights = sum(done.values()), [plan_of(tenant.plan).weight for tenant in crowd.tenants]
    return [
        Share(tenant.plan, weight, done[tenant.id], done[tenant.id] / total, weight / sum(weights))
        for tenant, weight in zip(crowd.tenants, weights, strict=True)
    ]


def _unchecked(crowd: Crowd) -> int:
    with as_system(SystemUse.SWEEP):
        return Job.objects.filter(pk__in=[job.pk for job in crowd.jobs], started_at=None).count()


def _done(tenants: list[Tenant]) -> dict[UUID, int]:
    with as_system(SystemUse.SWEEP), connection.cursor() as cursor:
        cursor.execute(DONE, [[tenant.id for tenant in tenants]])
        return {tenant_id: int(done) for tenant_id, done in cursor.fetchall()}


# ---------- a small batch behind a large one ----------
@dataclass
class Wait:
    """What a small batch waited for: slices of the large one that ended meanwhile, how many may have, and seconds."""

    slices: int
    most: int
    seconds: float


def measure_wait(*, waiting: int, small: int = 10, workers: int = 1, inputs: int = 64, times: int = 1) -> list[Wait]:
    """A batch of `small` lines that comes while another organisation's are waiting, so many times."""
    with shared_workers(workers=workers, inputs=inputs):
        loud = make_on("scale")
        return [_wait_behind(loud, waiting, small, workers) for _ in range(times)]


def _wait_behind(loud: Tenant, waiting: int, small: int, workers: int) -> Wait:
    """What lies there already is left to the workers: it is behind the new lines, or it waits with them."""
    large = start(loud, waiting)
    wait_until(lambda: jobs.get_job(loud, large.id).completed, PATIENCE, "the large batch runs")
    tenant = make_on("free")
    job = start(tenant, small)
    wait_until(lambda: jobs.get_job(tenant, job.id).finished_at, PATIENCE, "the small batch is done")
    ended, behind = jobs.get_job(tenant, job.id), jobs.get_job(loud, large.id)
    assert (ended.state, ended.completed, behind.finished_at) == ("succeeded", small, None), (ended.__dict__, behind.__dict__)
    assert ended.finished_at
    most = workers * (1 + FURTHER)  # what each worker had in hand, and further ones
    return Wait(_slices_between(loud, ended.created_at, ended.finished_at), most, (ended.finished_at - ended.created_at).total_seconds())


def _slices_between(tenant: Tenant, since: datetime, until: datetime) -> int:
    """Slices of a tenant that were done in that time."""
    with as_tenant(tenant.id):
        rows = JobEvent.objects.filter(tenant=tenant, data__completed__isnull=False, created_at__gt=since, created_at__lt=until)
        return rows.count()
