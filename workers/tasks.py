"""What Celery calls. A message only nudges: the database says what is to be done, and by whom.

What runs models is imported where it is called: the worker for everything else stays small.
"""

from typing import Any
from uuid import UUID

from celery.signals import worker_ready, worker_shutting_down

from apps.accounts import impersonation, sessions
from apps.audit import anchors, retention
from apps.billing import alerts, invoices, subscriptions, terms
from apps.files import services as files
from apps.idempotency import services as idempotency
from apps.jobs import holders, slices, sweeping
from apps.payments import inbox, metering, sending
from apps.usage import partitions, reservations
from apps.usage import services as usage
from apps.webhooks import delivering
from apps.webhooks import sweeping as webhooks
from maas.celery import app


@worker_ready.connect
def _begin(sender: Any, **more: Any) -> None:
    """What a worker of the same name held when it was killed is free at once."""
    holders.call_me(sender.hostname)
    slices.release_losses()


@worker_shutting_down.connect
def _end(**more: Any) -> None:
    """SIGTERM: the slice in hand is finished, and no other is begun."""
    holders.leave()


@app.task(name="workers.tasks.validate_batch")
def validate_batch(tenant_id: str, job_id: str) -> None:
    from workers.batch import validation

    validation.validate_batch(UUID(tenant_id), UUID(job_id))


@app.task(name="workers.tasks.run_slices")
def run_slices() -> None:
    from workers.batch import turns

    turns.run_slices()


@app.task(name="workers.tasks.finish_batch")
def finish_batch(tenant_id: str, job_id: str) -> None:
    from workers.batch import assembly

    assembly.finish_batch(UUID(tenant_id), UUID(job_id))


@app.task(name="workers.tasks.sweep")
def sweep() -> None:
    sweeping.sweep_jobs()
    files.sweep_files()
    idempotency.sweep_answers()
    reservations.sweep_reservations()


@app.task(name="workers.tasks.forget_sessions")
def forget_sessions() -> None:
    sessions.forget_expired()


@app.task(name="workers.tasks.end_visits")
def end_visits() -> None:
    impersonation.end_overdue()


@app.task(name="workers.tasks.deliver_webhooks")
def deliver_webhooks() -> None:
    delivering.deliver_due()


@app.task(name="workers.tasks.sweep_webhooks")
def sweep_webhooks() -> None:
    webhooks.sweep_webhooks()


@app.task(name="workers.tasks.roll_up_usage")
def roll_up_usage() -> None:
    usage.roll_up()


@app.task(name="workers.tasks.partition_usage")
def partition_usage() -> None:
    partitions.make_partitions()


@app.task(name="workers.tasks.anchor_audit")
def anchor_audit() -> None:
    anchors.write_anchors()


@app.task(name="workers.tasks.prune_audit")
def prune_audit() -> None:
    retention.prune_entries()


@app.task(name="workers.tasks.tell_usage")
def tell_usage() -> None:
    metering.tell_usage()


@app.task(name="workers.tasks.send_meter_events")
def send_meter_events() -> None:
    sending.send_due()


@app.task(name="workers.tasks.follow_stripe_event")
def follow_stripe_event(event_id: str) -> None:
    inbox.follow(event_id)


@app.task(name="workers.tasks.sweep_payments")
def sweep_payments() -> None:
    inbox.follow_due()
    inbox.forget_old()
    sending.send_due()


@app.task(name="workers.tasks.sweep_alerts")
def sweep_alerts() -> None:
    alerts.sweep_alerts()


@app.task(name="workers.tasks.turn_plans")
def turn_plans() -> None:
    subscriptions.apply_due_plans()


@app.task(name="workers.tasks.refresh_terms")
def refresh_terms() -> None:
    invoices.note_overdue_invoices()
    terms.refresh_all()


@app.task(name="workers.tasks.close_months")
def close_months() -> None:
    subscriptions.apply_due_plans()
    invoices.close_months()
