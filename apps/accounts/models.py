"""Users, tenants, members and API keys."""

from datetime import datetime
from typing import Any

from django.contrib.auth.base_user import AbstractBaseUser, BaseUserManager
from django.contrib.auth.models import PermissionsMixin
from django.db import models
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from maas import ids
from maas.tenancy import TenantOwned


class UserQuery(BaseUserManager["User"]):
    """How users are made; the e-mail address is the name."""

    def create_user(self, email: str, password: str | None = None, **fields: Any) -> "User":
        user = self.model(email=self.normalize_email(email).lower(), **fields)
        user.set_password(password)
        user.save(using=self._db)
        return user

    def create_superuser(self, email: str, password: str | None = None, **fields: Any) -> "User":
        return self.create_user(email, password, is_staff=True, is_superuser=True, **fields)


class User(AbstractBaseUser, PermissionsMixin):
    """A person who signs in. What they may do depends on their memberships."""

    email = models.EmailField(_("e-mail address"), unique=True)
    is_active = models.BooleanField(default=True)
    is_staff = models.BooleanField(default=False)
    date_joined = models.DateTimeField(default=timezone.now)

    USERNAME_FIELD = "email"
    objects = UserQuery()

    class Meta:
        verbose_name, verbose_name_plural = _("person"), _("people")

    def __str__(self) -> str:
        return self.email


class Tenant(models.Model):
    """The customer organisation that owns everything."""

    id = models.UUIDField(primary_key=True, default=ids.uuid7, editable=False)
    name = models.CharField(max_length=80)
    slug = models.SlugField(max_length=40, unique=True)
    plan = models.CharField(max_length=20, default="free")
    require_mfa = models.BooleanField(default=False)  # members need a second factor to work here
    suspended_at = models.DateTimeField(null=True)
    suspended_reason = models.CharField(max_length=300, default="")  # its members read it
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        verbose_name = _("organisation")

    def __str__(self) -> str:
        return self.slug


class Role(models.TextChoices):
    OWNER = "owner", _("Owner")
    ADMIN = "admin", _("Admin")
    DEVELOPER = "developer", _("Developer")
    VIEWER = "viewer", _("Viewer")


class Membership(TenantOwned):
    """A user in a tenant, with a role."""

    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="+")
    role = models.CharField(max_length=12, choices=Role.choices)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["tenant", "user"], name="one_membership")]


class Invitation(TenantOwned):
    """A way into an organisation for whoever reads this e-mail address's mail. Only the link's hash is kept."""

    email = models.EmailField()
    role = models.CharField(max_length=12, choices=Role.choices)
    hash = models.BinaryField(unique=True)  # SHA-256 of the link's secret
    invited_by = models.ForeignKey(User, null=True, on_delete=models.SET_NULL, related_name="+")
    expires_at = models.DateTimeField()
    accepted_at = models.DateTimeField(null=True)
    withdrawn_at = models.DateTimeField(null=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["tenant", "email"], name="one_open_invitation", condition=models.Q(accepted_at=None, withdrawn_at=None)
            )
        ]

    @property
    def status(self) -> str:
        """open, accepted, withdrawn or expired."""
        if self.accepted_at or self.withdrawn_at:
            return "accepted" if self.accepted_at else "withdrawn"
        return "expired" if self.expires_at <= timezone.now() else "open"


class Visit(TenantOwned):
    """An operator who looks at an organisation as its members do, from one session and for a limited time."""

    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="+")
    reason = models.CharField(max_length=300)
    session = models.BinaryField()  # SHA-256 of the session's key
    ended_at = models.DateTimeField(null=True)

    class Meta:
        indexes = [models.Index(fields=["created_at"], name="open_visit", condition=models.Q(ended_at=None))]


class ApiKey(TenantOwned):
    """A secret that calls the API for a tenant. Only its hash is kept.

    While it is rotated the secret before it is valid too, until `old_expires_at`. An empty list of models or addresses
    allows all.
    """

    name = models.CharField(max_length=80)
    hash = models.BinaryField(unique=True)  # SHA-256 of the secret: 238 random bits need no slow hash
    last4 = models.CharField(max_length=4)
    old_hash = models.BinaryField(unique=True, null=True)
    old_expires_at = models.DateTimeField(null=True)
    scopes = models.JSONField(default=list)
    allowed_models = models.JSONField(default=list)
    allowed_addresses = models.JSONField(default=list)  # networks such as 203.0.113.0/24
    limits = models.JSONField(default=dict)  # the key's own limits, below those of its tenant
    created_by = models.ForeignKey(User, null=True, on_delete=models.SET_NULL, related_name="+")
    expires_at = models.DateTimeField(null=True)
    revoked_at = models.DateTimeField(null=True)
    revoked_reason = models.CharField(max_length=12, default="")  # revoked or leaked
    last_used_at = models.DateTimeField(null=True)

    class Meta:
        indexes = [models.Index(fields=["tenant", "-created_at"])]

    @property
    def prefix(self) -> str:
        """What a list shows of the secret."""
        return f"maas_…{self.last4}"

    @property
    def status(self) -> str:
        """active, revoked or expired."""
        if self.revoked_at:
            return "revoked"
        return "expired" if self.expires_at and self.expires_at <= timezone.now() else "active"

    @property
    def rotating_until(self) -> datetime | None:
        """Until when the secret before this one is valid too, if it still is."""
        return self.old_expires_at if self.old_expires_at and self.old_expires_at > timezone.now() else None
