"""Open what sends: an engine of our own, httpx2's, the user's client, or what serves a scheme of `api_url`.

Apart from what all engines share, so that a program that only imports the clients need not import them.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from ... import masking
from ... import setting_values as read
from ...exceptions import ConfigurationError
from ...flow import asyncio_loop
from .blocking import BlockingPool
from .http1 import Origin, context_of
from .network import proxy_url
from .slots import AsyncGate, Gate
from .transport import AsyncEngine, Engine
from .user_client import borrow

if TYPE_CHECKING:
    import importlib.metadata
    from collections.abc import Callable

    from ...config import Settings

__all__ = ["open_async_engine", "open_engine"]

ENTRY_POINTS: Final = "ascend_middleware.engines"


def open_engine(settings: Settings, *, engine: object = None, http_client: object = None) -> Engine:
    """Return the blocking engine that the settings, or the arguments, name.

    Args:
        settings: `engine`, `proxy`, `ca_file`, `trust_env`, `max_connections`; the scheme of `api_url`.
        engine: a name, or an object with `send`, instead of the setting.
        http_client: the user's own client of httpx or httpx2; it stays the user's to close.

    Raises:
        ConfigurationError: the engine cannot be had, or the certificates cannot be read.
    """
    opened = _open(settings, engine, http_client, asynchronous=False)
    return Gate(opened, getattr(opened, "limit", settings.max_connections))


def open_async_engine(settings: Settings, *, engine: object = None, http_client: object = None) -> AsyncGate:
    """Return the engine for event loops; see `open_engine`."""
    opened = _open(settings, engine, http_client, asynchronous=True)
    return AsyncGate(opened, getattr(opened, "limit", settings.max_connections))


def _open(settings: Settings, engine: object, http_client: object, *, asynchronous: bool) -> Any:
    """Return an engine, or what opens one for a process or loop."""
    if engine is not None and not isinstance(engine, str):
        if not callable(getattr(engine, "send", None)) or not hasattr(engine, "aclose" if asynchronous else "close"):
            raise ConfigurationError("engine must be 'auto', 'httpx2' or an object with send and close or aclose")
        return engine
    if http_client is not None:
        return borrow(http_client, asynchronous=asynchronous)
    scheme = urlsplit(settings.api_url).scheme
    if scheme not in ("http", "https"):
        return _open_scheme(scheme, settings, asynchronous=asynchronous)
    masking.install("httpx2")
    try:
        name = read.engine(engine or settings.engine)
    except ValueError as error:
        raise ConfigurationError(f"engine: {error}") from None
    if name == "auto" and proxy_url(settings) is None:
        # Certificates are read here and not at the first request, which has a deadline, and where a loop would wait.
        origin = Origin(settings.api_url, context_of(settings))
        if asynchronous:
            return functools.partial(_open_on_loop, origin, settings)
        return functools.partial(BlockingPool, origin)
    return _httpx2(settings, asynchronous=asynchronous)


def _httpx2(settings: Settings, *, asynchronous: bool) -> Callable[[], Any]:
    from .httpx2_engine import HTTPX2, AsyncHTTPX2, pool_options  # takes as long as all the rest of the client

    return functools.partial(AsyncHTTPX2 if asynchronous else HTTPX2, pool_options(settings))


def _open_on_loop(origin: Origin, settings: Settings) -> AsyncEngine:
    """Return connections of our own for an asyncio loop, httpx2's for another one."""
    if asyncio_loop() is not None:
        from .pool import LoopPool  # it imports asyncio, which threads need not

        return LoopPool(origin)
    opened: AsyncEngine = _httpx2(settings, asynchronous=True)()
    return opened


def _open_scheme(scheme: str, settings: Settings, *, asynchronous: bool) -> Any:
    try:
        opener: Callable[..., Any] = _entry_point(scheme).load()
    except (ImportError, AttributeError) as error:
        raise ConfigurationError(f"the engine for {scheme}: URLs cannot be loaded: {error}") from error
    return opener(settings, asynchronous=asynchronous)


@functools.cache
def _entry_point(scheme: str) -> importlib.metadata.EntryPoint:
    """Return what opens the URLs of a scheme: looking through all that is installed takes longer than a request."""
    import importlib.metadata  # a sixth of this package's import, which few need

    found = list(importlib.metadata.entry_points(group=ENTRY_POINTS, name=scheme))
    if not found:
        raise ConfigurationError(f"api_url: no installed engine serves URLs that begin with {scheme}:")
    return found[0]
