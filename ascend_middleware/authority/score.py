"""The risk score of an action: a base from its type, points from its indicators, and the reasons for both."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["MAX_SCORE", "Score", "risk_level", "score_action"]

MAX_SCORE: Final = 100

# What a word of the action type says; the highest counts.
_BASES: Final[Mapping[int, frozenset[str]]] = {
    10: frozenset(
        [
            "read",
            "access",
            "get",
            "list",
            "query",
            "search",
            "recommendation",
            "analysis",
            "report",
            "fetch",
            "view",
            "plan",
            "inference",
        ]
    ),
    35: frozenset(
        [
            "write",
            "modification",
            "modify",
            "update",
            "create",
            "insert",
            "send",
            "email",
            "communication",
            "webhook",
            "call",
            "upload",
        ]
    ),
    50: frozenset(["transaction", "payment", "refund", "trade", "transfer", "purchase", "order"]),
    65: frozenset(
        [
            "delete",
            "drop",
            "execute",
            "execution",
            "spawn",
            "config",
            "system",
            "schema",
            "credential",
            "shell",
            "deploy",
            "grant",
        ]
    ),
    80: frozenset(["injection", "extraction", "exfiltration"]),
}
_UNKNOWN_BASE: Final = 40
_INDICATORS: Final[Mapping[str, int]] = {
    "financial_data": 15,
    "pii": 15,
    "pii_data": 15,
    "pii_involved": 15,
    "phi": 20,
    "credentials": 25,
    "production": 10,
    "external": 10,
    "bulk": 15,
    "irreversible": 20,
    "privileged": 20,
}
_ANY_INDICATOR: Final = 5
_GRADES: Final[Mapping[str, int]] = {"low": 0, "medium": 8, "high": 15, "critical": 25}


@dataclass(frozen=True, slots=True)
class Score:
    """A risk score from 0 to 100 and, for a reader, what it is made of (`refund: 50`, `pii: +15`)."""

    value: int
    factors: tuple[str, ...]


def score_action(action_type: str, risk_indicators: Mapping[str, Any]) -> Score:
    """Score an action by its type and its indicators.

    An indicator that is false, zero or empty adds nothing; nothing an indicator says can lower the score.
    """
    words = {word for word in re.split(r"[^a-z0-9]+", action_type.lower()) if word}
    known = [(base, word) for base, group in _BASES.items() for word in sorted(words & group)]
    value, word = max(known, default=(_UNKNOWN_BASE, "unknown action type"))
    factors = [f"{word}: {value}"]
    for name, given in sorted(risk_indicators.items()):
        points = _points(name, given)
        if points:
            value += points
            factors.append(f"{name}: +{points}")
    return Score(min(value, MAX_SCORE), tuple(factors))


def _points(name: str, given: object) -> int:
    if isinstance(given, str) and given.lower() in _GRADES:
        return _GRADES[given.lower()]
    if not given or (isinstance(given, str) and given.lower() in ("false", "no", "none")):
        return 0
    return _INDICATORS.get(name.lower(), _ANY_INDICATOR)


def risk_level(score: int) -> str:
    """Return the word for a score: low, medium (from 30), high (from 60), critical (from 85)."""
    for least, word in ((85, "critical"), (60, "high"), (30, "medium")):
        if score >= least:
            return word
    return "low"
