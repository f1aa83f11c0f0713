"""Plain mail to people: at once, or once what it tells is committed."""

from uuid import UUID

import structlog
from django.core.mail import send_mail
from django.db import transaction

log = structlog.get_logger(__name__)


def mail_after_commit(tenant_id: UUID, *, subject: str, paragraphs: list[str], to: list[str]) -> None:
    """Send a plain text. A mail server that is away is logged and undoes nothing: the audit log holds the fact."""
    transaction.on_commit(lambda: send(tenant_id, subject=subject, paragraphs=paragraphs, to=to))


def send(tenant_id: UUID, *, subject: str, paragraphs: list[str], to: list[str]) -> bool:
    """Send a plain text now; whether the mail server took it. One that is away is logged."""
    try:
        send_mail(subject, "\n\n".join(paragraphs) + "\n", None, to)
    except OSError:  # smtplib's errors are OSErrors
        log.exception("mail not sent", tenant=str(tenant_id), subject=subject)
        return False
    return True
