"""The health of a guard, as `health()` and the health route tell it: numbers and names of kinds, never a secret."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from ..exceptions import AscendError
from ..flow import Blocking
from ..masking import get_logger
from ..state.base import StateError
from ..verdict import Refusal, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..client.core import ClientCore
    from ..config import Settings
    from ..flow import Flow
    from ..journal.journal import Journal
    from ..killswitch.switch import KillSwitch
    from ..state.base import State
    from .runs import OpenBudget

__all__ = ["Gauges", "check", "health_of"]

# The part of a journal's limits from which it is told to be nearly full.
_NEAR = 0.8
# Seconds between two tries of a key that was refused, and for each.
_KEY_AGAIN = 5.0
_KEY_SECONDS = 1.0

logger = get_logger("ascend_middleware.guard")


class Gauges(Protocol):
    """What health and telemetry read of a guard; see `decide.Guard`."""

    settings: Settings
    core: ClientCore
    kill: KillSwitch
    state: State
    journal: Journal | None
    budget: OpenBudget
    now: Callable[[], float]
    key_tried_at: float

    @property
    def waiters(self) -> int: ...  # noqa: D102

    @property
    def worker_runs(self) -> bool: ...  # noqa: D102

    @property
    def fault(self) -> str | None: ...  # noqa: D102


def check(guard: Gauges) -> Flow[Verdict]:
    """Read what the workers share, unless that was done just now, and report: 503 while requests cannot be served."""
    kill, readable = guard.kill, True
    # One request reads for all; who comes while it does reports what was read last.
    turn = "wait" if kill.is_fresh else kill.turn()
    if turn != "wait":
        try:
            if turn == "fail":
                raise StateError("the kill state could not be read")
            yield Blocking(kill.refresh, inline=not guard.state.blocks)
        except StateError:
            readable = False
    if guard.core.key_refused:
        # While a load balancer sends no requests, nobody else would notice that the key is good again.
        yield from _key_again(guard)
    found = health_of(guard, readable=readable)
    status = 503 if found["status"] == "failing" else 200
    report = Refusal(problem="health", detail="", status=status, report=found)
    return Verdict(outcome="health", passes=False, refusal=report)


def _key_again(guard: Gauges) -> Flow[None]:
    clock = guard.core.clock()
    if clock - guard.key_tried_at >= _KEY_AGAIN:
        guard.key_tried_at = clock
        try:
            yield from guard.core.try_key(seconds=_KEY_SECONDS)
        except AscendError as error:
            logger.debug("the key is still not known to be good: %s", error)


def health_of(guard: Gauges, *, readable: bool | None = None) -> dict[str, Any]:
    """Return how a guard is, as JSON would hold it, without asking anybody.

    Args:
        guard: whose health it is.
        readable: whether the state could be read just now; None when nobody tried.

    Returns:
        `status`: `ok`; `degraded` while the authority is not asked, or the journal fills up; `failing` while governed
        requests are refused for a reason of this service; `disabled`. Durations in seconds, sizes in bytes; None where
        something never happened.
    """
    settings, kill, breaker = guard.settings, guard.kill, guard.core.breaker
    age = kill.age
    confirmed = kill.snapshot.confirmed_at
    found: dict[str, Any] = {
        "breaker": {"state": breaker.state, "failures": breaker.failures},
        "fault": guard.fault,
        "kill_state": {
            "age_seconds": round(age, 3) if age < 1e8 else None,
            "confirmed_seconds": round(max(0.0, guard.now() - confirmed), 3) if confirmed else None,
            "stale": kill.is_stale,
            "orders": len(kill.snapshot.orders),
            "local": kill.is_thrown,
        },
        "journal": None if guard.journal is None else _journal(guard.journal, guard.now()),
        "open_passes": {
            "last_minute": guard.budget.spent,
            "per_minute": settings.open_per_minute,
            "total": guard.budget.total,
        },
        "waiters": {"now": guard.waiters, "most": settings.max_waiters},
        "engine": "local" if settings.is_local else settings.engine,
        "state": {"kind": guard.state.kind, "readable": readable},
        "keeper": guard.worker_runs,
        "mode": settings.mode,
    }
    return {"status": _status(settings.enabled, found), **found}


def _journal(journal: Journal, now: float) -> dict[str, Any]:
    since, backlog = journal.waiting_since, journal.backlog
    return {
        "bytes": backlog,
        "most_bytes": journal.limits.size,
        "oldest_seconds": round(max(0.0, now - since), 3) if since is not None and backlog else None,
        "most_seconds": journal.limits.age,
        "unjournalled": journal.unjournalled,
    }


def _status(enabled: bool, found: dict[str, Any]) -> str:
    if not enabled:
        return "disabled"
    journal = found["journal"] or {"bytes": 0, "most_bytes": 1, "oldest_seconds": None, "most_seconds": 1.0}
    filled = max(journal["bytes"] / journal["most_bytes"], (journal["oldest_seconds"] or 0.0) / journal["most_seconds"])
    kill = found["kill_state"]
    if found["fault"] or found["state"]["readable"] is False or filled >= 1 or kill["stale"] or kill["local"]:
        return "failing"
    return "degraded" if found["breaker"]["state"] != "closed" or filled >= _NEAR else "ok"
