"""Say once, when a server starts, what an operator has to know of the settings, and which routes no rule covers."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from ..masking import get_logger
from ..routing.coverage import cover
from ..routing.listing import shown
from ..text import printable

if TYPE_CHECKING:
    from ..config import Settings
    from ..routing.coverage import Routes
    from ..rules import RuleTable
    from .decide import Guard

__all__ = ["announce", "announce_ways"]

logger = get_logger("ascend_middleware.guard")
# Apart from what is said of requests.
settings_logger = get_logger("ascend_middleware.settings")

_MOST: Final = 50


def announce_ways(guard: Guard) -> None:
    """Log what an operator has to know of the settings: whether anything is refused, and who shares an approval."""
    settings, rules = guard.settings, [rule for rule in guard.table.rules if rule.action_type]
    if not settings.enabled:
        return
    observed = [rule.label for rule in rules if rule.mode == "observe"]
    if settings.mode == "observe":
        settings_logger.warning(
            'mode = "observe": requests are judged and logged, and none is refused unless its agent is blocked'
        )
    elif observed:
        told = f"{', '.join(observed[:_MOST])}{', …' if len(observed) > _MOST else ''}"
        settings_logger.warning('these rules refuse nothing, because of mode = "observe": %s', printable(told))
    if settings.single_caller or guard.identifies:
        return
    waits = settings.pending.waits or any(rule.pending.waits for rule in rules)
    settings_logger.log(
        logging.WARNING if waits else logging.INFO,
        "without identify callers are told apart by %s: a request that has none of these shares no approval with "
        "another one; principal_headers names further headers, single_caller = true says that all requests are one "
        "caller's",
        ", ".join(guard.credentials),
    )


def announce(routes: Routes, table: RuleTable, settings: Settings) -> None:
    """Log what `ascend-middleware routes` would list as not covered, contradictory, or without use."""
    if not settings.enabled:
        return
    try:
        coverage = cover(routes, table, unmapped=settings.unmapped)
    except Exception:
        # Routes of somebody else's making; the guard decides about each request all the same.
        logger.exception("the routes cannot be listed")
        return
    for problem in coverage.problems:
        logger.error("%s", problem)
    lines = [shown(row) for row in coverage.forgotten]
    if lines:
        more = f", and {len(lines) - _MOST} more" if len(lines) > _MOST else ""
        told = "; ".join(lines[:_MOST])
        what = "would be refused" if settings.mode == "observe" else "are refused"
        logger.warning("no rule covers these routes, so requests for them %s: %s%s", what, printable(told), more)
    if not logger.isEnabledFor(logging.INFO):
        return
    for idle in coverage.idle[:_MOST]:
        logger.info("%s can never match: %s", idle.rule.label, idle.why)
