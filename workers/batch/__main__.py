"""Slices in a process of their own (`workers.batch.trials`): `python -m workers.batch CLAIM NODE`, the claim as JSON."""

import os
import sys
from contextlib import suppress
from pathlib import Path


def main() -> None:
    """Run the claim as a worker would: it commits the slice or gives it back. Ends with 0 unless the process dies of it."""
    with suppress(OSError):  # where memory runs out, this process goes before the worker does
        Path("/proc/self/oom_score_adj").write_text("1000")
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "maas.settings")
    import django

    django.setup()
    from apps.jobs import holders  # needs the line above
    from workers.batch import trials

    holders.call_me(sys.argv[2])
    trials.try_all(trials.read_claim(sys.argv[1]))


if __name__ == "__main__":
    main()
