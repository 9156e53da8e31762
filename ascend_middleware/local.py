"""The engine of `local:policy.toml`: the embedded authority in this process, with no socket and no key."""

from __future__ import annotations

import contextlib
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qsl, unquote

import anyio
import anyio.lowlevel
import anyio.to_thread

from .client.http import DeadlinePassed, Overloaded, Request, Response
from .config import LOCAL_SCHEME
from .exceptions import ConfigurationError
from .fork import process_id, renew_once
from .text import is_postgres

if TYPE_CHECKING:
    from .authority import Authority
    from .config import Settings

__all__ = ["AsyncLocalEngine", "LocalEngine", "open_engine"]


def open_engine(settings: Settings, *, asynchronous: bool) -> LocalEngine | AsyncLocalEngine:
    """Return the engine for `local:<policy file>`, `local:<policy file>?db=<database>`.

    The database is a file beside the policy file unless told; it may also be a postgresql:// URL. Both are opened once
    here, so that what is wrong with them is told when the client is made and not at its first request.

    Raises:
        ConfigurationError: the extra is missing, or the policy or the database cannot be used.
    """
    engine = (AsyncLocalEngine if asynchronous else LocalEngine)(settings.api_url)
    engine.check()
    return engine


class _Local:
    def __init__(self, api_url: str) -> None:
        place, _, query = api_url.removeprefix(f"{LOCAL_SCHEME}:").partition("?")
        options = dict(parse_qsl(query, keep_blank_values=True))
        if not place or set(options) - {"db"}:
            raise ConfigurationError("api_url: expected local:policy.toml or local:policy.toml?db=authority.db")
        self._base: Final = api_url.rstrip("/")  # as the client joins it
        # Absolute at once: the process may change its directory before the first request.
        self._policy: Final = Path(place).absolute()
        database = options.get("db")
        self._database: Final = database if not database or is_postgres(database) else Path(database).absolute()
        self._authority: Authority | None = None
        self._inherited: list[Authority] = []
        self._renew()

    def _renew(self) -> None:
        # SQLite forbids to use or even to close a connection on the other side of a fork, so it is kept aside.
        # The lock is new too: another thread of the parent may have held it.
        self._lock = threading.Lock()
        if self._authority is not None:
            self._inherited.append(self._authority)
            self._authority = None
        self._pid = process_id()

    def __del__(self) -> None:
        # A server without lifespan never closes its engine; the database is closed with it all the same.
        with contextlib.suppress(Exception):
            self._close()

    def check(self) -> None:
        self._open().close()

    def _open(self) -> Authority:
        try:
            import cel  # noqa: F401 - tells a missing extra from a broken package
        except ImportError:
            raise ConfigurationError(
                "local: needs the embedded authority: install the extra ascend-middleware[authority]"
            ) from None
        from .authority import Authority

        return Authority.open(self._policy, self._database)

    def _opened(self) -> Authority:
        if self._pid != process_id():
            renew_once(lambda: self._pid, self._renew)
        with self._lock:
            if self._authority is None:
                self._authority = self._open()
            return self._authority

    def _answer(self, request: Request) -> Response:
        from .authority.keys import LOCAL

        target = request.url.removeprefix(self._base)
        path, _, query = target.partition("?")
        headers = {name.lower(): value for name, value in request.headers}
        status, answer_headers, content = self._opened().handle(
            request.method.upper(), unquote(path), query, headers, request.content, credential=LOCAL
        )
        return Response(status, answer_headers, content)

    def _close(self) -> None:
        if self._pid != process_id():
            return
        with self._lock:
            authority, self._authority = self._authority, None
        if authority is not None:
            authority.close()


class LocalEngine(_Local):
    """Answers in the calling thread."""

    def send(self, request: Request, timeout: float) -> Response:
        """Return the embedded authority's answer; what limits it is the wait for the database, a few seconds."""
        if timeout <= 0:
            raise DeadlinePassed("the deadline passed before the authority was asked")
        return self._answer(request)

    def close(self) -> None:
        """Close the database."""
        self._close()


# How many threads of an event loop ask at once. They are not the application's: where its own handlers fill all of
# those, a decision must not run into its deadline.
_THREADS: Final = 8
_limiter: anyio.lowlevel.RunVar[anyio.CapacityLimiter] = anyio.lowlevel.RunVar("ascend_middleware.local")


def _own_limiter() -> anyio.CapacityLimiter:
    limiter = _limiter.get(None)
    if limiter is None:
        limiter = anyio.CapacityLimiter(_THREADS)
        _limiter.set(limiter)
    return limiter


class AsyncLocalEngine(_Local):
    """Answers in a worker thread, since the database syncs to disk."""

    limit: Final = _THREADS
    """How many requests are answered at the same time; others take turns before it."""

    async def send(self, request: Request, timeout: float) -> Response:  # noqa: ASYNC109 - one deadline for all
        """Return the embedded authority's answer within `timeout` seconds."""
        if timeout <= 0:
            raise DeadlinePassed("the deadline passed before the authority was asked")
        try:
            with anyio.fail_after(timeout):
                return await anyio.to_thread.run_sync(
                    self._answer, request, abandon_on_cancel=True, limiter=_own_limiter()
                )
        except TimeoutError:
            # The authority is this process: that it is slow is no outage of anything else.
            raise Overloaded("the embedded authority did not decide in time") from None

    async def aclose(self) -> None:
        """Close the database."""
        self._close()
