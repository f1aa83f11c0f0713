"""One of everything that a tenant can own, by the name of the route argument that leads to it."""

from datetime import date

from apps.accounts import invitations
from apps.billing import budgets, invoices
from apps.catalog.shipping import load_folder
from apps.files import services as files
from apps.jobs import services as jobs
from apps.webhooks import deliveries
from apps.webhooks import services as webhooks
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
    hook = {"url": "https://hooks.invalid/", "events": ["*"], "resolve": lambda _host, _port: ["1.1.1.1"]}
    endpoint, _secret = webhooks.create_endpoint(cast.tenant, **hook)
    delivery = deliveries.send_test(cast.tenant, endpoint.id)
    invitation = invitations.invite(cast.tenant, email="invited@example.org", role="viewer")
    budget = budgets.set_budget(cast.tenant, scope="key", subject=ids.encode(ids.KEY, cast.key.row.id), amount=1_000_000)
    fields = {"state": "open", "period": date(2026, 1, 1), "subtotal_cents": 1, "total_cents": 1}
    invoice = invoices.mirror_invoice(cast.tenant, stripe_id=f"in_{cast.tenant.id.hex}", **fields)
    batch_id = ids.encode(ids.BATCH, batch.id)
    return {
        "key_id": ids.encode(ids.KEY, cast.key.row.id),
        "file_id": ids.encode(ids.FILE, file.id),
        "batch_id": batch_id,
        "job_id": batch_id,
        "webhook_id": ids.encode(ids.WEBHOOK, endpoint.id),
        "delivery_id": ids.encode(ids.DELIVERY, delivery.id),
        "user_id": str(cast.viewer.pk),
        "invitation_id": ids.encode(ids.INVITATION, invitation.id),
        "budget_id": ids.encode(ids.BUDGET, budget.id),
        "invoice_id": ids.encode(ids.INVOICE, invoice.id),
        "secret": "a-link-that-was-never-mailed",
        "tenant_id": str(cast.tenant.id),
        "model": "cifar10-resnet9",
        "name": "cifar10-resnet9",
    }
