"""One slice in a process of its own (`workers.batch.trials`): `python -m workers.batch CLAIM`, the claim as JSON.

Says on its standard output that it begins, which tells a slice that ended it from a start that failed.
"""

import os
import sys


def main() -> int:
    """Run the claim as a worker would: it commits the slice, or gives it back, and then this ends with 0."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "maas.settings")
    import django

    django.setup()
    from workers.batch import running, trials  # needs the line above

    claim = trials.read_claim(sys.argv[1])
    os.write(sys.stdout.fileno(), trials.BEGUN)
    running.run_slice(claim)
    return 0


if __name__ == "__main__":
    sys.exit(main())
