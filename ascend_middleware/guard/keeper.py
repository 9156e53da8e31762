"""The keeper: a background thread of the serving process that tells the authority what became of passed actions.

It starts at the first outcome, in the process that serves (checked by pid, so also after a fork), never at import.
What it holds is in memory: outcomes not delivered when the process dies are lost with it.
"""

from __future__ import annotations

import atexit
import os
import queue
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..client.masking import get_logger
from ..exceptions import AscendError
from ..flow import Sleep, drive

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..client.core import ClientCore

__all__ = ["Keeper", "Outcome"]

logger = get_logger("ascend_middleware.keeper")

CAPACITY = 10_000
DELIVERY_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one passed action; `error` is None when it completed."""

    action_id: str
    error: str | None
    duration_ms: int


class Keeper:
    """Deliver outcomes in order, each with the client's retries; drop the newest, loudly, when too many wait.

    Args:
        core: the client's flows.
        connect: opens the synchronous engine, called in the keeper's thread.
    """

    def __init__(self, core: ClientCore, connect: Callable[[], Any], *, capacity: int = CAPACITY) -> None:
        self._core = core
        self._connect = connect
        self._capacity = capacity
        self._lock = threading.Lock()
        self._registered = False
        self._start_anew()

    def _start_anew(self) -> None:
        self._queue: queue.Queue[Outcome | None] = queue.Queue(self._capacity)
        self._thread: threading.Thread | None = None
        self._pid = os.getpid()

    def report(self, outcome: Outcome) -> None:
        """Hand an outcome over; never blocks."""
        with self._lock:
            if self._pid != os.getpid():
                self._start_anew()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="ascend-keeper", daemon=True)
                self._thread.start()
                if not self._registered:
                    # A server without lifespan never closes the middleware.
                    self._registered = True
                    atexit.register(self.close)
        try:
            self._queue.put_nowait(outcome)
        except queue.Full:
            logger.error("outcome of action %s dropped: %d wait already", outcome.action_id, self._capacity)

    def close(self, *, seconds: float = 5.0) -> None:
        """Deliver what waits, for at most `seconds`, and stop."""
        with self._lock:
            thread, self._thread = self._thread, None
            if thread is None or self._pid != os.getpid():
                return
        try:
            self._queue.put(None, timeout=seconds)
        except queue.Full:
            logger.error("stopping with %d outcomes undelivered", self._queue.qsize())
            return
        thread.join(seconds)
        if thread.is_alive():
            logger.error("stopping with about %d outcomes undelivered", self._queue.qsize())

    def _run(self) -> None:
        engine = None
        try:
            while (outcome := self._queue.get()) is not None:
                try:
                    engine = engine or self._connect()
                    self._deliver(engine, outcome)
                except AscendError as error:
                    logger.warning("outcome of action %s not delivered: %s", outcome.action_id, error)
                except Exception:
                    logger.exception("outcome of action %s not delivered", outcome.action_id)
        finally:
            if engine is not None:
                engine.close()

    def _deliver(self, engine: Any, outcome: Outcome) -> None:
        deadline = self._core.clock() + DELIVERY_SECONDS
        if outcome.error is None:
            flow = self._core.complete(outcome.action_id, duration_ms=outcome.duration_ms, deadline=deadline)
        else:
            flow = self._core.fail(
                outcome.action_id, error=outcome.error, duration_ms=outcome.duration_ms, deadline=deadline
            )

        def perform(step: Any) -> Any:
            if isinstance(step, Sleep):
                time.sleep(step.seconds)
                return None
            return engine.send(step.request, step.timeout)

        drive(flow, perform)
