"""Puts a backup in the place of a database file: checked wholly first, at once or not at all, the old file kept."""

from __future__ import annotations

import contextlib
import itertools
import os
import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from ascend_middleware.exceptions import AscendError
from ascend_middleware.sqlite import ERRORS

from .comparison import Watching
from .database import Database, StorageError
from .unfinished import making, sync_folder
from .verification import Verification, verify

__all__ = ["restore"]

# What SQLite locks of a file as long as a connection reads it: so many bytes from this one on.
_LOCKED_FROM: Final = 0x4000_0002
_LOCKED: Final = 510
_MAGIC: Final = b"SQLite format 3\0"
_SIDE_FILES: Final = ("-wal", "-shm")


def restore(
    backup: Path, target: Path, *, now: float, watch: Watching = lambda items, what, total: items
) -> tuple[Verification, Path | None]:
    """Put a backup in a database's place; return what was found in it, and where the replaced file is now, if one was.

    The backup itself stays as it is. If anything fails, or the process is killed, the old database is in its place
    or the new one, each of them whole.

    Args:
        backup: which file.
        target: where the authority's database is, or was.
        now: seconds since the epoch, for the name of the replaced file.
        watch: see `verify`.

    Raises:
        AscendError: the backup is damaged, or not as its audit log says; somebody uses the database; or a file cannot
            be written.
    """
    if target.exists() and backup.exists() and target.samefile(backup):
        raise AscendError(f"{backup} is the database itself, and no backup of it")
    try:
        with making(target) as partial:
            with Database.evidence(backup) as source:
                try:
                    source.backup(partial)
                except AscendError as error:
                    raise AscendError(
                        f"the backup {backup} cannot be used: {error.message}; nothing was replaced"
                    ) from None
            found = _checked(partial, backup, watch)
            _own(partial, target)
            return found, _swap(partial, target, now)
    except OSError as error:
        raise AscendError(f"{target} cannot be replaced: {error.strerror}; it was not touched") from None


def _checked(partial: Path, backup: Path, watch: Watching) -> Verification:
    """Read all of the copy, which is what will stand in the place; nobody can change it meanwhile."""
    try:
        with Database.evidence(partial) as copy:
            found = verify(copy, watch=watch)
    except StorageError as error:
        raise AscendError(f"the backup {backup} is damaged: {error}; nothing was replaced") from None
    if not found.whole:
        raise AscendError(
            f"the backup {backup} is not as its audit log says: {found.findings[0].message}. Nothing was replaced; "
            f"`audit verify --db {backup}` tells all"
        )
    return found


def _own(partial: Path, target: Path) -> None:
    """Give the new file the old one's owner and permissions: the authority may run as somebody else."""
    if target.exists() and os.name == "posix":
        old, new = target.stat(), partial.stat()
        partial.chmod(old.st_mode & 0o777)
        if (old.st_uid, old.st_gid) != (new.st_uid, new.st_gid):
            os.chown(partial, old.st_uid, old.st_gid)


def _swap(partial: Path, target: Path, now: float) -> Path | None:
    if not target.exists():
        log = target.with_name(f"{target.name}-wal")
        if log.exists() and log.stat().st_size:
            raise AscendError(
                f"{log} is the log of a database that was moved away; move it away, too, and restore again"
            )
        os.link(partial, target)  # never over a file that has come meanwhile
        sync_folder(target.parent)
        return None
    _fold(target)
    with _alone(target):
        kept = _free(target, datetime.fromtimestamp(now, UTC).strftime("%Y%m%dT%H%M%SZ"))
        # A log that could not be folded is kept, too, and is away before the new file comes: it belongs to the old one.
        for suffix in _SIDE_FILES:
            side = target.with_name(target.name + suffix)
            if side.exists():
                os.link(side, kept.with_name(kept.name + suffix))
        os.link(target, kept)
        sync_folder(target.parent)
        for suffix in _SIDE_FILES:
            target.with_name(target.name + suffix).unlink(missing_ok=True)
        partial.replace(target)
        sync_folder(target.parent)
    return kept


def _free(target: Path, stamp: str) -> Path:
    """Return a name that nothing has yet; a restore that was killed may have left one of the same second."""
    for number in itertools.count(1):
        kept = target.with_name(f"{target.name}.replaced-{stamp}{'' if number == 1 else f'-{number}'}")
        if not any(kept.with_name(kept.name + suffix).exists() for suffix in ("", *_SIDE_FILES)):
            return kept
    raise AssertionError("there is always a next number")


def _fold(target: Path) -> None:
    """Have what the write-ahead log holds stand in the file itself, if the file is sound enough for it."""
    with target.open("rb") as file:
        if file.read(len(_MAGIC)) != _MAGIC:
            return  # SQLite may delete the log of what it takes for no database
    try:
        with contextlib.closing(sqlite3.connect(target, timeout=1.0, isolation_level=None)) as old:
            old.execute("PRAGMA journal_mode=DELETE").fetchone()
    except sqlite3.OperationalError as error:
        if "locked" in str(error):
            raise _in_use(target) from None
    except ERRORS:
        pass  # damaged: that is why it is replaced


@contextlib.contextmanager
def _alone(target: Path) -> Iterator[None]:
    """Hold the lock that says that nobody else has the file open, also where SQLite cannot read it."""
    if os.name != "posix":  # nobody can rename a file there that is in use
        yield
        return
    import fcntl

    with target.open("r+b") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, _LOCKED, _LOCKED_FROM)
        except OSError:
            raise _in_use(target) from None
        yield


def _in_use(target: Path) -> AscendError:
    return AscendError(f"{target} is in use: stop the authority, and whatever else has it open, and restore again")
