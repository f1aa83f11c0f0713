"""Organisations and people, as the operator sees them."""

from typing import Any
from uuid import UUID

from django.contrib import admin, messages
from django.db.models import Model, Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from unfold.decorators import display

from apps.accounts import impersonation, operator_deeds, operators, suspension
from apps.accounts.models import ApiKey, Membership, Tenant, User, Visit
from apps.accounts.operator_deeds import Deed, DeedsAdmin, ReasonForm
from apps.accounts.operator_site import OperatorAdmin, OperatorInline, site
from apps.accounts.second_factor import has_second_factor
from maas import errors


class SuspendedFilter(admin.SimpleListFilter):
    title = gettext_lazy("state")
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        return [("works", gettext_lazy("Works")), ("suspended", gettext_lazy("Suspended"))]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Tenant]) -> QuerySet[Tenant]:
        if self.value() not in {"works", "suspended"}:
            return queryset
        return queryset.filter(suspended_at__isnull=self.value() == "works")


class MemberInline(OperatorInline):
    model = Membership
    verbose_name_plural = gettext_lazy("members")
    fields = readonly_fields = ("user", "role", "created_at")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Membership]:
        return super().get_queryset(request).select_related("user").order_by("created_at")


class KeyInline(OperatorInline):
    """Never a hash: what is shown is what the organisation's own list shows."""

    model = ApiKey
    fk_name = "tenant"
    verbose_name_plural = gettext_lazy("API keys")
    fields = readonly_fields = ("name", "secret", "state", "may", "last_used_at", "created_at")

    def get_queryset(self, request: HttpRequest) -> QuerySet[ApiKey]:
        return super().get_queryset(request).defer("hash", "old_hash").order_by("-id")

    @display(description=gettext_lazy("secret"))
    def secret(self, key: ApiKey) -> str:
        return key.prefix

    @display(description=gettext_lazy("state"))
    def state(self, key: ApiKey) -> str:
        return key.status

    @display(description=gettext_lazy("scopes"))
    def may(self, key: ApiKey) -> str:
        return ", ".join(key.scopes)


class VisitInline(OperatorInline):
    model = Visit
    verbose_name_plural = gettext_lazy("operators who looked at it")
    fields = readonly_fields = ("user", "reason", "created_at", "ended_at")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Visit]:
        return super().get_queryset(request).select_related("user").order_by("-id")


@admin.register(Tenant, site=site)
class TenantAdmin(DeedsAdmin):
    """What lies above accounts adds to `inlines` what it knows of an organisation."""

    list_display = ("slug", "name", "plan", "state", "created_at")
    list_filter = (("plan", admin.AllValuesFieldListFilter), SuspendedFilter, "created_at")
    search_fields = ("slug", "name")
    search_help_text = gettext_lazy("Slug, name, or a member's address")
    ordering = ("-created_at",)
    fields = readonly_fields = ("slug", "name", "id", "plan", "asks_for_factor", "created_at", "suspended_at", "suspended_reason")
    inlines = [MemberInline, KeyInline, VisitInline]

    @display(description=gettext_lazy("state"), label={"works": "success", "suspended": "danger"})
    def state(self, tenant: Tenant) -> tuple[str, str]:
        return ("suspended", _("Suspended")) if tenant.suspended_at else ("works", _("Works"))

    @display(description=gettext_lazy("asks for a second factor"), boolean=True)
    def asks_for_factor(self, tenant: Tenant) -> bool:
        return tenant.require_mfa

    def get_search_results(self, request: HttpRequest, queryset: QuerySet[Tenant], search_term: str) -> tuple[QuerySet[Tenant], bool]:
        found, many = super().get_search_results(request, queryset, search_term)
        address = search_term.strip()
        if not address:
            return found, many
        theirs = Membership.objects.filter(user__email__icontains=address).values("tenant_id")
        return queryset.filter(Q(pk__in=found.values("pk")) | Q(pk__in=theirs)), many


