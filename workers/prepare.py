"""Fetch and export every shared model before it is asked for: `python -m workers.prepare`."""

import os

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "maas.settings")


def main() -> None:
    """Prepare the catalogue with a line of progress for each step. A second run finds everything done."""
    django.setup()
    from apps.catalog.services import shared_versions
    from workers.fetching import prepare_version

    for version in shared_versions():
        prepare_version(version, lambda line: print(line, flush=True))  # noqa: T201  # a command speaks


if __name__ == "__main__":
    main()
