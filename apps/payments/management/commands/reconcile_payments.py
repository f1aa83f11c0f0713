from typing import Any

import stripe
from django.core.management.base import BaseCommand, CommandError, CommandParser

from apps.payments import calls, checking


class Command(BaseCommand):
    help = (
        "Name what Stripe was not told, was told and did not invoice, or told us and we could not follow. Exits with 1 when there is any."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--ask-stripe", action="store_true", help="compare the meters at Stripe too")

    def handle(self, *, ask_stripe: bool, **options: Any) -> None:
        if ask_stripe and not calls.is_on():
            raise CommandError("Set STRIPE_SECRET_KEY first.")
        count = 0
        try:
            for found in checking.differences(ask_stripe=ask_stripe):
                self.stdout.write(str(found))
                count += 1
        except stripe.StripeError as error:
            raise CommandError(f"Stripe does not answer: {error}") from error
        if count:
            raise CommandError(f"{count} differences.")
        self.stdout.write("Nothing differs.")
