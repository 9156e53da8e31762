"""What becomes of every route, as a text to keep under version control; and what a change made looser or tighter.

Looser is what lets more pass, or tells the authority less: whoever reviews a change has to see it.
"""

from __future__ import annotations

import json
import tomllib
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from ..exceptions import ConfigurationError
from ..problems import TOML_ERRORS
from ..rules import parse_match
from .coverage import Standing, shown_place

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from ..rules import CompiledRule
    from .coverage import Coverage, Row

_VERSION: Final = 1
_HEAD: Final = """\
# What becomes of every route of the application. `ascend-middleware lock` writes this file, and
# `ascend-middleware diff` tells what a change made looser. Keep it under version control; do not edit it.
"""
# How little is let pass; a route without a rule counts as open, because nobody has thought about it.
_TIGHTNESS: Final = {
    Standing.EXEMPT: 0,
    Standing.UNMAPPED: 1,
    Standing.CONFLICT: 1,
    Standing.BY_METHOD: 2,
    Standing.GOVERNED: 3,
    Standing.BLOCKED: 4,
}
# Values of settings and of rules, the tightest first.
_ORDERS: Final[Mapping[str, tuple[object, ...]]] = {
    "guarded": (True, False),
    "enabled": (True, False),
    "mode": ("enforce", "observe"),
    "unmapped": ("refuse", "by-method"),
    "kill_switch": ("poll", "sqs", "off"),
    "strict": (True, False),
    "on_failure": ("closed", "open"),
}
# By these, requests run on a decision that was made about another one.
_REUSE: Final = ("cache", "coalesce")
# poll and sqs are two ways to one thing.
_ALIKE: Final = frozenset({("poll", "sqs"), ("sqs", "poll")})
# What of a rule stands in an entry by itself, or says nothing about what is let pass.
_NOT_TOLD: Final = frozenset({"match", "endpoint", "name", "action_type", "exempt", "block", "permit", "on_failure",
                              "pending", "mode", "cache", "coalesce", "body_limit", "body_timeout"})  # fmt: skip


class Direction(StrEnum):
    """Where a change leads."""

    LOOSER = "looser"
    TIGHTER = "tighter"
    OTHER = "other"


class Change(NamedTuple):
    """One difference between two locks; `route` is empty for a setting of the application."""

    direction: Direction
    route: str
    text: str

    def __str__(self) -> str:
        return f"{self.route} {self.text}".lstrip()


@dataclass(frozen=True, slots=True)
class Lock:
    """What becomes of an application's routes.

    Attributes:
        application: its settings that concern all routes.
        routes: by method and template, what becomes of their requests.
    """

    application: Mapping[str, Any]
    routes: Mapping[str, Mapping[str, Any]]


# --- from an application, to a text, and back


def lock_of(coverage: Coverage, application: Mapping[str, Any]) -> Lock:
    """Return the lock of an application.

    Args:
        coverage: its routes with their rules.
        application: the settings that concern all of them, as values of TOML.
    """
    routes: dict[str, Mapping[str, Any]] = {}
    for row in coverage.rows:
        for method in row.methods:
            name = f"{method} {shown_place(row)}"
            # A second route of the same template gets what the first one does not take.
            number = 1
            while name in routes:
                number += 1
                name = f"{method} {shown_place(row)} #{number}"
            routes[name] = _entry(row)
    for name in [name for name in routes if name.startswith("HEAD ")]:
        if routes[name] == routes.get(name.replace("HEAD", "GET", 1)):
            del routes[name]  # it goes with GET, and would only double the lines
    return Lock(application, dict(sorted(routes.items(), key=lambda item: _sort_key(item[0]))))


def dump(lock: Lock) -> str:
    """Return a lock as TOML, a route to a line."""
    lines = [_HEAD, f"version = {_VERSION}"]
    lines += [f"{name} = {_toml(value)}" for name, value in lock.application.items()]
    lines += ["", "[routes]"]
    for name, entry in lock.routes.items():
        fields = ", ".join(f"{key} = {_toml(value)}" for key, value in entry.items())
        lines.append(f"{json.dumps(name)} = {{ {fields} }}")
    return "\n".join(lines) + "\n"


def load(text: str, where: str) -> Lock:
    """Read what `dump` wrote.

    Raises:
        ConfigurationError: it is no such text; names `where`.
    """
    try:
        found = tomllib.loads(text)
    except TOML_ERRORS as error:
        raise ConfigurationError(
            f"{where} is no lock file: {error}; write it anew with: ascend-middleware lock"
        ) from None
    routes, version = found.pop("routes", None), found.pop("version", None)
    if version != _VERSION or not isinstance(routes, dict) or not all(isinstance(one, dict) for one in routes.values()):
        raise ConfigurationError(
            f"{where} is no lock file of version {_VERSION}; write it anew with: ascend-middleware lock"
        )
    return Lock(found, routes)


def _entry(row: Row) -> dict[str, Any]:
    entry: dict[str, Any] = {"is": str(row.standing)}
    rule = row.rule
    if rule is None:
        return entry
    if row.standing in (Standing.GOVERNED, Standing.BY_METHOD):
        entry |= {
            "action_type": rule.action_type,
            "on_failure": rule.on_failure,
            "pending": str(rule.pending),
            "mode": rule.mode,
            **rule.reuse,
        }
        told = sorted(_told(rule))
        if told:
            entry["tells"] = told
    if rule.permit:
        entry["permits"] = sorted(rule.permit)
    if row.standing is not Standing.BY_METHOD:
        entry["rule"] = _rule(rule)
    return entry


def _rule(rule: CompiledRule) -> str:
    if rule.declaration is not None:
        return f"at {rule.declaration.place}"
    return f"endpoint {rule.endpoint}" if rule.endpoint is not None and rule.template.text == "/**" else rule.match


