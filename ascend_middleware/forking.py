"""A forked child: what it must not inherit is renewed there, once, however many threads come at the same time.

Not at the fork itself: a worker may be made one of greenlets afterwards, and then needs the locks of greenlets.
"""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["process_id", "renew_once"]

_process = os.getpid()


def _note_process() -> None:
    global _process
    _process = os.getpid()


if hasattr(os, "register_at_fork"):  # elsewhere nothing forks
    os.register_at_fork(after_in_child=_note_process)


def process_id() -> int:
    """Return `os.getpid()` without a system call: at each request several things ask whose process this is."""
    return _process


# One for each process; a parent's may be held for ever by a thread that the child does not have.
_locks: Final[dict[int, threading.Lock]] = {}


def renew_once(pid_of: Callable[[], int], renew: Callable[[], None]) -> None:
    """Renew a thing that another process made.

    Args:
        pid_of: returns the process that the thing is of.
        renew: makes it this process's, which it says last; waits for nothing.
    """
    pid = os.getpid()
    with _locks.setdefault(pid, threading.Lock()):
        if pid_of() != pid:
            renew()
