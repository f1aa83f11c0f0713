"""Which plan an organisation is on, who collects its payments, and what follows when one is overdue."""

from dataclasses import dataclass
from datetime import date, datetime
from uuid import UUID

from django.conf import settings
from django.utils import timezone
from django.utils.translation import gettext as _

from apps.accounts import mails, members
from apps.accounts.services import Role, Tenant
from apps.billing import terms
from apps.billing.history import account_of
from apps.billing.models import Account, Collector, PlanChange
from apps.billing.months import hold, start_of, this_month
from apps.billing.plans import Plan, every_plan, plan_of
from apps.files import room
from apps.usage.periods import month_after, month_of
from maas import errors
from maas.actors import Permission, is_operating, require, require_operator
from maas.events import PaymentMade, PaymentOverdue, PlanChanged, publish
from maas.tenancy import SystemUse, as_system, as_tenant

__all__ = ["Account", "Collector", "account_of"]  # what the layers above may name

OVERDUE: dict[str, str] = {Collector.MANUAL: "invoice_overdue_since", Collector.STRIPE: "stripe_overdue_since"}
OFFERED = ("free", "team", "scale")  # what members may choose themselves


@dataclass(frozen=True)
class Change:
    """What became of a wish for a plan: it holds `from_day` on. `notes` say what does not fit into it."""

    plan: str
    at_once: bool
    from_day: date
    notes: list[str]


# ---------- plans ----------
def change_plan(tenant: Tenant, *, plan: str, now: datetime | None = None) -> Change:
    """Put the organisation on another plan: at once when it costs more or nothing was paid, else on the 1st of the next month.

    The plan that it is on takes a change that is to come back. What does not fit into a smaller plan stays and is named in
    `notes`; its limits refuse what is new. `now` is when it was wished, if that was earlier. Raises Forbidden, also
    for a plan that costs something and that neither Stripe nor the operator collects; BadRequest for one that is not offered.
    """
    require(tenant.id, Permission.BILLING)
    _check_offered(plan)
    now = now or timezone.now()
    with as_tenant(tenant.id):
        hold(tenant.id, this_month())
        account = _account(tenant)
        _apply_due(tenant, account, now)
        old = plan_of(_plan_name(tenant))
        new = plan_of(plan)
        _check_payer(account, old, new)
        at_once = _is_rise(old, new)
        if at_once:
            _put_on(tenant, account, old.name, plan, effective_at=now)
        else:
            _put_off(tenant, account, old.name, plan, month_after(month_of(now)))
        terms.refresh(tenant)
    tenant.plan = plan if at_once else old.name
    day = now.date() if at_once or plan == old.name else month_after(month_of(now))
    return Change(plan, at_once or plan == old.name, day, consequences(tenant, plan))


