"""Things to write into an audit log, and a look into it through the API."""

from maas.actors import Actor, Permission, acting
from maas.events import Event, TenantChanged, publish
from maas.tenancy import as_tenant
from tests.cast import client_for


def all_events(kind: type[Event] = Event) -> list[type[Event]]:
    """Every event that has a name of its own."""
    found = [kind] if "name" in vars(kind) and kind is not Event else []
    return [*found, *(one for below in kind.__subclasses__() for one in all_events(below))]


def somebody(tenant, *, kind="user", permissions=(Permission.AUDIT,)) -> Actor:
    return Actor(
        kind, id="42", name="ada@example.org", role="admin", tenant_id=tenant.id, permissions=frozenset(permissions),
        address="203.0.113.24", request_id="req_1",
    )  # fmt: skip


def tell(tenant, event: Event, actor: Actor | None = None) -> None:
    with acting(actor or somebody(tenant)), as_tenant(tenant.id):
        publish(event)


def entries(cast, **query) -> list[dict]:
    answer = client_for(cast.key).get("/v1/audit", query)
    assert answer.status_code == 200, answer.json()
    return answer.json()["data"]


def fill(cast, count: int) -> None:
    for number in range(count):
        tell(cast.tenant, TenantChanged(tenant_id=cast.tenant.id, label=f"change {number}"))
