from django.apps import AppConfig


class AccountsConfig(AppConfig):
    name = "apps.accounts"
    label = "accounts"

    def ready(self) -> None:
        from apps.accounts import (
            impersonation,
            schema,  # noqa: F401  # registers itself
            security_events,
        )

        security_events.listen()
        impersonation.listen()
