"""What a rule may say: each key with its type, its default and how it is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Final, Literal, TypedDict

from ..api.bodies import MAX_ORCHESTRATION_DEPTH
from ..config import Pending, parse_pending
from ..findings import parse_findings
from ..problems import Parser, choice, flag, mapping, seconds, text, texts, whole

__all__ = ["GOVERNING", "MAPS", "PARSERS", "TEXTS", "Rule", "RuleFields"]


def _action_type(value: object) -> str:
    word = text(value)
    if "{" in word or "}" in word or word != word.strip():
        raise ValueError(f"an action type is one fixed word, got {value!r}")
    return word


def _reason(value: object) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f'expected the reason as a text, block = "internal", got {value!r}')
    return value


def _findings(value: object) -> tuple[str, ...]:
    return parse_findings(texts(value))


def _number_or_text(value: object) -> str | int:
    return value if isinstance(value, int) and not isinstance(value, bool) else text(value)


def _depth(value: object) -> str | int:
    return value if isinstance(value, str) and text(value) else _level(value)


_level: Final = whole(0, MAX_ORCHESTRATION_DEPTH)


def _unchecked(value: object) -> object:
    return value


_map: Final = mapping("names and sources")


def _key(parse: Parser, default: object = None, *, kind: Literal["", "governs", "text", "map"] = "") -> Any:
    """Return a field of `Rule`; of a `kind`, only a rule that governs may have it."""
    metadata = {"parse": parse, "kind": kind}
    if kind == "map":
        return field(default_factory=dict, metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One rule, written in Python; the same names as in a `[[rule]]` table.

    A rule is one of three: it governs (`action_type`), it exempts (`exempt=True`), or it blocks (`block="reason"`).

    Args:
        match: `"POST /refunds"`, or several of them.
        endpoint: what the framework calls the route; alone, or together with `match`, which then narrows it.
        name: how messages call the rule.
        action_type: what kind of action a request is.
        resource: text with sources, `refund for {path.customer_id}`; without it, the method and the route's template.
        resource_id: likewise; absent when the text comes out empty.
        tool_name: likewise.
        description: likewise.
        details: names to sources (`"body.amount"`) or literals (`{"const": "web"}`, numbers, booleans).
        context: likewise.
        risk_indicators: likewise.
        mcp_server_name: text with sources.
        model_id: a number, or a text with sources.
        orchestration_session_id: text with sources, `{header.x-session?}`; the run that several agents share.
        parent_action_id: likewise; the action that caused this one.
        orchestration_depth: 0 to 5, or a text with sources; 0 for a root action.
        exempt: let the requests pass ungoverned.
        block: refuse the requests, for this reason.
        enabled: False is as if the rule were not there; it is checked all the same.
        on_failure: closed or open.
        pending: refuse, or `wait:30s`.
        mode: enforce or observe.
        body_limit: bytes.
        body_timeout: seconds.
        permit: the firewall findings that do not refuse a request of this rule.
    """

    match: str | tuple[str, ...] | None = _key(_unchecked)
    endpoint: str | None = _key(text)
    name: str | None = _key(text)
    action_type: str | None = _key(_action_type, kind="governs")
    resource: str | None = _key(text, kind="text")
    resource_id: str | None = _key(text, kind="text")
    tool_name: str | None = _key(text, kind="text")
    description: str | None = _key(text, kind="text")
    details: Mapping[str, object] = _key(_map, kind="map")
    context: Mapping[str, object] = _key(_map, kind="map")
    risk_indicators: Mapping[str, object] = _key(_map, kind="map")
    mcp_server_name: str | None = _key(text, kind="text")
    model_id: str | int | None = _key(_number_or_text, kind="text")
    orchestration_session_id: str | None = _key(text, kind="text")
    parent_action_id: str | None = _key(text, kind="text")
    orchestration_depth: str | int | None = _key(_depth, kind="text")
    exempt: bool = _key(flag, False)
    block: str | None = _key(_reason)
    enabled: bool = _key(flag, True)
    on_failure: str | None = _key(choice("closed", "open"), kind="governs")
    pending: Pending | str | None = _key(parse_pending, kind="governs")  # noqa: RUF009 - the default is None
    mode: str | None = _key(choice("enforce", "observe"))
    body_limit: int | None = _key(whole(0, 2**30, "bytes, "))
    body_timeout: float | None = _key(seconds)
    permit: tuple[str, ...] = _key(_findings, ())


PARSERS: Final[Mapping[str, Parser]] = {item.name: item.metadata["parse"] for item in fields(Rule)}
_KINDS: Final = {item.name: item.metadata["kind"] for item in fields(Rule)}
TEXTS: Final = frozenset(name for name, kind in _KINDS.items() if kind == "text")
MAPS: Final = frozenset(name for name, kind in _KINDS.items() if kind == "map")
# What only a rule that governs may say.
GOVERNING: Final = frozenset(name for name, kind in _KINDS.items() if kind)


class RuleFields(TypedDict, total=False):
    """What `governed(…)` takes, in every framework; each means what it means in a `[[rule]]` table."""

    name: str
    action_type: str
    resource: str
    resource_id: str
    tool_name: str
    description: str
    details: Mapping[str, object]
    context: Mapping[str, object]
    risk_indicators: Mapping[str, object]
    mcp_server_name: str
    model_id: str | int
    orchestration_session_id: str
    parent_action_id: str
    orchestration_depth: str | int
    exempt: bool
    block: str
    on_failure: str
    pending: Pending | str
    mode: str
    body_limit: int
    body_timeout: float
    permit: tuple[str, ...]
