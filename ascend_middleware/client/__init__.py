"""Whom we ask: the clients, their flows, and the engines that carry requests."""

from .async_client import AsyncAscendClient
from .core import ClientCore, Send, never_answered
from .engines import open_async_engine, open_engine
from .exchange import (
    AsyncEngine,
    ConnectFailed,
    DeadlinePassed,
    Engine,
    EngineError,
    ExchangeFailed,
    Request,
    Response,
)
from .sync_client import AscendClient

__all__ = [
    "AscendClient",
    "AsyncAscendClient",
    "AsyncEngine",
    "ClientCore",
    "ConnectFailed",
    "DeadlinePassed",
    "Engine",
    "EngineError",
    "ExchangeFailed",
    "Request",
    "Response",
    "Send",
    "never_answered",
    "open_async_engine",
    "open_engine",
]
