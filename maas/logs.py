"""Logs with fields: readable lines by default, one JSON object a line with MAAS_JSON_LOGS."""

import logging

import structlog

from maas.redaction import hide_secrets


class Discreet(logging.Formatter):
    """Whatever is said, tracebacks included, is said without secrets."""

    def __init__(self, inner: logging.Formatter) -> None:
        super().__init__()
        self._inner = inner

    def format(self, record: logging.LogRecord) -> str:
        return hide_secrets(self._inner.format(record))


def configure(*, json: bool, level: str) -> None:
    """Send the standard library's loggers and structlog's through one renderer to standard error."""
    shared = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    # Plain tracebacks: pretty ones print local variables, and those hold keys and customers' texts.
    last = (
        structlog.processors.JSONRenderer()
        if json
        else structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback)
    )
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,  # type: ignore[arg-type]
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, structlog.processors.format_exc_info, last]
        if json
        else [structlog.stdlib.ProcessorFormatter.remove_processors_meta, last],
    )
    stream = logging.StreamHandler()
    stream.setFormatter(Discreet(formatter))
    logging.basicConfig(handlers=[stream], level=level, force=True)
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],  # type: ignore[list-item]
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
