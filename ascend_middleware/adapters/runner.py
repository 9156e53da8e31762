"""Run a guard for one application: the steps of its flows are performed here, for every adapter.

An adapter builds a `RequestView`, asks `judge` for the verdict, passes or refuses, and tells `conclude` what became of
the handler. Engines belong to a process (and an event loop): after a fork they are opened anew.
"""

from __future__ import annotations

import _thread
import asyncio
import concurrent.futures
import contextlib
import functools
import inspect
import time
import weakref
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

import anyio

from .. import substitute
from ..client import open_async_engine, open_engine
from ..client.core import Send
from ..client.http.transport import PerProcess
from ..compose import build_dry_guard, build_guard, build_table, build_worker, is_only_looked_at
from ..exceptions import ConfigurationError, MissingAPIKeyError
from ..flow import Blocking, Shared, Sleep, drive, drive_async, running_loop
from ..fork import ProcessLock, known_id, process_id
from ..guard import Asked, Hook, ReadBody, RequestView, Verdict, Watch, announce_ways, health_of
from ..masking import get_logger
from .sharing import AsyncSharing, SyncSharing

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from ..client.http.slots import AsyncGate
    from ..client.http.transport import Engine
    from ..flow import Flow
    from ..guard import Guard
    from ..journal.worker import BackgroundWorker

logger = get_logger("ascend_middleware.adapters.runner")

_STATE_THREADS: Final = 4


class AsyncBody(Protocol):
    """What an adapter on an event loop lends to the guard of one request's body and connection."""

    async def read(self, limit: int, seconds: float) -> bytes:
        """Return the whole body; see the step `ReadBody`."""
        ...

    async def watch(self, seconds: float, *, limit: int) -> bool:
        """Let time pass; True as soon as the client has left."""
        ...


