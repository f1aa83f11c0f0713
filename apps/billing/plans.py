"""What each plan allows and costs: the one place where that is said. MAAS_PLANS names a TOML file that changes figures.

Money is integer micro-dollars (1,000,000 are one dollar). None: no limit; a TOML file says "none".
"""

import tomllib
from dataclasses import dataclass, fields, replace
from functools import cache
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from maas.queue import HEAVIEST

LARGEST = 10_000_000  # of a figure per minute: maas.limits counts in whole microseconds


@dataclass(frozen=True)
class Plan:
    """Limits per minute hold for the whole organisation; `model_...` for what it asks of one model. Prices are without tax."""

    name: str
    title: str
    requests_per_minute: int | None
    units_per_minute: int | None
    model_requests_per_minute: int | None
    model_units_per_minute: int | None
    concurrent_jobs: int | None
    weight: int  # its share of a model that is busy, beside others', from 1 to 16
    members: int | None
    retention_days: int | None  # of the audit log
    included_units: int | None  # a month
    overage: bool  # what exceeds them goes on the invoice; without it, prepaid credit has to pay for it
    storage_gigabytes: int | None  # of files, refused at upload
    monthly_price: int  # micro-dollars
    unit_price: int  # micro-dollars for each unit above those included
    training_minute_price: int  # micro-dollars


DECLARED = (
    Plan(
        "free", "Free", requests_per_minute=60, units_per_minute=600, model_requests_per_minute=60, model_units_per_minute=600,
        concurrent_jobs=2, weight=1, members=3, retention_days=30, included_units=10_000, overage=False, storage_gigabytes=1,
        monthly_price=0, unit_price=400, training_minute_price=60_000,
    ),
    Plan(
        "team", "Team", requests_per_minute=1_200, units_per_minute=24_000, model_requests_per_minute=900, model_units_per_minute=18_000,
        concurrent_jobs=10, weight=2, members=20, retention_days=365, included_units=250_000, overage=True, storage_gigabytes=50,
        monthly_price=49_000_000, unit_price=300, training_minute_price=60_000,
    ),
    Plan(
        "scale", "Scale", requests_per_minute=12_000, units_per_minute=240_000, model_requests_per_minute=9_000,
        model_units_per_minute=180_000, concurrent_jobs=50, weight=4, members=200, retention_days=730, included_units=2_000_000,
        overage=True, storage_gigabytes=1_000, monthly_price=299_000_000, unit_price=200, training_minute_price=45_000,
    ),
    # Of the demo, and of an operator's own organisations.
    Plan(
        "unlimited", "Unlimited", requests_per_minute=None, units_per_minute=None, model_requests_per_minute=None,
        model_units_per_minute=None, concurrent_jobs=None, weight=4, members=None, retention_days=None, included_units=None, overage=True,
        storage_gigabytes=None, monthly_price=0, unit_price=0, training_minute_price=0,
    ),
)  # fmt: skip
FIGURES = tuple(field.name for field in fields(Plan) if field.name not in {"name", "title"})
PRICES = tuple(name for name in FIGURES if name.endswith("_price"))
SWITCHES = ("overage",)
NEVER_NONE = {*PRICES, "title", "weight"}


def plan_of(name: str) -> Plan:
    """The plan with this name. An organisation whose plan was taken away is served as on the free one."""
    known = every_plan()
    return known.get(name, known["free"])


def every_plan() -> dict[str, Plan]:
    """All plans by name. Raises ImproperlyConfigured for a file in MAAS_PLANS that cannot be meant."""
    return _read(settings.MAAS_PLANS)


@cache
def _read(path: str) -> dict[str, Plan]:
    plans = {plan.name: plan for plan in DECLARED}
    for name, changes in (_open(path) if path else {}).items():
        if name not in plans or not isinstance(changes, dict):
            raise ImproperlyConfigured(f"MAAS_PLANS: there is no plan '{name}' in {path}. Known: {', '.join(plans)}.")
        plans[name] = replace(plans[name], **{field: _figure(name, field, value) for field, value in changes.items()})
    return plans


def _open(path: str) -> dict[str, Any]:
    try:
        return tomllib.loads(Path(path).read_text())
    except (OSError, ValueError) as error:  # TOMLDecodeError and UnicodeDecodeError are ValueErrors
        raise ImproperlyConfigured(f"MAAS_PLANS: {path} cannot be read as TOML: {error}.") from None


def _figure(plan: str, field: str, value: Any) -> Any:
    if field not in {*FIGURES, "title"}:
        raise ImproperlyConfigured(f"MAAS_PLANS: the plan '{plan}' has no field '{field}'. Known: title, {', '.join(FIGURES)}.")
    if field == "title" and isinstance(value, str):
        return value
    if field in SWITCHES:
        if not isinstance(value, bool):
            raise ImproperlyConfigured(f"MAAS_PLANS: '{field}' of the plan '{plan}' must be true or false, not {value!r}.")
        return value
    if value == "none" and field not in NEVER_NONE:
        return None
    least, most = _bounds(field)
    if field == "title" or isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        wanted = "a text" if field == "title" else f"a whole number from {least} to {most}" + ("" if field in NEVER_NONE else ' or "none"')
        raise ImproperlyConfigured(f"MAAS_PLANS: '{field}' of the plan '{plan}' must be {wanted}, not {value!r}.")
    return value


def _bounds(field: str) -> tuple[int, int]:
    if field == "weight":
        return 1, HEAVIEST
    return (1, LARGEST) if field.endswith("_per_minute") else (0, 10**15)
