"""When a failed attempt is tried again, and after how long. The only retry layer there is."""

from __future__ import annotations

import math
import random
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["RETRY_STATUSES", "backoff", "dice", "may_repeat", "parse_retry_after"]

RETRY_STATUSES: Final = frozenset({429, 500, 502, 503, 504})
FACTOR: Final = 0.5
# From [0, 1). Not of the global generator: that is the application's to seed, and hypothesis watches it in its tests.
dice: Final = random.SystemRandom().random
_SAFE_METHODS: Final = frozenset({"GET", "HEAD", "PUT", "DELETE"})


def may_repeat(method: str, *, has_idempotency_key: bool) -> bool:
    """Say whether sending the request twice does what sending it once does."""
    return method in _SAFE_METHODS or has_idempotency_key


def backoff(attempt: int, random: Callable[[], float]) -> float:
    """Return the seconds to wait after the failed attempt number `attempt` (0 for the first), with full jitter."""
    delay: float = random() * FACTOR * 2**attempt
    return delay


def parse_retry_after(value: str | None, *, now: float) -> float | None:
    """Return the seconds a `Retry-After` header asks for, or None when it is absent or makes no sense.

    Args:
        value: seconds or an HTTP date.
        now: seconds since the epoch.
    """
    if not value or len(value) > 64 or not value.isascii():
        return None
    value = value.strip()
    try:
        seconds = float(value) if value[:1].isdigit() else parsedate_to_datetime(value).timestamp() - now
    except (TypeError, ValueError, OverflowError, IndexError, OSError):
        return None
    # A date in the past means now.
    return max(0.0, seconds) if math.isfinite(seconds) else None
