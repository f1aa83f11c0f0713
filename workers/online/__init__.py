"""The online model server: takes what is waiting, runs it as one batch, charges it, answers. `python -m workers.online`.

Any number of these run on any number of machines; Redis is the load balancer. A batch is charged in one transaction
before its answers go out, and a caller who gave up meanwhile is not charged.
"""

import os

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "maas.settings")
django.setup()

from workers.online.server import Server  # noqa: E402

__all__ = ["Server"]
