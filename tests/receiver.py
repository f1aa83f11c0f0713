"""Somebody who takes webhooks: a web server of its own, to be told what to answer, or to be killed.

As a process: `python -m tests.receiver PORT FILE` appends a line of JSON for every call before it answers.
"""

import json
import random
import ssl
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


def at(*addresses: str) -> Callable[[str, int], list[str]]:
    """A resolver that knows one answer."""
    return lambda _host, _port: list(addresses)


@dataclass(frozen=True)
class Call:
    """A request as it came in."""

    path: str
    headers: dict[str, str]  # names in small letters
    body: str


@dataclass
class Receiver:
    """`calls` so far. `answer` is (status, headers, body), or a function of the call that gives one."""

    url: str = ""
    calls: list[Call] = field(default_factory=list)
    answer: Any = (204, {}, b"")


@contextmanager
def receiver(port: int = 0, *, note: Callable[[Call], None] = lambda call: None, tls: ssl.SSLContext | None = None) -> Iterator[Receiver]:
    """A receiver in this process, on a free port."""
    told = Receiver()
    server = ThreadingHTTPServer(("127.0.0.1", port), _answering(told, note))
    if tls:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    told.url = f"http{'s' if tls else ''}://127.0.0.1:{server.server_port}/hook"
    threading.Thread(target=server.serve_forever, args=[0.05], daemon=True).start()
    try:
        yield told
    finally:
        server.shutdown()
        server.server_close()


def _answering(told: Receiver, note: Callable[[Call], None]) -> type[BaseHTTPRequestHandler]:
    class Answering(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            call = Call(self.path, {name.lower(): value for name, value in self.headers.items()}, body)
            note(call)
            told.calls.append(call)
            status, headers, content = told.answer(call) if callable(told.answer) else told.answer
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(content))}.items():
                self.send_header(name, value)
            self.end_headers()
            with suppress(OSError):  # a caller that has read enough
                self.wfile.write(content)

        def log_message(self, *_arguments: Any) -> None:
            return

    return Answering


def main(port: int, path: Path) -> None:
    """Receive until killed. What was written before is kept: the file is only appended to."""
    log = path.open("ab", buffering=0)

    def note(call: Call) -> None:
        log.write(json.dumps([call.headers, call.body]).encode() + b"\n")
        time.sleep(random.random() * 0.05)  # it works on it, and may be killed meanwhile

    with receiver(port, note=note) as told:
        print(told.url, flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
