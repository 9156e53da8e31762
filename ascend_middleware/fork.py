"""Processes: what a forked child must not inherit is renewed there, once; and a lock that ends with its process.

Not renewed at the fork itself: some servers (uWSGI) fork without telling Python, so no hook runs in their workers. And
a worker may be made one of greenlets afterwards, and then needs the locks of greenlets. So whoever keeps something of a
process keeps its `process_id()` beside it, and asks again at each use.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["FileLock", "Identifiers", "ProcessLock", "is_same", "known_id", "only_forks", "process_id", "renew_once"]


T = TypeVar("T")
# Identifiers at a time: each asking of the system lets other threads go first.
_DRAWN: Final = 64
# MADV_WIPEONFORK of Linux, which `mmap` has no name for: a forked child finds zeros, whoever forked it.
_WIPE_ON_FORK: Final = 18
_NO_ADVICE: Final = -1


def _wiped_page() -> Any:
    """Return a page that a fork wipes; one that cannot be written where there is none."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, ValueError):
            page = mmap.mmap(-1, mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            page.madvise(_WIPE_ON_FORK)
            with contextlib.suppress(OSError):
                page.madvise(_NO_ADVICE)
                return bytes(mmap.PAGESIZE)  # emulators say yes to everything, and wipe nothing
            return page
    return bytes(mmap.PAGESIZE)


# `known_id[0]` is this process's id, or 0 where `process_id()` has to be asked; for where a call would count.
known_id: Final = memoryview(_wiped_page()).cast("q")


def process_id() -> int:
    """Return what `os.getpid()` does, for a tenth of the price where the system tells of forks."""
    return known_id[0] or _ask()


def _ask() -> int:
    pid = os.getpid()
    if not known_id.readonly:
        known_id[0] = pid
    return pid


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_ask)


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
        pid = process_id()
        return self._by_process.get(pid) or self._by_process.setdefault(pid, self._make())

    def __enter__(self) -> None:
        self.own().acquire()

    def __exit__(self, *_: object) -> None:
        self._by_process[process_id()].release()


class Identifiers(Generic[T]):
    """Random texts of so many hexadecimal digits, or what `make` makes of them; a forked child draws its own.

    They are drawn, and made, many at a time.
    """

    __slots__ = ("_digits", "_drawn", "_make", "_pid")

    def __init__(self, digits: int, make: Callable[[str], T]) -> None:
        self._digits = digits
        self._make = make
        self._pid = 0
        self._drawn: Iterator[T] = iter(())

    def draw(self) -> T:
        """Return one of them."""
        if self._pid != known_id[0] and self._pid != (pid := process_id()):
            self._drawn, self._pid = iter(()), pid
        for found in self._drawn:
            return found
        digits = self._digits
        text = os.urandom(digits // 2 * _DRAWN).hex()
        self._drawn = drawn = iter([self._make(text[at : at + digits]) for at in range(0, len(text), digits)])
        return next(drawn)


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
        if pid_of() != process_id():
            renew()


# POSIX locks belong to the process: a second lock of the same file would be granted, and closing it would drop the
# first. So what this process holds is listed. A forked child inherits the list, but none of the locks.
_held: Final[dict[str, int]] = {}
_listed: Final = ProcessLock()


class FileLock:
    """A lock on a file that the operating system releases when its process dies; make one with `FileLock.take`."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path: Final = path
        self._descriptor = descriptor
        self._pid = process_id()

    @classmethod
    def take(cls, path: Path, *, create: bool = True) -> FileLock | None:
        """Take the lock without waiting; None while somebody, this process included, holds it or the file is gone.

        Raises:
            OSError: the file cannot be opened.
        """
        place = str(path.absolute())
        with _listed:
            if _held.get(place) == process_id():
                return None
            try:
                descriptor = os.open(path, os.O_RDWR | (os.O_CREAT if create else 0), 0o600)
            except FileNotFoundError:
                if create:
                    raise
                return None
            # Between opening and locking, the holder may have removed the file: then the lock is one on nothing.
            if not _lock(descriptor) or not is_same(path, descriptor):
                os.close(descriptor)
                return None
            _held[place] = process_id()
            return cls(path, descriptor)

    @property
    def is_there(self) -> bool:
        """Whether others find the file that this is a lock on."""
        return self._descriptor >= 0 and is_same(self.path, self._descriptor)

    def release(self, *, remove: bool = False) -> None:
        """Give the lock up, and remove the file if asked."""
        if self._pid != process_id():
            return
        with _listed:
            _held.pop(str(self.path.absolute()), None)
            if self._descriptor >= 0:
                if remove and sys.platform != "win32":
                    self.path.unlink(missing_ok=True)
                os.close(self._descriptor)
                self._descriptor = -1
                if remove:
                    self.path.unlink(missing_ok=True)


def is_same(path: Path, descriptor: int) -> bool:
    """Say whether an open file stands under a path."""
    try:
        found = os.stat(path)
    except OSError:
        return False
    opened = os.fstat(descriptor)
    return (found.st_dev, found.st_ino) == (opened.st_dev, opened.st_ino)


if sys.platform == "win32":
    import msvcrt

    def _lock(descriptor: int) -> bool:
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

else:
    import fcntl

    def _lock(descriptor: int) -> bool:
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True
