"""Compare the roll-ups of usage with the ledger."""

import sys
from typing import Any

from django.core.management.base import BaseCommand

from apps.usage.reconciling import differences


class Command(BaseCommand):
    help = "Prove that the roll-ups by hour and day equal the ledger, or name every difference. Exit status 1 when there is one."

    def handle(self, *args: Any, **options: Any) -> None:
        found = 0
        for difference in differences():
            found += 1
            self.stdout.write(str(difference))
        if found:
            self.stdout.write(f"{found} differences.")
            sys.exit(1)
        self.stdout.write("The roll-ups equal the ledger.")
