from typing import Any

import stripe
from django.core.management.base import BaseCommand, CommandError

from apps.payments import calls, catalogue


class Command(BaseCommand):
    help = (
        "Make the meters, products, prices and the portal configuration at Stripe that are missing. Running it again makes nothing twice."
    )

    def handle(self, **options: Any) -> None:
        if not calls.is_on():
            raise CommandError("Set STRIPE_SECRET_KEY first.")
        try:
            for line in catalogue.set_up():
                self.stdout.write(line)
        except (stripe.StripeError, ValueError) as error:
            raise CommandError(f"Not finished: {error} Run it again once that is mended.") from error
