"""How a request reaches the authority: over connections of our own, through httpx2, or by the user's client.

An engine sends one request under one total deadline, follows no redirect, keeps no cookie, reads no netrc, and fails
with an `EngineError` only. A pool is opened at the first use, and another one after a fork.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .transport import (
    AsyncEngine,
    ConnectFailed,
    DeadlinePassed,
    Engine,
    EngineError,
    ExchangeFailed,
    Head,
    Overloaded,
    Request,
    Response,
    TLSFailed,
    Unsendable,
)

if TYPE_CHECKING:
    from ...config import Settings
    from .slots import AsyncGate

__all__ = [
    "AsyncEngine",
    "ConnectFailed",
    "DeadlinePassed",
    "Engine",
    "EngineError",
    "ExchangeFailed",
    "Head",
    "Overloaded",
    "Request",
    "Response",
    "TLSFailed",
    "Unsendable",
    "open_async_engine",
    "open_engine",
]


def open_engine(settings: Settings, **given: Any) -> Engine:
    """Return the blocking engine that settings or arguments name; see `engines`."""
    from . import engines  # a fifth of the client's import, for who makes no client

    return engines.open_engine(settings, **given)


def open_async_engine(settings: Settings, **given: Any) -> AsyncGate:
    """Return the engine for event loops; see `engines`."""
    from . import engines

    return engines.open_async_engine(settings, **given)
