"""What runs beside the core while an authority is served: the writer, held requests, and periodic tasks."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import re
import sqlite3
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar
from urllib.parse import unquote

import anyio
import anyio.to_thread

from ascend_middleware.api.endpoints import HEALTH

from .bodies import ApiError
from .store import audit
from .store.writer import Writer
from .waiting import Waiters, read_wait
from .webhooks import Courier

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from .core import Authority

__all__ = ["Service"]

log = logging.getLogger(__name__)

_HELD = re.compile(r"/api/(?:v1|v2)/actions/([^/]+)/status|/api/sdk/approval/([^/]+)")
# Threads for what reads much, and how many such requests may wait for one, in all and of one key. Health, decisions,
# and whatever reads one thing never wait for these.
_READERS: Final = 2
_MOST_WAITING: Final = 64
_MOST_OF_ONE: Final = 16
# Seconds. A pending action is denied at its time whenever anybody looks; this tells those who only wait.
_CHORES_PERIOD: Final = 1.0
_T = TypeVar("_T")
_Answer = tuple[int, dict[str, str], bytes]


class Service:
    """Answers requests on an event loop: changes through one writer, readings in threads, waiting in neither.

    Args:
        authority: the core.
    """

    def __init__(self, authority: Authority) -> None:
        self.authority: Final = authority
        self.writer: Final = Writer(authority.store)
        self.waiters: Final = Waiters(authority.store)

        self.courier: Final = Courier(authority)
        # What ends the answers that never end by themselves.
        self.streams: Final[list[Callable[[], Awaitable[None]]]] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._reading: Counter[int] = Counter()

    @functools.cached_property
    def _readers(self) -> anyio.CapacityLimiter:
        return anyio.CapacityLimiter(_READERS)

    @functools.cached_property
    def _health(self) -> anyio.CapacityLimiter:
        return anyio.CapacityLimiter(1)

    async def start(self) -> None:
        """Start the writer; without it each change commits alone."""
        self.writer.start()
        # The service's log usually goes elsewhere than the database: a head in it outlives a change of the whole file.
        log.info("audit log: head %s", await anyio.to_thread.run_sync(audit.head, self.authority.store))
        self.authority.send_webhook = self.courier.test
        self._tasks = [asyncio.create_task(self._do_chores()), asyncio.create_task(self.courier.run())]

    async def _do_chores(self) -> None:
        while True:
            try:
                await anyio.to_thread.run_sync(self.authority.store.expire)
            except sqlite3.Error as error:
                log.error("pending actions could not be expired: %s", error)
            await asyncio.sleep(_CHORES_PERIOD)

    async def release(self) -> None:
        """Let those go who wait for something to happen, so that a stop need not wait for them."""
        await self.waiters.close()
        for close in self.streams:
            await close()

    async def stop(self) -> None:
        """Let those who wait go, finish what was begun, and stop."""
        await self.release()
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        for task in tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task
        await anyio.to_thread.run_sync(self.writer.stop)
        log.info("audit log: head %s", await anyio.to_thread.run_sync(audit.head, self.authority.store))

    async def answer(
        self,
        method: str,
        path: str,
        query: str,
        headers: Mapping[str, str],
        body: bytes,
        *,
        client: str = "",
        gone: Callable[[], Awaitable[None]] | None = None,
    ) -> _Answer:
        """Answer one request; see `Authority.handle`.

        Args:
            method: in upper case.
            path: decoded, beginning with a slash.
            query: raw, without the question mark.
            headers: names in lower case.
            body: the whole of it.
            client: the address that asks.
            gone: returns when the client has left; a request that is held ends then.
        """
        job = partial(self.authority.handle, method, path, query, headers, body, client=client)
        endpoint = self.authority.find_endpoint(method, path)
        if endpoint is None or not endpoint.writes:
            # The database may have to read from disk, which must not hold up the event loop.
            if endpoint is not None and endpoint.many:
                return await self._read(job, headers, client)
            # Whoever looks whether the authority is well waits for nobody else, whatever is read or decided.
            answer = await anyio.to_thread.run_sync(job, limiter=self._health if path == HEALTH.path else None)
            held = _HELD.fullmatch(path) if answer[0] == 200 else None
            if held is not None and await self._hold(held[1] or held[2], query, headers, gone):
                answer = await anyio.to_thread.run_sync(job)
            return answer
        try:
            return await self.change(job)
        except sqlite3.Error as error:
            return self.authority.unstored(headers, error)

    async def _read(self, job: Callable[..., _Answer], headers: Mapping[str, str], client: str) -> _Answer:
        """Answer what reads much. Who asks is found out first: those without a key wait for no reader."""
        try:
            credential = await anyio.to_thread.run_sync(self.authority.authenticate, headers, client)
            return await self.read(credential.key_id, partial(job, credential=credential))
        except ApiError as error:
            refusal = error
            return self.authority.refused(headers, lambda _: refusal)
        except sqlite3.Error as error:
            return self.authority.unstored(headers, error)

    async def read(self, key_id: int, job: Callable[[], _T]) -> _T:
        """Run what reads much, one of a few at once.

        Args:
            key_id: whose job it is; one key cannot take all places.
            job: what to run.

        Raises:
            ApiError: 503, too many wait already.
        """
        if self._reading.total() >= _MOST_WAITING or self._reading[key_id] >= _MOST_OF_ONE:
            whose = "of this key " if self._reading[key_id] >= _MOST_OF_ONE else ""
            message = f"too many requests {whose}that read much wait already; ask again"
            raise ApiError(503, "READERS_BUSY", message, headers={"retry-after": "1"})
        self._reading[key_id] += 1
        try:
            return await anyio.to_thread.run_sync(job, limiter=self._readers)
        finally:
            self._reading[key_id] -= 1
            if not self._reading[key_id]:
                del self._reading[key_id]

    async def change(self, job: Callable[[], _T]) -> _T:
        """Run what changes something, and return what it returned once that is durable.

        Raises:
            sqlite3.Error: it could not be stored.
        """
        return await self.writer.run(job) if self.writer.running else await anyio.to_thread.run_sync(job)

    async def _hold(
        self, name: str, query: str, headers: Mapping[str, str], gone: Callable[[], Awaitable[None]] | None
    ) -> bool:
        """Hold a request that asks for it until its action is decided; say whether it was held.

        Its first answer was a success, so the caller may see the action.
        """
        try:
            seconds = read_wait(query, headers)
        except ApiError:
            return False
        digits = unquote(name).removeprefix("act_")
        if seconds <= 0 or not (digits.isascii() and digits.isdigit() and len(digits) <= 18):
            return False
        waiting = asyncio.create_task(self.waiters.until_decided(int(digits), seconds))
        tasks: list[asyncio.Future[None]] = [waiting]
        if gone is not None:
            tasks.append(asyncio.ensure_future(gone()))
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            for task in tasks:
                with contextlib.suppress(asyncio.CancelledError):
                    await task
        return True
