"""Which jobs a list shows."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from uuid import UUID

from django.db.models import BooleanField, F, Func, JSONField, Q, Value

from apps.jobs.models import State

# The states in the words of OpenAI's batches, see `stages.openai_status`.
STATUSES = {
    "validating": Q(state=State.QUEUED),
    "in_progress": Q(state=State.RUNNING, batch__finalizing_at=None),
    "finalizing": Q(state=State.RUNNING, batch__finalizing_at__isnull=False),
    "completed": Q(state=State.SUCCEEDED),
    "failed": Q(state=State.FAILED),
    "expired": Q(state=State.EXPIRED),
    "cancelling": Q(state=State.CANCELLING),
    "cancelled": Q(state=State.CANCELLED),
}


@dataclass(frozen=True)
class Filters:
    """A job is shown when it fits all that is given: one of `statuses`, a line that names `model` (in any version, if it
    says none), the key that started it, and every pair of `metadata`."""

    statuses: tuple[str, ...] = ()
    model: str = ""
    key_id: UUID | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.statuses or self.model or self.key_id or self.metadata)

    def condition(self) -> Q:
        """What a row has to fit."""
        found = Q()
        for name in self.statuses:
            found |= STATUSES[name]
        if self.model:
            found &= _names(self.model)
        if self.key_id:
            found &= Q(key_id=self.key_id)
        return found & Q(batch__metadata__contains=dict(self.metadata)) if self.metadata else found


def _names(model: str) -> Q:
    """Lines name a model as they like: `name`, `name@3`, `name@current`."""
    versions = Func(
        F("model_names"), Value({"start": f"{model}@"}, JSONField()), function="jsonb_path_exists",
        arg_joiner=", '$[*] ? (@ starts with $start)', ", output_field=BooleanField(),
    )  # fmt: skip
    return Q(model_names__contains=[model]) | Q(versions)
