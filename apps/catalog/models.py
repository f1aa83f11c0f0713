"""Models, their versions and the aliases that point at versions."""

from django.db import models
from django.utils.translation import gettext_lazy as _

from maas import ids


class Shareable(models.Model):
    """A row of one tenant, or of no tenant: then everybody may read it and only the platform may change it."""

    id = models.UUIDField(primary_key=True, default=ids.uuid7, editable=False)
    tenant = models.ForeignKey("accounts.Tenant", null=True, on_delete=models.PROTECT, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        abstract = True


class Model(Shareable):
    """A named thing one can call. A private one is `tenant-slug/name`."""

    class Status(models.TextChoices):
        READY = "ready", _("Ready")
        RETIRED = "retired", _("Retired")

    name = models.CharField(max_length=120, unique=True)
    task = models.CharField(max_length=60)
    description = models.TextField()
    status = models.CharField(max_length=12, choices=Status.choices, default=Status.READY)

    def __str__(self) -> str:
        return self.name


class Version(Shareable):
    """One immutable artifact of a model: `files` maps names to the sha256 of their bytes."""

    model = models.ForeignKey(Model, on_delete=models.CASCADE, related_name="versions")
    number = models.IntegerField()
    digest = models.CharField(max_length=64)  # sha256 over names and digests of all files
    files = models.JSONField()
    rate = models.JSONField()  # {"unit", "per", "units"}
    metrics = models.JSONField(default=list)
    recipe = models.CharField(max_length=60)
    licence = models.CharField(max_length=200)
    card = models.TextField()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["model", "number"], name="one_version_a_number"),
            models.UniqueConstraint(fields=["model", "digest"], name="one_version_a_content"),
        ]


class Alias(Shareable):
    """A name that points at a version: `current`, `candidate`."""

    model = models.ForeignKey(Model, on_delete=models.CASCADE, related_name="aliases")
    name = models.CharField(max_length=20)
    version = models.ForeignKey(Version, on_delete=models.CASCADE, related_name="+")

    class Meta:
        constraints = [models.UniqueConstraint(fields=["model", "name"], name="one_alias_a_name")]
