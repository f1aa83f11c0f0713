"""Money under fire: calls and batches of a paying organisation while everything around them is killed, flushed, lost and repeated.

Used by tests/test_money_faults.py in short and by `python -m bench.money_faults` in full.
"""

import json
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import date
from typing import Any
from uuid import UUID

from django.db import connection
from django.test import override_settings
from django.utils import timezone

from apps.accounts.models import Tenant
from apps.billing import invoices
from apps.files import services as files
from apps.jobs import services as jobs
from apps.jobs.models import Job
from apps.payments import metering, services
from apps.payments.models import MeterEvent, StripeEvent
from apps.usage.periods import month_of
from maas import ids, queue
from maas.tenancy import SystemUse, as_system, as_tenant
from tests.books import audit_books
from tests.cast import Key, make_cast
from tests.fire import UNITS, Outcome, Platform, call_all, end_leases, plans, platform
from tests.stripe_people import SECRET, banking, customer_of, follow_all, send_all, subscribe, tell
from tests.stripe_server import StripeServer
from tests.test_usage import closing
from tests.tiny import NAME, picture

LINES = 120  # of a batch
PATIENCE = 240  # seconds, for what runs when the faults end
PARTS = ("web", "online-1", "online-2", "batch", "light", "beat")
KINDS = {"kill": 40, "flush": 6, "stripe": 20, "webhooks": 16, "meters": 14, "change": 4}  # how often each, in a hundred


@dataclass
class Report:
    """What a run saw. Units: in the ledger, in the month's allowance, at Stripe; cents: by billing, at Stripe, on the invoice."""

    faults: Counter[str] = field(default_factory=Counter)
    calls: Counter[int] = field(default_factory=Counter)
    jobs: int = 0
    ledger: int = 0
    allowance: int = 0
    told: int = 0
    cents: int = 0
    told_cents: int = 0
    invoiced_cents: int = 0
    events: int = 0
    seconds: float = 0.0


class Run:
    """One organisation that subscribes to the plan Team, and what happens to it."""

    def __init__(self, bank: StripeServer, running: Platform, seed: int) -> None:
        cast = make_cast()
        self.bank, self.running, self.dice = bank, running, random.Random(seed)
        self.tenant: Tenant = cast.tenant
        self.key: Key = cast.key
        self.subscription = subscribe(bank, self.tenant)
        self.outcomes: list[Outcome] = []
        self.jobs: list[Job] = []
        self.over = threading.Event()
        self.report = Report()

    # ---------- work ----------
    def call(self) -> None:
        """Calls, a few at a time, until the faults are over."""
        while not self.over.is_set():
            self.outcomes += call_all(self.running.port, self.key.secret, 24, at_once=6)
            time.sleep(0.05)

    def begin_job(self) -> None:
        rows = [
            {"custom_id": f"{n}", "method": "POST", "url": "/v1/predictions", "body": {"model": NAME, "inputs": picture(n)}}
            for n in range(LINES)
        ]
        content = (json.dumps(row).encode() + b"\n" for row in rows)
        file = files.create_file(self.tenant, filename="lines.jsonl", purpose="batch", chunks=content)
        name = ids.encode(ids.FILE, file.id)
        self.jobs.append(jobs.create_batch(self.tenant, input_file_id=name, endpoint="/v1/predictions", completion_window="24h"))

    # ---------- faults ----------
    def harm(self, number: int) -> None:
        """One fault, chosen by the dice; a batch begins with every fortieth."""
        if number % 40 == 0:
            self.begin_job()
        kind = self.dice.choices(list(KINDS), list(KINDS.values()))[0]
        self.report.faults[kind] += 1
        getattr(self, f"_{kind}")()
        time.sleep(self.dice.uniform(0, 0.25))

    def _kill(self) -> None:
        part = self.dice.choice(PARTS)
        self.running.parts[part].kill()
        time.sleep(self.dice.uniform(0, 0.3))
        self.running.parts[part].start()

    def _flush(self) -> None:
        queue.connect().flushall()

    def _stripe(self) -> None:
        """Stripe fails the next few requests, each in a way of its own."""
        ways = ["error", "broken", "lost", "timeout", "busy", "delay"]
        self.bank.faults.queue += self.dice.choices(ways, k=self.dice.randint(1, 4))

    def _webhooks(self) -> None:
        """Something changes at Stripe; what it tells of comes late, out of order and more than once."""
        self.bank.faults.twice, self.bank.faults.shuffle = self.dice.choice([0, 0.2, 0.5]), self.dice.random() < 0.7
        self.bank.state.update_subscription(self.subscription["id"], {"metadata": {"touched": str(self.dice.random())}})
        if self.dice.random() < 0.7:
            self.bank.deliver(f"{self.running.url}/stripe/webhook")

    def _meters(self) -> None:
        """Usage is told from two places at once."""
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda _n: closing(metering.tell_usage)(), range(2)))

    def _change(self) -> None:
        """The plan goes up and down; Stripe may fail on the way."""
        try:
            services.change_plan(self.tenant, self.dice.choice(["team", "scale"]))
        except Exception as error:
            self.report.faults[f"change refused: {type(error).__name__}"] += 1

    # ---------- the end ----------
    def settle(self) -> None:
        """No more faults: everything that runs comes to its end."""
        self.bank.faults.queue.clear()
        self.bank.faults.twice, self.bank.faults.shuffle = 0, False
        self.running.wait_until_ready()
        self.bank.deliver(f"{self.running.url}/stripe/webhook")
        end = time.monotonic() + PATIENCE
        while unfinished := [job for job in self.jobs if not jobs.get_job(self.tenant, job.id).finished_at]:
            assert time.monotonic() < end, [jobs.get_job(self.tenant, job.id).__dict__ for job in unfinished]
            time.sleep(0.5)
        end_leases(self.tenant)

    def check(self) -> Report:
        """AssertionError for a figure that is not the same everywhere."""
        period, report = month_of(timezone.now()), self.report
        follow_all()
        metering.tell_usage()
        send_all()
        report.calls = Counter(each.status for each in self.outcomes)
        report.jobs = len(self.jobs)
        report.ledger, answered = ledger(self.tenant)
        assert {each.prediction for each in self.outcomes if each.status == 200} <= answered
        for job in self.jobs:
            done = jobs.get_job(self.tenant, job.id)
            assert (done.state, done.completed, done.units) == ("succeeded", LINES, LINES * UNITS), done.__dict__
        books = audit_books(self.tenant)
        assert books["reserved"] == 0
        report.allowance = books["used"]
        customer = customer_of(self.tenant)
        report.told, report.told_cents = self.bank.units(customer, period), self.bank.cents(customer, period)
        report.cents = invoices.charge_cents(self.tenant, period)
        assert report.ledger == report.allowance == report.told, report
        assert report.cents == report.told_cents > 0, report
        assert not self.bank.complaints, self.bank.complaints[:3]
        report.events = check_events(self.tenant, self.bank)
        return report

    def invoice(self, period: date) -> None:
        """The month has turned: what Stripe invoices, and what we copy of it."""
        self.bank.turn_month(timezone.now().timestamp())
        tell(self.bank)
        found = [row for row in invoices.list_invoices(self.tenant)[0] if row.period == period and row.collected_by == "stripe"]
        lines = [line for row in found for line in invoices.get_invoice(self.tenant, row.id)[1] if line.kind == "usage"]
        self.report.invoiced_cents = sum(line.amount_cents or 0 for line in lines)
        assert self.report.invoiced_cents == self.report.cents, self.report


