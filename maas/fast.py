"""What a fast lane says of a request: a reply, that it declines it, or that its caller has gone."""

from dataclasses import dataclass

import orjson

from maas import errors


class Declined(Exception):
    """The request has to go the long way, as if it had not been here. `mark` is put into its scope for those on that way."""

    def __init__(self, mark: str = "") -> None:
        super().__init__(mark)
        self.mark = mark


class Gone(Exception):
    """The caller went away; nobody is answered."""


@dataclass(slots=True)
class Reply:
    """An answer in JSON, or the error instead of one."""

    status: int
    body: bytes
    headers: dict[str, str]

    @classmethod
    def of(cls, error: errors.MaasError, headers: dict[str, str], request_id: str) -> "Reply":
        """The one shape of errors."""
        more = {"Retry-After": str(error.retry_after)} if error.retry_after else {}
        return cls(error.status, orjson.dumps(error.body(request_id)), headers | more)
