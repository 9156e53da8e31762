"""The risk score of an action: a base from its type, points from its indicators and context, and the reasons."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

import msgspec

from ascend_middleware.api.values import is_plain

__all__ = ["MAX_SCORE", "Score", "Signal", "claimed_risk", "containers", "may_claim", "risk_level", "score_action"]

MAX_SCORE: Final = 100

# What a word of the action type says; the highest counts.
_BASES: Final[Mapping[str, int]] = {
    **dict.fromkeys(("read", "access", "get", "list", "query", "search", "recommendation", "analysis"), 10),
    **dict.fromkeys(("report", "fetch", "view", "plan", "inference"), 10),
    **dict.fromkeys(("write", "modification", "modify", "update", "create", "insert", "send", "email"), 35),
    **dict.fromkeys(("communication", "webhook", "call", "upload"), 35),
    **dict.fromkeys(("transaction", "payment", "refund", "trade", "transfer", "purchase", "order"), 50),
    **dict.fromkeys(("delete", "drop", "execute", "execution", "spawn", "config", "system", "schema"), 65),
    **dict.fromkeys(("credential", "shell", "deploy", "grant"), 65),
    **dict.fromkeys(("injection", "extraction", "exfiltration"), 80),
}
_UNKNOWN_BASE: Final = 40
_INDICATORS: Final[Mapping[str, int]] = {
    **dict.fromkeys(("production", "external"), 10),
    **dict.fromkeys(("financial_data", "pii", "pii_data", "pii_involved", "bulk"), 15),
    **dict.fromkeys(("phi", "irreversible", "privileged"), 20),
    "credentials": 25,
}
_ANY_INDICATOR: Final = 5
_GRADES: Final[Mapping[str, int]] = {"low": 0, "medium": 8, "high": 15, "critical": 25}
# What the context tells: the points of a word under a name. Other names and words add nothing.
_CONTEXT: Final[Mapping[str, Mapping[str, int]]] = {
    "environment": {"production": 10, "prod": 10, "live": 10},
    "data_classification": {"confidential": 10, "restricted": 15, "secret": 20, "pii": 15, "phi": 20},
    "sensitivity": {"medium": 5, "high": 15, "critical": 25},
    "sensitivity_level": {"medium": 5, "high": 15, "critical": 25},
    "source": {"external": 10, "untrusted": 20, "internet": 10},
    "network": {"external": 10, "public": 10},
}
_CONTEXT_FLAGS: Final[Mapping[str, int]] = {
    "external": 10,
    "untrusted_input": 20,
    "after_hours": 10,
    "first_time": 5,
    "contains_pii": 15,
}


_LEVELS: Final = ((85, "critical"), (60, "high"), (30, "medium"))
# How a submission may claim its risk.
_CLAIMS: Final = {
    **dict.fromkeys(("risk_score", "riskScore"), "claimed risk_score"),
    **dict.fromkeys(("risk_level", "riskLevel"), "claimed risk_level"),
}
# Any of these names, in bytes in which no letter is written as an escape.
_CLAIM: Final = re.compile(rb"risk(?:_[sl]|[SL])")


class Signal(NamedTuple):
    """One reason for a score: a name, its points, and where it was found."""

    name: str
    points: int
    source: str

    def __str__(self) -> str:
        return f"{self.name}: {'' if self.source == 'action_type' else '+'}{self.points}"


class Score(msgspec.Struct, frozen=True):
    """A risk score from 0 to 100 and what it is made of (`refund: 50`, `pii: +15`)."""

    value: int
    signals: tuple[Signal, ...]

    @property
    def factors(self) -> tuple[str, ...]:
        """The signals in words."""
        return tuple(map(str, self.signals))


def score_action(
    action_type: str,
    risk_indicators: Mapping[str, Any],
    context: Mapping[str, Any] | None = None,
    least: Mapping[str, int] | None = None,
    claimed: Mapping[str, int] | None = None,
) -> Score:
    """Score an action by its type, its indicators and its context.

    An indicator that is false, zero or empty adds nothing; nothing that the submission says can lower the score.
    The action does not fall below the scores in `least`, each by what demands it (the risk set for an MCP tool), and in
    `claimed`, which are what the submission says; see `claimed_risk`.
    """
    value, word = _base(action_type)
    signals = [Signal(word, value, "action_type")]
    for name, given in sorted(risk_indicators.items()):
        points = _points(name, given)
        if points:
            value += points
            signals.append(Signal(name, points, "risk_indicators"))
    for name, given in sorted((context or {}).items()):
        points = _context_points(name.lower(), given)
        if points:
            value += points
            signals.append(Signal(f"context.{name}", points, "context"))
    for source, floors in (("mcp_server", least), ("submission", claimed)):
        for name, floor in sorted(floors.items()) if floors else ():
            if floor > value:
                signals.append(Signal(name, floor - value, source))
                value = floor
    return Score(min(value, MAX_SCORE), tuple(signals))


def claimed_risk(body: Mapping[str, Any]) -> dict[str, int]:
    """Return the risk that a submission itself claims, at its top or anywhere in its indicators, as least scores.

    A claim can only raise: whoever knows that an action is dangerous is heard, and nobody talks one down.
    """
    found: dict[str, int] = {}
    indicators = body.get("risk_indicators")
    if _CLAIMS.keys().isdisjoint(body) and (not indicators or (isinstance(indicators, dict) and is_plain(indicators))):
        return found
    for item in containers([{name: body.get(name) for name in _CLAIMS}, indicators]):
        for name, value in item.items() if isinstance(item, dict) else ():
            if claim := _CLAIMS.get(name):
                found[claim] = max(found.get(claim, 0), _claim(value))
    return found


def may_claim(body: bytes) -> bool:
    """Say whether a body, as our own encoder writes it, may claim a risk anywhere."""
    return _CLAIM.search(body) is not None


def containers(value: object) -> Iterator[dict[str, Any] | list[Any] | tuple[Any, ...]]:
    """Yield every list and object within a JSON value, itself included, without recursion."""
    waiting = [value]
    for item in waiting:
        if isinstance(item, dict | list | tuple):
            waiting += item.values() if isinstance(item, dict) else item
            yield item


def _claim(value: object) -> int:
    """Return the score of a claimed score or level; 0 for what is neither."""
    if isinstance(value, str):
        return next((least for least, word in _LEVELS if word == value.strip().lower()), 0)
    if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0:
        return 0
    return math.ceil(min(value, MAX_SCORE))


@functools.lru_cache(maxsize=1024)
def _base(action_type: str) -> tuple[int, str]:
    """Return what an action type says by itself, and the word that says it."""
    words = re.split(r"[^a-z0-9]+", action_type.lower())
    known = ((_BASES[word], word) for word in words if word in _BASES)
    return max(known, default=(_UNKNOWN_BASE, "unknown action type"))


def _points(name: str, given: object) -> int:
    if given is True:  # nearly always
        return _INDICATORS.get(name.lower(), _ANY_INDICATOR)
    if isinstance(given, str) and given.lower() in _GRADES:
        return _GRADES[given.lower()]
    if not given or (isinstance(given, str) and given.lower() in ("false", "no", "none")):
        return 0
    return _INDICATORS.get(name.lower(), _ANY_INDICATOR)


def _context_points(name: str, given: object) -> int:
    if isinstance(given, str) and given.strip().lower() in _CONTEXT.get(name, {}):
        return _CONTEXT[name][given.strip().lower()]
    if given is True or (isinstance(given, str) and given.lower() in ("true", "yes")):
        return _CONTEXT_FLAGS.get(name, 0)
    return 0


def risk_level(score: int) -> str:
    """Return the word for a score: low, medium (from 30), high (from 60), critical (from 85)."""
    for least, word in _LEVELS:
        if score >= least:
            return word
    return "low"
