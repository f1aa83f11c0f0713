"""Typed readers of the environment. A value that cannot be read stops the process with a sentence that names it."""

import importlib.util
import ipaddress
import os
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from django.core.exceptions import ImproperlyConfigured


def text(name: str, default: str | None = None) -> str:
    """The variable as it is; without a default it is required."""
    value = os.environ.get(name, default)
    if value is None:
        raise ImproperlyConfigured(f"Set the environment variable {name}.")
    return value


def number(name: str, default: int, *, least: int = 0) -> int:
    """The variable as an integer of at least `least`."""
    value = os.environ.get(name, str(default))
    if not value.isdigit() or int(value) < least:
        raise ImproperlyConfigured(f"{name} must be a whole number of at least {least}, not {value!r}.")
    return int(value)


def flag(name: str, default: bool = False) -> bool:
    """The variable as a truth value: 1, true, yes, on; 0, false, no, off or empty."""
    value = os.environ.get(name, str(default)).lower()
    if value in {"1", "true", "yes", "on"}:
        return True
    if value in {"", "0", "false", "no", "off"}:
        return False
    raise ImproperlyConfigured(f"{name} must be true or false, not {value!r}.")


def choice(name: str, default: str, *choices: str) -> str:
    """The variable as one of a few words."""
    value = os.environ.get(name, default)
    if value not in choices:
        raise ImproperlyConfigured(f"{name} must be one of {', '.join(choices)}, not {value!r}.")
    return value


def words(name: str, default: str = "") -> list[str]:
    """The variable as a list, separated by commas."""
    return [word.strip() for word in os.environ.get(name, default).split(",") if word.strip()]


def numbers(name: str, default: str) -> list[int]:
    """The variable as whole numbers, separated by commas."""
    found = words(name, default)
    if not all(word.isdecimal() for word in found):
        raise ImproperlyConfigured(f"{name} must be whole numbers with commas between them, not {os.environ[name]!r}.")
    return [int(word) for word in found]


def networks(name: str, default: str = "") -> list[str]:
    """The variable as IP addresses and networks such as 10.0.0.0/8, separated by commas."""
    found = words(name, default)
    for word in found:
        try:
            ipaddress.ip_network(word)
        except ValueError:
            raise ImproperlyConfigured(f"{name} must be IP networks such as 10.1.0.0/16 with commas between them, not {word!r}.") from None
    return found


def database(name: str) -> dict[str, str]:
    """A `postgresql://user:password@host:port/name?option=value` address as Django's settings want it."""
    url = urlsplit(text(name))
    if url.scheme not in {"postgres", "postgresql"} or not url.path.strip("/"):
        raise ImproperlyConfigured(f"{name} must look like postgresql://user:password@host:port/database.")
    return {
        "NAME": unquote(url.path.lstrip("/")),
        "USER": unquote(url.username or ""),
        "PASSWORD": unquote(url.password or ""),
        "HOST": unquote(url.hostname or ""),
        "PORT": str(url.port or ""),
    }


def storage(name: str, folder: Path) -> dict[str, Any]:
    """A folder, or a bucket as `s3://bucket/prefix`, as an entry of Django's STORAGES."""
    place = text(name, "") or str(folder)
    url = urlsplit(place)
    if "://" not in place:
        return {"BACKEND": "maas.storage.FolderStorage", "OPTIONS": {"location": place}}
    if url.scheme != "s3" or not url.netloc:
        raise ImproperlyConfigured(f"{name} must be a folder or look like s3://bucket/prefix, not {place!r}.")
    if importlib.util.find_spec("storages") is None or importlib.util.find_spec("boto3") is None:
        raise ImproperlyConfigured(f"{name} names a bucket. Install what speaks to it: .venv/bin/pip install -e '.[s3]'")
    more = {
        "endpoint_url": text("MAAS_S3_ENDPOINT", ""), "region_name": text("MAAS_S3_REGION", ""),
        "access_key": text("MAAS_S3_KEY", ""), "secret_key": text("MAAS_S3_SECRET", ""),
    }  # fmt: skip
    address = {"bucket_name": url.netloc, "location": url.path.strip("/")}
    given = {option: value for option, value in more.items() if value}  # what is missing boto3 looks for where it always does
    return {"BACKEND": "maas.s3.BucketStorage", "OPTIONS": address | given}