def _told(rule: CompiledRule) -> Iterator[str]:
    """Yield what the authority is told besides, such as `details.amount = body.amount`."""
    for name, value in rule.given.items():
        if name in _NOT_TOLD or value is None:
            continue
        if isinstance(value, dict):
            yield from (f"{name}.{key} = {one}" for key, one in value.items())
        else:
            yield f"{name} = {value}"


def _toml(value: object) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    return json.dumps(value)  # texts and booleans are spelt alike in both


def _sort_key(name: str) -> tuple[str, str]:
    method, _, place = name.partition(" ")
    return place, method


# --- two locks


def compare(before: Lock, now: Lock) -> list[Change]:
    """Return every difference, what is looser first."""
    changes = list(_settings(before.application, now.application))
    for route, entry in now.routes.items():
        if route in before.routes:
            # Without a guard everything passes, whatever a table says.
            old, new = (
                _tightness(one.routes[route]) if one.application.get("guarded") else -1 for one in (before, now)
            )
            changes += (Change(kind, route, text) for kind, text in _differences(before.routes[route], entry, old, new))
        else:
            changes.append(_added(route, entry))
    changes += (Change(Direction.OTHER, route, "is gone") for route in before.routes if route not in now.routes)
    order = list(Direction)
    return sorted(changes, key=lambda one: order.index(one.direction))


def _settings(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[Change]:
    for name in {**before, **now}:
        old, new = before.get(name), now.get(name)
        if old != new:
            yield Change(_turn(name, old, new), "", f"{name} was {_said(old)} and is {_said(new)}")


def _added(route: str, entry: Mapping[str, Any]) -> Change:
    if _tightness(entry) < _TIGHTNESS[Standing.GOVERNED]:
        return Change(Direction.LOOSER, route, f"is new, and {_standing(entry)}")
    for name in ("on_failure", "mode"):
        value = entry.get(name)
        if value is not None and value != _ORDERS[name][0]:
            return Change(Direction.LOOSER, route, f"is new, with {name} = {_said(value)}")
    for name in _REUSE:
        if entry.get(name):
            return Change(Direction.LOOSER, route, f"is new, with {name} = {_said(entry[name])}")
    return Change(Direction.OTHER, route, f"is new, and {_standing(entry)}")


def _differences(
    before: Mapping[str, Any], now: Mapping[str, Any], old: int, new: int
) -> Iterator[tuple[Direction, str]]:
    if before.get("is") != now.get("is"):
        direction = Direction.LOOSER if new < old else Direction.TIGHTER if new > old else Direction.OTHER
        yield direction, f"was {_standing(before)} and is {_standing(now)}"
        return
    for name in ("on_failure", "mode", "pending", "action_type"):
        was, now_is = before.get(name), now.get(name)
        if was != now_is:
            yield _turn(name, was, now_is), f"{name} was {_said(was)} and is {_said(now_is)}"
    for name in _REUSE:
        was, now_is = before.get(name), now.get(name)
        if was != now_is:
            direction = Direction.LOOSER if _kept(now_is) > _kept(was) else Direction.TIGHTER
            yield direction, f"{name} was {_said(was)} and is {_said(now_is)}"
    gone, more = _sets(before, now, "permits")
    yield from ((Direction.TIGHTER, f"no longer permits {one}") for one in gone)
    yield from ((Direction.LOOSER, f"permits {one}") for one in more)
    gone, more = _sets(before, now, "tells")
    yield from ((Direction.LOOSER, f"no longer tells the authority {one}") for one in gone)
    yield from ((Direction.TIGHTER, f"tells the authority {one}") for one in more)
    if before.get("rule") != now.get("rule"):
        yield _wider(str(before.get("rule", "")), str(now.get("rule", "")))


def _wider(before: str, now: str) -> tuple[Direction, str]:
    """Say whether a rule reaches more than the one before it."""
    text = f"its rule was {before!r} and is {now!r}"
    try:
        (old_methods, old), (methods, new) = parse_match(before), parse_match(now)
    except ValueError:
        return Direction.OTHER, text  # of an endpoint, or at a handler
    wider = new.covers(old) and (not old.covers(new) or methods > old_methods or "*" in methods - old_methods)
    narrower = old.covers(new) and (not new.covers(old) or old_methods > methods or "*" in old_methods - methods)
    if wider:
        return Direction.LOOSER, f"{text}, which is wider: what is added below it comes under it unseen"
    return (Direction.TIGHTER, f"{text}, which is narrower") if narrower else (Direction.OTHER, text)


def _turn(name: str, old: object, new: object) -> Direction:
    order = _ORDERS.get(name, ())
    if old not in order or new not in order or (old, new) in _ALIKE:
        return Direction.OTHER
    return Direction.LOOSER if order.index(new) > order.index(old) else Direction.TIGHTER


def _kept(value: object) -> float:
    """Return for how long a decision is used again; of one that is shared without being kept, next to nothing."""
    try:
        return float(value.removesuffix("s")) if isinstance(value, str) else float(value is True)
    except ValueError:
        return float("inf")  # not written by us


def _sets(before: Mapping[str, Any], now: Mapping[str, Any], name: str) -> tuple[list[str], list[str]]:
    old, new = before.get(name, []), now.get(name, [])
    return [one for one in old if one not in new], [one for one in new if one not in old]


def _tightness(entry: Mapping[str, Any]) -> int:
    try:
        return _TIGHTNESS[Standing(entry.get("is", ""))]
    except ValueError:
        return 0


def _standing(entry: Mapping[str, Any]) -> str:
    return "without a rule" if entry.get("is") == Standing.UNMAPPED else str(entry.get("is"))


def _said(value: object) -> str:
    return "not set" if value is None else json.dumps(value)
