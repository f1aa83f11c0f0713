"""Serve until SIGTERM or SIGINT."""

import signal

import structlog
from django.conf import settings

from maas import metrics, scraping
from workers.online import Server

log = structlog.get_logger("maas.online")


def main() -> None:
    """One server in this process."""
    server = Server()
    signal.signal(signal.SIGTERM, server.stop)
    signal.signal(signal.SIGINT, server.stop)
    log.info(
        "online server starts",
        server=server.name,
        device=settings.MAAS_DEVICE,
        runners=settings.MAAS_RUNNERS,
        threads=settings.MAAS_THREADS,
    )
    metrics.begin()
    if settings.MAAS_METRICS_PORT:
        scraping.serve(settings.MAAS_METRICS_PORT)
    server.run()


if __name__ == "__main__":
    main()
