"""A rule table to start from: guesses for routes that no rule covers, from their methods and names."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Final

from ..rules import parse_match, parse_route
from .coverage import ANY, OTHERS, Row
from .leaves import Kind

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import TypeAlias

    from ..rules import Method
    from .coverage import Every

    Methods: TypeAlias = tuple[Method | Every, ...]

__all__ = ["suggest"]

# The action type that a word in a route's path or name speaks for; the first that fits. None: no action, exempt.
_GUESSES: Final[tuple[tuple[str, str], ...]] = (
    ("transaction", "refund payment pay payout charge transfer invoice checkout purchase order billing credit debit"),
    ("communication", "email mail message sms notify notification send invite publish chat post webhook"),
    ("system_operation", "admin deploy restart shutdown config setting role permission key token backup job task user"),
    ("recommendation", "recommend recommendation suggest suggestion predict prediction score rank"),
)
_HARMLESS: Final = "health healthz ready readyz live livez liveness readiness ping docs redoc openapi favicon"
_READS: Final = frozenset({"GET", "HEAD", "OPTIONS"})


def suggest(rows: Iterable[Row], *, agent_id: str | None) -> str:
    """Return TOML with a rule for each row; `ascend-middleware check` accepts it.

    Args:
        rows: of `Coverage.unmapped`, or of a whole application.
        agent_id: begin with an `[ascend]` table that names this agent; None if the rules go into an existing file.
    """
    lines = ["# Guesses from methods and names. Read every rule: you know what these routes do, this program does not."]
    if agent_id is not None:
        lines += ["", "[ascend]", f"agent_id = {_quoted(agent_id)}"]
    # Routes may share a template's shape, and rules with it.
    shared: dict[tuple[object, ...], list[Row]] = {}
    for row in rows:
        where = _where(row)
        if row.part == "elsewhere":
            lines += ["", f"# {row.leaf.template!r} has rules for a part of its paths only; write one for the others"]
        elif where is None:
            lines += ["", f"# {row.leaf.template!r}: its template cannot be written in a rule, and it has no name"]
        else:
            shared.setdefault((parse_match(f"* {where[0]}")[1].segments, where[1]), []).append(row)
    for group in shared.values():
        done: set[object] = set()
        for row in group:
            for methods in _split(tuple(name for name in row.methods if name not in done)):
                lines += ["", *_rule(row, methods, group)]
            done |= {*row.methods}
    return "\n".join(lines) + "\n"


def _split(methods: Methods) -> Iterator[Methods]:
    """Yield the methods that share a rule: those that read (GET covers HEAD), and the others."""
    if ANY in methods or OTHERS in methods:
        yield (ANY,)  # what has a rule of its own keeps it
        return
    reads = tuple(name for name in methods if name in _READS and not (name == "HEAD" and "GET" in methods))
    writes = tuple(name for name in methods if name not in _READS)
    yield from (part for part in (reads, writes) if part)


def _rule(row: Row, methods: Methods, group: list[Row]) -> Iterator[str]:
    template, endpoint = _where(row) or ("", "")
    yield "[[rule]]"
    if endpoint:
        yield f"endpoint = {_quoted(endpoint)}"
    if not endpoint or methods != (ANY,):
        yield f"match = {_quoted(' '.join((','.join(map(str, methods)), template)))}"
    words = _words(row)
    if row.leaf.kind is Kind.OPAQUE:
        yield "# a foreign application, one unit: whatever a path runs in there"
    if set(methods) <= _READS and (row.leaf.kind is Kind.STATIC or words & frozenset(_HARMLESS.split())):
        yield "exempt = true"
        return
    yield f"action_type = {_quoted(_guess(words, methods))}"
    named = [[name for name in parse_route(other.leaf.template).names if name] for other in group]
    last = named[0][-1] if named[0] else ""
    if last and row.leaf.kind is Kind.ROUTE and not row.part and all(last in names for names in named):
        yield f'resource_id = "{{path.{last}}}"'


def _guess(words: frozenset[str], methods: Methods) -> str:
    if set(methods) <= _READS:
        return "data_access"
    for action_type, signs in _GUESSES:
        if words & frozenset(signs.split()):
            return action_type
    return "data_modification"


def _words(row: Row) -> frozenset[str]:
    literals = re.sub(r"\{[^}]*\}", " ", row.leaf.template)
    parts = re.sub(r"([a-z])([A-Z])", r"\1 \2", f"{literals} {row.leaf.endpoint or ''}")
    words = {word.lower() for word in re.findall(r"[A-Za-z]+", parts)}
    return frozenset(words | {word[:-1] for word in words if word.endswith("s")})


def _where(row: Row) -> tuple[str, str] | None:
    """Return the template to write and, where that does not say it, the endpoint to name."""
    if row.part:
        return row.part, ""
    route = parse_route(row.leaf.template)
    text = re.sub(r"\{(\w+):(?!int\}|uuid\}|path\})\w+\}", r"{\1}", row.leaf.template)
    try:
        template = parse_match(f"GET {text}")[1]
    except ValueError:
        pass
    else:
        if template.segments == route.segments or template.covers(route):
            return text, ""
    return ("/**", row.leaf.endpoint) if row.leaf.endpoint else None


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
