"""Where a journal's lines are: in segments of an append-only file of one process, or in its memory (`memory`).

One process appends; one reader, the background worker or whoever adopts the file after its death, takes the lines in
order. A line survives the end of the process as soon as `append` returns, and a power cut if the log was opened
`power_safe`.

Where the system can, a file is mapped, with room ahead: to keep a line is then to copy it, without a call of the system
that would cost several times as much and give the interpreter's lock away. What is copied is the kernel's to write. The
room is reserved on the disk before, so that a full disk is an error then, and stands as zero bytes at the file's end.
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import threading
from pathlib import Path
from typing import Final, TypeAlias

from ..fork import FileLock, is_same
from ..masking import get_logger
from ..setting_values import make_directory
from .files import cut, segments_of, sync_directory
from .memory import MemoryLog
from .room import room_in

__all__ = ["FileLog", "Log"]

logger = get_logger("ascend_middleware.journal")

SEGMENT_BYTES: Final = 4 * 2**20
# By these a file system says that it maps no files, or reserves no room.
_CANNOT: Final = frozenset({errno.ENODEV, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.EACCES, errno.EPERM})
# How much is read ahead; one line that is longer comes alone.
_AHEAD_BYTES: Final = 65_536


class FileLog:
    """Lines in files that begin with `name` in a directory, under a lock that ends with the process; see `MemoryLog`.

    Another process that takes `<name>.lock` knows that the writer is dead, and hands that lock in. With `power_safe`,
    `append` returns only when the disk has the line. With `room_bytes` 0 files are written line by line; without it,
    the file system decides: see `room`.
    """

    def __init__(
        self,
        directory: Path,
        name: str,
        *,
        lock: FileLock | None = None,
        power_safe: bool = False,
        segment_bytes: int = SEGMENT_BYTES,
        room_bytes: int | None = None,
    ) -> None:
        self._directory = directory
        self.name = name
        self._power_safe = power_safe
        self._segment_bytes = segment_bytes
        # The disk is to have each line of who is safe from power cuts: that is a call of the system anyway.
        self._room_bytes = 0 if power_safe else room_in(directory) if room_bytes is None else room_bytes
        self._map: mmap.mmap | None = None
        # Where the segment begins and the map ends, and up to where a line may be copied with nothing else to do.
        self._base = self._mapped = self._ready = 0
        self._is_lost = False
        self._lock = threading.Lock()
        self._syncing = threading.Lock()
        self._written = self._synced = 0
        make_directory(directory)
        taken = lock or FileLock.take(directory / f"{name}.lock")
        if taken is None:
            raise FileExistsError(f"the journal {name} is in use")
        self._process_lock = taken
        try:
            numbers = segments_of(directory, name)
            # Where segments begin and end, counted as `appended` is; the one that is being written ends there.
            self._starts: dict[int, int] = {}
            self._ends: dict[int, int] = {}
            self.appended = self.taken = 0
            for number in numbers:
                self._starts[number] = self.appended
                self.appended += cut(self._path(number))
                self._ends[number] = self.appended
            self._current = numbers[-1] if numbers else 1
            self._descriptor = -1
            self._reading = numbers[0] if numbers else 1
            self._offset = 0
            self._buffer = b""
            self._progress = self._open_progress()
            self.delivered = self._read_progress()
        except BaseException:
            taken.release()
            raise

    # --- writing

    @property
    def segment(self) -> int:
        return self._current

    @property
    def backlog(self) -> int:
        return self.appended - self.taken

    def keep(self, line: bytes) -> bool:
        """As of a `MemoryLog`; what fits into the room that is there is copied."""
        if not self._lock.acquire(False):
            return False
        try:
            end = self.appended + len(line)
            if end > self._ready:
                return False
            self._map.write(line)  # type: ignore[union-attr]  # so much is mapped
            self.appended = end
            return True
        finally:
            self._lock.release()

    def append(self, line: bytes, *, wait: bool = True) -> bool:
        """As of a `MemoryLog`; who waits for the disk waits for all lines before."""
        if (self._power_safe and not wait) or not self._lock.acquire(wait):
            return False
        try:
            self._append(line)
            self._written += 1
            mine = self._written
        finally:
            self._lock.release()
        if self._power_safe:
            self._sync(mine)
        return True

    def _append(self, line: bytes) -> None:
        if self._progress < 0:
            raise OSError(errno.EBADF, "it was closed")
        if self._is_lost:
            raise OSError(errno.ENOENT, "its files were removed")
        if self._descriptor < 0 or self.appended - self._base >= self._segment_bytes:
            line = self._next_segment() + line
        end = self.appended + len(line)
        if end <= self._mapped or (self._room_bytes and self._make_room(end)):
            self._map.write(line)  # type: ignore[union-attr]  # so much is mapped
        else:
            self._write(line)
        self.appended = end

    def _write(self, line: bytes) -> None:
        try:
            if os.write(self._descriptor, line) != len(line):
                raise OSError(errno.ENOSPC, "the disk is full")
        except OSError:
            self._cut_off()  # half a line would swallow the next one
            raise

    def _make_room(self, end: int) -> bool:
        """Reserve room up to this size and more, and map it; False where that cannot be done with files here."""
        size = end - self._base + self._room_bytes
        try:
            os.posix_fallocate(self._descriptor, 0, size)
            self._unmap()
            self._map, self._mapped = mmap.mmap(self._descriptor, size), self._base + size
            self._map.seek(self.appended - self._base)
            self._ready = self._base + min(size, self._segment_bytes)
        except OSError as error:
            self._unmap()
            self._cut_off()
            if error.errno not in _CANNOT:
                raise
            self._room_bytes = 0
            return False
        return True

    def _unmap(self) -> None:
        if self._map is not None:
            self._map.close()
            self._map, self._mapped, self._ready = None, 0, 0

    def _cut_off(self) -> None:
        """Give back what stands behind the last line."""
        with contextlib.suppress(OSError):
            os.ftruncate(self._descriptor, self.appended - self._base)

    def _next_segment(self) -> bytes:
        """Open what is written next; return what has to stand before the first line there."""
        number = self._current
        if self._descriptor >= 0:
            if self._power_safe:
                os.fsync(self._descriptor)
            number += 1
        opened = os.open(self._path(number), os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        if self._descriptor >= 0:
            self._close_segment()
            self._ends[self._current] = self.appended
        self._descriptor = opened
        self._base = self._starts.setdefault(number, self.appended)
        self._ends.pop(number, None)
        # Last, because the reader goes by it.
        self._current = number
        if self._power_safe:
            sync_directory(self._directory)
        # A dead writer's torn line must not swallow the next one.
        torn = self.appended > self._base and not self._path(number).read_bytes().endswith(b"\n")
        return b"\n" if torn else b""

    def _close_segment(self) -> None:
        if self._map is not None:
            self._unmap()
            self._cut_off()
        os.close(self._descriptor)

    def _sync(self, mine: int) -> None:
        while self._synced < mine:
            with self._syncing:
                if self._synced >= mine:
                    return
                with self._lock:
                    upto, descriptor = self._written, os.dup(self._descriptor)
                try:
                    os.fsync(descriptor)
                finally:
                    os.close(descriptor)
                self._synced = upto

    # --- reading

    def peek(self) -> tuple[int, bytes] | None:
        while True:
            end = self._buffer.find(b"\n")
            if end >= 0:
                return self._reading, self._buffer[: end + 1]
            if self._fill():
                continue
            # In this order: to a segment before the current one nothing is appended any more.
            if self._reading >= self._current or self._offset + len(self._buffer) < self._size():
                return None
            # What stands at a segment's end without its newline is a torn line, and counts as taken.
            self.taken += len(self._buffer)
            self._buffer = b""
            self._reading = min(number for number in list(self._starts) if number > self._reading)
            self._offset = 0

    def _size(self) -> int:
        """Return how much was appended to the segment that is being read."""
        appended = self.appended  # first: a segment that has no end yet had none then, either
        return self._ends.get(self._reading, appended) - self._starts.get(self._reading, appended)

    def _fill(self) -> bool:
        try:
            with self._path(self._reading).open("rb") as file:
                start = self._offset + len(self._buffer)
                file.seek(start)
                more = file.read(max(0, min(_AHEAD_BYTES, self._size() - start)))
        except FileNotFoundError:
            return False
        self._buffer += more
        return bool(more)

    def ahead(self, most: int) -> list[tuple[bytes, bool]]:
        if self.peek() is None:
            return []
        while len(self._buffer) < _AHEAD_BYTES and self._fill():
            continue
        lines = self._buffer[:_AHEAD_BYTES].split(b"\n", most)[:-1] or [self._buffer.partition(b"\n")[0]]
        if (self._reading, self._offset) >= self.delivered:  # as of each line after what a reader before took
            return [(line + b"\n", False) for line in lines]
        found, end = [], self._offset
        for line in lines:
            end += len(line) + 1
            found.append((line + b"\n", (self._reading, end) <= self.delivered))
        return found

    def advance(self, count: int = 1) -> None:
        """As of a `MemoryLog`; that lines were taken is noted where the next reader finds it."""
        rest = self._buffer.split(b"\n", count)[count]
        end = len(self._buffer) - len(rest)
        self._offset += end
        self.taken += end
        self._buffer = rest
        if (self._reading, self._offset) > self.delivered:
            self.delivered = (self._reading, self._offset)
            self._note_delivered()

    def _note_delivered(self) -> None:
        os.lseek(self._progress, 0, os.SEEK_SET)
        os.write(self._progress, b"%012d %020d\n" % self.delivered)

    @property
    def was_delivered(self) -> bool:
        return (self._reading, self._offset + self._buffer.index(b"\n") + 1) <= self.delivered

    def _read_progress(self) -> tuple[int, int]:
        try:
            number, offset = os.read(self._progress, 64).split()
            return int(number), int(offset)
        except ValueError:
            return 0, 0

    def release(self, before: int) -> None:
        for number in [number for number in list(self._starts) if number < min(before, self._reading)]:
            self._path(number).unlink(missing_ok=True)
            del self._starts[number], self._ends[number]

    # --- both

    def _open_progress(self) -> int:
        return os.open(self._directory / f"{self.name}.progress", os.O_RDWR | os.O_CREAT, 0o600)

    def put_back(self) -> int | None:
        """Make files anew that somebody removed or replaced; None where all are there. For the reader only.

        Returns how many bytes are lost, of earlier segments: what stands in the last one can still be read. Until all
        is there again, `append` raises OSError.
        """
        with self._lock:
            if self._progress < 0:  # it was closed
                return None
            written = self._descriptor < 0 or is_same(self._path(self._current), self._descriptor)
            noted = is_same(self._directory / f"{self.name}.progress", self._progress)
            read = self._reading >= self._current or self._path(self._reading).exists()
            if written and noted and read and self._process_lock.is_there:
                return None
            self._is_lost, self._ready = True, 0
            make_directory(self._directory)
            if not self._process_lock.is_there:
                self._process_lock.release()
                taken = FileLock.take(self._process_lock.path)
                if taken is None:
                    raise FileExistsError(f"the journal {self.name} is in use")
                self._process_lock = taken
            if not noted:
                progress, self._progress = self._progress, self._open_progress()
                os.close(progress)
                self._note_delivered()
            if not written:
                self._write_anew()
            self._is_lost, self._ready = False, min(self._mapped, self._base + self._segment_bytes)
            return self._skip_missing()

    def _write_anew(self) -> None:
        size, path = self.appended - self._base, self._path(self._current)
        content = os.pread(self._descriptor, size, 0)
        path.unlink(missing_ok=True)
        opened = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
        try:
            if len(content) != size or os.write(opened, content) != size:
                raise OSError(errno.ENOSPC, "the disk is full")
            if self._power_safe:
                os.fsync(opened)
                sync_directory(self._directory)
        except BaseException:
            os.close(opened)
            raise
        self._unmap()
        os.close(self._descriptor)
        self._descriptor = opened

    def _skip_missing(self) -> int:
        """Go on behind segments that are gone; return how many bytes of them nobody can read any more."""
        lost = 0
        for number, start in list(self._starts.items()):
            if not self._reading <= number < self._current or self._path(number).exists():
                continue
            known = start + (self._offset + len(self._buffer) if number == self._reading else 0)
            lost += self._ends[number] - known
            self._ends[number] = known
        self.taken += lost
        return lost

    def set_aside(self, line: bytes) -> None:
        """As of a `MemoryLog`; `journal export` shows it."""
        path = self._directory / f"{self.name}.rejected"
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            os.write(descriptor, line)
        finally:
            os.close(descriptor)

    def close(self, *, remove: bool = False, unread: bool = True) -> None:
        """As of a `MemoryLog`; where lines were not taken, nothing is removed with `unread` False."""
        with self._lock:
            remove = remove and (unread or self.backlog == 0)
            if self._descriptor >= 0:
                self._close_segment()
            if self._progress >= 0:
                os.close(self._progress)
            self._descriptor = self._progress = -1
            if remove:
                for number in self._starts:
                    self._path(number).unlink(missing_ok=True)
                (self._directory / f"{self.name}.progress").unlink(missing_ok=True)
            self._process_lock.release(remove=remove)

    def _path(self, number: int) -> Path:
        return self._directory / f"{self.name}-{number:06d}.journal"


Log: TypeAlias = MemoryLog | FileLog
