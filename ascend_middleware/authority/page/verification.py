"""Whether the audit log is whole: it is read again when somebody looks, but a long log not each time."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final

from ..store import audit
from ..store.store import iso_time

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..store.store import Store

__all__ = ["Verifier"]

# Seconds for which a verification of a long log is good enough for those who only look.
_FRESH: Final = 300.0
# Entries up to which the log is read again whenever somebody looks and something was added.
_SHORT: Final = 20_000


class Verifier:
    """Remembers the last verification.

    Args:
        store: where the log is.
        now: epoch seconds.
    """

    def __init__(self, store: Store, *, now: Callable[[], float]) -> None:
        self._store = store
        self._now = now
        self._lock = threading.Lock()
        self._last: tuple[audit.Verification, float] | None = None

    def state(self, *, again: bool = False) -> tuple[audit.Verification, str]:
        """Return what the last reading found, and when that was; a reading blocks others that want one.

        Args:
            again: read the log now, however fresh the last reading is.
        """
        with self._lock:
            now = self._now()
            if self._last is not None and not again and self._last[0].entries > _SHORT and now - self._last[1] < _FRESH:
                return self._last[0], iso_time(self._last[1])
            self._last = (audit.verify(self._store), now)
            return self._last[0], iso_time(now)
