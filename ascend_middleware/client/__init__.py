"""The clients of the authority, their flows, and the engines that carry their requests."""

from .authorized_agent import AsyncAuthorizedAgent, AuthorizedAgent
from .breaker import CircuitBreaker
from .clients import AscendClient, AsyncAscendClient, AsyncOWKAIClient, OWKAIClient
from .core import ClientCore, Send
from .http import open_async_engine, open_engine
from .http.transport import (
    AsyncEngine,
    ConnectFailed,
    DeadlinePassed,
    Engine,
    EngineError,
    ExchangeFailed,
    Overloaded,
    Request,
    Response,
    Unsendable,
)

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
    "Overloaded",
    "Request",
    "Response",
    "Send",
    "Unsendable",
    "open_async_engine",
    "open_engine",
]
