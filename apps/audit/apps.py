from django.apps import AppConfig


class AuditConfig(AppConfig):
    name = "apps.audit"
    label = "audit"

    def ready(self) -> None:
        from apps.audit.recording import record
        from maas.events import Event, subscribe

        subscribe(Event, record)