def consequences(tenant: Tenant, plan: str) -> list[str]:
    """What an organisation has that a plan has no room for. Nothing of it is taken away; nothing is added to it either."""
    new, found = plan_of(plan), []
    people = len(members.list_members(tenant))
    if new.members is not None and people > new.members:
        text = _("%(plan)s has room for %(n)d people and you are %(have)d: nobody is put out, but nobody can be invited.")
        found.append(text % {"plan": new.title, "n": new.members, "have": people})
    stored = room.stored_bytes(tenant)
    if new.storage_gigabytes is not None and stored > new.storage_gigabytes * room.GIGABYTE:
        text = _("%(plan)s has room for %(n)d GB of files and you have %(have)d GB: nothing is deleted, but nothing can be uploaded.")
        found.append(text % {"plan": new.title, "n": new.storage_gigabytes, "have": stored // room.GIGABYTE})
    return found


def apply_due_plans() -> int:
    """Put every organisation on the plan that it chose for this month; how many changed. Running it twice does no harm."""
    now = timezone.now()
    with as_system(SystemUse.CLOSE_MONTHS):
        due = list(Account.objects.filter(next_from__lte=now.date()).values_list("tenant_id", flat=True))
    return sum(_apply_to(tenant_id, now) for tenant_id in due)


def _apply_to(tenant_id: UUID, now: datetime) -> bool:
    with as_tenant(tenant_id):
        hold(tenant_id, this_month())
        tenant = Tenant.objects.get(pk=tenant_id)
        changed = _apply_due(tenant, _account(tenant), now)
        terms.refresh(tenant, now)
    return changed


def _apply_due(tenant: Tenant, account: Account, now: datetime) -> bool:
    """A month began since the change was asked for: it holds from the month's first moment, whenever we come to it."""
    if not account.next_plan or account.next_from is None or account.next_from > now.date():
        return False
    _put_on(tenant, account, _plan_name(tenant), account.next_plan, effective_at=start_of(account.next_from))
    return True


def _put_on(tenant: Tenant, account: Account, old: str, new: str, *, effective_at: datetime) -> None:
    Tenant.objects.filter(pk=tenant.pk).update(plan=new)
    PlanChange.objects.create(tenant=tenant, before=old, after=new, effective_at=effective_at, collected_by=account.collected_by)
    _set(account, next_plan="", next_from=None)
    publish(PlanChanged(tenant_id=tenant.id, label=tenant.slug, before={"plan": old}, after={"plan": new}))


def _put_off(tenant: Tenant, account: Account, old: str, new: str, first: date) -> None:
    """Note a plan for the next month; the present one takes such a note away."""
    wanted = {"next_plan": "", "next_from": None} if new == old else {"next_plan": new, "next_from": first}
    if (account.next_plan or old) == new:
        return
    before = {"plan": account.next_plan or old}
    _set(account, **wanted)
    publish(PlanChanged(tenant_id=tenant.id, label=tenant.slug, before=before, after={"plan": new, "from": first.isoformat()}))


def _is_rise(old: Plan, new: Plan) -> bool:
    return new.name != old.name and (new.monthly_price > old.monthly_price or not old.monthly_price)


def _check_offered(plan: str) -> None:
    known = list(every_plan()) if is_operating() else [name for name in every_plan() if name in OFFERED]
    if plan not in known:
        message = _("There is no plan '%(plan)s' to choose. Choose from: %(known)s.") % {"plan": plan[:40], "known": ", ".join(known)}
        raise errors.BadRequest(message, param="plan", code="invalid_value")


def _check_payer(account: Account, old: Plan, new: Plan) -> None:
    """What costs something holds once somebody collects it: Stripe, or the operator who sends invoices."""
    if new.monthly_price and new.name != old.name and account.collected_by != Collector.STRIPE and not is_operating():
        message = _("Your operator changes plans that cost something. Ask them for %(plan)s.") % {"plan": new.title}
        raise errors.Forbidden(message, code="operator_only")


def _plan_name(tenant: Tenant) -> str:
    return Tenant.objects.values_list("plan", flat=True).get(pk=tenant.pk)


# ---------- who collects ----------
def set_collector(tenant: Tenant, *, collected_by: str, at: datetime | None = None) -> None:
    """Say who collects from `at` on, `manual` or `stripe`; the platform alone may.

    When Stripe ends, the months that began before are Stripe's for good: its last invoice holds their units.
    """
    require_operator()
    now = at or timezone.now()
    with as_tenant(tenant.id):
        hold(tenant.id, this_month())
        account = _account(tenant)
        if account.collected_by == collected_by:
            return
        _set(account, collected_by=Collector(collected_by))
        if collected_by == Collector.MANUAL:
            month = month_of(now)
            _set(account, stripe_until=month if now == start_of(month) else month_after(month))


def end_subscription(tenant: Tenant, *, at: datetime) -> None:
    """Stripe collects no more: the free plan holds from `at` if that is the first moment of a month, else from the next 1st.

    The platform alone may.
    """
    require_operator()
    with as_tenant(tenant.id):
        set_collector(tenant, collected_by=Collector.MANUAL, at=at)
        account, month = _account(tenant), month_of(at)
        first = month if at == start_of(month) else month_after(month)
        _put_off(tenant, account, _plan_name(tenant), "free", first)
        _apply_due(tenant, account, timezone.now())
        terms.refresh(tenant)


# ---------- payments ----------
def note_overdue(tenant: Tenant, *, since: datetime, by: str = Collector.STRIPE) -> None:
    """A payment failed. After 7 days of grace calls are refused until it is made; reading goes on. Noting it twice changes nothing.

    `by` is who waits for it.
    """
    require_operator()
    with as_tenant(tenant.id):
        hold(tenant.id, this_month())
        account = _account(tenant)
        before = account.overdue_since
        if getattr(account, OVERDUE[by]) is None:
            _set(account, **{OVERDUE[by]: since})
        if before is None:
            until = terms.cut_off_at(since)
            publish(PaymentOverdue(tenant_id=tenant.id, label=tenant.slug, after={"until": until.isoformat()}))
            _mail_overdue(tenant, until)
        terms.refresh(tenant)


def note_paid(tenant: Tenant, *, by: str = Collector.STRIPE) -> None:
    """Nothing is overdue there any more; when nobody else waits for a payment calls run again at once."""
    require_operator()
    with as_tenant(tenant.id):
        hold(tenant.id, this_month())
        account = _account(tenant)
        before = account.overdue_since
        _set(account, **{OVERDUE[by]: None})
        if before is not None and account.overdue_since is None:
            publish(PaymentMade(tenant_id=tenant.id, label=tenant.slug))
        terms.refresh(tenant)


def get_account(tenant: Tenant) -> Account:
    """How the organisation pays, and what is to come."""
    with as_tenant(tenant.id):
        return account_of(tenant.id)


def _mail_overdue(tenant: Tenant, until: datetime) -> None:
    words = {"tenant": tenant.name, "until": f"{until:%Y-%m-%d %H:%M} UTC"}
    paragraphs = [
        _("A payment of %(tenant)s is overdue. From %(until)s calls and jobs are refused until it is made; everything can still be read.")
        % words,
        _("You can pay on the billing page:"),
        f"{settings.MAAS_URL}/billing",
    ]
    to = members.addresses_of(tenant, Role.OWNER, Role.ADMIN)
    mails.mail_after_commit(tenant.id, subject=_("A payment of %(tenant)s is overdue") % words, paragraphs=paragraphs, to=to)


def _account(tenant: Tenant) -> Account:
    return Account.objects.get_or_create(tenant=tenant)[0]


def _set(account: Account, **fields: object) -> None:
    for name, value in fields.items():
        setattr(account, name, value)
    account.save(update_fields=list(fields))
