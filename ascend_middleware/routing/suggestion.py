"""A rule table to start from: guesses for routes that no rule covers, from their methods and names."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Final

from ..rules import parse_match, parse_route
from . import Kind
from .coverage import ANY, OTHERS, Row

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from typing import TypeAlias

    from ..rules import Method
    from .coverage import Every

    Methods: TypeAlias = tuple[Method | Every, ...]

# The action type that a word in a route's path or name speaks for; the first that fits.
_GUESSES: Final[tuple[tuple[str, str], ...]] = (
    ("transaction", "refund payment pay payout charge transfer invoice checkout purchase order billing credit debit"),
    ("communication", "email mail message sms notify notification send invite publish chat post webhook"),
    ("system_operation", "admin deploy restart shutdown config setting role permission key token backup job task user"),
    ("recommendation", "recommend recommendation suggest suggestion predict prediction score rank"),
)
_HARMLESS: Final = "health healthz ready readyz live livez liveness readiness ping docs redoc openapi favicon"
# A parameter of a route, or a named group of a pattern that could not be read.
_PARAMETER: Final = re.compile(r"\{([^\W\d]\w*)(?::~)?|\?P<([^\W\d]\w*)>")
_UNREADABLE: Final = ("{regex:~", "{text:~")
_READS: Final = frozenset({"GET", "HEAD", "OPTIONS"})


def suggest(rows: Iterable[Row], *, agent_id: str | None, standing: Iterable[Row] = ()) -> str:
    """Return TOML with a rule for each row; `ascend-middleware check` accepts it.

    It begins with an `[ascend]` table that names the agent, if one is given. `standing` are rows that have a rule
    already; where a suggested one would take its place, a comment says so.
    """
    lines = [
        "#:schema ./ascend.schema.json",
        "# For editors; the file is made by: ascend-middleware schema > ascend.schema.json",
        "",
        "# Guesses from methods and names. Read every rule: you know what these routes do, this program does not.",
    ]
    if agent_id is not None:
        lines += ["", "[ascend]", f"agent_id = {_quoted(agent_id)}"]
    rows = list(rows)
    # A rule that names an endpoint governs all of its routes: beside it, one for a route's template would be dead.
    named = {row.leaf.endpoint for row in rows if not row.part and _template_of(row) is None}
    # Routes may share a template's shape, and rules with it.
    shared: dict[tuple[object, ...], list[Row]] = {}
    for row in rows:
        endpoint, template = row.leaf.endpoint, _template_of(row)
        if row.part == "elsewhere":
            lines += ["", f"# {row.leaf.template!r} has rules for a part of its paths only; write one for the others"]
        elif endpoint and endpoint in named and not row.part:
            shared.setdefault(("endpoint", endpoint), []).append(row)
        elif template is None:
            lines += ["", f"# {row.leaf.template!r}: its template cannot be written in a rule, and it has no name"]
        else:
            shared.setdefault(("template", parse_match(f"* {template}")[1].segments), []).append(row)
    for (kind, _), group in shared.items():
        if kind == "endpoint":
            lines += _replaced(group[0].leaf.endpoint, standing)
        done: set[object] = set()
        for row in group:
            for methods in _split(tuple(name for name in row.methods if name not in done)):
                lines += ["", *_rule(row, methods, group, named=kind == "endpoint")]
            done |= {*row.methods}
    return "\n".join(lines) + "\n"


def _replaced(endpoint: str | None, standing: Iterable[Row]) -> list[str]:
    labels = {row.rule.label: None for row in standing if row.rule is not None and row.leaf.endpoint == endpoint}
    return ["", f"# takes the place of {', '.join(labels)} at {endpoint!r}"] if labels else []


def _split(methods: Methods) -> Iterator[Methods]:
    """Yield the methods that share a rule: those that read (GET covers HEAD), and the others."""
    if ANY in methods or OTHERS in methods:
        yield (ANY,)  # what has a rule of its own keeps it
        return
    reads = tuple(name for name in methods if name in _READS and not (name == "HEAD" and "GET" in methods))
    writes = tuple(name for name in methods if name not in _READS)
    yield from (part for part in (reads, writes) if part)


def _rule(row: Row, methods: Methods, group: list[Row], *, named: bool) -> Iterator[str]:
    template = "/**" if named else _template_of(row)
    yield "[[rule]]"
    if named:
        yield f"endpoint = {_quoted(row.leaf.endpoint or '')}"
    if not named or methods != (ANY,):
        yield f"match = {_quoted(' '.join((','.join(map(str, methods)), template or '')))}"
    if row.leaf.kind is Kind.OPAQUE:
        yield "# a foreign application, one unit: whatever a path runs in there"
    guessed = guess(row.leaf.template, methods, endpoint=row.leaf.endpoint or "")
    if guessed is None or (row.leaf.kind is Kind.STATIC and set(methods) <= _READS):
        yield "exempt = true"
        return
    yield f"action_type = {_quoted(guessed)}"
    if row.leaf.kind is Kind.ROUTE:
        yield from _sources(group, known=None if named else parse_match(f"* {template}")[1].names)


def _sources(group: list[Row], *, known: Sequence[str] | None) -> Iterator[str]:
    """Yield where the routes' parameters go: the last one that all of them have is what the action is about.

    `known` are those that a rule may name beside a template, None without one.
    """
    each = [_parameters(row.leaf.template) for row in group]
    every = {name: all(names.get(name) for names in each) for names in each for name in names}
    every = {name: always for name, always in every.items() if known is None or name in known}
    last = next((name for name in reversed(each[0]) if every.get(name)), None)
    if last is not None:
        yield f'resource_id = "{{path.{last}}}"'
    others = [f'{_key(name)} = "path.{name}{"" if always else "?"}"' for name, always in every.items() if name != last]
    if others:
        yield f"details = {{ {', '.join(others)} }}"


def _parameters(template: str) -> dict[str, bool]:
    """Return the names of a route's parameters, in order, and whether every request has a value for each.

    A pattern that could not be read may leave its groups out.
    """
    found = [(one[1] or one[2], one) for one in _PARAMETER.finditer(template)]
    return {name: one[2] is None for name, one in found if not one[0].startswith(_UNREADABLE)}


def guess(template: str, methods: Iterable[object], *, endpoint: str = "") -> str | None:
    """Return the action type that a route's path, its name and its methods speak for; None: exempt, as nobody acts."""
    words, reads = _words(template, endpoint), set(methods) <= _READS
    if reads:
        return None if words & frozenset(_HARMLESS.split()) else "data_access"
    for action_type, signs in _GUESSES:
        if words & frozenset(signs.split()):
            return action_type
    return "data_modification"


def _words(template: str, endpoint: str) -> frozenset[str]:
    literals = re.sub(r"\{[^}]*\}", " ", template)
    parts = re.sub(r"([a-z])([A-Z])", r"\1 \2", f"{literals} {endpoint}")
    words = {word.lower() for word in re.findall(r"[A-Za-z]+", parts)}
    return frozenset(words | {word[:-1] for word in words if word.endswith("s")})


def _template_of(row: Row) -> str | None:
    """Return the template to write; None where no template says which paths the route has."""
    if row.part:
        return row.part
    route = parse_route(row.leaf.template)
    text = re.sub(r"\{(\w+):(?!int\}|uuid\}|path\})\w+\}", r"{\1}", row.leaf.template)
    try:
        template = parse_match(f"GET {text}")[1]
    except ValueError:
        return None
    return text if template.segments == route.segments or template.covers(route) else None


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _key(name: str) -> str:
    return name if name.isascii() else _quoted(name)
