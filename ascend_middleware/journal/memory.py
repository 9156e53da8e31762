"""A journal's lines in memory, and what any log of them offers."""

from __future__ import annotations

import itertools
import threading
from collections import deque

__all__ = ["MemoryLog"]


class MemoryLog:
    """Lines that end with the process. Any thread may `keep` and `append` them; the other methods are the reader's.

    Attributes:
        appended: how many bytes were ever appended.
        taken: how many of them were taken.
        segment: the number of what is being written.
        was_delivered: whether the line that `peek` returned was taken by a reader before this one.
    """

    segment = 0
    was_delivered = False

    def __init__(self) -> None:
        self.appended = self.taken = 0
        self._lines: deque[bytes] = deque()
        self._lock = threading.Lock()

    @property
    def backlog(self) -> int:
        """How many bytes were appended and not yet taken."""
        return self.appended - self.taken

    def keep(self, line: bytes) -> bool:
        """Append a line where nothing has to be done for it before; False where only `append` can."""
        with self._lock:
            self._lines.append(line)
            self.appended += len(line)
        return True

    def append(self, line: bytes, *, wait: bool = True) -> bool:
        """Append a line; False if that would have meant to wait and `wait` is False. Raises OSError."""
        return self.keep(line)

    def peek(self) -> tuple[int, bytes] | None:
        """Return the next line with its segment's number, None at the end; it stays next until `advance`."""
        return (0, self._lines[0]) if self._lines else None

    def ahead(self, most: int) -> list[tuple[bytes, bool]]:
        """Return the next lines of the segment that `peek` is in, each with whether a reader before took it."""
        with self._lock:
            return [(line, False) for line in itertools.islice(self._lines, most)]

    def advance(self, count: int = 1) -> None:
        """Take so many of the lines that were returned last."""
        for _ in range(count):
            self.taken += len(self._lines.popleft())

    def release(self, before: int) -> None:
        """Let go of the segments before this one that were taken whole."""

    def set_aside(self, line: bytes) -> None:
        """Keep a line that the authority will not take; nothing outlives the process here."""

    def close(self, *, remove: bool, unread: bool = True) -> None:
        """Stop; with `remove`, nothing is left but what was set aside."""
