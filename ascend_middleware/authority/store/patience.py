"""For how long one request may read: engines end a statement that takes longer."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Final

from ascend_middleware.exceptions import StorageError

__all__ = ["TooLongError", "patience", "seconds_left"]

# When it ends, on the monotonic clock; None: it may take as long as it needs.
_until: Final[ContextVar[float | None]] = ContextVar("until", default=None)


class TooLongError(StorageError):
    """What was read took longer than it may; the database is well."""


@contextlib.contextmanager
def patience(seconds: float | None) -> Iterator[None]:
    """Let what is read within the block, by this thread, take so long in all; None ends an outer limit."""
    before = _until.set(None if seconds is None else time.monotonic() + seconds)
    try:
        yield
    finally:
        _until.reset(before)


def seconds_left() -> float | None:
    """Return how long reading may still take, less than 0 if it may not any more, and None without a limit."""
    until = _until.get()
    return None if until is None else until - time.monotonic()