def ledger(tenant: Tenant) -> tuple[int, set[str]]:
    """Units in the ledger, and the calls that are charged in it."""
    with as_system(SystemUse.RECONCILE_USAGE), connection.cursor() as cursor:
        cursor.execute("SELECT source, kind, units FROM usage_usagerecord WHERE tenant_id = %s", [tenant.id])
        rows = cursor.fetchall()
    return sum(units for _source, _kind, units in rows), {source for source, kind, _units in rows if kind == "prediction"}


def check_events(tenant: Tenant, bank: StripeServer) -> int:
    """Each event of Stripe is here once and done, each of our meter events is there once; how many of both."""
    with as_system(SystemUse.COLLECT_PAYMENTS):
        waiting = list(StripeEvent.objects.filter(processed_at=None, pk__in=list(bank.events)).values_list("id", "error"))
        here = StripeEvent.objects.filter(pk__in=list(bank.events)).count()
    assert not waiting and here == len(bank.events), (waiting, here, len(bank.events))
    with as_tenant(tenant.id):
        sent = list(MeterEvent.objects.filter(tenant=tenant).values_list("identifier", flat=True))
    there = Counter(event["identifier"] for event in bank.state.meter_events)
    assert there == Counter(sent)
    return here + len(sent)


def run(*, faults: int, seed: int, after: Callable[[Run, date], Any] = lambda _run, _period: None) -> Report:
    """Do the faults one after the other while calls and batches run, then compare everything; `after` once nothing runs any more."""
    begun = time.monotonic()
    with override_settings(MAAS_PLANS=plans()), banking(override_settings, seed=seed) as bank:
        settings = {
            "STRIPE_SECRET_KEY": f"sk_test_{bank.state.account}", "STRIPE_WEBHOOK_SECRET": SECRET, "MAAS_STRIPE_URL": bank.url,
            "MAAS_STRIPE_TIMEOUT": "1",
        }  # fmt: skip
        period = month_of(timezone.now())
        with platform("batch", "light", "beat", **settings) as running:
            mine = Run(bank, running, seed)
            with ThreadPoolExecutor(2) as pool:
                callers = [pool.submit(mine.call) for _ in range(2)]
                for number in range(faults):
                    mine.harm(number)
                mine.over.set()
                [each.result() for each in callers]
            mine.settle()
        report = mine.check()
        after(mine, period)
    report.seconds = time.monotonic() - begun
    return report


def find(tenant_id: UUID, differences: list[Any]) -> list[str]:
    """The differences that are about a tenant."""
    return [str(each) for each in differences if str(tenant_id) in str(each) or tenant_id.hex in str(each)]
