"""What is governed: every live route and method of an application with its rule, and rules that match nothing.

A resolver of any framework is listed by what `Routes` asks of it: `leaves()`, each a `Leaf` with

- `template`: the full one, with the prefixes of everything it is mounted under (never the server's root path);
- `methods`: in upper case, those on which something of the application runs; HEAD where a GET handler answers it,
  OPTIONS only where a handler of the application does. None: any method runs it;
- `websocket`: True for a handshake, which no method names and whose `methods` is None;
- `kind`: ROUTE, STATIC (the path names a file), or OPAQUE (a foreign application, one unit);
- `endpoint`, `host`, `declared`: as the resolver gives them to the guard.

`cover` looks each of them up as the guard does for a request, so that the listing tells what the guard will do.
"""

from __future__ import annotations

import difflib
import re
from collections import Counter
from dataclasses import dataclass, field
from enum import Enum, StrEnum
from typing import TYPE_CHECKING, Any, Final, Protocol

from ..problems import Problem
from ..rules import WEBSOCKET, parse_route
from . import Kind

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ..rules import CompiledRule, Method, RouteRules, RuleTable
    from . import Leaf


class Every(Enum):
    """What stands for methods that are not named; a framework's route may have a method of any text."""

    ANY = "*"
    OTHERS = "others"  # every method that the route's other rows do not name

    def __str__(self) -> str:
        return self.value


ANY: Final = Every.ANY
OTHERS: Final = Every.OTHERS
_ORDER: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", WEBSOCKET)


class Routes(Protocol):
    """What every framework's resolver offers, so that its routes can be listed."""

    def leaves(self) -> Sequence[Leaf]:
        """Return every unit that a request can run, in the order in which the framework asks them."""
        ...


class Standing(StrEnum):
    """How the requests of a row fare. The last three have no rule: refused, or submitted by their method."""

    GOVERNED = "governed"
    EXEMPT = "exempt"
    BLOCKED = "blocked"
    UNMAPPED = "unmapped"
    CONFLICT = "conflict"
    BY_METHOD = "by-method"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """Methods of one route, or of a part of its paths, that fare alike.

    Attributes:
        leaf: the route.
        methods: in upper case, GET first; `ANY`, or `OTHERS` for those that the route's other rows do not name.
        part: the template that narrows the route's paths; empty for all of them, `elsewhere` for the rest.
        standing: how the requests fare.
        rule: what governs them, if anything does.
    """

    leaf: Leaf
    methods: tuple[Method | Every, ...]
    part: str
    standing: Standing
    rule: CompiledRule | None


@dataclass(frozen=True, slots=True)
class Idle:
    """A rule that no request of any route can get."""

    rule: CompiledRule
    leaves: Sequence[Leaf] = field(repr=False)

    @property
    def why(self) -> str:
        """Why it cannot; found out when asked, for that takes a look at every route."""
        return _why(self.rule, self.leaves)


@dataclass(frozen=True, slots=True, kw_only=True)
class Coverage:
    """Everything that `cover` found.

    Attributes:
        rows: in the framework's order; a route's rows stand together.
        idle: rules that govern nothing.
        problems: what is wrong between rules and routes, such as two rules that contradict each other.
    """

    rows: tuple[Row, ...]
    idle: tuple[Idle, ...]
    problems: tuple[Problem, ...]

    @property
    def unmapped(self) -> tuple[Row, ...]:
        """The rows that no rule covers."""
        return tuple(row for row in self.rows if row.standing is Standing.UNMAPPED)

    @property
    def forgotten(self) -> tuple[Row, ...]:
        """The unmapped rows, but not the other methods of a route whose rules name some: these were left out.

        Only handlers that run for any method have such: functions of Django, ASGI applications as endpoints.
        """
        return tuple(row for row in self.unmapped if row.methods != (OTHERS,))

    @property
    def partly(self) -> tuple[Leaf, ...]:
        """The routes of which some methods or paths are covered and others are not."""
        bare = {row.leaf for row in self.unmapped}
        covered = {row.leaf: None for row in self.rows if row.leaf in bare and row.standing is not Standing.UNMAPPED}
        return tuple(covered)


def cover(routes: Routes, table: RuleTable, *, unmapped: str = "refuse") -> Coverage:
    """Look up every route and method.

    Args:
        routes: a framework's resolver.
        table: the rules.
        unmapped: the setting of that name, `refuse` or `by-method`.
    """
    leaves = list(routes.leaves())
    rows: list[Row] = []
    problems: dict[str, Problem] = {}
    for leaf in leaves:
        rules = table.for_route(
            leaf.template, endpoint=leaf.endpoint, declared=leaf.declared, files=leaf.kind is Kind.STATIC
        )
        found = list(_rows(leaf, rules, table, unmapped))
        rows += found
        for problem in _problems(leaf, rules, found):
            problems.setdefault(str(problem), problem)
    used = {id(row.rule) for row in rows}
    idle = [Idle(rule, leaves) for rule in table.rules if id(rule) not in used]
    return Coverage(rows=tuple(rows), idle=tuple(idle), problems=tuple(problems.values()))


# --- rows


def _rows(leaf: Leaf, rules: RouteRules, table: RuleTable, unmapped: str) -> Iterator[Row]:
    """Yield a row for each set of methods that fare alike in the same part of the paths."""
    grouped: dict[tuple[str, Standing, CompiledRule | None], list[Method | Every]] = {}
    for method in _methods_of(leaf, rules):
        for key in _parts(method, leaf, rules, table, unmapped):
            grouped.setdefault(key, []).append(method)
    for (part, standing, rule), methods in grouped.items():
        yield Row(leaf=leaf, methods=tuple(methods), part=part, standing=standing, rule=rule)


