"""A lock on a file that the operating system releases when its process dies, however it dies."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Final

from ..fork import ProcessLock

__all__ = ["FileLock"]

# POSIX locks belong to the process: a second lock of the same file would be granted, and closing it would drop the
# first. So what this process holds is listed. A forked child inherits the list, but none of the locks.
_held: Final[dict[str, int]] = {}
_listed: Final = ProcessLock()


class FileLock:
    """A lock that this process holds; make one with `FileLock.take`."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path: Final = path
        self._descriptor = descriptor
        self._pid = os.getpid()

    @classmethod
    def take(cls, path: Path, *, create: bool = True) -> FileLock | None:
        """Take the lock without waiting; None while somebody, this process included, holds it or the file is gone.

        Raises:
            OSError: the file cannot be opened.
        """
        place = str(path.absolute())
        with _listed:
            if _held.get(place) == os.getpid():
                return None
            try:
                descriptor = os.open(path, os.O_RDWR | (os.O_CREAT if create else 0), 0o600)
            except FileNotFoundError:
                if create:
                    raise
                return None
            # Between opening and locking, the holder may have removed the file: then the lock is one on nothing.
            if not _lock(descriptor) or not _is_same(path, descriptor):
                os.close(descriptor)
                return None
            _held[place] = os.getpid()
            return cls(path, descriptor)

    def release(self, *, remove: bool = False) -> None:
        """Give the lock up, and remove the file if asked."""
        if self._pid != os.getpid():
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


def _is_same(path: Path, descriptor: int) -> bool:
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
