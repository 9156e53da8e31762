"""Say once, when a server starts, which routes no rule covers and which rules contradict each other."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from ..client.masking import get_logger
from ..routing.coverage import cover
from ..routing.listing import shown

if TYPE_CHECKING:
    from ..config import Settings
    from ..routing.coverage import Routes
    from ..rules import RuleTable

__all__ = ["announce"]

logger = get_logger("ascend_middleware.guard")

_MOST: Final = 50


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
        logger.warning("no rule covers these routes, so requests for them are refused: %s%s", _printable(told), more)
    if not logger.isEnabledFor(logging.INFO):
        return
    for idle in coverage.idle[:_MOST]:
        logger.info("%s can never match: %s", idle.rule.label, idle.why)


def _printable(text: str) -> str:
    return text if text.isprintable() else ascii(text)
