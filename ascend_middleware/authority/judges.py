"""Processes in which an authority that serves many organisations judges what takes long."""

from __future__ import annotations

import functools
import logging
import signal
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Final

import anyio
import anyio.to_process
import anyio.to_thread

from .bodies import ApiError
from .judging import Judged, Task
from .policy import Question
from .policy.evaluation import Held, evaluate_sources

__all__ = ["Judges"]

log = logging.getLogger(__name__)

# Processes, and how many actions of one organisation may wait; one of each is judged at a time.
_PROCESSES: Final = 2
_MOST_OF_ONE: Final = 16
# Seconds until a process that does not answer is killed; most of it is for a machine that has no time for it.
_LONGEST: Final = 20.0


class Judges:
    """Does what has to be done outside of the writer: no organisation waits for another one's conditions.

    A condition holds Python's lock while it is evaluated, so those that take long are evaluated in other processes,
    which know nothing but conditions and the action.
    """

    def __init__(self, limited: Callable[[str], None]) -> None:
        self._limited = limited
        self._waiting: Counter[str] = Counter()
        self._turns: dict[str, anyio.Lock] = {}
        self._alone = False

    @property
    def count(self) -> int:
        """How many actions wait to be judged, or are."""
        return self._waiting.total()

    @functools.cached_property
    def _processes(self) -> anyio.CapacityLimiter:
        return anyio.CapacityLimiter(_PROCESSES)

    async def perform(self, task: Task) -> object:
        """Do a task, when it is its organisation's turn; refuse if too many wait for that."""
        tenant = task.tenant
        if self._waiting[tenant] >= _MOST_OF_ONE:
            self._limited("judges")
            message = "too many actions of this organisation wait to be judged, since its rules take long; ask again"
            raise ApiError(503, "JUDGES_BUSY", message, headers={"retry-after": "1"})
        self._waiting[tenant] += 1
        try:
            async with self._turns.setdefault(tenant, anyio.Lock()):
                if task.question is None or self._alone:
                    return await anyio.to_thread.run_sync(task.perform)
                return await self._judged(task.question)
        finally:
            self._waiting[tenant] -= 1
            if not self._waiting[tenant]:
                del self._waiting[tenant], self._turns[tenant]

    async def _judged(self, question: Question) -> Judged:
        try:
            with anyio.fail_after(_LONGEST):
                held = await anyio.to_process.run_sync(
                    _evaluate, question.sources, dict(question.action), cancellable=True, limiter=self._processes
                )
        except TimeoutError:
            log.error("an action was not judged within %.0f s", _LONGEST)
            message = "the action could not be judged in time; nothing was decided"
            raise ApiError(503, "NOT_JUDGED", message, headers={"retry-after": "1"}) from None
        except (OSError, anyio.BrokenWorkerProcess) as error:
            # An action that ends its process must not bring all others' rules back into this one.
            if await self._can_start():
                log.error("the process that judged an action ended meanwhile: %r", error)
                message = "the action could not be judged; nothing was decided"
                raise ApiError(503, "NOT_JUDGED", message, headers={"retry-after": "1"}) from None
            log.error("no process can be started to judge in, so rules that take long slow all down: %r", error)
            self._alone = True
            return await anyio.to_thread.run_sync(lambda: Judged(question, question.judge()))
        return Judged(question, question.judge(held))

    async def _can_start(self) -> bool:
        """Say whether there is a process that judges, or a new one can be started."""
        try:
            with anyio.fail_after(_LONGEST):
                await anyio.to_process.run_sync(_evaluate, (), {}, cancellable=True, limiter=self._processes)
        except (OSError, TimeoutError, anyio.BrokenWorkerProcess):
            return False
        return True


def _evaluate(sources: Sequence[str | None], action: dict[str, Any]) -> list[Held]:
    # Whoever stops the authority at its terminal stops this too, once nobody waits for it any more.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    return evaluate_sources(sources, action)
