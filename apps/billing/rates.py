"""Which rate limits hold for a caller, and counting a call in all of them."""

from typing import Any

from django.utils.translation import gettext as _

from apps.accounts.services import Tenant
from apps.billing.plans import plan_of
from maas import errors, limits
from maas.limits import Limit, Standing, Verdict
from maas.metering import current_meter


def count_call(tenant: Tenant, *, model: str | None = None, units: int = 0) -> None:
    """Count the request that runs, unless that has been done, and the units that it is expected to cost.

    Counts nothing outside of a request: jobs have a limit of their own. Raises RateLimited when one limit is used up; then
    nothing is counted in the others.
    """
    note(limits.take(due(tenant, model=model, units=units)))


def due(tenant: Tenant, *, model: str | None = None, units: int = 0) -> list[Limit]:
    """The limits in which the request that runs is still to be counted; none outside of a request. `note` is told how they stand."""
    meter = current_meter()
    if meter is None:
        return []
    return limits_of(tenant, meter.key, model=model, requests=0 if meter.is_counted else 1, units=units)


def note(verdict: Verdict) -> None:
    """Keep what the answer to the request will say of its limits. Raises RateLimited when one of them is used up."""
    meter = current_meter()
    if meter is None:
        return
    meter.note(verdict)
    if not verdict.passed:
        raise _refusal(max(verdict.standings, key=lambda standing: standing.wait))


def look(tenant: Tenant, key: Any, *, model: str | None = None) -> Verdict:
    """How the limits of a caller stand; counts nothing."""
    return limits.take(limits_of(tenant, key, model=model))


def limits_of(tenant: Tenant, key: Any, *, model: str | None = None, requests: int = 0, units: int = 0) -> list[Limit]:
    """The limits of a tenant, of its key (None: a session calls) and of one of its models, each with what a call costs of it."""
    plan, costs, root = plan_of(tenant.plan), {"requests": requests, "units": units}, f"maas:rate:{{{tenant.id.hex}}}"
    found = []
    for kind, cost in costs.items():
        figures = [("tenant", "", "", getattr(plan, f"{kind}_per_minute"))]
        if key is not None:
            figures.append(("key", f":key:{key.id.hex}", key.name, key.limits.get(f"{kind}_per_minute")))
        if model is not None:
            figures.append(("model", f":model:{model}", model, getattr(plan, f"model_{kind}_per_minute")))
        found += [Limit(scope, kind, f"{root}{name}:{kind}", most, cost, subject) for scope, name, subject, most in figures if most]
    return found


def _refusal(standing: Standing) -> errors.RateLimited:
    wait = limits.seconds(standing.wait)
    words = {"n": standing.limit.most, "subject": standing.limit.subject, "seconds": wait}
    return errors.RateLimited(_texts()[standing.limit.scope, standing.limit.kind] % words, retry_after=wait)


def _texts() -> dict[tuple[str, str], str]:
    return {
        ("tenant", "requests"): _("Your organisation has used its %(n)d requests a minute. Try again in %(seconds)d s."),
        ("tenant", "units"): _("Your organisation has used its %(n)d units a minute. Try again in %(seconds)d s."),
        ("key", "requests"): _("The key '%(subject)s' has used its %(n)d requests a minute. Try again in %(seconds)d s."),
        ("key", "units"): _("The key '%(subject)s' has used its %(n)d units a minute. Try again in %(seconds)d s."),
        ("model", "requests"): _("The %(n)d requests a minute to the model '%(subject)s' are used. Try again in %(seconds)d s."),
        ("model", "units"): _("The %(n)d units a minute of the model '%(subject)s' are used. Try again in %(seconds)d s."),
    }
