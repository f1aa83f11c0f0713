"""What tests of money need: months in which tenants use units, whenever those are."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, date, datetime
from typing import Any
from uuid import UUID

import time_machine
from django.db import connections

from apps.accounts.models import Tenant
from apps.accounts.roles import user_actor
from apps.accounts.services import get_membership
from apps.billing import allowances
from apps.usage import allowances as rows
from apps.usage import services as usage
from apps.usage.periods import month_of
from maas import ids
from maas.actors import Actor, acting
from maas.stamps import renew_on_commit
from maas.tenancy import as_tenant


def on_plan(tenant: Tenant, plan: str) -> Tenant:
    """Put a tenant on a plan as if it had always been on it."""
    with as_tenant(tenant.id):
        Tenant.objects.filter(pk=tenant.pk).update(plan=plan)
        renew_on_commit(tenant.pk)
    tenant.plan = plan
    return tenant


def moment(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=UTC)


@contextmanager
def at(*parts: int) -> Iterator[None]:
    """The time stands still at a UTC moment, for Python."""
    with time_machine.travel(moment(*parts), tick=False):
        yield


def use(tenant: Tenant, units: int, *, model: str = "minilm-squad", key_id: UUID | None = None) -> None:
    """Charge units now, in a month that has begun."""
    begin(tenant)
    line = usage.UsageLine(ids.uuid7().hex, "prediction", model, 1, "token", units * 384, units, key_id=key_id)
    assert usage.settle_calls([(tenant.id, line)])


def begin(tenant: Tenant) -> date:
    from django.utils import timezone

    period = month_of(timezone.now())
    allowances.begin_month(tenant, period)
    return period


def cap(tenant: Tenant, period: date, scope: str = "tenant", subject: str = "") -> rows.Standing:
    """The row of a month."""
    with as_tenant(tenant.id):
        return next(row for row in rows.standings(tenant.id, period) if (row.scope, row.subject) == (scope, subject))


@contextmanager
def as_member(user: Any, tenant: Tenant) -> Iterator[None]:
    """What a member's session may do."""
    actor: Actor = user_actor(user, get_membership(user, tenant.id))
    with acting(actor):
        yield


def together(count: int, work: Callable[[int], Any]) -> list[Any]:
    """Run it in so many threads, begun at the same moment; what each gave, or the error that it raised."""
    gate = threading.Barrier(count)

    def run(number: int) -> Any:
        gate.wait()
        try:
            return work(number)
        except Exception as error:
            return error
        finally:
            connections.close_all()

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(run, range(count)))


def closing(work: Callable[[], Any]) -> Callable[[], Any]:
    """The same work, with the thread's connection given back."""

    def run() -> Any:
        try:
            return work()
        finally:
            connections.close_all()

    return run
