"""The audit log as a tenant reads it: a page at a time, or all of it as a file."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import connection
from django.db.models import OuterRef, Q, QuerySet, Subquery
from django.utils.translation import gettext as _

from apps.accounts.services import Tenant
from apps.audit import exporting
from apps.audit.models import Entry, Head
from apps.audit.retention import days_kept
from maas import errors, ids
from maas.actors import Permission, require
from maas.events import AuditExported, publish
from maas.tenancy import as_tenant

__all__ = ["Entry", "days_kept"]  # what the layers above may name

CHUNK = 500  # entries that an export holds in memory at once
LATELY = 5_000  # entries in which the menu of actors looks
ACTORS = """
SELECT actor_kind, actor_id, actor_name FROM (
    SELECT seq, actor_kind, actor_id, actor_name FROM audit_entry WHERE tenant_id = %s ORDER BY seq DESC LIMIT %s
) lately GROUP BY 1, 2, 3 ORDER BY max(seq) DESC LIMIT 100
"""


@dataclass(frozen=True)
class Filters:
    """Which entries; what is None filters nothing.

    `actions` are names (`key.created`) or beginnings of some (`key.`). `actor` is an id, a name or a kind. `search` looks at
    targets, their names, addresses and actors. `start` is included, `end` is not.
    """

    actions: tuple[str, ...] = ()
    actor: str | None = None
    target: str | None = None
    search: str | None = None
    start: datetime | None = None
    end: datetime | None = None

    def as_json(self) -> dict[str, Any]:
        """Those that are set."""
        return {name: value.isoformat() if isinstance(value, datetime) else value for name, value in asdict(self).items() if value}


EVERYTHING = Filters()


def list_entries(
    tenant: Tenant, filters: Filters = EVERYTHING, *, after: UUID | None = None, limit: int = 20, order: str = "desc"
) -> tuple[list[Entry], bool]:
    """A page of entries and whether there are more; `after` is the last entry of the page before.

    Entries are numbered in the order in which they were committed, so whoever follows the log upwards misses none.
    Raises Forbidden, and BadRequest when `after` is no entry of the tenant (any more).
    """
    require(tenant.id, Permission.AUDIT)
    with as_tenant(tenant.id):
        rows = _select(tenant, filters)
        if after:
            seq = _seq_of(tenant, after)
            rows = rows.filter(seq__lt=seq) if order == "desc" else rows.filter(seq__gt=seq)
        found = list(rows.order_by("-seq" if order == "desc" else "seq")[: limit + 1])
    return found[:limit], len(found) > limit


def count_entries(tenant: Tenant) -> int:
    """How many entries are kept."""
    require(tenant.id, Permission.AUDIT)
    with as_tenant(tenant.id):
        first = Entry.objects.filter(tenant=tenant).order_by("seq").values_list("seq", flat=True).first()
        last = Head.objects.filter(tenant=tenant).values_list("seq", flat=True).first()
    return (last or 0) - first + 1 if first else 0


def list_actors(tenant: Tenant) -> list[dict[str, str]]:
    """Who did something lately, as `kind`, `id` and `name`."""
    require(tenant.id, Permission.AUDIT)
    with as_tenant(tenant.id), connection.cursor() as cursor:
        cursor.execute(ACTORS, [tenant.id, LATELY])
        return [{"kind": kind, "id": id_, "name": name} for kind, id_, name in cursor.fetchall()]


def export_entries(tenant: Tenant, filters: Filters = EVERYTHING, *, form: str = "jsonl") -> Iterator[bytes]:
    """The entries, oldest first, as `jsonl` or `csv`, a part at a time. The export is itself an entry, the last one in it.

    Raises Forbidden, and BadRequest for another form, before the first part.
    """
    require(tenant.id, Permission.AUDIT)
    if form not in exporting.FORMS:
        raise errors.BadRequest(_("'format' must be one of: %(known)s.") % {"known": ", ".join(exporting.FORMS)}, param="format")
    with as_tenant(tenant.id):
        publish(AuditExported(tenant_id=tenant.id, after={"format": form, **filters.as_json()}))
    with as_tenant(tenant.id):
        end = Head.objects.get(tenant=tenant).seq
    return exporting.FORMS[form](_chunks(tenant, filters, end))


def _chunks(tenant: Tenant, filters: Filters, end: int) -> Iterator[Sequence[Entry]]:
    """Each in a transaction of its own: a slow reader must not hold one open."""
    previous = Entry.objects.filter(tenant=tenant, seq=OuterRef("seq") - 1).values("hash")
    seq = 0
    while True:
        with as_tenant(tenant.id):
            rows = _select(tenant, filters).filter(seq__gt=seq, seq__lte=end).annotate(previous=Subquery(previous))
            found = list(rows.order_by("seq")[:CHUNK])
        if found:
            seq = found[-1].seq or end
            yield found
        if len(found) < CHUNK:
            return


def _select(tenant: Tenant, filters: Filters) -> QuerySet[Entry]:
    rows = Entry.objects.filter(tenant=tenant, seq__isnull=False)
    if filters.actions:
        rows = rows.filter(_any(Q(action__startswith=name) if name.endswith(".") else Q(action=name) for name in filters.actions))
    if filters.actor:
        rows = rows.filter(_any(Q(**{name: filters.actor}) for name in ("actor_id", "actor_name", "actor_kind")))
    if filters.target:
        rows = rows.filter(target=filters.target)
    if filters.search:
        rows = rows.filter(_any(Q(**{f"{name}__icontains": filters.search}) for name in ("target", "label", "address", "actor_name")))
    if filters.start:
        rows = rows.filter(at__gte=_milliseconds(filters.start))
    return rows.filter(at__lt=_milliseconds(filters.end)) if filters.end else rows


def _any(conditions: Iterator[Q]) -> Q:
    found = Q()
    for condition in conditions:
        found |= condition
    return found


def _milliseconds(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)


def _seq_of(tenant: Tenant, entry_id: UUID) -> int:
    seq = Entry.objects.filter(tenant=tenant, pk=entry_id).values_list("seq", flat=True).first()
    if seq is None:
        message = _("There is no entry '%(id)s' here, or it is no longer kept.") % {"id": ids.encode(ids.AUDIT, entry_id)}
        raise errors.BadRequest(message, param="after")
    return seq