class _Runner:
    """What both runners share: the guard and its background worker. Adapters tell of the arguments.

    Raises:
        ConfigurationError: with everything that is wrong.
    """

    def __init__(
        self,
        rules: Any,
        settings: Mapping[str, Any],
        *,
        identify: Callable[[Any], Any] | None = None,
        render: Callable[..., Any] | None = None,
        http_client: object = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._build = functools.partial(build_guard, rules, settings, identify=identify, render=render, now=now)
        self._given = rules, settings
        self._http_client = http_client
        self._changing = ProcessLock()
        self._own: tuple[Guard, BackgroundWorker | None, PerProcess, MissingAPIKeyError | None] | None = None
        # The threads of an application that is dropped without being closed end, too.
        self._workers: weakref.WeakSet[BackgroundWorker] = weakref.WeakSet()
        weakref.finalize(self, _stop, self._workers).atexit = False
        self._begin()
        announce_ways(self._guard.table, self._guard.settings, identifies=identify is not None)

    # Whether requests to the authority are made in threads, by a blocking client.
    _blocks = False

    def _open_engine(self) -> Any:
        raise NotImplementedError

    def _begin(self) -> None:
        asks = substitute.current
        self._lent = self._http_client if asks is None else None
        # What keeps the guard from serving; set for a command that asks nobody, else raised at once.
        self.lacking: MissingAPIKeyError | None = None
        try:
            self._guard: Guard = self._build()
        except MissingAPIKeyError as error:
            if not is_only_looked_at():
                raise
            self.lacking, self._guard = error, build_dry_guard(*build_table(*self._given))
        self.runs = self._guard.runs
        self._engines = PerProcess(self._open_engine)
        self._asks = asks
        if self._http_client is not None:
            self._open_engine()  # of the wrong kind, it is told now
        self.worker = build_worker(self._guard, http_client=self._lent if self._blocks else None)
        self._late_worker = _unless_eager(self.worker)
        if self.worker is not None:
            self._workers.add(self.worker)
            if asks is not None:
                asks.at_end.append(self.worker.close)

    @property
    def guard(self) -> Guard:
        """What decides; while a test's authority stands in for ours, one that asks it and knows nothing of before."""
        if self._asks is not substitute.current:
            self._change()
        return self._guard

    def _change(self) -> None:
        with self._changing:
            if self._asks is substitute.current:
                return
            if self._asks is None:
                self._own = self._guard, self.worker, self._engines, self.lacking
            if substitute.current is None and self._own is not None:
                self._asks, self._lent = None, self._http_client
                self._guard, self.worker, self._engines, self.lacking = self._own
                self.runs = self._guard.runs
                self._late_worker = _unless_eager(self.worker)
            else:
                with substitute.as_at_import():
                    self._begin()

    def health(self) -> dict[str, Any]:
        """Return how the guard is in this process; asks nobody. See `ascend_middleware.guard.health_of`."""
        return health_of(self.guard)

    def start(self) -> Guard:
        """Return the guard; start the background worker, if it has anything to do, at start-up or the first request.

        Raises:
            MissingAPIKeyError: the application was made only to be looked at.
        """
        if self._asks is not substitute.current:
            self._change()
        if self.lacking is not None:
            raise self.lacking
        worker = self.worker
        if worker is not None and worker.runs_in != (known_id[0] or process_id()) and worker.is_eager:
            worker.start()
        return self._guard

    def note(self, verdict: Verdict) -> None:
        """Start a worker that was not needed before: it delivers what was journalled."""
        if self._late_worker is not None and verdict.run is not None and verdict.run.number:
            self._late_worker.start()


def _unless_eager(worker: BackgroundWorker | None) -> BackgroundWorker | None:
    """Return a worker that has nothing to do, and is not started, before something is journalled."""
    return None if worker is None or worker.is_eager else worker


def _stop(workers: weakref.WeakSet[BackgroundWorker]) -> None:
    for worker in list(workers):
        if worker.is_running:
            # Garbage is collected wherever a thread stands, with any lock in its hand: this takes none.
            with contextlib.suppress(RuntimeError):  # the interpreter ends, and closes it otherwise
                _thread.start_new_thread(worker.stop, ())


class Sight(NamedTuple):
    """How an adapter without an event loop looks at its requests, of which most need no closer look.

    Attributes:
        view: makes the guard's view of a request, and of the `Resolved` for it, or None.
        read: performs the step `ReadBody` for a request, as far as the server lets it.
    """

    view: Callable[[Any, Any], RequestView]
    read: Callable[[Any, int, float], bytes]


class SyncRunner(_Runner):
    """Runs the guard in the calling thread: Flask, WSGI, Django without an event loop. Safe among threads."""

    _blocks = True

    def __init__(self, rules: Any, settings: Mapping[str, Any], **options: Any) -> None:
        if inspect.iscoroutinefunction(options.get("identify")):
            raise ConfigurationError("identify is a coroutine function; here it is called without an event loop")
        super().__init__(rules, settings, **options)
        self._is_hidden = False
        self._sharing = SyncSharing()

    def _open_engine(self) -> Engine:
        return open_engine(self._guard.settings, http_client=self._lent)

    def judge(self, sight: Sight, request: Any, resolved: Any, method: str | None = None) -> Verdict:
        """Return the verdict for one request.

        Args:
            sight: how the adapter's requests are looked at.
            request: what these functions take.
            resolved: the `Resolved` of the framework's router, None where there is none.
            method: of an ordinary request of HTTP (see `firewall.is_ordinary`), which may need no view; else None.
        """
        started = time.perf_counter()
        guard = self.start()
        view: RequestView | None = None
        found: Verdict | Asked | Flow[Verdict] | None = None
        if method is not None and resolved is not None:
            found = guard.at_once(resolved, method)
        if found is None:
            view = self._view(sight, request, resolved)
            found = guard.triage(view)
        if isinstance(found, Asked):
            attempt = found.attempt
            try:
                attempt.answer = self._engines.get().send(attempt.request, attempt.timeout)
            except Exception as error:
                attempt.answer = error
            heard = guard.hear(found)
            if heard is None:
                view = view or self._view(sight, request, resolved)
                heard = guard.go_on(found, view)
            found = heard
        if not isinstance(found, Verdict):
            found = drive(found, functools.partial(self._perform, functools.partial(sight.read, request)))
        if found.run is not None:
            self.note(found)
        if view is not None or not guard.recorder.is_idle:
            view = view or self._view(sight, request, resolved)
            guard.log(view, found, seconds=time.perf_counter() - started)
        return found

    def _view(self, sight: Sight, request: Any, resolved: Any) -> RequestView:
        view = sight.view(request, resolved)
        if not self._is_hidden and view.raw_path is None:
            self._is_hidden = True
            logger.info("this server hides the raw target (RAW_URI, REQUEST_URI): the decoded path is what is checked")
        return view

    def look(self, verdict: Verdict) -> Verdict | None:
        """Return the refusal of a request that was let pass, if its agent was blocked since."""
        flow = self._guard.look(verdict)
        return None if flow is None else drive(flow, functools.partial(self._perform, _nothing))

    def record(self, flow: Flow[None]) -> None:
        """Do what is left to do when a request was concluded."""
        drive(flow, _made)

    def close(self) -> None:
        """Close this process's connections and deliver the outcomes that wait."""
        engine = self._engines.take()
        if engine is not None:
            engine.close()
        if self.worker is not None:
            self.worker.close()
        self._guard.recorder.close()
        self._guard.state.close()

    def _perform(self, read: Callable[[int, float], bytes], step: Any) -> Any:
        if isinstance(step, Send):  # first, because most flows have no other step
            return self._engines.get().send(step.request, step.timeout)
        if isinstance(step, Sleep):
            time.sleep(step.seconds)
            return None
        if isinstance(step, Shared):
            return self._sharing.perform(step, functools.partial(self._perform, read))
        if isinstance(step, ReadBody):
            return read(step.limit, step.seconds)
        if isinstance(step, Watch):
            # A WSGI server does not tell that its client has left.
            time.sleep(step.seconds)
            return False
        if isinstance(step, Hook):
            result = step.function(*step.arguments)
            if inspect.iscoroutine(result):
                result.close()
                raise TypeError("identify returned a coroutine; here it is called without an event loop")
            return result
        assert isinstance(step, Blocking)  # noqa: S101 - there are no others
        return step.function(*step.arguments)


def _made(step: Blocking) -> Any:
    return step.function(*step.arguments)


def _nothing(limit: int, seconds: float) -> bytes:
    return b""


class AsyncRunner(_Runner):
    """Runs the guard on the event loop that asks: ASGI applications, Django with one."""

    def __init__(self, rules: Any, settings: Mapping[str, Any], **options: Any) -> None:
        super().__init__(rules, settings, **options)
        self._sharing = AsyncSharing()
        # Threads of its own: an application that fills the loop's keeps nobody from reading the kill state.
        self._threads = PerProcess(
            lambda: concurrent.futures.ThreadPoolExecutor(_STATE_THREADS, thread_name_prefix="ascend-state")
        )

    def _open_engine(self) -> AsyncGate:
        return open_async_engine(self._guard.settings, http_client=self._lent)

    def triage(self, view: RequestView, guard: Guard | None = None) -> Any:
        """Settle what needs no authority, with its line in the log; else return what `decide` takes.

        `guard` is what `start` returned for this request, if it was called.
        """
        started = time.perf_counter()
        guard = guard or self.start()
        found = guard.triage(view)
        if isinstance(found, Verdict):
            guard.log(view, found, seconds=time.perf_counter() - started)
        return found

    async def decide(self, view: RequestView, found: Asked | Flow[Verdict], body: AsyncBody) -> Verdict:
        """Return the verdict for a request that `triage` did not settle; `found` is what it returned."""
        started = time.perf_counter()
        guard = self._guard  # the one that `triage` asked
        verdict: Verdict | Flow[Verdict] = found  # type: ignore[assignment]  # unless it is to be asked at once
        if type(found) is Asked:
            attempt = found.attempt
            try:
                attempt.answer = await self.engine.send(attempt.request, attempt.timeout)
            except Exception as error:
                attempt.answer = error
            verdict = guard.hear(found) or guard.go_on(found, view)
        if not isinstance(verdict, Verdict):
            verdict = await drive_async(verdict, functools.partial(self._perform, body))
        if verdict.run is not None:
            self.note(verdict)
        guard.log(view, verdict, seconds=time.perf_counter() - started)
        return verdict

    @property
    def engine(self) -> AsyncGate:
        """What sends requests to the authority, opened if need be."""
        opened: AsyncGate = self._engines.get()
        return opened

    def _perform(self, body: AsyncBody, step: Any) -> Awaitable[Any]:
        if isinstance(step, Send):  # first, because most flows have no other step
            sent: Awaitable[Any] = self._engines.get().send(step.request, step.timeout)
            return sent
        if isinstance(step, Sleep):
            return anyio.sleep(step.seconds)
        if isinstance(step, Shared):
            return self._sharing.perform(step, functools.partial(self._perform, body))
        if isinstance(step, ReadBody):
            return body.read(step.limit, step.seconds)
        if isinstance(step, Watch):
            return body.watch(step.seconds, limit=self._guard.settings.body_limit)
        return _called(step) if isinstance(step, Hook) else self._call(step)

    async def judge(self, view: RequestView, body: AsyncBody) -> Verdict:
        """Return the verdict for one request."""
        found = self.triage(view)
        return found if isinstance(found, Verdict) else await self.decide(view, found, body)

    async def record(self, flow: Flow[None]) -> None:
        """Do what is left to do when a request was concluded."""
        # In one call, which goes on to its end: the one who waits may be cancelled at each wait.
        with anyio.CancelScope(shield=True):
            await self._call(Blocking(drive, (flow, _made)))

    async def _call(self, step: Blocking) -> Any:
        """Make a call that may block, in a thread; it goes on to its end when the one who waits for it is cancelled."""
        if step.inline:
            return step.function(*step.arguments)
        future = self._threads.get().submit(step.function, *step.arguments)
        try:
            return await _result_of(future)
        except anyio.get_cancelled_exc_class():
            future.add_done_callback(lambda done: self._abandoned(step, done))
            raise

    def _abandoned(self, step: Blocking, done: concurrent.futures.Future[Any]) -> None:
        if not done.cancelled() and done.exception() is None and step.abandon is not None:
            self._threads.get().submit(step.abandon, done.result())

    async def aclose(self) -> None:
        """Close this event loop's connections and deliver the outcomes that wait."""
        engine = self._engines.take()
        if engine is not None:
            await engine.aclose()
        if self.worker is not None:
            await anyio.to_thread.run_sync(self.worker.close)
        threads = self._threads.take()
        if threads is not None:
            threads.shutdown(wait=False)
        self._guard.recorder.close()
        self._guard.state.close()


async def _called(hook: Hook) -> Any:
    result = hook.function(*hook.arguments)
    return await result if hasattr(result, "__await__") else result


async def _result_of(future: concurrent.futures.Future[Any]) -> Any:
    """Wait for what a thread returns; the thread does not learn that the one who waits is cancelled."""
    loop = running_loop()
    if isinstance(loop, asyncio.AbstractEventLoop):
        return await asyncio.shield(asyncio.wrap_future(future, loop=loop))
    done = anyio.Event()

    def tell(_: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended
            loop.run_sync_soon(done.set)

    future.add_done_callback(tell)
    await done.wait()
    return future.result()
