"""For how long actions and audit entries stay in the database, as the policy file says it: `[retention]`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ascend_middleware.json_schema import takes
from ascend_middleware.problems import BadValueError, Parser, Report, text, texts

__all__ = ["RETENTION", "Retention", "age", "read_retention"]

_DAY: Final = 86_400.0
_UNITS: Final = {"d": _DAY, "y": 365.25 * _DAY}
_MOST_YEARS: Final = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """After how many seconds each goes into an archive, None for never, and into which folder.

    `without_outcome` is for approved actions of which nobody told what became of them. Of the organisations in
    `legal_hold` nothing is archived or erased.
    """

    actions: float | None = None
    audit: float | None = None
    without_outcome: float | None = None
    archive_to: Path | None = None
    legal_hold: tuple[str, ...] = ()

    @property
    def ages(self) -> dict[str, float | None]:
        """Each by its name."""
        return {"actions": self.actions, "audit": self.audit, "without_outcome": self.without_outcome}


@takes({"type": "string", "pattern": r"^\d{1,6}[dy]$"})
def age(value: object) -> float:
    """Take a text such as `400d` or `7y` as seconds: a day at least."""
    match = re.fullmatch(r"(\d{1,6})([dy])", value, re.ASCII) if isinstance(value, str) else None
    found = int(match[1]) * _UNITS[match[2]] if match is not None else 0.0
    if not _DAY <= found <= _MOST_YEARS * _UNITS["y"]:
        raise BadValueError(f"no such age: {value!r}", 'expected days or years, such as "400d" or "7y"')
    return found


RETENTION: Final[Mapping[str, Parser]] = {
    "actions": age,
    "audit": age,
    "without_outcome": age,
    "archive_to": text,
    "legal_hold": texts,
}


def read_retention(table: object, report: Report, folder: Path) -> Retention:
    """Read `[retention]`; a relative folder is relative to `folder`."""
    given: Mapping[str, Any] = report.table(table, RETENTION, "retention")
    actions, audit, place = given.get("actions"), given.get("audit"), given.get("archive_to")
    if (actions or audit) and not place:
        report.add("missing-key", ("retention", "archive_to"), "the folder for the archives is missing")
    if actions and audit and audit < actions:
        words = "audit entries cannot go before the actions that they tell of"
        report.add("bad-value", ("retention", "audit"), words, "make it as long as actions, or longer")
    unknown = given.get("without_outcome")
    if unknown and not (actions and actions <= unknown and (not audit or unknown <= audit)):
        words = "it is for actions that are old already, and their audit entries go after them"
        report.add(
            "bad-value", ("retention", "without_outcome"), words, "give actions as well, and an age between the two"
        )
    where = folder / place if place else None
    held = given.get("legal_hold", ())
    return Retention(actions=actions, audit=audit, without_outcome=unknown, archive_to=where, legal_hold=held)
