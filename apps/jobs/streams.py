"""Watching a batch: what it tells and how far it is, as it happens."""

import time
from typing import Any
from uuid import UUID

from apps.accounts.services import Tenant
from apps.jobs import services
from apps.jobs.rendering import EVENT, render_batch, render_event
from maas import ids
from maas.streams import frame

LIMIT = 500  # events of one look
PACE_SECONDS = 5.0  # after which the progress is told again although nothing else has changed


class Watch:
    """One caller's view of a batch; `after` is the last event that they have."""

    def __init__(self, tenant: Tenant, job_id: UUID, after: UUID | None) -> None:
        self.tenant, self.job_id, self.after = tenant, job_id, after
        self._told: set[UUID] = set()
        self._shown: dict[str, Any] = {}
        self._shown_at = 0.0

    def look(self) -> tuple[list[bytes], bool]:
        """What is new as events on the wire, and whether the batch has ended."""
        job = services.get_job(self.tenant, self.job_id)  # before its events: those of the end are there when it has ended
        rows = services.list_events_since(self.tenant, self.job_id, after=self.after, limit=LIMIT)
        news = [self._tell(row) for row in rows if row.id not in self._told]
        if len(rows) == LIMIT:
            self.after = rows[-1].id
        return news + self._progress(render_batch(job)), job.finished_at is not None

    def _tell(self, event: Any) -> bytes:
        """Events are told once each. An event of another process may be a moment older than the last one told, so what
        was told is remembered instead of skipped by its time."""
        self._told.add(event.id)
        return frame("batch.event", render_event(event), id=ids.encode(EVENT, event.id))

    def _progress(self, shown: dict[str, Any]) -> list[bytes]:
        changed = {name for name in shown if shown[name] != self._shown.get(name)}
        if self._shown and (not changed or (changed == {"progress"} and time.monotonic() - self._shown_at < PACE_SECONDS)):
            return []
        self._shown, self._shown_at = shown, time.monotonic()
        return [frame("batch", shown)]
