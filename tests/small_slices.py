"""The Celery app with slices of a few inputs, so that faults land between many of them: `celery -A tests.small_slices worker`."""

import os
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from celery.signals import worker_init

from maas.celery import app

__all__ = ["app"]


@worker_init.connect
def shrink(**_: Any) -> None:
    """Cut slices of MAAS_TEST_SLICE inputs from here on, or as always."""
    place = "workers.batch.sizing" if find_spec("workers.batch.sizing") else "workers.batch.validation"
    if inputs := os.environ.get("MAAS_TEST_SLICE"):
        import_module(place).SLICE_INPUTS = int(inputs)  # type: ignore[attr-defined]
