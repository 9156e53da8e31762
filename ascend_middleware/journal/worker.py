"""The background worker: threads of the serving process, which deliver the journal and receive commands.

They start at the first request or at the server's start-up, in the process that serves (checked by pid, so also after a
fork), never at import. No decision depends on them being alive.
"""

from __future__ import annotations

import atexit
import functools
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any, Final

from ..client.background import FailureCount, repeat
from ..client.calls import dice
from ..exceptions import AscendError, AuthenticationError
from ..flow import Blocking, Sleep, drive
from ..fork import only_forks, process_id, renew_once
from ..masking import get_logger
from .delivery import Delivery
from .recovery import adopt, bytes_of_others

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..client.core import ClientCore
    from ..state.base import State
    from .journal import Journal

__all__ = ["BackgroundWorker", "LateEngine"]

logger = get_logger("ascend_middleware.worker")

_LONGEST_PAUSE: Final = 30.0
_ADOPT_SECONDS: Final = 10.0
_IDLE_SECONDS: Final = 1.0
_KEY_SECONDS: Final = 5.0
# Where the authority takes many outcomes at once: how long they gather, unless so many bytes wait already.
_GATHER_SECONDS: Final = 0.1
_PLENTY: Final = 65_536
# How often an authority that takes one at a time is asked whether it does still.
_ASK_SECONDS: Final = 600.0
# Where it does: after so much work comes a rest, of so many times the work, while requests come in.
_BURST_SECONDS: Final = 0.02
_RESTS: Final = 7
_LONGEST_REST: Final = 0.3
# The part of the journal's size limit at which its delivery no longer rests.
_HURRY_AT: Final = 0.1


