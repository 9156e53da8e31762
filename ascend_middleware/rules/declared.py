"""Rules that are declared at a handler: entries of the same table, written where the handler is.

`declare` puts a rule at a function or class, `declared` finds the rules of whatever a framework calls: through
`functools.wraps`, bound methods, partials, and views made from classes. A resolver puts what it finds into its `Leaf`;
`RuleTable.for_route` then ranks it like a rule that names the route's endpoint.
"""

from __future__ import annotations

import functools
import types
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, TypeVar

from ..exceptions import ConfigurationError
from ..problems import Report, did_you_mean
from .fields import RuleFields, check_rule
from .rule import Declaration

if TYPE_CHECKING:
    from collections.abc import Iterator

_ATTRIBUTE: Final = "__ascend_declaration__"
# The methods of a class-based view that frameworks call for a request's method.
VERBS: Final = ("get", "head", "post", "put", "patch", "delete", "options", "query", "trace")
_MAX_DEPTH: Final = 64

Target = TypeVar("Target")


_FIELDS: Final = tuple(RuleFields.__annotations__)


def declaration(place: str, fields: Mapping[str, object]) -> Declaration:
    """Check what `governed(…)` was given, as the table checks its rules; `place` says where it was written.

    Raises:
        ConfigurationError: with every problem, each naming the place.
    """
    report = Report(place, "rules")
    for key in fields:
        if key not in _FIELDS:
            hint = "the handler's own route is what it governs" if key in ("match", "endpoint") else ""
            report.add("unknown-key", ("governed", key), "no such key", hint or did_you_mean(key, _FIELDS))
    known = {key: value for key, value in fields.items() if key in _FIELDS}
    checked = check_rule({"name": "governed", **known, "match": "* /**"}, number=0, report=report, anywhere=True)
    if report.problems or checked is None:
        raise ConfigurationError(problems=report.problems)
    given = {key: value for key, value in checked[0].items() if key != "name" or "name" in known}
    return Declaration(place, given, checked[2])


def declare(target: Target, rule: Declaration | Mapping[str, object]) -> Target:
    """Put a rule at a function or a class, and return the same; of a bound method, the function is marked.

    Raises:
        ConfigurationError: with every problem, each naming module and function; or another rule is declared there.
    """
    place = place_of(target)
    checked = rule if isinstance(rule, Declaration) else declaration(place, rule)
    marked: Any = target.__func__ if isinstance(target, types.MethodType) else target
    # A class may say otherwise than a class above it; the rules of its methods hold beside its own.
    if isinstance(marked, type):
        others = tuple(one for name, one in vars(marked).items() if name == _ATTRIBUTE)
    else:
        others = declared(marked)
    if any(not other.same_outcome(checked) for other in others):
        raise ConfigurationError(f"{place}: two rules stand at this handler with different outcomes; keep one")
    try:
        setattr(marked, _ATTRIBUTE, checked)
    except (AttributeError, TypeError):
        raise ConfigurationError(f"{place}: nothing can be written at a {type(marked).__name__}") from None
    return target


def declared(target: object) -> tuple[Declaration, ...]:
    """Return the rules that are declared at what a framework calls; empty if none is.

    Several are returned where a class and its methods declare their own, or where wrappers do. A rule at the function
    for one method (`post`) of a class holds for that method only.
    """
    found: dict[int, Declaration] = {}
    for link in _chain(target):
        # Not getattr: an object that answers to every name (a mock, a proxy) declares nothing.
        own = _attribute(link, _ATTRIBUTE)
        if isinstance(own, Declaration):
            found.setdefault(id(own), own)
        if isinstance(link, type):
            for verb in VERBS:
                method = _attribute(link, verb)
                for one in () if isinstance(method, type) else declared(method):
                    found.setdefault(id(one), replace(one, methods=frozenset({verb.upper()})))
    return tuple(found.values())


def place_of(target: object) -> str:
    """Return module and name of a function or class, for messages."""
    named: Any = next((link for link in _chain(target) if hasattr(link, "__qualname__")), type(target))
    return f"{named.__module__}.{named.__qualname__}"


def _attribute(target: object, name: str) -> object:
    """Read an attribute that really is there: on the object, or on its class and what that derives from."""
    own = getattr(target, "__dict__", {})
    if isinstance(own, Mapping) and name in own:
        return own[name]
    for cls in target.__mro__ if isinstance(target, type) else type(target).__mro__:
        if name in cls.__dict__:
            return cls.__dict__[name]
    return None


def _chain(target: object) -> Iterator[object]:
    """Yield a callable and everything that it stands for."""
    todo, seen = [target], set[int]()
    while todo and len(seen) < _MAX_DEPTH:
        link = todo.pop()
        if link is None or id(link) in seen:
            continue
        seen.add(id(link))
        yield link
        if isinstance(link, types.MethodType):
            todo.append(link.__func__)
        elif isinstance(link, functools.partial | functools.partialmethod):
            todo.append(link.func)
        elif isinstance(link, type):
            # What every request of a class-based view goes through.
            todo.append(_attribute(link, "dispatch"))
        else:
            todo += [_attribute(link, "__wrapped__"), _attribute(link, "view_class")]
            if not isinstance(link, types.FunctionType):
                todo.append(_attribute(type(link), "__call__"))
