"""Move a month of the ledger of usage into a file."""

from argparse import ArgumentTypeError
from datetime import date, datetime
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from apps.usage.archiving import Refused, archive_month


class Command(BaseCommand):
    help = "Write a month of the ledger as compressed CSV, verify it against the roll-up, and drop it. The roll-ups stay."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("month", type=_month, help="such as 2026-09; over for a week at least")
        parser.add_argument("--to", type=Path, required=True, help="the folder for the file and its description")

    def handle(self, *args: Any, month: date, to: Path, **options: Any) -> None:
        try:
            archive = archive_month(month, to)
        except Refused as reason:
            raise CommandError(str(reason)) from None
        self.stdout.write(
            f"{archive.file}: {archive.lines} lines, {archive.requests} requests, {archive.units} units, sha256 {archive.sha256}"
        )


def _month(text: str) -> date:
    try:
        return datetime.strptime(text, "%Y-%m").date()  # noqa: DTZ007  # a month, no moment
    except ValueError:
        raise ArgumentTypeError(f"'{text}' is no month such as 2026-09.") from None
