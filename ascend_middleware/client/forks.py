"""After a fork: objects that hold a lock or a thread begin anew in the child, where neither is what it was."""

from __future__ import annotations

import os
import weakref
from typing import Final, Protocol

__all__ = ["Renewed", "renew_in_child"]


class Renewed(Protocol):
    """What has to begin anew in a forked child."""

    def renew(self) -> None:
        """Replace locks, threads and what another thread of the parent was about to do."""
        ...


_renewed: Final[weakref.WeakSet[Renewed]] = weakref.WeakSet()
_registered = False


def renew_in_child(target: Renewed) -> None:
    """Have `target.renew()` called in every child that is forked from now on, before any other code runs there."""
    global _registered
    _renewed.add(target)
    if not _registered and hasattr(os, "register_at_fork"):
        _registered = True
        os.register_at_fork(after_in_child=_renew_all)


def _renew_all() -> None:
    for target in list(_renewed):
        target.renew()
