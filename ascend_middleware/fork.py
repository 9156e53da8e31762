"""A forked child: what it must not inherit is renewed there, once, however many threads come at the same time.

Not at the fork itself: some servers (uWSGI) fork without telling Python, so no hook runs in their workers. And a worker
may be made one of greenlets afterwards, and then needs the locks of greenlets. So whoever keeps something of a process
keeps `os.getpid()` beside it, and asks again at each use.
"""

from __future__ import annotations

import os
import sys
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["ProcessLock", "only_forks", "renew_once"]


class ProcessLock:
    """A lock among the threads of one process. A forked child finds it free, whichever thread of the parent held it.

    Args:
        make: `threading.Lock`, or `threading.RLock` where its holder may come a second time.
    """

    __slots__ = ("_by_process", "_make")

    def __init__(self, make: Callable[[], Any] = threading.Lock) -> None:
        self._make = make
        self._by_process: dict[int, Any] = {}

    def own(self) -> Any:
        """Return this process's lock itself, for where each call counts: `with lock.own():`."""
        pid = os.getpid()
        return self._by_process.get(pid) or self._by_process.setdefault(pid, self._make())

    def __enter__(self) -> None:
        self.own().acquire()

    def __exit__(self, *_: object) -> None:
        self._by_process[os.getpid()].release()


_renewing = ProcessLock()


def only_forks() -> bool:
    """Say whether this process of uWSGI loads applications and forks, but serves none: no thread must be started here.

    Told by nobody that a fork comes, Python forks while such a thread holds its interpreter lock, or waits for it: the
    worker never gets it.
    """
    uwsgi = sys.modules.get("uwsgi")
    return uwsgi is not None and uwsgi.worker_id() == 0 and uwsgi.mule_id() == 0


def renew_once(pid_of: Callable[[], int], renew: Callable[[], None]) -> None:
    """Renew a thing that another process made.

    Args:
        pid_of: returns the process that the thing is of.
        renew: makes it this process's, which it says last; waits for nothing.
    """
    with _renewing:
        if pid_of() != os.getpid():
            renew()
