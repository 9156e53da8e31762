"""Archives: compressed JSON Lines files, one row of a table to a line, which the audit log names with their hashes."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import os
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from ascend_middleware.exceptions import AscendError

from .audit import canonical_json
from .unfinished import sync_folder

__all__ = [
    "ARCHIVED_ACTIONS",
    "ARCHIVED_AUDIT",
    "archive_path",
    "as_numbers",
    "as_ranges",
    "digest_of",
    "read_archive",
    "write_archive",
]

# The entries that name an archive.
ARCHIVED_AUDIT: Final = "AUDIT_ARCHIVED"
ARCHIVED_ACTIONS: Final = "ACTIONS_ARCHIVED"

_BLOCK: Final = 1 << 16
_NAME: Final = re.compile(r"(?:actions|audit)-[0-9]+-[0-9]+-[0-9a-f]{8}\.jsonl\.gz")
_decode = msgspec.json.Decoder(dict[str, Any]).decode


def archive_path(folder: Path, name: object) -> Path:
    """Return where an archive of a name in the database is; raise `AscendError` for what is no such name.

    Whoever may write the database must not choose files of this machine by it.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise AscendError(f"the database names {str(name)[:100]!r} as an archive, which is no name of one")
    return folder / name


def write_archive(path: Path, rows: Iterable[Mapping[str, Any]]) -> tuple[str, int]:
    """Write rows to a file, read it again, and put it in its place; return its SHA-256 and how many rows it has.

    It is on the disk then. Whatever stood under its name is replaced.

    Raises:
        AscendError: it cannot be written, or does not hold what was written.
    """
    partial = _partial(path)
    written, count = hashlib.sha256(), 0
    try:
        with (
            open(os.open(partial, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600), "wb") as file,
            gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0) as packed,
        ):
            for row in rows:
                line = f"{canonical_json(row)}\n".encode()
                written.update(line)
                packed.write(line)
                count += 1
            packed.close()
            file.flush()
            os.fsync(file.fileno())
        _compare(partial, written.hexdigest())
        digest = digest_of(partial)
        os.replace(partial, path)
        sync_folder(path.parent)
    except OSError as error:
        raise AscendError(f"the archive {path} cannot be written: {error.strerror or error}") from None
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
    return digest, count


def discard_archive(path: Path) -> None:
    """Remove a file that nothing names, and what was written of it."""
    try:
        path.unlink(missing_ok=True)
        _partial(path).unlink(missing_ok=True)
    except OSError as error:
        raise AscendError(f"the archive {path} cannot be removed: {error.strerror or error}") from None


def _partial(path: Path) -> Path:
    return path.with_name(f".{path.name}.part")


def _compare(path: Path, expected: str) -> None:
    read = hashlib.sha256()
    try:
        with gzip.open(path) as file:
            while block := file.read(_BLOCK):
                read.update(block)
    except (EOFError, zlib.error) as error:
        raise AscendError(f"the archive {path} cannot be read after it was written: {error}") from None
    if read.hexdigest() != expected:
        raise AscendError(f"the archive {path} does not hold what was written to it")


def digest_of(path: Path) -> str:
    """Return the SHA-256 of a file's bytes; raise `AscendError` if it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise AscendError(f"the archive {path} cannot be read: {error.strerror or error}") from None


def read_archive(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of a file; raise `AscendError` if it is none, or damaged."""
    try:
        with gzip.open(path) as file:
            for line in file:
                yield _decode(line)
    except (OSError, EOFError, zlib.error, msgspec.DecodeError, ValueError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or error
        raise AscendError(f"the archive {path} cannot be read: {reason}") from None


# --- which actions


def as_ranges(numbers: Sequence[int]) -> str:
    """Return ascending numbers as a text: `1-17 19 21-300`."""
    found: list[list[int]] = []
    for number in numbers:
        if found and number == found[-1][1] + 1:
            found[-1][1] = number
        else:
            found.append([number, number])
    return " ".join(str(first) if first == last else f"{first}-{last}" for first, last in found)


def as_numbers(text: str) -> list[tuple[int, int]]:
    """Return the ranges of such a text, each with its first and last number; raise `ValueError` for another text."""
    found = []
    for word in text.split(" ") if text else ():
        first, _, last = word.partition("-")
        found.append((int(first), int(last or first)))
    return found
