"""Make the demo organisation and write its credentials to a file that only the owner can read."""

import os
import secrets
from pathlib import Path
from typing import Any

from allauth.account.models import EmailAddress
from django.core.management.base import BaseCommand, CommandParser
from django.db import transaction

from apps.accounts import keys, services
from apps.accounts.models import User
from apps.accounts.restrictions import SCOPES

EMAIL = "demo@maas.localhost"


class Command(BaseCommand):
    help = "Make a demo organisation with an unlimited plan; write MAAS_URL, MAAS_API_KEY, MAAS_EMAIL and MAAS_PASSWORD to a file."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--env-file", type=Path, required=True)
        parser.add_argument("--url", required=True)

    def handle(self, *args: Any, **options: Any) -> None:
        path: Path = options["env_file"]
        found = _read(path)
        if "MAAS_API_KEY" not in found:
            found = _make()
        _write(path, {**found, "MAAS_URL": options["url"]})


@transaction.atomic
def _make() -> dict[str, str]:
    """A new password and key each time that the file was lost: neither can be read back."""
    password = secrets.token_urlsafe(12)
    user = User.objects.filter(email=EMAIL).first() or User.objects.create_user(EMAIL)
    user.set_password(password)
    user.save()
    EmailAddress.objects.update_or_create(user=user, email=EMAIL, defaults={"verified": True, "primary": True})  # gets no mail
    member = services.get_membership(user, None)
    tenant = member.tenant if member else services.create_tenant(user, name="demo", slug="demo", plan="unlimited")
    _, secret = keys.create_key(tenant, name="demo", scopes=list(SCOPES), created_by=user)
    return {"MAAS_API_KEY": secret, "MAAS_EMAIL": EMAIL, "MAAS_PASSWORD": password}


def _read(path: Path) -> dict[str, str]:
    if not path.exists():
        return {}
    return dict(line.split("=", 1) for line in path.read_text().splitlines() if "=" in line)


def _write(path: Path, values: dict[str, str]) -> None:
    """Whole or not at all, and readable by its owner alone from the first byte on."""
    new = path.with_suffix(".new")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.writelines(f"{name}={values[name]}\n" for name in ("MAAS_URL", "MAAS_API_KEY", "MAAS_EMAIL", "MAAS_PASSWORD"))
    new.replace(path)
