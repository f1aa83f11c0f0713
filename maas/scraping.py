"""`/metrics`, for those whom the operator lets read it: this machine alone if nothing else is said (MAAS_METRICS_ALLOW)."""

import ipaddress
import threading
from collections.abc import Sequence
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.views.decorators.http import require_safe

from maas import metrics
from maas.requests import client_address

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@require_safe
def scrape(request: HttpRequest) -> HttpResponse:
    """Figures of this machine's processes and of the queue, in Prometheus's text format."""
    behind_proxy = bool(settings.SECURE_PROXY_SSL_HEADER)
    address = client_address(request) if not behind_proxy or "HTTP_X_FORWARDED_FOR" in request.META else ""
    if not may_read(address, through_proxy=behind_proxy):
        return HttpResponse(refusal(address), status=403, content_type="text/plain; charset=utf-8")
    return HttpResponse(metrics.render(), content_type=CONTENT_TYPE, headers={"Cache-Control": "no-store"})


def may_read(address: str, *, through_proxy: bool = False) -> bool:
    """Whether an address is in MAAS_METRICS_ALLOW. Through a proxy nobody is on this machine, whatever a header says."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return False
    plain = getattr(found, "ipv4_mapped", None) or found
    return not (through_proxy and plain.is_loopback) and any(plain in network for network in _networks(tuple(settings.MAAS_METRICS_ALLOW)))


def refusal(address: str) -> str:
    """What an operator has to do."""
    return f"Metrics are not served to {address or 'an unknown address'}. The operator adds its network to MAAS_METRICS_ALLOW.\n"


@cache
def _networks(words: Sequence[str]) -> list[Network]:
    return [ipaddress.ip_network(word) for word in words]


# ---------- a port of its own, where there is no web server ----------
class _Page(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        address = str(self.client_address[0])
        if self.path.partition("?")[0] != "/metrics":
            self._send(404, b"The metrics are at /metrics.\n")
        elif not may_read(address):
            self._send(403, refusal(address).encode())
        else:
            self._send(200, metrics.render())

    def _send(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", CONTENT_TYPE)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Scrapes are not worth a line."""


def serve(port: int) -> ThreadingHTTPServer:
    """Serve the figures on every address of this machine, in the background. Raises OSError when the port is taken."""
    server = ThreadingHTTPServer(("", port), _Page)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, name="metrics", daemon=True).start()
    return server
