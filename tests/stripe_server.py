"""A stand-in for Stripe: a web server that keeps state, checks every request against the SDK's types, fails on demand.

`complaints` holds every request that the real one would not have understood; a test that ends with any has failed.
"""

import json
import os
import random
import re
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import stripe

from tests.stripe_faults import Faults
from tests.stripe_routes import find_route
from tests.stripe_state import Refusal, State, Things, first_before, first_of, month_of
from tests.stripe_types import checked, decode

DATA = Path(os.environ.get("MAAS_TEST_DATA", Path(__file__).resolve().parent.parent.parent / "shared" / "data"))
EXAMPLES = DATA / "stripe" / "fixtures3.json.gz"
Target = str | Callable[[str, str], int]


class StripeServer:
    """`StripeServer(secret, seed=1)` serves at `.url` until `.stop()`; what its account did is told by `.deliver(to)`."""

    def __init__(self, secret: str, *, seed: int = 0, port: int = 0, examples: Path = EXAMPLES) -> None:
        self.secret = secret
        self.faults = Faults(random.Random(seed))
        self.complaints: list[str] = []
        self.requests: list[tuple[str, str, Things, dict[str, str]]] = []
        self.answers: dict[str, tuple[str, int, Things]] = {}  # by idempotency key
        self.events: dict[str, Things] = {}
        self.pending: list[str] = []  # events that nobody has taken yet
        self.lock = threading.RLock()
        self.state = State(examples, self._emit)
        self._server = ThreadingHTTPServer(("127.0.0.1", port), _answering(self))
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=[0.05], daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    # ---------- requests ----------
    def take(self, method: str, path: str, text: str, headers: dict[str, str]) -> tuple[int, Things]:
        """Do what a request says, once for each idempotency key; the status and the answer."""
        with self.lock:
            key = headers.get("idempotency-key", "")
            known = self.answers.get(key) if key else None
            if known:
                same = known[0] == f"{method} {path} {text}"
                return (
                    known[1:]
                    if same
                    else _error(400, "Keys for idempotent requests can only be used with the same parameters.", "idempotency_error")
                )
            status, answer = self._do(method, path, text, headers)
            if key and status == 200:
                self.answers[key] = (f"{method} {path} {text}", status, json.loads(json.dumps(answer)))
            return status, answer

    def fail(self, method: str, path: str, text: str, headers: dict[str, str]) -> tuple[int, Things]:
        """A 500, which is kept with its key as Stripe does, whether anything was done or not."""
        answer = _error(500, "Something went wrong on our end.", "api_error")
        with self.lock:
            if headers.get("idempotency-key"):
                self.answers[headers["idempotency-key"]] = (f"{method} {path} {text}", *answer)
        return answer

    def _do(self, method: str, path: str, text: str, headers: dict[str, str]) -> tuple[int, Things]:
        try:
            route, ids = find_route(method, path)
            sent = checked(route.parameters, decode(text))
        except ValueError as error:
            self.complaints.append(f"{method} {path}: {error}")
            return _error(400, str(error), "invalid_request_error")
        self.requests.append((method, path, sent, headers))
        try:
            return 200, route.act(self.state, sent, *ids)
        except Refusal as refusal:
            return refusal.status, refusal.body

    # ---------- what people and time do at Stripe ----------
    def pay(self, session: str, *, fail: bool = False) -> Things:
        """Somebody enters a card in a checkout (its id or address): a subscription, its first invoice, and the events of both."""
        with self.lock:
            state, found = self.state, self._session(session)
            subscription = state.make_subscription(found, status="incomplete" if fail else "active")
            self._emit("customer.subscription.created", subscription)
            start, end = state.period(subscription)
            item = state.item(subscription, "licensed")
            fee = round(item["price"]["unit_amount"] * (end - start) / (end - first_before(end)))
            lines = [state.line(fee, "Rest of the month", item=item["id"], price=item["price"], period=(start, end))]
            invoice = state.make_invoice(subscription, lines, "subscription_create", (start, start))
            if fail:
                invoice.update(status="open", attempted=True)
                self._emit("invoice.payment_failed", invoice)
                return subscription
            state.finalise(invoice)
            found.update(status="complete", payment_status="paid", subscription=subscription["id"], invoice=invoice["id"])
            self._emit("checkout.session.completed", found)
            return subscription

    def turn_month(self, now: float, *, finalise: bool = True) -> list[Things]:
        """End the periods that are over at `now`: draft invoices, which are then finalised; otherwise `finalise_drafts` does."""
        with self.lock:
            over = [one for one in self.state.living() if one["status"] != "incomplete" and self.state.period(one)[1] <= now]
            made = [self._renew(subscription) for subscription in over]
            if finalise:
                self.finalise_drafts()
            return made

    def _renew(self, subscription: Things) -> Things:
        state, (start, end) = self.state, self.state.period(subscription)
        lines = state.owed_prorations.pop(subscription["id"], [])
        is_last = subscription["cancel_at_period_end"]
        if not is_last:
            item, following = state.item(subscription, "licensed"), (end, first_of(end))
            lines.append(state.line(item["price"]["unit_amount"], "The next month", item=item["id"], price=item["price"], period=following))
            for one in subscription["items"]["data"]:
                one.update(current_period_start=end, current_period_end=first_of(end))
        invoice = state.make_invoice(subscription, lines, "subscription_cycle", (start, end))
        state.end(subscription, end) if is_last else self._emit("customer.subscription.updated", subscription)
        return invoice

    def finalise_drafts(self) -> None:
        """An hour later: the meters are read and the cards charged."""
        with self.lock:
            for invoice in self.state.all("invoice"):
                if invoice["status"] == "draft":
                    self.state.finalise(invoice)

    def pay_invoice(self, invoice: str) -> None:
        """Another card works."""
        with self.lock:
            found = self.state.get(invoice, "invoice")
            self.state.declining.discard(found["customer"])
            self.state.charge(found)

    def cancel(self, subscription: str, *, at_period_end: bool = True) -> None:
        """In the portal, or by the operator."""
        with self.lock:
            found = self.state.get(subscription, "subscription")
            if at_period_end:
                self.state.update_subscription(subscription, {"cancel_at_period_end": True})
            else:
                self.state.end(found)

    def units(self, customer: str, period: Any) -> int:
        """The sum of `maas_units` in a month (its first day)."""
        return self._sum(customer, "maas_units", period)

    def cents(self, customer: str, period: Any) -> int:
        """The sum of `maas_charges` in a month (its first day)."""
        return self._sum(customer, "maas_charges", period)

    def _sum(self, customer: str, meter: str, period: Any) -> int:
        with self.lock:
            mine = [one for one in self.state.meter_events if month_of(one["timestamp"]) == f"{period:%Y-%m}"]
            return sum(
                int(one["payload"]["value"]) for one in mine
                if one["event_name"] == meter and one["payload"]["stripe_customer_id"] == customer
            )  # fmt: skip

    def _session(self, session: str) -> Things:
        named = re.search(r"cs_test\w+", session)
        found = self.state.get(named[0] if named else session, "checkout.session")
        if found["status"] != "open":
            raise Refusal("This checkout is over.")
        return found

    # ---------- webhooks ----------
    def _emit(self, type: str, about: Things) -> None:
        """Note an event with the object as it is now."""
        with self.lock:
            shape = {**self.state.examples["event"], "created": int(time.time()), "type": type, "api_version": stripe.api_version}
            event = {**shape, "id": f"evt_test{self.state.account}{len(self.events) + 1:06d}", "data": {"object": about}}
            self.events[event["id"]] = json.loads(json.dumps(event))
            self.pending.append(event["id"])

    def deliver(self, to: Target) -> int:
        """Send what is pending, signed, to an address or a function of body and signature; how many were taken.

        What is not answered by 2xx stays pending. `faults` says how much of it comes twice or out of order.
        """
        with self.lock:
            waiting = list(self.pending)
            waiting += [event for event in self.events if self.faults.rng.random() < self.faults.twice]
            if self.faults.shuffle:
                self.faults.rng.shuffle(waiting)
        return sum(self.deliver_one(event, to) for event in waiting)

    def deliver_one(self, event: str, to: Target) -> bool:
        """Send one event, whether it was sent before or not."""
        body = json.dumps(self.events[event])
        status = _post(to, body, self.sign(body))
        with self.lock:
            if 200 <= status < 300 and event in self.pending:
                self.pending.remove(event)
        return 200 <= status < 300

    def sign(self, body: str, *, at: float | None = None) -> str:
        """The header with which Stripe signs a body."""
        return stripe.WebhookSignature.generate_signature_header(body, self.secret, int(at if at is not None else time.time()))


