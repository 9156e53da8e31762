"""Files that get their name once they are whole, and what is left of one whose making was ended.

Such a file is made in a hidden folder beside its place. Who is killed meanwhile leaves that folder: nobody takes what
is in it for a database, no new one is begun at the place, and whoever makes the file again clears it away.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from ascend_middleware.exceptions import AscendError, ConfigurationError
from ascend_middleware.fork import FileLock

__all__ = ["check_finished", "making", "sync_folder"]

_LOCK: Final = "lock"


@contextlib.contextmanager
def making(path: Path) -> Iterator[Path]:
    """Lend a path for what is to stand at another one; the caller gives it that name, or it is gone afterwards.

    Raises:
        AscendError: another process makes the same, or there is no place for it.
        OSError: nothing can be written there.
    """
    folder = _folder(path)
    if not path.parent.exists():
        raise AscendError(f"{path} cannot be written: there is no folder {path.parent}; make it first")
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    _check_ours(folder)
    lock = _lock(folder)
    if lock is None:
        raise AscendError(f"another process makes {path} already; wait until it is done")
    try:
        _clear(folder)
        yield folder / path.name
    finally:
        with contextlib.suppress(OSError):
            _clear(folder)
        lock.release(remove=True)
        with contextlib.suppress(OSError):  # another process may have begun
            folder.rmdir()


def check_finished(path: str | Path) -> None:
    """Raise `ConfigurationError` where a file is not there, and its making goes on or was ended.

    Where it is there, what is left of its making is cleared away.
    """
    place = Path(path)
    folder = _folder(place)
    if not folder.is_dir():
        return
    if place.exists():
        with contextlib.suppress(AscendError, OSError), making(place):
            return
        return
    raise ConfigurationError(
        f"there is no database {place}: a copy, a backup or a restore that makes it still runs, or was ended half-way. "
        f"Run it again; for a new database, delete the folder {folder}"
    )


def sync_folder(folder: Path) -> None:
    """Have the names in a folder on the disk too; Windows has no such thing."""
    if os.name != "posix":
        return
    place = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(place)
    finally:
        os.close(place)


def _folder(path: Path) -> Path:
    return path.with_name(f".{path.name}.part")


def _check_ours(folder: Path) -> None:
    """Refuse a folder in which somebody else could put a file of theirs in the place of ours."""
    found = folder.lstat()
    if stat.S_ISDIR(found.st_mode) and (
        os.name != "posix" or (found.st_uid == os.geteuid() and not stat.S_IMODE(found.st_mode) & 0o077)
    ):
        return
    raise AscendError(f"{folder} is in the way: it is no folder of this user's alone; remove it")


def _lock(folder: Path) -> FileLock | None:
    try:
        return FileLock.take(folder / _LOCK)
    except FileNotFoundError:
        return None  # another process has just come to its end


def _clear(folder: Path) -> None:
    for one in folder.iterdir():
        if one.is_dir() and not one.is_symlink():
            shutil.rmtree(one)
        elif one.name != _LOCK:
            one.unlink()
