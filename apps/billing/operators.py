"""What only the operator may do."""

from django.utils.translation import gettext as _

from maas import errors
from maas.actors import current_actor


def require_operator() -> None:
    """Raises Forbidden for members and keys: credit and payments are noted by the platform alone."""
    if current_actor().kind != "system":
        raise errors.Forbidden(_("Only the operator of this platform can do that."), code="operator_only")
