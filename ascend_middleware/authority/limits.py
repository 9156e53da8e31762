"""Rate limits: requests a minute for each key, and failed sign-ins for each address (contract §2.5).

They live in the memory of the serving process: one authority serves its clients from one process.
"""

from __future__ import annotations

import ipaddress
import math
import threading
from collections import OrderedDict, deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Hashable

__all__ = ["FAILED_SIGN_INS", "Allowance", "Window", "network_of"]

FAILED_SIGN_INS: Final = 5
_MINUTE: Final = 60.0
_MAX_SUBJECTS: Final = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowance:
    """What is left to a subject in the running minute.

    Attributes:
        limit: requests a minute.
        remaining: of them.
        reset: epoch seconds at which one more is free.
        retry_after: seconds until then; 0 where the request is within the limit.
    """

    limit: int
    remaining: int
    reset: int
    retry_after: int = 0

    @property
    def headers(self) -> dict[str, str]:
        """The headers of an answer (contract §2.5)."""
        headers = {
            "x-ratelimit-limit": str(self.limit),
            "x-ratelimit-remaining": str(self.remaining),
            "x-ratelimit-reset": str(self.reset),
        }
        return {**headers, "retry-after": str(self.retry_after)} if self.retry_after else headers


class Window:
    """Counts per subject over the last minute, exactly, for as many subjects as fit; the idlest are forgotten first."""

    def __init__(self, *, subjects: int = _MAX_SUBJECTS) -> None:
        self._most = subjects
        self._lock = threading.Lock()
        self._times: OrderedDict[Hashable, deque[float]] = OrderedDict()

    def take(self, subject: Hashable, limit: int, now: float) -> Allowance:
        """Count one request, unless the limit is reached: a refused one costs nothing."""
        with self._lock:
            times = self._running(subject, now)
            if len(times) >= limit:
                return self._allowance(times, limit, now)
            times.append(now)
            return self._allowance(times, limit, now, taken=True)

    def full(self, subject: Hashable, limit: int, now: float) -> Allowance | None:
        """Return the allowance of a subject that has reached the limit, without counting; None for others."""
        with self._lock:
            if subject not in self._times:
                return None
            times = self._running(subject, now)
            return self._allowance(times, limit, now) if len(times) >= limit else None

    def _running(self, subject: Hashable, now: float) -> deque[float]:
        times = self._times.setdefault(subject, deque())
        self._times.move_to_end(subject)
        # A clock that was set back must not lock anybody out for longer than a minute.
        while times and not now - _MINUTE < times[0] <= now:
            times.popleft()
        while len(self._times) > self._most:
            self._times.popitem(last=False)
        return times

    @staticmethod
    def _allowance(times: deque[float], limit: int, now: float, *, taken: bool = False) -> Allowance:
        free = times[0] + _MINUTE if times else now
        wait = 0 if taken else max(1, math.ceil(free - now))
        return Allowance(limit=limit, remaining=max(0, limit - len(times)), reset=math.ceil(free), retry_after=wait)


def network_of(address: str) -> str:
    """Return what counts as one address: an IPv6 client has a whole /64 to itself."""
    try:
        given = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(given, ipaddress.IPv4Address):
        return str(given)
    if given.ipv4_mapped is not None:
        return str(given.ipv4_mapped)
    return str(ipaddress.ip_network((given, 64), strict=False))
