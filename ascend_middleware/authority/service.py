"""What runs beside the core while an authority is served: readers, held requests, and periodic tasks."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial
from typing import Any, Final, NamedTuple, TypeAlias, TypeVar

import anyio
import anyio.to_thread

from ascend_middleware.api.bodies import Waiting
from ascend_middleware.api.endpoints import HEALTH, READY, SUBMIT

from .ahead import Coming
from .bodies import Answer, ApiError, read_wait
from .context import action_number
from .core import Answering, Authority, advance
from .heads import Heads
from .judges import Judges
from .judging import Task
from .retention import Retirement
from .store import audit
from .store.database import StorageError
from .store.patience import patience
from .store.store import Store
from .webhooks import Courier
from .writer import Writer

__all__ = ["Service", "Waiters"]

log = logging.getLogger(__name__)

# How soon what another process decided is seen; what this one decides is seen at once.
_PERIOD: Final = 0.05
_MOST_WAITERS: Final = 4096
# Threads for what reads much, each for a key of its own, and how many such requests may wait, in all and of one
# key. Health, decisions, and whatever reads one thing never wait for these.
_READERS: Final = 2
_MOST_WAITING: Final = 64
_MOST_OF_ONE: Final = 16
# Seconds for which one request may read.
_PATIENCE: Final = 5.0
# Seconds. A pending action is denied at its time whenever anybody looks; this tells those who only wait.
_CHORES_PERIOD: Final = 1.0
# So many of these periods, it is stored when keys were used.
_USES_EVERY: Final = 30
# And so many, replicas compare their policy files.
_MEET_EVERY: Final = 3
_T = TypeVar("_T")


# Method, path, query, headers and body; see `Authority.answering`.
_Asked: TypeAlias = tuple[str, str, str, Mapping[str, str], bytes]


class _Begun(NamedTuple):
    """An answer that waits for something to be done outside of the writer."""

    flow: Answering
    step: Task


class Waiters:
    """Holds callers until their action is decided, without a thread each.

    While anybody waits, one task looks whether the database has changed, which costs a few microseconds, and only then
    which of the awaited actions are decided. Beyond `most` nobody is held.
    """

    def __init__(self, store: Store, *, most: int = _MOST_WAITERS) -> None:
        self._store = store
        self._most = most
        self._awaited: dict[int, list[asyncio.Future[None]]] = {}
        self._fresh: set[int] = set()
        self.count = 0
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    async def until_decided(self, action_id: int, seconds: float) -> None:
        """Return when the action is not pending, when the seconds have passed, or at once if too many wait."""
        if self.count >= self._most or self._closed:
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._awaited.setdefault(action_id, []).append(future)
        self._fresh.add(action_id)
        self.count += 1
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._watch())
        try:
            await asyncio.wait((future,), timeout=seconds)
        finally:
            self.count -= 1
            if not future.done():
                self._awaited[action_id].remove(future)
                if not self._awaited[action_id]:
                    del self._awaited[action_id]

    async def close(self) -> None:
        """Let everybody go."""
        self._closed = True
        self._release(list(self._awaited))
        if self._task is not None:
            await _end([self._task])

    async def _watch(self) -> None:
        wake = asyncio.Event()
        loop = asyncio.get_running_loop()

        def decided() -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(wake.set)

        watch = self._store.watch()
        remove = self._store.on_decision(decided)
        try:
            while self._awaited:
                changed = await asyncio.to_thread(watch.changed) or wake.is_set()
                wake.clear()
                # Who has just come may wait for what was decided before.
                fresh, self._fresh = self._fresh, set()
                asked = list(self._awaited) if changed else list(fresh)
                if asked:
                    self._release(await asyncio.to_thread(self._store.decided, asked))
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_PERIOD):
                        await wake.wait()
        except StorageError as error:
            log.error("the database failed, so nobody is held until a decision: %s", error)
            self._release(list(self._awaited))
        finally:
            remove()
            watch.close()

    def _release(self, decided: list[int]) -> None:
        for number in decided:
            for future in self._awaited.pop(number, []):
                future.set_result(None)


def _patient(job: Callable[[], _T], urgent: Callable[[], bool] | None = None) -> _T:
    with patience(_PATIENCE, urgent=urgent):
        return job()


async def _end(tasks: Iterable[asyncio.Future[Any]]) -> None:
    """Cancel tasks and wait until they have ended."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


