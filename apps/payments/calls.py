"""Speaking with Stripe: the client, whether there is one, and what its failures mean to us."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any

import requests
import stripe
import structlog
from django.conf import settings
from django.utils.translation import gettext as _
from urllib3.exceptions import NewConnectionError

from maas import errors

log = structlog.get_logger(__name__)
RETRIES = 2  # of the SDK within one call, with the same idempotency key
# Nobody knows whether what was asked for was done: no answer came, or one that says "ours".
UNCERTAIN = (stripe.APIConnectionError, stripe.APIError)


def is_on() -> bool:
    """Whether Stripe collects payments on this installation."""
    return bool(settings.STRIPE_SECRET_KEY)


def require_on() -> None:
    """Raises BadRequest where Stripe is not set up."""
    if not is_on():
        message = _("Payments by card are not set up on this installation: it makes its invoices by hand. Ask its operator.")
        raise errors.BadRequest(message, code="payments_off")


def client() -> stripe.StripeClient:
    """The client of this process. Raises BadRequest where Stripe is not set up."""
    require_on()
    return _client(settings.STRIPE_SECRET_KEY, settings.MAAS_STRIPE_URL, settings.MAAS_STRIPE_TIMEOUT)


@cache
def _client(key: str, url: str, timeout: int) -> stripe.StripeClient:
    stripe.enable_telemetry = False
    address: Any = {"base_addresses": {"api": url, "files": url, "connect": url, "meter_events": url}} if url else {}
    return stripe.StripeClient(key, max_network_retries=RETRIES, http_client=stripe.RequestsClient(timeout=timeout), **address)


def never_sent(error: BaseException) -> bool:
    """Whether a call certainly did not reach Stripe: there was no connection at all."""
    cause = error.__cause__ or error.__context__
    inner = getattr(getattr(cause, "args", [None])[0] if getattr(cause, "args", None) else None, "reason", None)
    return isinstance(cause, requests.ConnectTimeout) or isinstance(inner, NewConnectionError)


def plain(answer: Any) -> dict[str, Any]:
    """An object of Stripe's as dictionaries and lists."""
    return json.loads(json.dumps(answer.to_dict(), default=str))  # type: ignore[no-any-return]


def key_for(what: str, *parts: object, params: Mapping[str, Any]) -> str:
    """The idempotency key of a request: the same request gets the same one. Stripe refuses one that comes back with other parameters."""
    digest = hashlib.sha256(json.dumps(params, sort_keys=True, default=str).encode()).hexdigest()[:16]
    return "-".join(["maas", what, *map(str, parts), digest])


@contextmanager
def speaking() -> Iterator[None]:
    """Turn what Stripe raises into what people can read.

    Raises PaymentRequired for a card that was refused, Unavailable for everything else: there is nothing to mend in the request.
    """
    try:
        yield
    except stripe.CardError as error:
        raise errors.PaymentRequired(error.user_message or _("The card was refused. Try another one."), code="card_refused") from error
    except (*UNCERTAIN, stripe.RateLimitError) as error:
        log.warning("stripe does not answer", error=str(error))
        message = _("Stripe does not answer right now. Try again in a minute: nothing is charged twice.")
        raise errors.Unavailable(message, code="stripe_unavailable", retry_after=60) from error
    except stripe.StripeError as error:
        log.error("stripe refuses a request", error=str(error))
        message = _("Stripe refused what we asked for. The operator of this installation finds the reason in the log.")
        raise errors.Unavailable(message, code="stripe_refused", retry_after=60) from error
