"""What a rule may say, each key with its type, its default and how it is read; and what can be wrong in one rule.

`check_rule` reports everything it finds, each with the rule's name or number and the path of the key: unknown keys, bad
values, sources that read nothing, contradictions.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Final, Literal, TypeAlias, TypedDict

from ..api.bodies import MAX_ORCHESTRATION_DEPTH
from ..api.decode import encode_json
from ..exceptions import ValidationError
from ..json_schema import TEXT, either, schema_of, takes
from ..problems import Parser, Report, choice, did_you_mean, flag, mapping, seconds, text, texts, whole
from ..setting_values import FINDINGS, Pending, findings, kept_seconds, parse_pending
from .rule import NO_RECIPE, Recipe, rule_label
from .sources import KINDS, Const, Source, Text, parse_source, parse_text
from .templates import READING, REST, WEBSOCKET, Method, Template, parse_match

Match: TypeAlias = "tuple[frozenset[Method], Template]"


@takes({"type": "string", "pattern": r"^[^\s{}]([^{}]*[^\s{}])?$"})
def _action_type(value: object) -> str:
    word = text(value)
    if "{" in word or "}" in word or word != word.strip():
        raise ValueError(f"an action type is one fixed word, got {value!r}")
    return word


@takes(TEXT)
def _reason(value: object) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f'expected the reason as a text, block = "internal", got {value!r}')
    return value


@takes({"type": "array", "items": {"enum": list(FINDINGS)}})
def _findings(value: object) -> tuple[str, ...]:
    return findings(texts(value))


@takes(either(TEXT, {"type": "integer"}))
def _number_or_text(value: object) -> str | int:
    return value if isinstance(value, int) and not isinstance(value, bool) else text(value)


_level: Final = whole(0, MAX_ORCHESTRATION_DEPTH)


@takes(either(schema_of(_level), TEXT))
def _depth(value: object) -> str | int:
    return value if isinstance(value, str) and text(value) else _level(value)


_TEMPLATE: Final = {"type": "string", "pattern": r"^\s*[^\s/][^/]*/"}


@takes(either(_TEMPLATE, {"type": "array", "items": _TEMPLATE, "minItems": 1, "uniqueItems": True}))
def _unchecked(value: object) -> object:
    return value  # `_matches` reads it


_CONST: Final = {"type": "object", "required": ["const"], "additionalProperties": False, "properties": {"const": True}}
_SOURCE: Final = {"type": "string", "pattern": rf"^({'|'.join(KINDS)})\."}
_map: Final = mapping("names and sources", either(_SOURCE, {"type": "number"}, schema_of(flag), _CONST))


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
        cache: how long an allow decision is used again for identical requests, `30s`; GET and HEAD only.
        coalesce: whether identical requests that are asked about at the same time share one decision; likewise.
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
    cache: str | None = _key(kept_seconds, kind="governs")
    coalesce: bool | None = _key(flag, kind="governs")
    body_limit: int | None = _key(whole(0, 2**30, "bytes, "))
    body_timeout: float | None = _key(seconds)
    permit: tuple[str, ...] = _key(_findings, ())


_PARSERS: Final[Mapping[str, Parser]] = {item.name: item.metadata["parse"] for item in fields(Rule)}
_KINDS: Final = {item.name: item.metadata["kind"] for item in fields(Rule)}
_TEXTS: Final = frozenset(name for name, kind in _KINDS.items() if kind == "text")
_MAPS: Final = frozenset(name for name, kind in _KINDS.items() if kind == "map")
# What only a rule that governs may say.
GOVERNING: Final = tuple(name for name, kind in _KINDS.items() if kind)


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
    cache: str
    coalesce: bool
    body_limit: int
    body_timeout: float
    permit: tuple[str, ...]


# --- what can be wrong

# A source that lacks its braces.
_FORGOTTEN: Final = re.compile(r"(?:path|query|header|body|form)\.[\w.-]+(?:\[\])?\??")
_FLAGS: Final = (Const(False), Const(True))


def check_rule(
    raw: Mapping[str, object],
    *,
    number: int,
    line: int = 0,
    report: Report,
    recipes: dict[object, Recipe] | None = None,
    anywhere: bool = False,
) -> tuple[Mapping[str, Any], list[Match], Recipe] | None:
    """Check one rule and return what it says, its matches and its recipe; None if it has a problem.

    A value of None counts as not given. Rules that read the same share one of the `recipes`. One that stands
    `anywhere`, at a handler, cannot say its methods.
    """
    before = len(report.problems)
    shown = raw.get("match")
    label = rule_label(number, raw, shown if isinstance(shown, str) else ", ".join(_listed(shown)))
    if line:
        label += f" at line {line}"
    given = report.table(raw, _PARSERS, label)
    matches = _matches(given, label, report)
    _check_kind(raw, given, label, report)
    _check_reuse(given, matches, label, report, anywhere=anywhere)
    recipe = _recipe(given, label, report, {} if recipes is None else recipes)
    _check_sources(recipe, matches, label, report)
    return (given, matches, recipe) if len(report.problems) == before else None


def _listed(value: object) -> list[str]:
    return [str(item) for item in value] if isinstance(value, list | tuple) else []


def _matches(given: dict[str, Any], label: str, report: Report) -> list[Match]:
    value = given.pop("match", None)
    if value is None:
        if "endpoint" not in given:
            report.add("missing", (label,), "neither match nor endpoint", 'write match = "POST /path"')
        return [parse_match("* /**")]
    if isinstance(value, str):
        items: list[tuple[str, object]] = [("match", value)]
    elif isinstance(value, list | tuple) and value:
        items = [(f"match[{index}]", item) for index, item in enumerate(value)]
    else:
        report.add("bad-value", (label, "match"), f"expected a text or a list of texts, got {value!r}")
        return []
    found: list[Match] = []
    for key, item in items:
        try:
            if not isinstance(item, str):
                raise ValueError(f'expected a text such as "POST /path", got {item!r}')
            match = parse_match(item)
        except ValueError as error:
            report.add("bad-match", (label, key), str(error))
            continue
        if match in found:
            report.add("duplicate", (label, key), "the rule has this match already", "remove one")
        else:
            found.append(match)
    return found


def _check_kind(raw: Mapping[str, object], given: Mapping[str, Any], label: str, report: Report) -> None:
    exempt, block = given.get("exempt") is True, "block" in given
    if exempt and block:
        report.add("contradiction", (label, "block"), "a rule cannot both exempt and block", "keep one of the two")
    if exempt or block:
        word = "exempts" if exempt else "blocks"
        for key in given:
            if key in GOVERNING:
                report.add("contradiction", (label, key), f"the rule {word}, so that {key} says nothing", "remove one")
    elif raw.get("action_type") is None and raw.get("block") is None and isinstance(raw.get("exempt", False), bool):
        report.add(
            "missing",
            (label, "action_type"),
            "the rule does not say what it does",
            'write action_type = "…", exempt = true, or block = "reason"',
        )


def _check_reuse(given: Mapping[str, Any], matches: list[Match], label: str, report: Report, *, anywhere: bool) -> None:
    """Refuse to use a decision for several requests that may change something."""
    others = sorted({str(method) for methods, _ in matches for method in methods - READING})
    for key in ("cache", "coalesce"):
        if given.get(key) and others and not anywhere:
            message = f"{key} is for GET and HEAD only, and the rule covers {', '.join(others)}"
            if others == ["*"]:
                message = f"{key} is for GET and HEAD only, and the rule covers every method"
            hint = 'write match = "GET /…"; other methods have a rule of their own'
            report.add("contradiction", (label, key), message, hint)


# --- sources


def _recipe(given: Mapping[str, Any], label: str, report: Report, recipes: dict[object, Recipe]) -> Recipe:
    texts: list[tuple[str, str | int | Text]] = []
    maps: list[tuple[str, tuple[tuple[str, Source | Const], ...]]] = []
    for name in given:
        if name in _TEXTS:
            value = given[name]
            try:
                if isinstance(value, str) and _FORGOTTEN.fullmatch(value):
                    raise ValueError(f'{value!r} is a fixed text here; the value itself is written "{{{value}}}"')
                texts.append((name, parse_text(value) if isinstance(value, str) else value))
            except ValueError as error:
                report.add(_source_code(error), (label, name), str(error))
        elif name in _MAPS:
            entries: list[tuple[str, Source | Const]] = []
            for key, item in given[name].items():
                try:
                    entries.append((key, _value(item)))
                except ValueError as error:
                    report.add(_source_code(error), (label, f"{name}.{key}"), str(error))
            maps.append((name, tuple(entries)))
    if not texts and not maps:
        return NO_RECIPE
    shape = (tuple(texts), tuple(maps))
    recipe = recipes.get(shape)
    if recipe is None:
        recipe = recipes[shape] = _finished(Recipe(*shape))
    if recipe.body == "both":
        report.add("contradiction", (label,), "a body is JSON or a form; the rule reads body.* and form.*", "split it")
    return recipe


def _finished(recipe: Recipe) -> Recipe:
    read = list(recipe.sources())
    kinds = {source.kind for source in read}
    headers = tuple(sorted({source.name for source in read if source.kind == "header"}))
    body = "both" if {"body", "form"} <= kinds else "json" if "body" in kinds else "form" if "form" in kinds else None
    # A form's field may not stand in the query as well.
    query = any(source.kind in ("query", "form") for source in recipe.sources())
    return Recipe(recipe.texts, recipe.maps, body, headers, query)


def _source_code(error: ValueError) -> str:
    return "unknown-source" if str(error).startswith("unknown source") else "bad-source"


def _value(item: object) -> Source | Const:
    if isinstance(item, str):
        return parse_source(item)
    if isinstance(item, bool):
        return _FLAGS[item]
    if isinstance(item, int | float):
        value: object = item
    elif isinstance(item, Mapping) and set(item) == {"const"}:
        value = item["const"]
    else:
        raise ValueError(f'expected a source such as "body.amount", a number, a flag or {{ const = … }}, got {item!r}')
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("JSON has no such number")
    try:
        encode_json(value)
    except ValidationError as error:
        raise ValueError(str(error)) from None
    return Const(value)


def _check_sources(recipe: Recipe, matches: list[Match], label: str, report: Report) -> None:
    if recipe is NO_RECIPE:
        return
    if recipe.body is not None and any(methods == {WEBSOCKET} for methods, _ in matches):
        report.add("contradiction", (label,), "a WebSocket handshake has no body to read", "remove the body's sources")
    for key, source in _placed(recipe):
        if source.kind != "path":
            continue
        for _, template in matches:
            if source.name in template.names or not template.segments:
                lacking = not template.segments
            else:
                # What lies below `**` may have parameters that only the router knows.
                lacking = not (template.segments[-1] == REST and (source.optional or template.text == "/**"))
            if lacking and not (source.optional and any(source.name in other.names for _, other in matches)):
                names = [name for name in template.names if name]
                hint = did_you_mean(source.name, names) if names else "the template has no parameters"
                report.add("unknown-parameter", (label, key), f"{source.text} is not in {template}", hint)
                break


def _placed(recipe: Recipe) -> Iterable[tuple[str, Source]]:
    for name, given in recipe.texts:
        if isinstance(given, Text):
            for source in given.sources:
                yield name, source
    for name, entries in recipe.maps:
        for key, value in entries:
            if isinstance(value, Source):
                yield f"{name}.{key}", value
