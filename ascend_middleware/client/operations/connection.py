"""Whether the authority is there, and knows the key."""

from __future__ import annotations

from typing import Any

from ...wire import decode_object
from .operation import Operation

__all__ = ["deployment_info", "health"]


def health() -> Operation[dict[str, Any]]:
    """Ask whether the authority is up; needs no key."""
    return Operation(method="GET", target="/health", decode=decode_object, authenticated=False)


def deployment_info() -> Operation[dict[str, Any]]:
    """Ask for the authority's version; needs a valid key."""
    return Operation(method="GET", target="/api/deployment-info", decode=decode_object)
