"""The coverage of an application as a table for a terminal, and as JSON."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from .coverage import ANY, Row, Standing
from .leaves import Kind

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ..rules import Method
    from .coverage import Coverage, Every

__all__ = ["as_json", "as_text", "shown", "shown_place"]

_HEAD: Final = ("METHODS", "ROUTE", "GOVERNED AS", "FAILURE", "PENDING", "RULE")
_GAP: Final = 2
_NARROW: Final = 24  # a route's column is never narrower; what does not fit stands on a line of its own
_WORDS: Final = {
    Standing.UNMAPPED: "UNMAPPED",
    Standing.CONFLICT: "CONFLICT",
    Standing.BLOCKED: "blocked",
    Standing.EXEMPT: "exempt",
}


def as_text(coverage: Coverage, *, width: int = 100, unmapped: str = "refuse") -> str:
    """Return the table, what is not covered, and what is wrong, as lines of at most `width` where they can be.

    Args:
        coverage: what `cover` found.
        width: of the terminal, in characters.
        unmapped: the setting of that name.
    """
    lines = [*_table(coverage.rows, width), "", _summary(coverage)]
    if coverage.unmapped:
        lines += [
            "",
            "No rule covers these; requests for them are refused (403). --suggest writes rules to start from:",
        ]
        lines += [f"  {_methods(row)} {shown_place(row)}" for row in coverage.unmapped]
    elif unmapped == "by-method":
        lines += ["", 'unmapped = "by-method": what no rule covers is submitted by its method.']
    if coverage.partly:
        lines += ["", "Only partly covered, some methods or paths have a rule and others none:"]
        lines += [f"  {(leaf.host or '') + leaf.template}" for leaf in coverage.partly]
    if coverage.idle:
        lines += ["", "Rules that can never match:"]
        lines += [f"  {one.rule.label}: {one.why}" for one in coverage.idle]
    if coverage.problems:
        lines += ["", "Problems:", *(f"  {problem}" for problem in coverage.problems)]
    return "\n".join(line.rstrip() for line in lines) + "\n"


def shown(row: Row) -> str:
    """Return a row's methods and route."""
    return f"{_methods(row)} {shown_place(row)}"


def as_json(coverage: Coverage) -> dict[str, Any]:
    """Return the same as values of JSON; each route and method is an entry of its own."""
    return {
        "routes": [_entry(row, method) for row in coverage.rows for method in row.methods],
        "partly_covered": [leaf.template for leaf in coverage.partly],
        "idle_rules": [{"rule": one.rule.label, "why": one.why} for one in coverage.idle],
        "problems": [
            {"code": one.code, "where": one.where, "message": one.message, "hint": one.hint}
            for one in coverage.problems
        ],
        "summary": dict(_counts(coverage)),
    }


def _entry(row: Row, method: Method | Every) -> dict[str, Any]:
    rule = row.rule if row.standing in (Standing.GOVERNED, Standing.BY_METHOD) else None
    return {
        "method": str(method),
        "route": row.leaf.template,
        "host": row.leaf.host,
        "endpoint": row.leaf.endpoint,
        "kind": str(row.leaf.kind),
        "part": row.part or None,
        "standing": str(row.standing),
        "rule": row.rule.label if row.rule is not None else None,
        "action_type": rule.action_type if rule is not None else None,
        "on_failure": rule.on_failure if rule is not None else None,
        "pending": str(rule.pending) if rule is not None else None,
        "mode": rule.mode if rule is not None else None,
        "block": row.rule.block if row.rule is not None else None,
    }


def _table(rows: Sequence[Row], width: int) -> Iterator[str]:
    cells = [_HEAD, *(_cells(row) for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(_HEAD))]
    spare = width - (sum(widths) + _GAP * (len(_HEAD) - 1))
    if spare < 0:
        widths[1] = max(_NARROW, widths[1] + spare)
    gap = " " * _GAP
    for methods, route, *rest in cells:
        tail = gap.join(text.ljust(wide) for text, wide in zip(rest, widths[2:], strict=True))
        if len(route) <= widths[1]:
            yield gap.join((methods.ljust(widths[0]), route.ljust(widths[1]), tail))
        else:
            yield gap.join((methods.ljust(widths[0]), route))
            yield gap.join((" " * widths[0], " " * widths[1], tail))


def _cells(row: Row) -> tuple[str, ...]:
    rule = row.rule
    if row.standing in _WORDS or rule is None:
        label = rule.short_label if rule is not None else ""
        return _methods(row), shown_place(row), _WORDS.get(row.standing, ""), "", "", label
    kind = rule.action_type + (" (observed)" if rule.mode == "observe" else "")
    label = rule.short_label if row.standing is Standing.GOVERNED else "by method"
    return _methods(row), shown_place(row), kind, rule.on_failure, str(rule.pending), label


def _methods(row: Row) -> str:
    return "any" if row.methods == (ANY,) else ",".join(map(str, row.methods))


def shown_place(row: Row) -> str:
    """Return a row's route, and the part of its paths where it is not all of them."""
    place = (row.leaf.host or "") + row.leaf.template
    if row.leaf.kind is Kind.OPAQUE:
        place += " (one unit)"
    if row.part == "elsewhere":
        return f"{place} elsewhere"
    return f"{place} at {row.part}" if row.part else place


def _counts(coverage: Coverage) -> dict[str, int]:
    counts = Counter(str(row.standing) for row in coverage.rows for _ in row.methods)
    return {"routes": len({row.leaf for row in coverage.rows}), **{str(one): counts[str(one)] for one in Standing}}


def _summary(coverage: Coverage) -> str:
    counts = _counts(coverage)
    routes = counts.pop("routes")
    told = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
    return f"{routes} route{'s' * (routes != 1)}; with their methods: {told or 'none'}."
