"""Operators as tests need them: signed in by our own page, with a second factor given in that session."""

from dataclasses import dataclass

from django.test import Client

from apps.accounts.models import Tenant, User
from apps.audit.services import list_entries
from maas.actors import SYSTEM, acting
from tests.cast import make_user
from tests.signing import add_app, signed_in


@dataclass(frozen=True)
class Operator:
    """`codes` are recovery codes: each proves a second factor once."""

    user: User
    browser: Client
    codes: list[str]

    def prove(self) -> None:
        answer = self.browser.post("/accounts/2fa/reauthenticate/", {"code": self.codes.pop(), "next": "/operator/"})
        assert answer.status_code == 302, answer.content

    def do(self, tenant: Tenant, deed: str, **fields: str):
        """A deed as its form posts it."""
        return self.browser.post(f"/operator/deeds/tenant/{tenant.id}/{deed}", fields)

    def look(self, tenant: Tenant, reason: str = "ticket 7"):
        return self.do(tenant, "look", reason=reason)


def make_operator(*, superuser: bool = False) -> Operator:
    """A new person who may operate, and has just proved a second factor."""
    user = make_user("operator")
    User.objects.filter(pk=user.pk).update(is_staff=True, is_superuser=superuser)
    browser = signed_in(user.email)
    _secret, codes = add_app(user, browser)
    made = Operator(User.objects.get(pk=user.pk), browser, codes)
    made.prove()
    return made


def told(tenant: Tenant, action: str) -> list:
    """The entries of the organisation's log with this action, oldest first."""
    import json

    with acting(SYSTEM):
        entries, _more = list_entries(tenant, limit=100, order="asc")
    return [said for entry in entries if (said := json.loads(entry.body))["action"] == action]