class BackgroundWorker:
    """Deliver this process's journal, and those of dead processes in its directory.

    `connect` opens the synchronous engine, in the worker's thread. The poller is called in a thread of its own again
    and again, and returns the seconds until the next time.
    """

    def __init__(
        self,
        core: ClientCore,
        connect: Callable[[], Any],
        *,
        journal: Journal | None,
        state: State,
        poller: Callable[[Callable[[Any], Any]], float] | None = None,
        now: Callable[[], float] = time.time,
        random: Callable[[], float] = dice,
    ) -> None:
        self._core = core
        self._connect = connect
        self._journal = journal
        self._state = state
        self._poller = poller
        self._now = now
        self._random = random
        self._start_anew()

    def _start_anew(self) -> None:
        self._lock = threading.Lock()
        self._delivering = threading.Lock()
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []
        self._delivery: Delivery | None = None
        self._failures = FailureCount(again=6)
        self._pause_until = self._adopt_at = self._age_at = self._look_at = 0.0
        self._entered = 0
        # In which process its threads run, 0 where they do not.
        self.runs_in = 0
        self._pid = process_id()

    @property
    def is_eager(self) -> bool:
        """Whether there is something to do before anything is journalled: commands, a key, dead processes' journals."""
        journals = self._journal is not None and self._journal.directory is not None
        return self._poller is not None or journals or not self._core.settings.is_local

    @property
    def is_running(self) -> bool:
        """Whether the threads of this process run."""
        return self.runs_in == process_id()

    def start(self) -> None:
        """Start the threads unless they run in this process."""
        if self.runs_in == process_id() or only_forks():
            return
        if self._pid != process_id():
            renew_once(lambda: self._pid, self._start_anew)
        with self._lock:
            if self.runs_in:
                return
            self.runs_in = self._pid
            # A new one: threads that did not stop in time must not go on.
            self._stopping = threading.Event()
            tasks: list[tuple[str, Callable[..., None]]] = []
            if self._journal is not None:
                self._journal.renew()
                tasks.append(("ascend-worker", functools.partial(self._deliver_until, self._journal)))
            if self._poller is not None:
                tasks.append(("ascend-poller", functools.partial(_poll, self._poller)))
            if not self._core.settings.is_local:
                tasks.append(("ascend-key", self._try_key))
            self._threads = [
                threading.Thread(target=self._run, args=(task, self._stopping), name=name, daemon=True)
                for name, task in tasks
            ]
            for thread in self._threads:
                thread.start()
            _close_at_exit(self)

    def _run(self, task: Callable[[LateEngine, threading.Event], None], stop: threading.Event) -> None:
        engine = LateEngine(self._connect)
        try:
            task(engine, stop)
        finally:
            engine.close()

    def stop(self) -> None:
        """Let the threads deliver what waits and end, without waiting for that."""
        if self._pid == process_id():
            self._stopping.set()
            if self._journal is not None:
                self._journal.news.set()

    def close(self, *, seconds: float = 5.0) -> None:
        """Deliver what waits, for at most `seconds`, and stop."""
        if self._pid != process_id():
            return
        with self._lock:
            threads, self._threads = self._threads, []
        if not threads:
            return
        self.stop()
        until = time.monotonic() + seconds
        for thread in threads:
            thread.join(max(0.0, until - time.monotonic()))
        if any(thread.is_alive() for thread in threads):
            backlog = 0 if self._journal is None else self._journal.backlog
            logger.error("stopping with about %d bytes of the journal undelivered", backlog)
        self.runs_in = 0

    def _try_key(self, engine: LateEngine, stop: threading.Event) -> None:
        """Find out at the start, where the authority is up, whether it knows the key."""
        try:
            drive(self._core.try_key(seconds=_KEY_SECONDS), engine.perform)
        except AuthenticationError as error:
            logger.error("the authority refuses this service's API key; governed requests are refused: %s", error)
        except AscendError as error:
            logger.debug("whether the authority knows the key is unknown: %s", error)
        except Exception:
            logger.exception("whether the authority knows the key could not be asked")

    # --- delivering

    def _deliver_until(self, journal: Journal, engine: LateEngine, stop: threading.Event) -> None:
        # An authority in this process is not asked by the thread that tries the key.
        ask_at = self._core.clock() + (0.0 if self._core.settings.is_local else _ADOPT_SECONDS)
        worked_for, used = 0.0, time.thread_time()
        with self._delivering:
            while True:
                stopping, began = stop.is_set(), self._core.clock()
                journal.awaits = True  # before the turn, in which something may be written
                try:
                    worked = self._turn(journal, engine, stopping=stopping)
                except Exception:
                    logger.exception("the background worker failed; it goes on")
                    worked, self._pause_until = False, self._core.clock() + _IDLE_SECONDS
                now = time.thread_time()
                journal.worker_seconds, used = journal.worker_seconds + now - used, now
                if worked:
                    if self._core.outcomes_at_once > 1:
                        if journal.backlog <= _PLENTY:
                            stop.wait(_GATHER_SECONDS)  # what comes meanwhile is told at once
                        continue
                    if self._core.clock() >= ask_at and not stopping:
                        ask_at = self._core.clock() + _ASK_SECONDS
                        self._ask_offers(engine)
                    # Python runs one thread at a time: delivering without pause would slow requests down.
                    worked_for += self._core.clock() - began
                    if worked_for >= _BURST_SECONDS:
                        stop.wait(self._rest(journal, worked_for))
                        worked_for = 0.0
                    continue
                if stopping:
                    break
                pause = self._pause_until - self._core.clock()
                if pause > 0:  # whatever is written, nothing is told before
                    stop.wait(min(pause, _IDLE_SECONDS))
                else:
                    journal.news.wait(_IDLE_SECONDS)
                    journal.news.clear()
            self._finish(journal)

    def _ask_offers(self, engine: LateEngine) -> None:
        """Ask how many outcomes the authority takes at once; it may be a newer one than before."""
        try:
            drive(self._core.try_key(seconds=_KEY_SECONDS), engine.perform)
        except AscendError as error:
            logger.debug("what the authority offers is unknown: %s", error)

    def _rest(self, journal: Journal, worked_for: float) -> float:
        """Return how long to rest while requests come in; less when much waits."""
        entered, self._entered = self._entered, journal.entered
        if entered == journal.entered:
            return 0.0
        filled = journal.backlog / (journal.limits.size * _HURRY_AT)
        return min(_LONGEST_REST, _RESTS * worked_for * max(0.0, 1.0 - filled))

    def _turn(self, journal: Journal, engine: LateEngine, *, stopping: bool) -> bool:
        """Deliver some lines or adopt what is due; False when there is nothing to do now."""
        clock = self._core.clock()
        if clock >= self._look_at:
            self._look_at = clock + _IDLE_SECONDS
            journal.look()
        if clock < self._pause_until:
            return False
        try:
            # First, because under load there is always a line of its own journal to deliver.
            if journal.directory is not None and clock >= self._adopt_at and not stopping:
                self._adopt_at = clock + _ADOPT_SECONDS
                adopt(
                    journal.directory,
                    core=self._core,
                    state=self._state,
                    perform=engine.perform,
                    max_age=journal.limits.age,
                    now=self._now,
                )
                journal.others_bytes = bytes_of_others(journal.directory, besides=journal.process)
            if journal.is_open:
                if self._delivery is None:
                    self._delivery = Delivery(journal.log, process=journal.process, core=self._core, now=self._now)
                if clock >= self._age_at or self._failures.number:
                    self._age_at = clock + _IDLE_SECONDS
                    journal.waiting_since = self._delivery.waiting_since
                if drive(self._delivery.deliver_many(), engine.perform):
                    self._failures.succeeded()
                    journal.delivered = self._delivery.delivered
                    return True
        except AscendError as error:
            self._back_off(error)
        return False

    def _back_off(self, error: AscendError) -> None:
        asked = getattr(error, "retry_after", None)
        pause = min(_LONGEST_PAUSE, 0.5 * 2 ** min(self._failures.number, 10)) * (0.5 + self._random() / 2)
        if self._failures.failed():
            log = logger.error if isinstance(error, AuthenticationError) else logger.warning
            log("the journal waits for the authority: %s", error)
        self._pause_until = self._core.clock() + max(pause, min(asked or 0.0, _LONGEST_PAUSE))

    def _finish(self, journal: Journal) -> None:
        """Leave nothing behind where all was delivered."""
        if not journal.is_open or (self._delivery is not None and self._delivery.open_entries):
            return  # handlers may still run; what this process holds is adopted when it ends
        delivered = self._delivery is not None and journal.log.backlog == 0
        self._delivery = None
        # What another thread writes now is left to who adopts it.
        journal.close(remove=delivered, unread=False)


