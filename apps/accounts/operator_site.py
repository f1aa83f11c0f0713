"""The operator's admin: who gets in, and the one place where its queries are allowed to see all tenants.

Only `operator_urls` imports this, with the URLconf, so processes that answer no requests never load the admin.
"""

from collections.abc import Callable
from functools import update_wrapper
from typing import Any

from allauth.account.adapter import get_adapter
from csp.constants import UNSAFE_EVAL, UNSAFE_INLINE
from django.contrib import messages
from django.contrib.auth.views import redirect_to_login
from django.core.exceptions import PermissionDenied
from django.db.models import Model
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import redirect
from django.template.response import SimpleTemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from unfold.admin import ModelAdmin, TabularInline
from unfold.sites import UnfoldAdminSite

from apps.accounts.operators import is_operator, operator_actor, proved_second_factor, where_to_prove
from maas.actors import acting
from maas.tenancy import SystemUse, as_system

View = Callable[..., HttpResponse]
# Alpine, which draws the admin's menus, makes functions of attributes, and its colours are an inline style sheet.
POLICY = {"script-src": [UNSAFE_EVAL], "style-src": [UNSAFE_INLINE]}
# Django's pages for what this site does elsewhere or not at all.
LEFT_OUT = {"password_change", "password_change_done", "autocomplete", "view_on_site"}


class OperatorSite(UnfoldAdminSite):
    """All tenants, for operators who gave a second factor in this session. Nobody signs in here but through our own page."""

    site_title = site_header = gettext_lazy("maas operator")
    final_catch_all_view = False

    def __init__(self, name: str = "operator") -> None:
        super().__init__(name)
        self.pages: list[URLPattern] = []
        self.menu: list[dict[str, Any]] = []

    def add_page(self, address: str, view: View, *, name: str, title: Any, icon: str) -> None:
        """A page beside the models, with an entry in the menu."""
        self.pages.append(path(address, self.admin_view(view), name=name))
        self.add_entry(f"{self.name}:{name}", title=title, icon=icon)

    def add_entry(self, name: str, *, title: Any, icon: str) -> None:
        """A line of the menu that leads to the address with this name."""
        self.menu.append({"title": title, "icon": icon, "name": name})

    def get_urls(self) -> list[URLPattern]:
        found = [pattern for pattern in super().get_urls() if getattr(pattern, "name", None) not in LEFT_OUT]
        return [*self.pages, *found]

    def has_permission(self, request: HttpRequest) -> bool:
        return is_operator(request.user) and proved_second_factor(request)

    def admin_view(self, view: Any, cacheable: bool = False) -> Any:
        """Every page of the site goes through here: turn away, see all tenants, draw before that ends, loosen the policy."""
        inner = super().admin_view(view, cacheable)

        def run(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
            return turn_away(request) or _operate(inner, request, *args, **kwargs)

        return update_wrapper(run, view)

    def login(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        """Our own page signs in, with its lock-out and its entries in the audit log."""
        return redirect_to_login(request.GET.get("next") or reverse("operator:index"))

    def logout(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        if request.method == "POST":
            get_adapter(request).logout(request)
        return redirect("account_login")

    def index(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        return redirect("operator:accounts_tenant_changelist")


def turn_away(request: HttpRequest) -> HttpResponse | None:
    """Where somebody goes who may not be here (yet); None for an operator who proved it. Raises PermissionDenied for all others."""
    user: Any = request.user
    if not user.is_authenticated:
        return redirect_to_login(request.get_full_path())
    if not user.is_staff:
        raise PermissionDenied
    if not is_operator(user):
        messages.warning(request, _("Operators need a second factor. Add one to go on."))
        return HttpResponseRedirect(f"{reverse('account')}#second-factors")
    if not proved_second_factor(request):
        after = request.get_full_path() if request.method == "GET" else reverse("operator:index")
        return HttpResponseRedirect(where_to_prove(user, after))
    return None


def _operate(view: View, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
    """The answer of a page, drawn while all tenants can be seen: what is drawn later would find no rows."""
    with acting(operator_actor(request.user)), as_system(SystemUse.OPERATE):  # type: ignore[arg-type]
        response = view(request, *args, **kwargs)
        if isinstance(response, SimpleTemplateResponse) and not response.is_rendered:
            response.render()
    response._csp_update = POLICY  # type: ignore[attr-defined]
    return response


def navigation(request: HttpRequest) -> list[dict[str, Any]]:
    """The menu: pages in the order in which they were added."""
    return [{"items": [{"title": one["title"], "icon": one["icon"], "link": reverse(one["name"])} for one in site.menu]}]


class ReadOnly:
    """What an operator sees and cannot change here: changes are deeds, and deeds are services."""

    def has_module_permission(self, request: HttpRequest) -> bool:
        return True

    def has_view_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return True

    def has_add_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False


class OperatorAdmin(ReadOnly, ModelAdmin):
    """A list of rows of all tenants and a page for each. It has no delete action, and no history of its own: audit logs have it."""

    actions = None
    list_per_page = 50
    list_filter_sheet = False
    show_full_result_count = False


class OperatorInline(ReadOnly, TabularInline):
    """Rows below an organisation."""

    extra = 0
    per_page = 20
    hide_title = True
    can_delete = False
    show_change_link = False


site = OperatorSite()
