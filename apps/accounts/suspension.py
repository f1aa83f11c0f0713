"""An organisation that the operator stops: its people may read, its keys and its changes are refused. What runs ends by itself."""

from django.utils import timezone
from django.utils.translation import gettext as _

from apps.accounts.mails import mail_after_commit
from apps.accounts.members import addresses_of
from apps.accounts.models import Role, Tenant
from maas import errors
from maas.actors import Permission, require
from maas.events import TenantResumed, TenantSuspended, publish
from maas.tenancy import as_tenant

LONGEST_REASON = 300  # characters


def suspend_tenant(tenant: Tenant, *, reason: str) -> Tenant:
    """Refuse every call and change from now on; the owners are told by mail. Suspending twice changes nothing, the reason neither.

    Raises Forbidden unless the operator acts, BadRequest without a reason of at most 300 characters.
    """
    require(tenant.id, Permission.OPERATE)
    reason = check_reason(reason)
    with as_tenant(tenant.id):
        live = Tenant.objects.filter(pk=tenant.pk, suspended_at=None)
        if live.update(suspended_at=timezone.now(), suspended_reason=reason):
            publish(TenantSuspended(tenant_id=tenant.id, label=tenant.slug, after={"reason": reason}))
            _tell_owners(tenant, _("%(name)s is suspended"), [*_stopped(reason), _("Answer this mail to reach the operator.")])
        return Tenant.objects.get(pk=tenant.pk)


def resume_tenant(tenant: Tenant) -> Tenant:
    """Let a suspended organisation work again with its next request. Raises Forbidden unless the operator acts."""
    require(tenant.id, Permission.OPERATE)
    with as_tenant(tenant.id):
        before = Tenant.objects.select_for_update(no_key=True).get(pk=tenant.pk)
        if before.suspended_at:
            Tenant.objects.filter(pk=tenant.pk).update(suspended_at=None, suspended_reason="")
            publish(TenantResumed(tenant_id=tenant.id, label=tenant.slug, before={"reason": before.suspended_reason}))
            _tell_owners(tenant, _("%(name)s works again"), [_("Its keys and its dashboard work as before.")])
        return Tenant.objects.get(pk=tenant.pk)


def check_reason(reason: str) -> str:
    """The reason without spaces around it, or BadRequest."""
    reason = reason.strip()
    if not reason or len(reason) > LONGEST_REASON or "\0" in reason:
        message = _("Give a reason of at most %(n)d characters.") % {"n": LONGEST_REASON}
        raise errors.BadRequest(message, param="reason", code="invalid_value")
    return reason


def _stopped(reason: str) -> list[str]:
    return [
        _("The operator stopped the organisation: %(reason)s") % {"reason": reason},
        _("Calls and changes are refused. Jobs that run already end as usual, and everything can still be read in the dashboard."),
    ]


def _tell_owners(tenant: Tenant, subject: str, paragraphs: list[str]) -> None:
    mail_after_commit(tenant.id, subject=subject % {"name": tenant.slug}, paragraphs=paragraphs, to=addresses_of(tenant, Role.OWNER))
