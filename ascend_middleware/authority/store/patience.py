"""For how long one request may read, and what goes before it.

Engines end a statement that takes longer. What reads much does so in pieces, and between them lets decisions go first.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from typing import Final, TypeVar

from ascend_middleware.exceptions import StorageError

__all__ = ["TooLongError", "give_way", "in_pieces", "let_pass", "patience", "seconds_left"]

# Seconds that a piece of work may take while something more urgent waits; for how long that goes first after each, so
# that reading gets a share of the time, however much is decided; and how often it is looked whether it is done.
_PIECE: Final = 0.0005
_PAUSE: Final = 0.01
_LOOK: Final = 0.001
# Seconds for which one request lets others go first, in all.
_MOST_PAUSED: Final = 5.0
_Item = TypeVar("_Item")


class TooLongError(StorageError):
    """What was read took longer than it may; the database is well."""


class _Reading:
    """What is known of one request that reads; `until` is on the monotonic clock, and None without a limit."""

    __slots__ = ("paused", "since", "until", "urgent")

    def __init__(self, until: float | None, urgent: Callable[[], bool] | None) -> None:
        self.until = until
        self.urgent = urgent
        self.since = -math.inf  # when its last pause ended
        self.paused = 0.0


_reading: Final[ContextVar[_Reading | None]] = ContextVar("reading", default=None)


@contextlib.contextmanager
def patience(seconds: float | None, *, urgent: Callable[[], bool] | None = None) -> Iterator[None]:
    """Let what is read within the block, by this thread, take so long in all; None ends an outer limit.

    `urgent` says whether something waits that goes before it; see `give_way`.
    """
    before = _reading.set(_Reading(None if seconds is None else time.monotonic() + seconds, urgent))
    try:
        yield
    finally:
        _reading.reset(before)


def seconds_left() -> float | None:
    """Return how long reading may still take, less than 0 if it may not any more, and None without a limit."""
    reading = _reading.get()
    return None if reading is None or reading.until is None else reading.until - time.monotonic()


def give_way() -> None:
    """Let what is urgent go first, between two small pieces of a long reading; its patience does not count that."""
    reading = _reading.get()
    if reading is None or reading.urgent is None or not reading.urgent():
        return
    began = time.monotonic()
    if began - reading.since < _PIECE:
        return
    let_pass(reading.urgent)
    reading.since = time.monotonic()
    reading.paused += reading.since - began
    if reading.until is not None:
        reading.until += reading.since - began
    if reading.paused >= _MOST_PAUSED:
        reading.urgent = None


def in_pieces(items: Iterable[_Item]) -> Iterator[_Item]:
    """Yield each, and let what is urgent go before it."""
    for item in items:
        give_way()
        yield item


def let_pass(urgent: Callable[[], bool]) -> None:
    """Wait until nothing is urgent, but not for long."""
    until = time.monotonic() + _PAUSE
    while urgent() and time.monotonic() < until:
        time.sleep(_LOOK)