def _poll(poller: Callable[[Callable[[Any], Any]], float], engine: LateEngine, stop: threading.Event) -> None:
    repeat(lambda: poller(engine.perform), stop, interval=_IDLE_SECONDS, name="receiving commands")


_open: Final[weakref.WeakSet[BackgroundWorker]] = weakref.WeakSet()


def _close_at_exit(worker: BackgroundWorker) -> None:
    # A server without lifespan never closes the middleware. One that was closed is not held until then.
    if not _open:
        atexit.unregister(_close_all)
        atexit.register(_close_all)
    _open.add(worker)


def _close_all() -> None:
    for worker in list(_open):
        worker.close()


class LateEngine:
    """An engine that is opened at its first use, in the thread that uses it."""

    def __init__(self, connect: Callable[[], Any]) -> None:
        self._connect = connect
        self._engine: Any = None

    def perform(self, step: Any) -> Any:
        """Carry out a step of a client's flow."""
        if isinstance(step, Sleep):
            time.sleep(step.seconds)
            return None
        if isinstance(step, Blocking):
            return step.function(*step.arguments)
        if self._engine is None:
            self._engine = self._connect()
        return self._engine.send(step.request, step.timeout)

    def close(self) -> None:
        """Close the engine."""
        engine, self._engine = self._engine, None
        if engine is not None:
            engine.close()
