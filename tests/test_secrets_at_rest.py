"""Stored secrets are sealed under keys that can be changed, and nothing that is said shows them."""

import io
import logging
from datetime import timedelta

import pytest
import structlog
from django.core.management import call_command
from django.db import connection

from apps.accounts import secrets
from apps.idempotency import services as idempotency
from apps.idempotency.models import StoredAnswer
from maas import logs, sealing
from maas.tenancy import as_tenant


def stored(cast) -> str:
    with as_tenant(cast.tenant.id), connection.cursor() as cursor:
        cursor.execute("SELECT body FROM idempotency_storedanswer WHERE key = 'kept'")
        return cursor.fetchone()[0]


def keep(cast, text: str) -> None:
    claim = idempotency.claim(cast.tenant.id, "kept", fingerprint=b"1" * 32, lease=timedelta(minutes=1))
    idempotency.store(claim, status=200, data=text)


def test_a_sealed_text_opens_with_any_of_the_keys_and_with_no_other(settings_of) -> None:
    with settings_of(MAAS_SEALING_KEYS=["old"]):
        sealed = sealing.seal("hush")
        assert "hush" not in sealed and sealing.seal("hush") != sealed
    with settings_of(MAAS_SEALING_KEYS=["new", "old"]):
        assert sealing.unseal(sealed) == "hush"
        fresh = sealing.reseal(sealed)
    with settings_of(MAAS_SEALING_KEYS=["new"]):
        assert sealing.unseal(fresh) == "hush"
        with pytest.raises(RuntimeError, match="MAAS_SEALING_KEYS") as caught:
            sealing.unseal(sealed)
    assert sealed not in str(caught.value)


def test_a_changed_text_does_not_open() -> None:
    sealed = sealing.seal("hush")
    with pytest.raises(RuntimeError):
        sealing.unseal(sealed[:-3] + ("AAA" if sealed[-3:] != "AAA" else "BBB"))


def test_the_command_moves_every_stored_secret_to_the_first_key(cast, settings_of) -> None:
    from django.conf import settings

    before = list(settings.MAAS_SEALING_KEYS)
    keep(cast, "hush")
    with settings_of(MAAS_SEALING_KEYS=["next", *before]):
        out = io.StringIO()
        call_command("reseal", stdout=out)
        assert "idempotency.StoredAnswer.body" in out.getvalue()
    with settings_of(MAAS_SEALING_KEYS=["next"]):
        assert sealing.unseal(stored(cast)) == '"hush"'
    with settings_of(MAAS_SEALING_KEYS=[*before, "next"]):
        call_command("reseal", stdout=io.StringIO())
    assert sealing.unseal(stored(cast)) == '"hush"'


def test_a_secret_does_not_show_itself(cast) -> None:
    keep(cast, "hush")
    with as_tenant(cast.tenant.id):
        row = StoredAnswer.objects.get(key="kept")
    shown = f"{row.body} {row.body!r} {row.__dict__} {[row.body]}"
    assert "hush" not in shown and sealing.reveal(row.body) == '"hush"'


def said(json: bool, say) -> str:
    """What the log's handler writes for something that is said."""
    stream, root = io.StringIO(), logging.getLogger()
    before = list(root.handlers)
    try:
        logs.configure(json=json, level="INFO")
        root.handlers[0].setStream(stream)  # type: ignore[attr-defined]
        say()
    finally:
        root.handlers[:] = before
    return stream.getvalue()


@pytest.mark.parametrize("json", [False, True])
def test_logs_and_tracebacks_hide_secrets(json) -> None:
    secret, hook = secrets.make_secret(), "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

    def say() -> None:
        structlog.get_logger("x").warning("refused", header=f"Bearer {secret}", hook=hook)
        logging.getLogger("django.request").warning("Bad Request: %s", "/invitations/" + "s" * 43)
        try:
            raise ValueError(f"no such key: {secret} at postgresql://maas:pass123word@db/maas")
        except ValueError:
            logging.getLogger("x").exception("failed")

    text = said(json, say)
    assert "failed" in text and "ValueError" in text
    for hidden in (secret, hook, "s" * 43, "pass123word"):
        assert hidden not in text
