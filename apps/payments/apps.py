from django.apps import AppConfig


class PaymentsConfig(AppConfig):
    name = "apps.payments"
    label = "payments"

    def ready(self) -> None:
        from apps.billing import reconciling
        from apps.payments.checking import told

        reconciling.declare_told(told)
