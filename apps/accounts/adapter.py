"""How allauth behaves here."""

from allauth.account.adapter import DefaultAccountAdapter
from django.conf import settings
from django.http import HttpRequest


class AccountAdapter(DefaultAccountAdapter):
    def is_open_for_signup(self, request: HttpRequest) -> bool:
        """Operators may close sign-up with MAAS_SIGNUP_OPEN=false."""
        return bool(settings.MAAS_SIGNUP_OPEN)
