"""Mail that goes out once what it tells is committed."""

from uuid import UUID

import structlog
from django.core.mail import send_mail
from django.db import transaction

log = structlog.get_logger(__name__)


def mail_after_commit(tenant_id: UUID, *, subject: str, paragraphs: list[str], to: list[str]) -> None:
    """Send a plain text. A mail server that is away is logged and undoes nothing: the audit log holds the fact."""
    body = "\n\n".join(paragraphs) + "\n"
    transaction.on_commit(lambda: _send(tenant_id, subject, body, to))


def _send(tenant_id: UUID, subject: str, body: str, to: list[str]) -> None:
    try:
        send_mail(subject, body, None, to)
    except OSError:  # smtplib's errors are OSErrors
        log.exception("mail not sent", tenant=str(tenant_id), subject=subject)
