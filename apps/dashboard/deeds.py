"""The audit log in plain words: who did what to what, and what it changed."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from django.urls import reverse
from django.utils.formats import date_format
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

DEEDS = {
    "tenant.created": gettext_lazy("made the organisation"),
    "tenant.changed": gettext_lazy("changed the organisation"),
    "tenant.suspended": gettext_lazy("suspended the organisation"),
    "tenant.resumed": gettext_lazy("resumed the organisation"),
    "operator.entered": gettext_lazy("began to look at the organisation as its operator"),
    "operator.left": gettext_lazy("stopped looking at the organisation"),
    "tenant.ownership_transferred": gettext_lazy("handed over the ownership"),
    "member.added": gettext_lazy("added a member"),
    "member.role_changed": gettext_lazy("changed a role"),
    "member.removed": gettext_lazy("removed a member"),
    "user.signed_in": gettext_lazy("signed in"),
    "user.sign_in_refused": gettext_lazy("sign-in refused"),
    "user.locked_out": gettext_lazy("locked out after failed sign-ins"),
    "user.security_changed": gettext_lazy("changed how they sign in"),
    "user.session_ended": gettext_lazy("ended a session"),
    "invitation.created": gettext_lazy("invited somebody"),
    "invitation.accepted": gettext_lazy("accepted an invitation"),
    "invitation.withdrawn": gettext_lazy("withdrew an invitation"),
    "key.created": gettext_lazy("made a key"),
    "key.changed": gettext_lazy("changed a key"),
    "key.rotated": gettext_lazy("rotated a key"),
    "key.revoked": gettext_lazy("revoked a key"),
    "webhook.created": gettext_lazy("made a webhook"),
    "webhook.changed": gettext_lazy("changed a webhook"),
    "webhook.deleted": gettext_lazy("deleted a webhook"),
    "webhook.disabled": gettext_lazy("switched a webhook off"),
    "webhook.secret_rotated": gettext_lazy("rotated a webhook's secret"),
    "webhook.replayed": gettext_lazy("sent a delivery again"),
    "file.created": gettext_lazy("uploaded a file"),
    "file.deleted": gettext_lazy("deleted a file"),
    "file.expired": gettext_lazy("removed a file past its time"),
    "batch.created": gettext_lazy("started a job"),
    "batch.cancelling": gettext_lazy("asked for the end of a job"),
    "batch.completed": gettext_lazy("completed a job"),
    "batch.failed": gettext_lazy("could not run a job"),
    "batch.cancelled": gettext_lazy("cancelled a job"),
    "batch.expired": gettext_lazy("ended a job that ran out of time"),
    "billing.plan_changed": gettext_lazy("changed the plan"),
    "billing.budget_changed": gettext_lazy("changed a budget"),
    "billing.credit_granted": gettext_lazy("added or took back credit"),
    "billing.invoice_changed": gettext_lazy("made or changed an invoice"),
    "billing.payment_overdue": gettext_lazy("noted an overdue payment"),
    "billing.payment_made": gettext_lazy("noted a payment"),
    "budget.threshold": gettext_lazy("told that a part of a budget is used"),
    "audit.exported": gettext_lazy("exported the audit log"),
    "audit.pruned": gettext_lazy("removed entries past their time"),
}
# The menu of actions: its words, and the beginnings of the names that it stands for.
GROUPS = {
    "keys": (gettext_lazy("Keys"), ("key.",)),
    "people": (gettext_lazy("People"), ("member.", "invitation.", "tenant.ownership_transferred")),
    "sign-in": (gettext_lazy("Sign-in"), ("user.",)),
    "organisation": (gettext_lazy("Organisation"), ("tenant.", "operator.")),
    "billing": (gettext_lazy("Billing"), ("billing.", "budget.")),
    "jobs": (gettext_lazy("Jobs"), ("batch.",)),
    "files": (gettext_lazy("Files"), ("file.",)),
    "webhooks": (gettext_lazy("Webhooks"), ("webhook.",)),
    "audit": (gettext_lazy("Audit log"), ("audit.",)),
}
SHORT = 60  # characters of a value that a summary shows


@dataclass(frozen=True)
class Deed:
    """An entry as a row shows it. `changes` are lines such as `- role: viewer`, `facts` pairs of a name and a value."""

    id: str
    at: datetime
    who: str
    role: str
    did: str
    refused: bool
    to: str
    url: str
    address: str
    summary: str
    changes: list[str]
    facts: list[tuple[str, str]]


def read_deed(entry: Any) -> Deed:
    """An entry of the log in words, from the text that its chain covers."""
    said = json.loads(entry.body)
    actor, before, after = said["actor"], said["before"] or {}, said["after"] or {}
    changes = change_lines(before, after)
    return Deed(
        entry.public_id, datetime.fromtimestamp(said["at"] / 1000, UTC), actor_words(actor), actor["role"],
        str(DEEDS.get(said["action"], said["action"])), said["result"] == "refused", said["label"] or target_words(said["target"]),
        target_url(said["target"], said["action"]), said["address"], summary(before, after), changes, _facts(entry, said),
    )  # fmt: skip


def actor_words(actor: dict[str, str]) -> str:
    """Who: an e-mail address, key ci, maas itself, or unknown."""
    if actor["kind"] == "key":
        return _("key %(name)s") % {"name": actor["name"]}
    return actor["name"] if actor["kind"] != "nobody" and actor["name"] else _("unknown")


def target_words(target: str) -> str:
    """What a target without a name of its own is called."""
    return _("the organisation") if target.startswith("org_") else target


def target_url(target: str, action: str) -> str:
    """The page about a target, or an empty text where there is none."""
    if target.startswith("batch_"):
        return reverse("job", args=[target])
    if action in {"file.deleted", "file.expired"}:
        return ""
    pages = {"key_": "keys", "file-": "files", "user_": "team", "inv_": "team", "whk_": "webhooks"}
    return next((reverse(name) for prefix, name in pages.items() if target.startswith(prefix)), "")


def change_lines(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """What changed, line by line: - before, + after; without a before just what it is."""
    if not before:
        return [f"{name}: {_value(value)}" for name, value in after.items()]
    lines = []
    for name in dict.fromkeys([*before, *after]):
        if name not in after or name not in before or before[name] != after[name]:
            lines += [f"- {name}: {_value(before[name])}"] if name in before else []
            lines += [f"+ {name}: {_value(after[name])}"] if name in after else []
    return lines


def summary(before: dict[str, Any], after: dict[str, Any]) -> str:
    """The change in a few words, such as viewer to developer; empty when there is none."""
    changed = [name for name in dict.fromkeys([*before, *after]) if before.get(name) != after.get(name)]
    if not changed:
        return ""
    if not before:
        text = ", ".join(f"{name.replace('_', ' ')}: {_value(after[name])}" for name in changed)
    elif len(changed) == 1 and changed[0] in before and changed[0] in after:
        words = {"before": _value(before[changed[0]]), "after": _value(after[changed[0]])}
        text = _("%(before)s to %(after)s") % words
    else:
        text = ", ".join(name.replace("_", " ") for name in changed[:4])
        if len(changed) > 4:
            text += ", " + ngettext("%d more", "%d more", len(changed) - 4) % (len(changed) - 4)
    return text if len(text) <= SHORT else text[:SHORT] + "…"


def _value(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, list) and all(isinstance(one, str) for one in value):
        return ", ".join(value) or _("none")
    return _("none") if value is None else json.dumps(value, ensure_ascii=False)


def _facts(entry: Any, said: dict[str, Any]) -> list[tuple[str, str]]:
    rows = [
        (_("To"), said["target"]), (_("From"), said["address"]), (_("Role"), said["actor"]["role"]), (_("Event"), said["action"]),
        (_("Request"), said["request_id"]), (_("Number"), f"{entry.seq:,}"), (_("Hash"), bytes(entry.hash or b"").hex()),
    ]  # fmt: skip
    return [(name, value) for name, value in rows if value]


def kept_words(days: int | None) -> str:
    """For how long entries are kept."""
    if days is None:
        return _("Kept for good.")
    if days == 365:
        return _("Kept for a year.")
    if days % 365 == 0:
        return ngettext("Kept for %d year.", "Kept for %d years.", days // 365) % (days // 365)
    return ngettext("Kept for %d day.", "Kept for %d days.", days) % days


def log_time(moment: datetime) -> str:
    """20 Nov 13:41:57, with the year where it is not this one."""
    return date_format(moment, "j M H:i:s" if moment.year == datetime.now(UTC).year else "j M Y H:i:s")
