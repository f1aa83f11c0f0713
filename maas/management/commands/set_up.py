"""Every step between an empty database and one that can serve, in one process. Safe to run again."""

from pathlib import Path
from typing import Any

from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandParser


class Command(BaseCommand):
    help = "Prepare the database, migrate, load the shipped models; with --env-file also make the demo organisation."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--env-file", type=Path, help="where to write the demo's address and credentials")
        parser.add_argument("--url", help="the address to write there")

    def handle(self, *args: Any, **options: Any) -> None:
        self._call("the roles of the database", "prepare_database")
        self._call("the tables", "migrate", interactive=False)
        self._call("the shipped models", "load_catalogue")
        if options["env_file"]:
            self._call("the demo organisation", "make_demo", env_file=options["env_file"], url=options["url"])

    def _call(self, what: str, command: str, **options: Any) -> None:
        self.stdout.write(what)
        self.stdout.flush()
        call_command(command, stdout=self.stdout, **options)
