"""What is judged outside of the writer: one organisation's conditions never hold up what others submit.

Where the conditions about an action take next to no time, they are evaluated where the action is stored. Anything else
leaves the transaction with `Apart`, is judged, and comes again; the answer counts if the same is asked then.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from .policy import Judgement, Question
from .policy.evaluation import condition_of

__all__ = ["QUICK", "Apart", "Judged", "Task"]

# Seconds of processor time: a hundred ordinary conditions.
QUICK: Final = 0.002


@dataclass(frozen=True, slots=True)
class Task:
    """What has to be done outside of a transaction before a request of an organisation can be answered.

    `sources` are conditions that nobody has compiled yet, `work` is anything else; it raises nothing.
    """

    tenant: str
    question: Question | None = None
    sources: tuple[str, ...] = ()
    work: Callable[[], object] | None = None

    def perform(self) -> object:
        """Do it in this thread, and return what came of it."""
        if self.work is not None:
            return self.work()
        for source in self.sources:
            condition_of(source)
        return None if self.question is None else Judged(self.question, self.question.judge())


@dataclass(frozen=True, slots=True)
class Judged:
    """What was asked, and the answer."""

    question: Question
    judgement: Judgement


class Apart(Exception):  # noqa: N818 - what is to be done, not an error
    """A request cannot be answered within a transaction before something was done outside of it."""

    def __init__(self, task: Task) -> None:
        super().__init__("to be done outside of a transaction")
        self.task = task
