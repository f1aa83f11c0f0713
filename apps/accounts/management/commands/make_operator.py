"""Make somebody an operator of the platform."""

from typing import Any

from allauth.account.forms import default_token_generator
from allauth.account.models import EmailAddress
from allauth.account.utils import user_pk_to_url_str
from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.core.validators import validate_email
from django.db import transaction
from django.urls import reverse

from apps.accounts import operators
from apps.accounts.models import User


class Command(BaseCommand):
    help = "Let somebody use the operator's admin at /operator/. Who has no account gets one, and a link to choose a password."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("email")
        parser.add_argument("--superuser", action="store_true", help="may also say who else is an operator")

    @transaction.atomic
    def handle(self, *args: Any, email: str, superuser: bool, **options: Any) -> None:
        email = _checked(email)
        user = User.objects.filter(email=email).first()
        if user is None:
            user = User.objects.create_user(email)
            EmailAddress.objects.create(user=user, email=email, verified=True, primary=True)  # who runs this vouches for it
            self.stdout.write(f"Choose a password: {_link(user)}")
        operators.set_operator(user, is_operator=True)
        if superuser:
            User.objects.filter(pk=user.pk).update(is_superuser=True)
        kind = "a superuser and operator" if superuser else "an operator"
        self.stdout.write(f"{email} is {kind}. Sign in at {settings.MAAS_URL}/operator/; a second factor is asked for.")


def _checked(email: str) -> str:
    try:
        validate_email(email)
    except ValidationError:
        raise CommandError(f"{email!r} is no e-mail address.") from None
    return email.lower()


def _link(user: User) -> str:
    """allauth's link of a password reset, which works once and for PASSWORD_RESET_TIMEOUT."""
    whose, token = user_pk_to_url_str(user), default_token_generator.make_token(user)
    return settings.MAAS_URL + reverse("account_reset_password_from_key", kwargs={"uidb36": whose, "key": token})
