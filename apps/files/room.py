"""How much an organisation may store: a limit at upload. What its jobs write is counted, and never refused."""

from django.db.models import Sum
from django.utils.translation import gettext as _

from apps.accounts.services import Tenant
from apps.files.models import File
from maas import errors
from maas.tenancy import as_tenant

GIGABYTE = 10**9  # bytes
# Gigabytes by plan, None: any number. Plans belong to billing, which lies above and declares them here at the start.
STORAGE: dict[str, int | None] = {}


def declare_storage(gigabytes: dict[str, int | None]) -> None:
    """Say how many gigabytes of files each plan has room for, None: any number."""
    STORAGE.update(gigabytes)


def stored_bytes(tenant: Tenant) -> int:
    """The bytes of all files that are stored and not deleted."""
    with as_tenant(tenant.id):
        kept = File.objects.filter(tenant=tenant, stored_at__isnull=False, deleted_at=None)
        return int(kept.aggregate(total=Sum("bytes"))["total"] or 0)


def check_room(tenant: Tenant, more: int = 1) -> None:
    """Raises PaymentRequired when so many bytes more do not fit into the plan, as for a plan that nobody knows they always do."""
    gigabytes = STORAGE.get(tenant.plan)
    if gigabytes is not None and stored_bytes(tenant) + more > gigabytes * GIGABYTE:
        message = _("The plan has room for %(n)d GB of files, and this one does not fit any more. Delete files, or change the plan.")
        raise errors.PaymentRequired(message % {"n": gigabytes}, param="file", code="quota_exceeded")


def take_room(tenant: Tenant, more: int) -> None:
    """As `check_room`, in the transaction that stores: two uploads must not pass the limit together."""
    locked = Tenant.objects.select_for_update(no_key=True).get(pk=tenant.pk)
    check_room(locked, more)