def _parts(
    method: Method | Every, leaf: Leaf, rules: RouteRules, table: RuleTable, unmapped: str
) -> Iterator[tuple[str, Standing, CompiledRule | None]]:
    if rules.problem is not None:
        yield "", Standing.CONFLICT, None
        return
    named = "*" if isinstance(method, Every) else method
    parts = list(rules.parts(named, whole=leaf.kind is Kind.OPAQUE))
    for part in parts:
        rule, standing = part.rule, Standing.UNMAPPED
        if rule is None and unmapped == "by-method":
            rule, standing = table.by_method_rule("POST" if isinstance(method, Every) else method), Standing.BY_METHOD
        elif rule is not None:
            standing = Standing.BLOCKED if rule.block else Standing.EXEMPT if rule.exempt else Standing.GOVERNED
        yield "" if len(parts) == 1 else "elsewhere" if part.covers else part.template.text, standing, rule


def _methods_of(leaf: Leaf, rules: RouteRules) -> list[Method | Every]:
    if leaf.websocket:
        return [WEBSOCKET]
    methods: set[Method | Every] = {*(leaf.methods or ())}
    if leaf.methods is None:
        whole = leaf.kind is Kind.OPAQUE
        methods |= {method for rule in rules.candidates(whole=whole) for method in rule.methods if method != "*"}
        if not methods:
            return [ANY]
        methods |= {"HEAD", OTHERS} if "GET" in methods else {OTHERS}
    return sorted(methods, key=_rank)


def _rank(name: Method | Every) -> tuple[bool, int, str]:
    return name is OTHERS, _ORDER.index(name) if name in _ORDER else 99, str(name)


# --- what is wrong


def _problems(leaf: Leaf, rules: RouteRules, rows: list[Row]) -> Iterator[Problem]:
    if rules.problem is not None:
        yield rules.problem
    names = sorted(filter(None, parse_route(leaf.template).names))
    for row in rows:
        rule = row.rule
        if rule is None:  # the others read nothing, but those that govern
            continue
        where = f"{rule.label}: route {leaf.template}"
        for name in rule.path_names:
            whole = leaf.kind is Kind.ROUTE and row.part in ("", "elsewhere")
            if whole and not _names(leaf.template, name):
                hint = f"known: {', '.join(names)}" if names else "it has no parameters"
                yield Problem("routes.unknown-parameter", where, f"path.{name} is not in the route's template", hint)
        if leaf.websocket and rule.body is not None:
            yield Problem("routes.no-body", where, "a WebSocket handshake has no body to read")


def _names(template: str, name: str) -> bool:
    """Whether a template has a parameter: as a segment, within one, or in a pattern that is no template."""
    return re.search(rf"\{{{re.escape(name)}\b|\?P<{re.escape(name)}>", template) is not None


def _why(rule: CompiledRule, leaves: Sequence[Leaf]) -> str:
    called = leaves
    if rule.endpoint is not None:
        called = [leaf for leaf in leaves if leaf.endpoint == rule.endpoint]
        if not called:
            names = sorted({leaf.endpoint for leaf in leaves if leaf.endpoint})
            return f"no route has this endpoint{_near(rule.endpoint, names)}"
    near = [leaf for leaf in called if rule.template.overlaps(parse_route(leaf.template))]
    if not near:
        return f"no route has this template{_near(rule.template.text, sorted({leaf.template for leaf in leaves}))}"
    taken = sorted({method for leaf in near for method in _taken(leaf)}, key=_rank)
    if ANY not in taken and not (rule.methods & {*taken, "*"}):
        return f"{near[0].template} takes {', '.join(map(str, taken))} only"
    if any(leaf.kind is Kind.OPAQUE for leaf in near):
        unit = next(leaf for leaf in near if leaf.kind is Kind.OPAQUE)
        return f"{unit.template} is a foreign application, one unit: write a rule for all of it"
    return "every route that it matches has a more specific rule"


def _taken(leaf: Leaf) -> frozenset[Method | Every]:
    if leaf.websocket:
        return frozenset({WEBSOCKET})
    return frozenset({ANY}) if leaf.methods is None else frozenset({*leaf.methods})


def _near(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.7)
    return f"; did you mean {close[0]}?" if close else ""


# --- as a table for a terminal, and as JSON

_HEAD: Final = ("METHODS", "ROUTE", "GOVERNED AS", "FAILURE", "PENDING", "RULE")
_GAP: Final = 2
_NARROW: Final = 24  # a route's column is never narrower; what does not fit stands on a line of its own
_WORDS: Final = {
    Standing.UNMAPPED: "UNMAPPED",
    Standing.CONFLICT: "CONFLICT",
    Standing.BLOCKED: "blocked",
    Standing.EXEMPT: "exempt",
}


def as_text(coverage: Coverage, *, width: int, unmapped: str = "refuse") -> str:
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
        "cache": rule.reuse.get("cache") if rule is not None else None,
        "coalesce": rule.coalesce if rule is not None else None,
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
    notes = ["observed"] if rule.mode == "observe" else []
    notes += [f"cached {rule.cache:g}s"] if rule.cache else []
    notes += ["coalesced"] if rule.coalesce else []
    kind = rule.action_type + (f" ({', '.join(notes)})" if notes else "")
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
