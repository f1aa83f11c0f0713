from django.apps import AppConfig


class BillingConfig(AppConfig):
    name = "apps.billing"
    label = "billing"

    def ready(self) -> None:
        from apps.accounts import members
        from apps.audit import retention
        from apps.billing import plans
        from apps.files import room

        # Read now, so that a mistake in MAAS_PLANS stops the start and not the first call.
        every = plans.every_plan().values()
        retention.declare({plan.name: plan.retention_days for plan in every})
        members.declare_seats({plan.name: plan.members for plan in every})
        room.declare_storage({plan.name: plan.storage_gigabytes for plan in every})
