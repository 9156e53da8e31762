"""The files of a journal as anybody finds them: what was written in them, and their lines."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

from .room import ROOM_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["cut", "read_lines", "segments_of", "size_of", "sync_directory"]

_SEGMENT: Final = re.compile(r"(?P<name>.+)-(?P<number>\d{6,})\.journal")


def size_of(path: Path) -> int:
    """Return how many bytes of a segment were written: without the room that its writer had reserved."""
    with path.open("rb") as file:
        end = file.seek(0, os.SEEK_END)
        while end:
            start = max(0, end - ROOM_BYTES - 4096)
            file.seek(start)
            written = file.read(end - start).rstrip(b"\0")
            if written:
                return start + len(written)
            end = start
    return 0


def cut(path: Path) -> int:
    """Return the size of a dead process's segment, after the room that it left was given back."""
    size = size_of(path)
    if size != path.stat().st_size:
        os.truncate(path, size)
    return size


def segments_of(directory: Path, name: str) -> list[int]:
    """Return the numbers of a log's segments, in order."""
    found = (_SEGMENT.fullmatch(path.name) for path in directory.glob(f"{name}-*.journal"))
    return sorted(int(match["number"]) for match in found if match is not None and match["name"] == name)


def read_lines(directory: Path, name: str) -> Iterator[tuple[bytes, bool]]:
    """Read a log from outside, without its lock: every whole line, and whether it was taken."""
    try:
        number, offset = (int(part) for part in (directory / f"{name}.progress").read_bytes().split())
    except (OSError, ValueError):
        number, offset = 0, 0
    for segment in segments_of(directory, name):
        try:
            content = (directory / f"{name}-{segment:06d}.journal").read_bytes()
        except FileNotFoundError:
            continue
        place = 0
        for line in content.splitlines(keepends=True):
            place += len(line)
            if line.endswith(b"\n"):
                yield line, (segment, place) <= (number, offset)


def sync_directory(path: Path) -> None:
    """Have the disk note which files there are."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return  # Windows has no such thing
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
