"""Whom we ask: the clients, their flows, and the engines that carry requests."""

from .async_client import AsyncAscendClient
from .breaker import CircuitBreaker
from .core import ClientCore, Send, Tell, never_answered
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
    "CircuitBreaker",
    "ClientCore",
    "ConnectFailed",
    "DeadlinePassed",
    "Engine",
    "EngineError",
    "ExchangeFailed",
    "Request",
    "Response",
    "Send",
    "Tell",
    "never_answered",
    "open_async_engine",
    "open_engine",
]