def _post(to: Target, body: str, signature: str) -> int:
    if callable(to):
        return to(body, signature)
    headers = {"Stripe-Signature": signature, "Content-Type": "application/json"}
    request = urllib.request.Request(to, body.encode(), headers)
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


def _error(status: int, message: str, kind: str) -> tuple[int, Things]:
    return status, {"error": {"message": message, "type": kind}}


def _answering(server: StripeServer) -> type[BaseHTTPRequestHandler]:
    class Answering(BaseHTTPRequestHandler):
        def _serve(self) -> None:
            method, (path, _, query) = self.command, self.path.partition("?")
            text = query if method in ("GET", "DELETE") else self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
            headers = {name.lower(): value for name, value in self.headers.items()}
            fault = server.faults.next(method, path)
            if fault in ("timeout", "delay"):
                time.sleep(server.faults.hang if fault == "timeout" else server.faults.rng.random() * server.faults.slow)
            if fault == "timeout":
                return None
            if fault == "busy":
                return self._answer(*_error(429, "Too many requests.", "rate_limit_error"))
            asked = (method, path, text, headers)
            answer = server.take(*asked) if fault != "error" else server.fail(*asked)
            if fault == "broken":
                answer = server.fail(*asked)
            return None if fault == "lost" else self._answer(*answer)

        do_GET = do_POST = do_DELETE = _serve

        def _answer(self, status: int, answer: Things) -> None:
            body = json.dumps(answer).encode()
            self.send_response(status)
            for name, value in {"Content-Type": "application/json", "Content-Length": str(len(body)), "Request-Id": "req_test"}.items():
                self.send_header(name, value)
            self.end_headers()
            with suppress(OSError):  # a caller that has given up
                self.wfile.write(body)

        def log_message(self, *_arguments: Any) -> None:
            return

    return Answering


@contextmanager
def stripe_server(secret: str, *, seed: int = 0) -> Iterator[StripeServer]:
    """A stand-in for a block; fails at the end when it was asked for what Stripe does not know."""
    server = StripeServer(secret, seed=seed)
    try:
        yield server
    finally:
        server.stop()
    assert server.complaints == []
