"""One of everything that a tenant can own, by the name of the route argument that leads to it."""

from apps.catalog.shipping import load_folder
from apps.files import services as files
from apps.jobs import services as jobs
from maas import ids
from tests.cast import Cast
from tests.conftest import ROOT

LINE = b'{"custom_id": "a", "method": "POST", "url": "/v1/predictions", "body": {"model": "none", "inputs": "x"}}\n'


def belongings(cast: Cast) -> dict[str, str]:
    """Make them for the first tenant of the cast."""
    list(load_folder(ROOT / "models"))
    file = files.create_file(cast.tenant, filename="lines.jsonl", purpose="batch", chunks=iter([LINE]))
    batch = jobs.create_batch(
        cast.tenant,
        input_file_id=ids.encode(ids.FILE, file.id),
        endpoint="/v1/predictions",
        completion_window="24h",
        metadata={},
        key=cast.key.row,
    )
    batch_id = ids.encode(ids.BATCH, batch.id)
    return {
        "key_id": ids.encode(ids.KEY, cast.key.row.id),
        "file_id": ids.encode(ids.FILE, file.id),
        "batch_id": batch_id,
        "job_id": batch_id,
        "tenant_id": str(cast.tenant.id),
        "model": "cifar10-resnet9",
        "name": "cifar10-resnet9",
    }