class Service:
    """Answers requests on an event loop: changes through one writer, readings in threads, waiting in neither."""

    def __init__(self, authority: Authority) -> None:
        self.authority: Final = authority
        self.writer: Final = Writer(authority.store)
        self.waiters: Final = Waiters(authority.store)
        self.judges: Final = Judges(lambda name: authority.limited(name))
        self.courier: Final = Courier(authority)
        self.heads: Final = Heads(authority, self.courier.outbox)
        self.retirement: Final = Retirement(authority)
        # What ends the answers that never end by themselves.
        self.streams: Final[list[Callable[[], Awaitable[None]]]] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._finishing: set[asyncio.Future[Answer]] = set()
        self._reading: Counter[int] = Counter()
        self._turns: dict[int, anyio.Lock] = {}

    def _is_deciding(self) -> bool:
        return self.writer.waiting > 0

    @functools.cached_property
    def _readers(self) -> anyio.CapacityLimiter:
        return anyio.CapacityLimiter(_READERS)

    @functools.cached_property
    def _health(self) -> anyio.CapacityLimiter:
        return anyio.CapacityLimiter(1)

    async def start(self) -> None:
        """Start the writer; without it each change commits alone."""
        self.writer.start()
        await self._log_head()
        self.authority.send_webhook = self.courier.test
        self.authority.store.urgent = self._is_deciding
        chores = (self._do_chores(), self.courier.run(), self.retirement.run())
        self._tasks = [asyncio.create_task(one) for one in chores]

    async def _log_head(self) -> None:
        # The service's log usually goes elsewhere than the database: a head in it outlives a change of the whole file.
        log.info("audit log: head %s", await anyio.to_thread.run_sync(audit.head, self.authority.store))

    async def _do_chores(self) -> None:
        turn = 0
        while True:
            try:
                await anyio.to_thread.run_sync(self.authority.store.expire)
            except StorageError as error:
                log.error("pending actions could not be expired: %s", error)
            if turn % _MEET_EVERY == 0:
                await self._meet()
            if (turn := turn + 1) % _USES_EVERY == 0:
                await self._note_uses()
            await self._tell_head()
            await asyncio.sleep(_CHORES_PERIOD)

    async def _tell_head(self, *, now: bool = False) -> None:
        try:
            await anyio.to_thread.run_sync(partial(self.heads.tell, now=now))
        except StorageError as error:
            log.error("the head of the audit log could not be told: %s", error)

    async def _meet(self) -> None:
        """Compare the policy file with those of other replicas."""
        authority = self.authority
        with contextlib.suppress(StorageError):  # told for what matters more
            await anyio.to_thread.run_sync(authority.peers.meet, authority.policy.version)

    async def _note_uses(self) -> None:
        with contextlib.suppress(StorageError):  # told for what matters more
            await anyio.to_thread.run_sync(self.authority.store.note_uses)
            await anyio.to_thread.run_sync(self.authority.peers.forget)

    async def release(self) -> None:
        """Let those go who wait for something to happen, so that a stop need not wait for them."""
        self.authority.readiness.stopping = True
        self.retirement.stop()
        await self.waiters.close()
        for close in self.streams:
            await close()

    async def stop(self) -> None:
        """Let those who wait go, finish what was begun, and stop."""
        await self.release()
        await _end(self._tasks)
        await self.writer.stop()
        await self._note_uses()
        await self._tell_head(now=True)
        with contextlib.suppress(StorageError):
            await anyio.to_thread.run_sync(self.authority.peers.leave)
        await self._log_head()

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
    ) -> Answer:
        """Answer one request; see `Authority.handle`.

        `gone` returns when the client has left; a request that is held ends then.
        """
        asked: _Asked = (method, path, query, headers, body)
        ask = partial(self.authority.answering, *asked, client=client)
        endpoint, parameters = self.authority.find_endpoint(method, path)
        try:
            if endpoint is not None and endpoint.writes:
                coming = Coming(path, headers)
                begun = await self.change(partial(self._begin, asked, client), coming)
                return begun if isinstance(begun, Answer) else await self._finish(begun, coming)
            # The database may have to read from disk, which must not hold up the event loop.
            if endpoint is not None and endpoint.many:
                # Who asks is found out first: those without a key wait for no reader.
                credential = await anyio.to_thread.run_sync(self.authority.authenticate, headers, client)
                return await self._answer(ask(credential=credential), partial(self.read, credential.key_id))
            # Whoever looks whether the authority is well waits for nobody else, whatever is read or decided.
            looks = path in (HEALTH.path, READY.path)
            limiter = self._health if looks else None
            answer = await self._answer(ask(), lambda job: anyio.to_thread.run_sync(_patient, job, limiter=limiter))
            if endpoint is not None and endpoint.query is Waiting and answer.status == 200:
                # A success, so the caller may see the action, and what it asks for is in order.
                seconds = read_wait(query, headers)
                if seconds > 0:
                    await self._hold(action_number(parameters["id"]) or 0, seconds, gone)
                    answer = await self._answer(ask(), anyio.to_thread.run_sync)
        except Exception as error:
            return self.authority.refused(headers, error)
        return answer

    def submit(self, headers: Mapping[str, str], body: bytes, client: str, reply: Callable[[Answer], None]) -> bool:
        """Begin to answer a submission, and call `reply` with the answer; False where the writer does not run."""
        if not self.writer.running:
            return False
        coming = Coming(SUBMIT.path, headers)
        asked: _Asked = (SUBMIT.method, SUBMIT.path, "", headers, body)

        def told(future: asyncio.Future[Any]) -> None:
            error = future.exception()
            if error is not None:
                reply(self.authority.refused(headers, error if isinstance(error, Exception) else RuntimeError(error)))
            elif isinstance(begun := future.result(), Answer):
                reply(begun)
            else:
                task = asyncio.ensure_future(self._finish(begun, coming))
                self._finishing.add(task)
                task.add_done_callback(self._finishing.discard)
                task.add_done_callback(told)

        self.writer.give(partial(self._begin, asked, client), coming).add_done_callback(told)
        return True

    def _begin(self, asked: _Asked, client: str) -> Answer | _Begun:
        """Answer what changes something, or find what is to be done outside before."""
        answer = self.authority.ordinary.answer(*asked) if self.authority.store.grouped else None
        if answer is not None:
            return answer
        step = advance(flow := self.authority.answering(*asked, client=client), None)
        return _Begun(flow, step) if isinstance(step, Task) else step

    async def _finish(self, begun: _Begun, coming: Coming) -> Answer:
        return await self._answer(begun.flow, partial(self.change, coming=coming), begun.step)

    async def _answer(
        self,
        flow: Answering,
        run: Callable[[Callable[[], Answer | Task]], Awaitable[Answer | Task]],
        step: Task | None = None,
    ) -> Answer:
        """Have `run` answer one request, and do between what is not to be done there; `step` is what comes first."""
        found = await run(partial(advance, flow, None)) if step is None else step
        while isinstance(found, Task):
            done = await self.judges.perform(found)
            found = await run(partial(advance, flow, done))
        return found

    async def _hold(self, action_id: int, seconds: float, gone: Callable[[], Awaitable[None]] | None) -> None:
        """Return when an action is decided, when the seconds have passed, or when the client has left."""
        tasks: list[asyncio.Future[None]] = [asyncio.create_task(self.waiters.until_decided(action_id, seconds))]
        if gone is not None:
            tasks.append(asyncio.ensure_future(gone()))
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await _end(tasks)

    async def read(self, key_id: int, job: Callable[[], _T]) -> _T:
        """Run what reads much, one of a key and a few in all at once, or refuse if too many wait."""
        if self._reading.total() >= _MOST_WAITING or self._reading[key_id] >= _MOST_OF_ONE:
            self.authority.limited("readers")
            whose = "of this key " if self._reading[key_id] >= _MOST_OF_ONE else ""
            message = f"too many requests {whose}that read much wait already; ask again"
            raise ApiError(503, "READERS_BUSY", message, headers={"retry-after": "1"})
        self._reading[key_id] += 1
        try:
            async with self._turns.setdefault(key_id, anyio.Lock()):
                return await anyio.to_thread.run_sync(_patient, job, self._is_deciding, limiter=self._readers)
        finally:
            self._reading[key_id] -= 1
            if not self._reading[key_id]:
                del self._reading[key_id], self._turns[key_id]

    async def change(self, job: Callable[[], _T], coming: Coming | None = None) -> _T:
        """Run what changes something, and return what it returned once that is durable."""
        if not self.writer.running:
            return await anyio.to_thread.run_sync(job)
        return await self.writer.run(job, coming)
