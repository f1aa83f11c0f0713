from django.apps import AppConfig


class WebhooksConfig(AppConfig):
    name = "apps.webhooks"
    label = "webhooks"

    def ready(self) -> None:
        from apps.webhooks.outbox import record
        from maas.events import Event, subscribe

        subscribe(Event, record)
