"""Whom we ask: the clients, their flows, and the engines that carry requests."""

from .async_client import AsyncAscendClient
from .authorized_agent import AsyncAuthorizedAgent, AuthorizedAgent
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
from .owkai import AsyncOWKAIClient, OWKAIClient
from .sync_client import AscendClient

__all__ = [
    "AscendClient",
    "AsyncAscendClient",
    "AsyncAuthorizedAgent",
    "AsyncEngine",
    "AsyncOWKAIClient",
    "AuthorizedAgent",
    "CircuitBreaker",
    "ClientCore",
    "ConnectFailed",
    "DeadlinePassed",
    "Engine",
    "EngineError",
    "ExchangeFailed",
    "OWKAIClient",
    "Request",
    "Response",
    "Send",
    "Tell",
    "never_answered",
    "open_async_engine",
    "open_engine",
]
