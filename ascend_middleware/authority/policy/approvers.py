"""Who must approve a pending action, and until when: `[approvals]` of the policy file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from ascend_middleware.json_schema import table, takes
from ascend_middleware.problems import BadValueError, Parser, Report, duration, whole

from ..keys import person

__all__ = [
    "APPROVALS",
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
_DEFAULT: Final = 7 * 86_400.0
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

    def terms(self, level: str) -> dict[str, Any]:
        """Return what is stored with a pending action of a risk level."""
        needed = self.levels.get(level, Requirement())
        return {"count": needed.count, "names": list(needed.names)}


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


@takes({"type": "array", "items": {"type": "string", "pattern": r"\S"}, "uniqueItems": True})
def _approvers(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(name, str) and person(name) for name in value):
        raise ValueError("expected a list of names of admin keys")
    if len({person(name) for name in value}) != len(value):
        raise ValueError("a name is listed twice")
    return tuple(value)


_TERMS: Final[Mapping[str, Parser]] = {"count": whole(1, _MOST), "approvers": _approvers}


@takes(table(_TERMS))
def _level(value: object) -> Mapping[str, object]:
    if not isinstance(value, dict):
        raise BadValueError("expected a table", 'count = 2, approvers = ["alice", "bob"]')
    return value


APPROVALS: Final[Mapping[str, Parser]] = {"expires_after": duration, **dict.fromkeys(LEVELS, _level)}


def read_approvals(table: object, report: Report) -> ApprovalRules:
    """Read `[approvals]`."""
    given = report.table(table, APPROVALS, "approvals")
    expires_after = given.pop("expires_after", _DEFAULT)
    levels = {level: _requirement(value, level, report) for level, value in given.items()}
    return ApprovalRules(expires_after=expires_after, levels=levels)


def _requirement(table: Mapping[str, object], level: str, report: Report) -> Requirement:
    given = report.table(table, _TERMS, "approvals", level)
    count, names = given.get("count", 1), given.get("approvers", ())
    if names and count > len(names):
        message = f"{count} people must approve, and only {len(names)} may"
        report.add("bad-value", ("approvals", level, "count"), message)
    return Requirement(count=count, names=names)
