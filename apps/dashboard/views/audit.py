"""The audit log: who did what, to what, from where."""

from datetime import UTC, date, datetime, timedelta
from typing import Any
from urllib.parse import urlencode

from django.http import HttpResponse
from django.shortcuts import render
from django.utils.translation import gettext as _

from apps.audit import services
from apps.audit.services import Filters, days_kept
from apps.dashboard.deeds import GROUPS, actor_words, kept_words, read_deed
from apps.dashboard.page import MemberRequest, page
from maas import ids
from maas.actors import Permission, current_actor

PAGE = 50
FIELDS = ("q", "who", "what", "from", "to")
API = {"q": "search", "who": "actor", "from": "start"}  # what the REST API calls the same filters


@page()
def index(request: MemberRequest) -> HttpResponse:
    if Permission.AUDIT not in current_actor().permissions:
        return render(request, "audit_closed.html", {"section": "audit"}, status=403)
    template = "parts/audit.html" if request.htmx else "audit.html"
    return render(request, template, _context(request))


def _context(request: MemberRequest) -> dict[str, Any]:
    asked = {name: request.GET.get(name, "").replace("\0", "").strip()[:100] for name in FIELDS}
    asked["what"] = asked["what"] if asked["what"] in GROUPS else ""
    after = ids.decode(ids.AUDIT, request.GET.get("after", ""))
    entries, has_more = services.list_entries(request.tenant, _filters(asked), after=after, limit=PAGE)
    set_ones = {name: value for name, value in asked.items() if value}
    actors = services.list_actors(request.tenant)
    return {
        "section": "audit", "deeds": [read_deed(entry) for entry in entries], "has_more": has_more, "paged": after is not None,
        "oldest": entries[-1].public_id if entries else "",
        "asked": {"query": asked["q"], "who": asked["who"], "what": asked["what"], "first": asked["from"], "last": asked["to"]},
        "who": [(actor["id"] or actor["kind"], actor_words(actor)) for actor in actors],
        "groups": [(name, words) for name, (words, _names) in GROUPS.items()], "filters": urlencode(set_ones),
        "total": services.count_entries(request.tenant), "nothing": _nothing(asked, actors),
        "kept": kept_words(days_kept(request.tenant.plan)),
        "exports": [(form.upper(), "/v1/audit/export?" + urlencode({"format": form, **_for_api(asked)})) for form in ("csv", "jsonl")],
    }  # fmt: skip


def _filters(asked: dict[str, str]) -> Filters:
    actions = GROUPS[asked["what"]][1] if asked["what"] else ()
    first, last = _day(asked["from"]), _day(asked["to"])
    return Filters(
        actions, asked["who"] or None, None, asked["q"] or None, _midnight(first), _midnight(last + timedelta(days=1) if last else None)
    )


def _for_api(asked: dict[str, str]) -> dict[str, str]:
    """The same filters in the query of an export."""
    query = {API[name]: asked[name] for name in API if asked[name]}
    if asked["what"]:
        query["action"] = ",".join(GROUPS[asked["what"]][1])
    last = _day(asked["to"])
    return {**query, **({"end": (last + timedelta(days=1)).isoformat()} if last else {})}


def _day(text: str) -> date | None:
    """A day of the form; none for anything else."""
    try:
        found = date.fromisoformat(text)
    except ValueError:
        return None
    return found if date(2000, 1, 1) <= found < date(9000, 1, 1) else None


def _midnight(day: date | None) -> datetime | None:
    return datetime.combine(day, datetime.min.time(), tzinfo=UTC) if day else None


def _nothing(asked: dict[str, str], actors: list[dict[str, str]]) -> str:
    """What an empty page says: which of the filters fit nothing."""
    names = {actor["id"] or actor["kind"]: actor_words(actor) for actor in actors}
    who, what = names.get(asked["who"], asked["who"]), str(GROUPS[asked["what"]][0]).lower() if asked["what"] else ""
    if who and what:
        return _("Nothing by “%(who)s” on %(what)s") % {"who": who, "what": what}
    if who or what:
        return _("Nothing by “%(who)s”") % {"who": who} if who else _("Nothing on %(what)s") % {"what": what}
    return _("No entry matches “%(query)s”") % {"query": asked["q"]} if asked["q"] else _("No entries in these days")