@admin.register(User, site=site)
class UserAdmin(OperatorAdmin):
    """Everybody with an account. Whether they are an operator is all that can be changed, by superusers."""

    list_display = ("email", "is_staff", "is_superuser", "is_active", "last_login", "date_joined")
    list_filter = ("is_staff", "is_superuser", "is_active", "date_joined")
    search_fields = ("email",)
    ordering = ("email",)
    fields = ("email", "is_active", "is_staff", "is_superuser", "second_factor", "organisations", "last_login", "date_joined")

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return bool(request.user.is_superuser)  # type: ignore[union-attr]

    def get_readonly_fields(self, request: HttpRequest, obj: Model | None = None) -> tuple[str, ...]:
        return tuple(name for name in self.fields if name != "is_staff" or not self.has_change_permission(request))

    def formfield_for_dbfield(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        found = super().formfield_for_dbfield(db_field, request, **kwargs)
        if found is not None and db_field.name == "is_staff":
            found.label, found.help_text = _("Operator"), _("From the next request on. Their organisations' audit logs tell it.")
        return found

    def save_model(self, request: HttpRequest, obj: User, form: Any, change: bool) -> None:
        """Through the service and nothing else, whatever the form holds."""
        try:
            operators.set_operator(obj, is_operator=form.cleaned_data["is_staff"])
        except errors.MaasError as error:
            messages.error(request, error.message)

    def log_change(self, request: HttpRequest, obj: Model, message: Any) -> None:
        """The audit logs of the person's organisations have it."""

    @display(description=gettext_lazy("second factor"), boolean=True)
    def second_factor(self, user: User) -> bool:
        return has_second_factor(user)

    @display(description=gettext_lazy("organisations"))
    def organisations(self, user: User) -> str:
        rows = Membership.objects.filter(user=user).select_related("tenant").order_by("created_at")
        return ", ".join(f"{row.tenant.slug} ({row.get_role_display()})" for row in rows) or _("none")


# ---------- deeds ----------
def _suspend(_request: HttpRequest, tenant: Tenant, data: dict[str, Any]) -> str:
    suspension.suspend_tenant(tenant, reason=data["reason"])
    return _("%(name)s is suspended. Its owners get a mail.") % {"name": tenant.slug}


def _resume(_request: HttpRequest, tenant: Tenant, _data: dict[str, Any]) -> str:
    suspension.resume_tenant(tenant)
    return _("%(name)s works again. Its owners get a mail.") % {"name": tenant.slug}


def _look(request: HttpRequest, tenant: Tenant, data: dict[str, Any]) -> HttpResponse:
    impersonation.enter(request, tenant, reason=data["reason"])
    return redirect("overview")


def leave(request: HttpRequest) -> HttpResponse:
    """The button of the banner. Whoever looks at nothing lands on the list."""
    tenant_id: UUID | None = request.visit.tenant_id if getattr(request, "visit", None) else None  # type: ignore[attr-defined]
    if request.method == "POST":
        impersonation.leave(request)
    return redirect("operator:accounts_tenant_change", tenant_id) if tenant_id else redirect("operator:index")


operator_deeds.declare(
    Tenant,
    Deed(
        "look", gettext_lazy("Look as a viewer"),
        gettext_lazy(
            "You see the organisation's pages as a viewer does, for an hour at most, and can change nothing. "
            "The reason and your address go into its audit log, which its owners read."
        ),
        gettext_lazy("Look at it"), _look, ReasonForm, fresh=True,
    ),
    Deed(
        "suspend", gettext_lazy("Suspend"),
        gettext_lazy(
            "Every call and every change is refused from now on; jobs that run end as usual, and everything can be read. "
            "The reason is mailed to the owners and shown in the dashboard."
        ),
        gettext_lazy("Suspend it"), _suspend, ReasonForm, fits=lambda tenant: not tenant.suspended_at, danger=True,
    ),
    Deed(
        "resume", gettext_lazy("Resume"), gettext_lazy("Its keys and its dashboard work again with their next request."),
        gettext_lazy("Resume it"), _resume, fits=lambda tenant: bool(tenant.suspended_at),
    ),
)  # fmt: skip
site.add_entry("operator:accounts_tenant_changelist", title=gettext_lazy("Organisations"), icon="apartment")
site.add_entry("operator:accounts_user_changelist", title=gettext_lazy("People"), icon="person")
