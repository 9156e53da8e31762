"""Who must approve a pending action, and until when: `[approvals]` of the policy file.

[approvals]
expires_after = "24h"

[approvals.critical]
count = 2
approvers = ["alice", "bob", "carol"]
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from ..keys import person

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = [
    "EXPIRY",
    "LEVELS",
    "OBSERVED",
    "ApprovalRules",
    "Requirement",
    "approved_by",
    "missing_approvers",
    "read_approvals",
    "required_approvers",
    "requirement",
]

# By which door a decision came that nobody took in time.
EXPIRY: Final = "expiry"
# The mark of a submission whose request passes whatever is decided: in its context, and as its status if pending.
OBSERVED: Final = "observed"
LEVELS: Final = ("low", "medium", "high", "critical")
_ANYBODY: Final = "admin"
_DAY: Final = 86_400.0
_DEFAULT: Final = 7 * _DAY
_UNITS: Final = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": _DAY}
_DURATION = re.compile(r"(\d{1,9})([smhd])", re.ASCII)
_MOST: Final = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Requirement:
    """How many different people must approve, and who may; without names every admin may."""

    count: int = 1
    names: tuple[str, ...] = ()

    def admits(self, name: str) -> bool:
        """Say whether a person of that name may decide."""
        return not self.names or person(name) in {person(item) for item in self.names}


@dataclass(frozen=True, slots=True, kw_only=True)
class ApprovalRules:
    """The approvers of each risk level, and for how many seconds a pending action waits for them."""

    expires_after: float = _DEFAULT
    levels: Mapping[str, Requirement] = field(default_factory=dict)

    def terms(self, decision: str, level: str, *, expires_at: Callable[[float], str]) -> dict[str, Any]:
        """Return what is stored with a new action: nothing unless it is pending.

        The terms of an action stay what they were when it was submitted, whatever the policy file says later.

        Args:
            decision: approved, pending or denied.
            level: the risk level.
            expires_at: the time in so many seconds, as it is stored.
        """
        if decision != "pending":
            return {}
        needed = self.levels.get(level, Requirement())
        terms = {"count": needed.count, "names": list(needed.names), "expires_at": expires_at(self.expires_after)}
        return {"approval": terms}


def requirement(row: Mapping[str, Any]) -> Requirement:
    """Return who must approve a stored action."""
    terms = row["judgement"].get("approval") or {}
    return Requirement(count=terms.get("count", 1), names=tuple(terms.get("names", ())))


def approved_by(row: Mapping[str, Any]) -> list[str]:
    """Return the names of those who have approved a stored action, the one who decided it the last."""
    names = [approval["by"] for approval in row.get("approvals", ())]
    decision = row["approval"] or {}
    return [*names, decision["by"]] if decision.get("decision") == "approved" else names


def required_approvers(row: Mapping[str, Any]) -> list[str]:
    """Return who must, or may, approve: names, or "admin" once for each person that is needed."""
    needed = requirement(row)
    return list(needed.names) or [_ANYBODY] * needed.count


def missing_approvers(row: Mapping[str, Any]) -> list[str]:
    """Return of `required_approvers` those who have not approved yet."""
    needed, given = requirement(row), approved_by(row)
    if not needed.names:
        return [_ANYBODY] * max(needed.count - len(given), 0)
    done = {person(name) for name in given}
    return [name for name in needed.names if person(name) not in done]


def read_approvals(table: object, say: Callable[[str, str, str], None]) -> ApprovalRules:
    """Read `[approvals]`; tell what is wrong with it by `say(where, message, hint)`."""
    if not isinstance(table, dict):
        say("approvals", "expected a table", "")
        return ApprovalRules()
    levels: dict[str, Requirement] = {}
    expires_after = _DEFAULT
    for key, value in table.items():
        where = f"approvals: {key}"
        if key == "expires_after":
            seconds = _seconds(value)
            if seconds is None:
                say(where, f"no such duration: {value!r}", 'expected a number and a unit, such as "90s", "24h" or "7d"')
            else:
                expires_after = seconds
        elif key in LEVELS:
            levels[key] = _requirement(value, where, say)
        else:
            say(where, "no such key", f"known: expires_after, {', '.join(LEVELS)}")
    return ApprovalRules(expires_after=expires_after, levels=levels)


def _seconds(value: object) -> float | None:
    match = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        return None
    seconds = int(match[1]) * _UNITS[match[2]]
    return seconds if 0 < seconds <= 3650 * _DAY else None


def _requirement(value: object, where: str, say: Callable[[str, str, str], None]) -> Requirement:
    if not isinstance(value, dict):
        say(where, "expected a table", 'count = 2, approvers = ["alice", "bob"]')
        return Requirement()
    for key in value:
        if key not in ("count", "approvers"):
            say(f"{where}: {key}", "no such key", "known: count, approvers")
    names = value.get("approvers", [])
    if not isinstance(names, list) or not all(isinstance(name, str) and person(name) for name in names):
        say(f"{where}: approvers", "expected a list of names of admin keys", "")
        names = []
    if len({person(name) for name in names}) != len(names):
        say(f"{where}: approvers", "a name is listed twice", "")
    count = value.get("count", 1)
    if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= _MOST:
        say(f"{where}: count", f"expected a whole number from 1 to {_MOST}", "")
        count = 1
    if names and count > len(names):
        say(f"{where}: count", f"{count} people must approve, and only {len(names)} may", "")
    return Requirement(count=count, names=tuple(names))
