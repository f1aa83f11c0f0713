"""Recompute the audit log's chains and compare them with their anchors."""

import sys
from pathlib import Path
from typing import Any

from django.core.files.storage import FileSystemStorage, Storage, storages
from django.core.management.base import BaseCommand, CommandError, CommandParser

from apps.audit.verifying import Counts, verify


class Command(BaseCommand):
    help = "Find edited, deleted, cut off and rewritten entries of the audit log. Exit status 1 when there are any."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--tenant", help="the short name of one organisation; all if missing")
        parser.add_argument(
            "--anchors", type=Path, action="append", default=[], help="a folder with copies of anchors, besides where they are written to"
        )

    def handle(self, *args: Any, tenant: str | None, anchors: list[Path], **options: Any) -> None:
        missing = [folder for folder in anchors if not folder.is_dir()]
        if missing:
            raise CommandError(f"There is no folder {missing[0]}.")
        places: list[Storage] = [storages["anchors"], *(FileSystemStorage(location=folder) for folder in anchors)]
        counts, problems = Counts(), 0
        for problem in verify(counts, places, slug=tenant):
            problems += 1
            self.stdout.write(problem)
        if tenant and not counts.looked_at:
            raise CommandError(f"There is no organisation '{tenant}'.")
        seen = f"{counts.chains} chains, {counts.entries} entries and {counts.anchors} anchors"
        if problems:
            self.stdout.write(f"{problems} problems in {seen}.")
            sys.exit(1)
        self.stdout.write(f"{seen} are as they were written.")
