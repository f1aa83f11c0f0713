"""Remove entries that are older than their organisation's plan keeps, now instead of within the day."""

from typing import Any

from django.core.management.base import BaseCommand

from apps.audit.retention import prune_entries


class Command(BaseCommand):
    help = "Remove audit entries that are older than the plans keep them."

    def handle(self, *args: Any, **options: Any) -> None:
        self.stdout.write(f"{prune_entries()} entries were removed.")
