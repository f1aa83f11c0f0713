"""Celery: queues and the beat table. A message is a nudge that carries ids; the database row owns the work."""

import os

from celery import Celery
from kombu import Queue

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "maas.settings")

from django.conf import settings  # needs the line above

app = Celery("maas", broker=settings.REDIS_URL, include=["workers.tasks"])
app.conf.update(
    task_queues=[Queue("default"), Queue("webhooks"), Queue("batch"), Queue("train")],
    task_default_queue="default",
    task_ignore_result=True,
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    worker_prefetch_multiplier=1,
    worker_send_task_events=False,
    worker_hijack_root_logger=False,
    broker_connection_retry_on_startup=True,
    # A message whose worker died comes back after this many seconds; the sweep has long nudged the row by then.
    broker_transport_options={"visibility_timeout": 3600, "socket_timeout": 15, "retry_on_timeout": True},
    redis_backend_health_check_interval=10,
    timezone="UTC",
    beat_schedule={
        "sweep": {"task": "workers.tasks.sweep", "schedule": 5.0, "options": {"queue": "default", "expires": 5}},
        "sweep-webhooks": {"task": "workers.tasks.sweep_webhooks", "schedule": 5.0, "options": {"queue": "default", "expires": 5}},
        "roll-up-usage": {"task": "workers.tasks.roll_up_usage", "schedule": 15.0, "options": {"queue": "default", "expires": 15}},
        "partition-usage": {"task": "workers.tasks.partition_usage", "schedule": 86400.0, "options": {"queue": "default"}},
        "sweep-storage": {"task": "workers.tasks.sweep_storage", "schedule": 86400.0, "options": {"queue": "default", "expires": 86400}},
        "forget-sessions": {"task": "workers.tasks.forget_sessions", "schedule": 86400.0, "options": {"queue": "default"}},
        "end-visits": {"task": "workers.tasks.end_visits", "schedule": 300.0, "options": {"queue": "default", "expires": 300}},
        "anchor-audit": {"task": "workers.tasks.anchor_audit", "schedule": 3600.0, "options": {"queue": "default", "expires": 3600}},
        "tell-usage": {"task": "workers.tasks.tell_usage", "schedule": 300.0, "options": {"queue": "default", "expires": 300}},
        "sweep-payments": {"task": "workers.tasks.sweep_payments", "schedule": 10.0, "options": {"queue": "default", "expires": 10}},
        "sweep-alerts": {"task": "workers.tasks.sweep_alerts", "schedule": 10.0, "options": {"queue": "default", "expires": 10}},
        "turn-plans": {"task": "workers.tasks.turn_plans", "schedule": 60.0, "options": {"queue": "default", "expires": 60}},
        "refresh-terms": {"task": "workers.tasks.refresh_terms", "schedule": 3600.0, "options": {"queue": "default", "expires": 3600}},
        "close-months": {"task": "workers.tasks.close_months", "schedule": 600.0, "options": {"queue": "default", "expires": 600}},
        "prune-audit": {"task": "workers.tasks.prune_audit", "schedule": 86400.0, "options": {"queue": "default", "expires": 86400}},
    },
)
