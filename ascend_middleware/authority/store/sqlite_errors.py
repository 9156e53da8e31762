"""What SQLite raises, as the errors of every kind of database."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from typing import Final

from ascend_middleware.sqlite import ERRORS

from .engine import StorageError, UnreachableError
from .patience import TooLongError

__all__ = ["DamagedError", "ours", "told"]

# Kinds of SQLite's errors that tell of damaged pages.
_DAMAGED: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
# Those that tell nothing of what the pages hold, and what may be the matter.
_UNREACHABLE: Final = {
    sqlite3.SQLITE_BUSY: "",
    sqlite3.SQLITE_CANTOPEN: "; this process may have no file left to open (`ulimit -n`), or may not read its folder",
    sqlite3.SQLITE_FULL: "",
    sqlite3.SQLITE_IOERR: "",
    sqlite3.SQLITE_NOMEM: "",
}


class DamagedError(StorageError):
    """A page holds what SQLite did not write."""


@contextlib.contextmanager
def ours() -> Iterator[None]:
    """Raise what SQLite raises as `StorageError`."""
    try:
        yield
    except ERRORS as error:
        raise told(error) from error


def told(error: sqlite3.Error | UnicodeDecodeError) -> StorageError:
    """Return an error of SQLite's as one of ours."""
    if isinstance(error, UnicodeDecodeError):
        return DamagedError(f"its schema is malformed: {error}")
    code = getattr(error, "sqlite_errorcode", 0)
    if code == sqlite3.SQLITE_INTERRUPT:
        return TooLongError("reading took longer than it may")
    kind = code & 0xFF  # the rest of the code says which of it
    if kind in _UNREACHABLE:
        return UnreachableError(f"{error}{_UNREACHABLE[kind]}")
    return (DamagedError if kind in _DAMAGED else StorageError)(str(error))
