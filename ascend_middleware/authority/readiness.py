"""Whether an authority can decide, and why not; whoever asks often gets what was found a second ago at most."""

from __future__ import annotations

import logging
import math
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

from .store.database import Database, StorageError

__all__ = ["Readiness"]

log = logging.getLogger(__name__)

# Seconds for which a look at the database is good enough, whatever it found.
_LOOK_EVERY: Final = 1.0
# Bytes that the database's disk must have left: enough for some hours of decisions, until somebody comes.
_DISK_MARGIN: Final = 64 * 1024 * 1024


class Readiness:
    """Looks at a database: it is really read and written.

    Attributes:
        stopping: whether the server is about to end.
    """

    def __init__(self, database: Database, *, now: Callable[[], float]) -> None:
        self._database = database
        self._now = now
        self._checking = threading.Lock()
        self._looked_at = -math.inf
        self._problem = ""
        self._reasons: tuple[str, ...] = ()
        self.stopping = False

    def problem(self) -> str:
        """Return what keeps the authority from deciding, or nothing."""
        return self._look()[0]

    def reasons(self) -> tuple[str, ...]:
        """Return why no requests should come here, `problem` among it."""
        stopping = ("the authority is stopping",) if self.stopping else ()
        return (*stopping, *self._look()[1])

    def health(self) -> tuple[bool, dict[str, object]]:
        """Return whether the authority can decide, and the answer's fields that say so."""
        problem = self.problem()
        return not problem, {"status": "unhealthy", "problem": problem} if problem else {"status": "healthy"}

    def ready(self) -> tuple[bool, dict[str, object]]:
        """Return whether requests should come here, and the answer's fields that say so."""
        reasons = self.reasons()
        return not reasons, {"status": "not ready" if reasons else "ready", "reasons": reasons}

    @property
    def free_bytes(self) -> int | None:
        """What the disk of the database has left; None where it is not on a disk of this machine."""
        place = Path(self._database.engine.place)
        return shutil.disk_usage(place.parent).free if place.is_file() else None

    def _look(self) -> tuple[str, tuple[str, ...]]:
        with self._checking:
            # Anybody may ask, and each look costs a write, or waits for one.
            if not 0 <= self._now() - self._looked_at < _LOOK_EVERY:
                self._problem = self._probe()
                self._reasons = (self._problem,) if self._problem else tuple(filter(None, (self._end(), self._disk())))
                self._looked_at = self._now()
            return self._problem, self._reasons

    def _probe(self) -> str:
        try:
            self._database.probe()
        except StorageError as error:
            log.error("the database cannot be used: %s", error)
            return "the database cannot be read or written"
        return ""

    def _end(self) -> str:
        try:
            return self._database.end_problem()
        except StorageError as error:
            return str(error)

    def _disk(self) -> str:
        free = self.free_bytes
        if free is None or free >= _DISK_MARGIN:
            return ""
        return f"the disk has {free // 1024**2} MiB left, and {_DISK_MARGIN // 1024**2} are the margin"
