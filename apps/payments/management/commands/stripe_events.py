from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from apps.payments import inbox, sending


class Command(BaseCommand):
    help = (
        "Decide about what is held. A meter event of which nobody knows whether Stripe has it: look for its identifier in the "
        "dashboard of Stripe (Billing, Meters), then say --arrived or --send. An event of Stripe's that could not be followed: "
        "say --follow once the reason is mended."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        what = parser.add_mutually_exclusive_group(required=True)
        what.add_argument("--arrived", metavar="IDENTIFIER", help="Stripe has this meter event: it is done")
        what.add_argument("--send", metavar="IDENTIFIER", help="Stripe does not have it: send it")
        what.add_argument("--follow", metavar="EVENT", help="follow this event of Stripe's again")

    def handle(self, *, arrived: str | None, send: str | None, follow: str | None, **options: Any) -> None:
        found = inbox.follow_again(follow) if follow else sending.decide(arrived or send or "", arrived=bool(arrived))
        if not found:
            raise CommandError("There is no such event that is held.")
        self.stdout.write("Done.")
