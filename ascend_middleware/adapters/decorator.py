"""A rule declared at a handler: what `governed(…)` of every framework shares.

The middleware decides under the rule that is declared there. The handler runs on the verdict that was made under this
very rule, or not at all; nothing is decided a second time.
"""

from __future__ import annotations

import functools
import inspect
import sys
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

from ..exceptions import ConfigurationError
from ..masking import get_logger
from ..rules import declare, declared, place_of
from ..verdict import Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ..rules import Declaration

# Where the middleware leaves the verdict, in ASGI's scope or WSGI's environ. Not in the `state` of a scope: some
# servers share that among the requests of a connection.
VERDICT: Final = "ascend.verdict"

logger = get_logger("ascend_middleware.guard")

Target = TypeVar("Target", bound="Callable[..., Any]")


def _is_function(target: object) -> bool:
    return inspect.isroutine(target) or isinstance(target, functools.partial)


class Framework(NamedTuple):
    """How a framework's handlers come to the verdict on their request.

    `find_verdict` is called with a handler's positional and named arguments; it takes out of the latter what only the
    check asked for, and returns what the middleware left with the request. `entry` is the method of a class of handlers
    that every request goes through; `classes` and `targets` say for messages where a rule may be declared.
    """

    find_verdict: Callable[[tuple[Any, ...], dict[str, Any]], object]
    entry: str
    classes: str
    targets: str = "a function or a class"
    is_target: Callable[[Any], bool] = _is_function
    is_async: Callable[[Any], bool] = inspect.iscoroutinefunction


def attach(
    target: Target, rule: Declaration | Mapping[str, Any], framework: Framework, *, place: str | None = None
) -> Target:
    """Return a handler with a rule, so that it runs only on a verdict under that rule; a class is changed in place.

    `place` says in messages where the rule is written; by default that is the target's own name.

    Raises:
        ConfigurationError: with everything that is wrong.
    """
    if isinstance(target, type):
        cls: Any = target
        entry = getattr(cls, framework.entry, None)
        if entry is None:
            raise ConfigurationError(f"{place_of(cls)}: governed stands at {framework.classes}")
        # A derived class may have a rule of its own.
        setattr(cls, framework.entry, _checked(entry, framework, lambda self: declared(type(self))))
        return declare(target, rule)
    if not framework.is_target(target):
        kind = type(target).__name__
        where = place or place_of(target)
        raise ConfigurationError(f"{where}: governed stands at {framework.targets}, not at a {kind}")
    guarded: Target = declare(_checked(target, framework, lambda *_: rules), rule)
    rules = declared(guarded)
    return guarded


def _checked(function: Any, framework: Framework, rules_of: Callable[..., Sequence[Declaration]]) -> Any:
    """Return the function with the check before each call."""

    def check(args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        require_verdict(framework.find_verdict(args, kwargs), rules_of(*args[:1]))

    checked: Any
    if framework.is_async(function):

        @functools.wraps(function)
        async def checked(*args: Any, **kwargs: Any) -> Any:
            check(args, kwargs)
            return await function(*args, **kwargs)

    else:

        @functools.wraps(function)
        def checked(*args: Any, **kwargs: Any) -> Any:
            check(args, kwargs)
            return function(*args, **kwargs)

    return checked


def require_verdict(verdict: object, rules: Sequence[Declaration]) -> Verdict:
    """Return the verdict if the handler may run on it; nothing is decided here, and never twice.

    One of the rules that are declared at the handler has to be the one that was decided under.

    Raises:
        ConfigurationError: nobody decided, or it was decided under another rule. The handler must not run.
    """
    if not isinstance(verdict, Verdict):
        why = "nobody decided about this request: the ASCEND middleware is missing, or stands behind the handler"
    elif not verdict.passes:
        why = f"the request was refused ({verdict.outcome})"
    elif verdict.outcome == "disabled" or (verdict.outcome == "observed" and verdict.rule is None):
        return verdict  # switched off, or only observing: the guard has said so
    elif verdict.rule is not None and any(one.same_outcome(verdict.rule) for one in rules):
        return verdict
    else:
        under = verdict.rule.label if verdict.rule is not None else f"no rule ({verdict.outcome})"
        why = (
            f"it was decided under {under}: the middleware cannot see this handler, "
            "because an application that it cannot look into stands between"
        )
    places = ", ".join(dict.fromkeys(one.label for one in rules))
    logger.error("the handler under %s was not run: %s", places, why)
    raise ConfigurationError(f"the handler under {places} was not run: {why}")


def caller_place() -> str:
    """Return module and line where the caller of the calling function is written, for messages."""
    caller = sys._getframe(2)
    return f"{caller.f_globals.get('__name__', '?')} line {caller.f_lineno}"
