"""A client of our own REST API in the standard library, for the check that has to run on a fresh machine."""

import json
import secrets
import urllib.error
import urllib.request
from typing import Any

SECONDS = 60


class Refused(Exception):
    """The API answered with an error; the message holds the call, the status and what it said."""


class Client:
    """Calls with a key, as any customer would."""

    def __init__(self, url: str, key: str) -> None:
        self.url, self.key = url.rstrip("/"), key

    def get(self, path: str) -> Any:
        return json.loads(self.call("GET", path))

    def post(self, path: str, body: Any) -> Any:
        return json.loads(self.call("POST", path, json.dumps(body).encode(), "application/json"))

    def upload(self, name: str, body: bytes, *, purpose: str) -> Any:
        """Multipart form, the fields in the order in which the published client sends them."""
        boundary = secrets.token_hex(16)
        parts = [
            f'--{boundary}\r\nContent-Disposition: form-data; name="purpose"\r\n\r\n{purpose}\r\n',
            f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n',
            "Content-Type: application/octet-stream\r\n\r\n",
        ]
        whole = "".join(parts).encode() + body + f"\r\n--{boundary}--\r\n".encode()
        return json.loads(self.call("POST", "/v1/files", whole, f"multipart/form-data; boundary={boundary}"))

    def call(self, method: str, path: str, body: bytes | None = None, content_type: str | None = None) -> bytes:
        """The body of the answer; Refused for every status from 400 on."""
        headers = {"Authorization": f"Bearer {self.key}", **({"Content-Type": content_type} if content_type else {})}
        request = urllib.request.Request(self.url + path, body, headers, method=method)  # noqa: S310  # the caller's address
        try:
            with urllib.request.urlopen(request, timeout=SECONDS) as answer:  # noqa: S310
                return bytes(answer.read())
        except urllib.error.HTTPError as error:
            raise Refused(f"{method} {path}: {error.code} {error.read().decode(errors='replace')[:500]}") from None
        except (urllib.error.URLError, OSError) as error:
            raise Refused(f"{method} {path}: {error}") from None
