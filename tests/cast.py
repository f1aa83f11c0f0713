"""Who the tests are about."""

from dataclasses import dataclass
from functools import cache
from uuid import uuid4

from django.contrib.auth.hashers import make_password
from django.test import Client
from rest_framework.test import APIClient

from apps.accounts import keys, members
from apps.accounts import services as accounts
from apps.accounts.models import ApiKey, Tenant, User
from apps.accounts.restrictions import SCOPES

PASSWORD = "a long enough sentence"


@dataclass(frozen=True)
class Key:
    """A key and the secret that calls with it."""

    row: ApiKey
    secret: str


@dataclass(frozen=True)
class Cast:
    """Two tenants that must never see each other."""

    tenant: Tenant
    owner: User
    viewer: User
    key: Key
    other: Tenant
    stranger: User
    other_key: Key

    def key_with(self, *scopes: str) -> Key:
        """Another key of the first tenant."""
        return make_key(self.tenant, list(scopes))


def make_cast() -> Cast:
    """New people and new tenants, committed."""
    owner, viewer, stranger = make_user("owner"), make_user("viewer"), make_user("stranger")
    tenant, other = make_tenant(owner, "acme"), make_tenant(stranger, "other")
    members.admit(tenant, user=viewer, role="viewer")
    return Cast(tenant, owner, viewer, make_key(tenant), other, stranger, make_key(other))


def make_user(name: str) -> User:
    user = User(email=f"{name}-{uuid4().hex[:10]}@example.org", password=hashed())
    user.save()
    return user


@cache
def hashed() -> str:
    """The password's hash, made once: it is meant to be slow."""
    return make_password(PASSWORD)


def make_tenant(owner: User, name: str) -> Tenant:
    slug = f"{name}-{uuid4().hex[:10]}"
    return accounts.create_tenant(owner, name=slug, slug=slug, plan="unlimited")


def make_key(tenant: Tenant, scopes: list[str] | None = None) -> Key:
    return Key(*keys.create_key(tenant, name="test", scopes=scopes or list(SCOPES)))


def client_for(key: Key | str) -> APIClient:
    """A REST client that sends a key and raises nothing: a 500 is an answer to look at."""
    secret = key if isinstance(key, str) else key.secret
    return APIClient(raise_request_exception=False, HTTP_AUTHORIZATION=f"Bearer {secret}")


def browser_for(user: User) -> Client:
    """A dashboard session of a user."""
    browser = Client(raise_request_exception=False)
    browser.force_login(user, backend="allauth.account.auth_backends.AuthenticationBackend")
    return browser
