"""For programs that call a governed service: what waits where a person has to approve an action first.

`ApprovalAuth` is for clients of httpx and httpx2, `ApprovalAdapter` for sessions of requests.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .auth import ApprovalAuth
from .hold import (
    ApprovalDenied,
    ApprovalError,
    ApprovalExpired,
    ApprovalPaused,
    ApprovalTimeout,
    BodyNotRepeatable,
    Hold,
)
from .pause import resume

if TYPE_CHECKING:
    from .adapter import ApprovalAdapter as ApprovalAdapter

__all__ = [
    "ApprovalAdapter",
    "ApprovalAuth",
    "ApprovalDenied",
    "ApprovalError",
    "ApprovalExpired",
    "ApprovalPaused",
    "ApprovalTimeout",
    "BodyNotRepeatable",
    "Hold",
    "resume",
]


def __getattr__(name: str) -> Any:
    if name != "ApprovalAdapter":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from .adapter import ApprovalAdapter

    return ApprovalAdapter
