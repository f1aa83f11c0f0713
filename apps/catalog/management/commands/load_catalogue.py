"""Load the models that are shipped with maas."""

from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand

from apps.catalog.shipping import load_folder


class Command(BaseCommand):
    help = "Load the shipped models of MAAS_MODELS into the catalogue. Safe to run again."

    def handle(self, *args: Any, **options: Any) -> None:
        for line in load_folder(settings.MAAS_MODELS):
            self.stdout.write(line)
