"""What only the operator may do."""

from maas.actors import require_operator

__all__ = ["require_operator"]
