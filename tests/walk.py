"""Every address of the product, and ways to take one of its two protections away."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.db import connection
from django.db.models import Q, QuerySet
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver

METHODS = ("get", "post", "put", "patch", "delete")
# Of the whole installation, or of whoever asks: allauth's pages name no object of a tenant. The operator's are walked apart.
NOT_OURS = ("accounts/", "static/", "api/", "operator")
# Models of the shared catalogue belong to everybody; an invitation's link belongs to whoever holds it.
SHARED = ("<path:model>", "<path:name>", "<str:secret>")


def routes(resolver: URLResolver | None = None, prefix: str = "") -> list[str]:
    """Every pattern of the URLconf as one text, such as `v1/files/<str:file_id>`."""
    found = []
    for entry in (resolver or get_resolver()).url_patterns:
        path = prefix + str(entry.pattern)
        found += routes(entry, path) if isinstance(entry, URLResolver) else [path] if isinstance(entry, URLPattern) else []
    return found


def fill(route: str, names: dict[str, str]) -> str:
    """A route with its arguments filled from what a tenant owns; KeyError for an argument nobody knows."""
    while "<" in route:
        before, _, rest = route.partition("<")
        argument, _, after = rest.partition(">")
        route = before + names[argument.partition(":")[2] or argument] + after
    return "/" + route


def owned() -> list[str]:
    """The routes that lead to one object of a tenant."""
    return [route for route in routes() if "<" in route and not route.startswith(NOT_OURS)]


def private() -> list[str]:
    """The owned routes that lead to something that no other tenant may know of."""
    return [route for route in owned() if not any(part in route for part in SHARED)]


def plain() -> list[str]:
    """The routes without an object: lists, forms, figures."""
    return [route for route in routes() if "<" not in route and not route.startswith(NOT_OURS)]


def operators_pages(tenant_id: str, user_id: str) -> list[str]:
    """Every address of the operator's admin, filled with this organisation and this person."""
    found = []
    for route in routes():
        if route.startswith("operator"):
            names = {"kind": "tenant", "row_id": tenant_id, "name": "suspend", "object_id": user_id if "/user/" in route else tenant_id}
            found.append(fill(re.sub(r"\^\(\?P<app_label>(\w+)[^)]*\)/\$", r"\1/", route), names))
    return found


def send(caller: Client, method: str, path: str) -> Any:
    """A request with an empty JSON body where it may have one."""
    body = {} if method == "get" else {"data": {}, "content_type": "application/json"}
    return getattr(caller, method)(path, **body)


def to_sign_in(answer: Any) -> bool:
    """Whether the answer only leads to signing in."""
    return answer.status_code == 302 and "/accounts/login" in answer["Location"]


def content(answer: Any) -> str:
    """The whole body, streamed or not."""
    chunks = answer.streaming_content if answer.streaming else [answer.content]
    return b"".join(chunks).decode(errors="replace")


@contextmanager
def without_filters() -> Iterator[list[str]]:
    """Take every condition on the tenant out of the services' queries, so that row-level security stands alone.

    Gives the list of what was taken out.
    """
    original, taken = QuerySet._filter_or_exclude, []

    def forgetful(self: Any, negate: bool, args: Any, kwargs: Any) -> Any:
        return original(self, negate, tuple(strip(arg, taken) for arg in args), without_tenant(kwargs, taken))

    QuerySet._filter_or_exclude = forgetful
    try:
        yield taken
    finally:
        QuerySet._filter_or_exclude = original


def names_tenant(lookup: str) -> bool:
    return bool({"tenant", "tenant_id"} & set(lookup.split("__")))


def without_tenant(conditions: dict[str, Any], taken: list[str]) -> dict[str, Any]:
    taken += filter(names_tenant, conditions)
    return {name: value for name, value in conditions.items() if not names_tenant(name)}


def strip(condition: Any, taken: list[str]) -> Any:
    if not isinstance(condition, Q):
        return condition
    kept = Q(_connector=condition.connector, _negated=condition.negated)
    for child in condition.children:
        if isinstance(child, tuple):
            names_tenant(child[0]) and taken.append(child[0])
        if not (isinstance(child, tuple) and names_tenant(child[0])):
            kept.children.append(strip(child, taken))
    return kept


@contextmanager
def without_policies() -> Iterator[None]:
    """Let this connection act as the system, for which every row is visible, so that the services' filters stand alone."""
    with connection.cursor() as cursor:
        cursor.execute("SET ROLE maas_system")
    try:
        yield
    finally:
        with connection.cursor() as cursor:
            cursor.execute("SET ROLE maas_app")


def left_behind() -> tuple[str, str, str]:
    """What the connection still holds after a request: the tenant, the user, the role."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT current_setting('maas.tenant', true), current_setting('maas.user', true), current_user")
        tenant, user, role = cursor.fetchone()
    return tenant or "", user or "", role
