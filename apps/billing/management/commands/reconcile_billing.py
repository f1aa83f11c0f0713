"""Compare ledger, allowances, credit, invoices and what Stripe was told."""

import sys
from typing import Any

from django.core.management.base import BaseCommand

from apps.billing.reconciling import Totals, differences


class Command(BaseCommand):
    help = "Prove that ledger, allowances, credit, invoices and Stripe agree, or name every difference. Exit status 1 when there is one."

    def handle(self, *args: Any, **options: Any) -> None:
        totals, found = Totals(), 0
        for difference in differences(totals):
            found += 1
            self.stdout.write(str(difference))
        if found:
            self.stdout.write(f"{found} differences.")
            sys.exit(1)
        who = f"{totals.months} closed months of {len(totals.tenants)} organisations"
        self.stdout.write(f"All is equal: {who}, {totals.units} units, {totals.cents} cents.")
