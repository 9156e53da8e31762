"""What replicas of one authority agree on: how often somebody may ask, and by which policy file they decide."""

from __future__ import annotations

import itertools
import logging
import math
import os
import socket
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Final

from .keys import MAX_SUBJECTS, MINUTE, Allowance, Window
from .store.database import Database, StorageError
from .store.engine import Fleet

__all__ = ["Peers", "window"]

log = logging.getLogger(__name__)

_numbers: Final = itertools.count(1)
# A replica takes so many parts of a limit at once, so that it seldom has to ask; what it does not use is lost for a
# minute.
_PARTS: Final = 50
# Seconds for which a replica counts alone after the database could not be asked.
_ALONE: Final = 5.0


def window(database: Database, name: str) -> Window:
    """Return what counts requests: here alone, or for all replicas of the database."""
    fleet = database.engine.fleet
    return Window() if fleet is None else _Shared(fleet, name)


@dataclass(slots=True)
class _Held:
    """What a replica knows of a subject: what it may still let pass, or until when it lets nothing pass."""

    at: float
    left: int
    limit: int
    count: int  # taken by all replicas in the last minute
    free: float  # when more is free


class _Shared(Window):
    """Counts per subject over the last minute for all replicas, in parts that each takes ahead."""

    def __init__(self, fleet: Fleet, name: str, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._fleet = fleet
        self._name = name
        self._monotonic = monotonic
        self._alone_until = -math.inf
        self._held: OrderedDict[Hashable, _Held] = OrderedDict()
        self._held_lock = threading.Lock()

    def quick(self, subject: Hashable, limit: int, now: float) -> Allowance | None:
        """Count one request if that needs no database."""
        with self._held_lock:
            held = self._held.get(subject)
            if held is None or held.limit != limit or not held.at <= now:
                return None
            if held.left > 0 and now - MINUTE < held.at:
                held.left -= 1
                return self._allowance(held, now, refused=False)
            return self._allowance(held, now, refused=True) if held.left < 0 and now < held.free else None

    def take(self, subject: Hashable, limit: int, now: float) -> Allowance:
        """Count one request, unless the limit is reached."""
        known = self.quick(subject, limit, now)
        if known is not None:
            return known
        if self._monotonic() < self._alone_until:
            return super().take(subject, limit, now)
        try:
            most = max(1, limit // _PARTS)
            lease = self._fleet.lease(f"{self._name} {subject}", limit, most)
        except StorageError as error:
            log.warning("requests are counted by this replica alone for %g s: %s", _ALONE, error)
            self._alone_until = self._monotonic() + _ALONE
            return super().take(subject, limit, now)
        free = now if lease.age is None else now + MINUTE - lease.age
        # One of what was taken is for this request; less than nothing is left where nothing was.
        held = _Held(now, lease.taken - 1, limit, lease.used, free)
        with self._held_lock:
            self._held[subject] = held
            self._held.move_to_end(subject)
            while len(self._held) > MAX_SUBJECTS:
                self._held.popitem(last=False)
            return self._allowance(held, now, refused=held.left < 0)

    def _allowance(self, held: _Held, now: float, *, refused: bool) -> Allowance:
        wait = max(1, math.ceil(held.free - now)) if refused else 0
        remaining = max(0, held.limit - held.count + max(0, held.left))
        return Allowance(limit=held.limit, remaining=remaining, reset=math.ceil(held.free), retry_after=wait)


class Peers:
    """The other replicas of a database, and whether they decide by the same policy file."""

    def __init__(self, database: Database) -> None:
        self._fleet: Final = database.engine.fleet
        self.name: Final = f"{socket.gethostname()}:{os.getpid()}/{next(_numbers)}"
        self._others: dict[str, str] = {}
        self.differing: dict[str, str] = {}

    def meet(self, version: str) -> None:
        """Say by which version this one decides, look who else is there, and log it if somebody has another."""
        if self._fleet is None:
            return
        self._others = self._fleet.meet(self.name, version)
        differing = {name: other for name, other in self._others.items() if other != version}
        if differing != self.differing and differing:
            told = ", ".join(f"{name} by {other}" for name, other in differing.items())
            log.error("replicas decide by different policy files: this one by version %s, %s", version, told)
        elif self.differing and not differing:
            log.warning("all replicas decide by the same policy file again: version %s", version)
        self.differing = differing

    @property
    def count(self) -> int:
        """How many replicas there are, this one among them."""
        return 1 + len(self._others)

    def leave(self) -> None:
        """Say that this replica ends."""
        if self._fleet is not None:
            self._fleet.leave(self.name)

    def forget(self) -> None:
        """Drop what no replica counts any more."""
        if self._fleet is not None:
            self._fleet.forget()
