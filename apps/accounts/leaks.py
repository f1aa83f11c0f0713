"""Keys that were found where they should not be: whoever has one can report it, and it ends."""

from dataclasses import dataclass

from django.conf import settings
from django.db import transaction
from django.utils import timezone
from django.utils.translation import gettext as _

from apps.accounts import keys, secrets
from apps.accounts.mails import mail_after_commit
from apps.accounts.members import addresses_of
from apps.accounts.models import ApiKey, Role, Tenant
from maas.events import KeyChanged, publish
from maas.tenancy import as_tenant

REPORT_LIMIT = 100  # keys of one report


@dataclass(frozen=True)
class Finding:
    """A key in a reported text: its last four characters, and revoked, ended (it was over already) or unknown."""

    last4: str
    status: str


def report_leak(text: str, *, url: str = "") -> list[Finding]:
    """End every key of this installation that the text holds, and tell the owners. The report needs no other proof than the
    secret itself: who has it could use it."""
    return [_end(secret, url) for secret in secrets.find_secrets(text)[:REPORT_LIMIT]]


def _end(secret: str, url: str) -> Finding:
    found = keys.look_up(secret)
    if found is None:
        return Finding(secret[-4:], "unknown")
    caller, is_old = found
    end = _end_old_secret if is_old else _end_key
    ended = end(caller.tenant, caller.key, url)
    return Finding(secret[-4:], "revoked" if ended else "ended")


def _end_key(tenant: Tenant, key: ApiKey, url: str) -> bool:
    with transaction.atomic():
        ended = keys.end_key(tenant.id, key.id, reason="leaked", details={"found_at": url})
        if ended:
            _tell(tenant, key, _("It is revoked. Make a new one and replace it where it was used."), url)
    return ended


def _end_old_secret(tenant: Tenant, key: ApiKey, url: str) -> bool:
    """The secret before a rotation leaked: it ends now, and the new one stays."""
    with as_tenant(tenant.id):
        live = ApiKey.objects.filter(tenant=tenant, pk=key.pk, revoked_at=None, old_expires_at__gt=timezone.now())
        ended = bool(live.update(old_expires_at=timezone.now()))
        if ended:
            publish(KeyChanged(tenant_id=tenant.id, key_id=key.id, label=key.name, after={"old_secret_ended": "leaked", "found_at": url}))
            _tell(tenant, key, _("It was its old secret, which has ended now; the new one stays valid."), url)
    return ended


def _tell(tenant: Tenant, key: ApiKey, consequence: str, url: str) -> None:
    """Mail the owners and admins."""
    subject = _("The key %(name)s of %(tenant)s was found in public") % {"name": key.name, "tenant": tenant.slug}
    where = _("It was found at: %(url)s") % {"url": url} if url else _("The report does not say where it was found.")
    to = addresses_of(tenant, Role.OWNER, Role.ADMIN)
    mail_after_commit(tenant.id, subject=subject, paragraphs=[subject + ".", consequence, where, f"{settings.MAAS_URL}/keys"], to=to)
