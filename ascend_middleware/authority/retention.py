"""Archives in the background of a served authority what `[retention]` says is old; one replica does so at a time."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from pathlib import Path
from typing import Final

from ascend_middleware.exceptions import AscendError, ConflictError

from .core import Authority
from .store.archiver import Archiver, under_hold
from .store.audit import iso_time
from .store.database import StorageError

__all__ = ["Retirement"]

log = logging.getLogger(__name__)

# Seconds: after the start, and between two looks for what has become old.
_FIRST: Final = 60.0
_PERIOD: Final = 3600.0
# It rests as long as it has worked, and so long at most: what people and agents ask for goes first.
_LONGEST_REST: Final = 0.1


class _StoppedError(Exception):
    """The authority stops; what is left is done the next time."""


class Retirement:
    """Archives what has become old, every `period` seconds."""

    def __init__(self, authority: Authority, *, first: float = _FIRST, period: float = _PERIOD) -> None:
        self._authority = authority
        self._first, self._period = first, period
        self._stopping = threading.Event()
        self._resumed = 0.0

    def stop(self) -> None:
        """End what runs, soon."""
        self._stopping.set()

    async def run(self) -> None:
        """Archive until cancelled."""
        await asyncio.sleep(self._first)
        while True:
            await asyncio.to_thread(self.look)
            await asyncio.sleep(self._period)

    def look(self) -> None:
        """Archive what is old now, as the policy file says it; failures are logged."""
        kept, now = self._authority.policy.retention, self._authority.now()
        if kept.archive_to is None:
            return
        before = {name: None if age is None else iso_time(now - age) for name, age in kept.ages.items()}
        if not any(before.values()):
            return
        try:
            self._resumed = time.monotonic()
            archiver = Archiver(self._authority.store, Path(kept.archive_to), pause=self._pause, held=kept.legal_hold)
            for one in archiver.run(**before):
                log.info("archived %d rows, %s %d to %d, in %s", one.rows, one.kind, one.first, one.last, one.file)
            if kept.legal_hold:
                log.info("%s", under_hold(kept.legal_hold, archiver.held_from))
        except _StoppedError:
            log.info("archiving stopped; it goes on after the next start")
        except ConflictError:
            log.debug("another process archives")
        except (AscendError, StorageError) as error:
            log.error("what is old is not archived: %s", error)

    def _pause(self) -> None:
        worked = time.monotonic() - self._resumed
        if self._stopping.wait(min(worked, _LONGEST_REST)):
            raise _StoppedError
        self._resumed = time.monotonic()
