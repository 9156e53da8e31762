"""A rule at the handler: `@governed(action_type=…)` for endpoints of Starlette and FastAPI.

The middleware decides under the rule that stands here. The handler is only seen to: it runs on the verdict that was
made under this very rule, or not at all.
"""

from __future__ import annotations

import functools
import inspect
import sys
from typing import TYPE_CHECKING, Any, Final, TypeVar, Unpack

from ..exceptions import ConfigurationError
from ..guard import Verdict, standing
from ..rules import RuleFields, declare, declared, place_of

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["VERDICT", "governed", "require_decision", "verdict_in"]

VERDICT: Final = "ascend.verdict"

Target = TypeVar("Target", bound="Callable[..., Any]")


def governed(**fields: Unpack[RuleFields]) -> Callable[[Target], Target]:
    """Return a decorator that puts a rule at an endpoint: a function, a method of an `HTTPEndpoint`, or such a class.

        @governed(action_type="transaction", details={"amount": "body.amount"})
        async def refund(request): ...

    It ranks like a rule of the table that names the route's endpoint, and follows the function wherever it is mounted.

    Args:
        fields: what a `[[rule]]` may say, but `match` and `endpoint`.

    Raises:
        ConfigurationError: at decoration, with everything that is wrong, naming module and function.
    """

    def decorate(target: Target) -> Target:
        if isinstance(target, type):
            _guard_class(target)
            return declare(target, fields)
        if not inspect.isroutine(target) and not isinstance(target, functools.partial):
            kind = type(target).__name__
            raise ConfigurationError(f"{place_of(target)}: governed stands at a function or a class, not at a {kind}")
        guarded: Target = _guarded(target)
        return declare(guarded, fields)

    return decorate


def verdict_in(scope: Any) -> object:
    """Return the verdict that the middleware left with a request, or None.

    Not the one in `state`: some servers share that among the requests of a connection.
    """
    return scope.get(VERDICT)


def _guarded(function: Any) -> Any:
    """Return the function so that it runs only on a verdict under its own rule."""

    def see(args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        connection = kwargs.pop(_CONNECTION, None)
        scopes = [scope for one in (connection, *args, *kwargs.values()) if (scope := _scope_of(one)) is not None]
        standing(verdict_in(scopes[0]) if scopes else None, declared(guarded))

    guarded: Any
    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def guarded(*args: Any, **kwargs: Any) -> Any:
            see(args, kwargs)
            return await function(*args, **kwargs)

    else:

        @functools.wraps(function)
        def guarded(*args: Any, **kwargs: Any) -> Any:
            see(args, kwargs)
            return function(*args, **kwargs)

    _ask_for_connection(guarded, function)
    return guarded


_CONNECTION = "ascend_connection"


def _ask_for_connection(guarded: Any, function: Any) -> None:
    """Let FastAPI pass the connection, also to a handler that does not ask for it."""
    requests = sys.modules.get("starlette.requests")
    if requests is None:
        return
    try:
        # With the function's own names: FastAPI would look for them where the wrapper stands.
        signature = inspect.signature(function, eval_str=True)
    except NameError:
        signature = inspect.signature(function)
    parameters = list(signature.parameters.values())
    place = next((at for at, one in enumerate(parameters) if one.kind is one.VAR_KEYWORD), len(parameters))
    own = inspect.Parameter(
        _CONNECTION, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=requests.HTTPConnection
    )
    guarded.__signature__ = signature.replace(parameters=[*parameters[:place], own, *parameters[place:]])


def _scope_of(value: object) -> Any:
    scope = getattr(value, "scope", None) if type(value).__module__ != "builtins" else None
    return scope if isinstance(scope, dict) and "type" in scope else None


def _guard_class(cls: Any) -> None:
    """Let every request of an endpoint class be seen to, before it is dispatched."""
    enter = getattr(cls, "__await__", None)
    if enter is None:
        raise ConfigurationError(f"{place_of(cls)}: governed stands at an HTTPEndpoint or WebSocketEndpoint class")

    @functools.wraps(enter)
    def guarded(self: Any) -> Any:
        standing(verdict_in(self.scope), declared(type(self)))
        return enter(self)

    cls.__await__ = guarded


try:
    from starlette.requests import HTTPConnection as _Connection
except ImportError:  # pragma: no cover - another ASGI framework
    _Connection = Any  # type: ignore[assignment,misc]


def require_decision(connection: _Connection) -> Verdict:
    """Return the verdict under which this request passed; a FastAPI dependency or a call in a handler.

    Raises:
        RuntimeError: the middleware was left out, so nobody decided; the handler does not run.
    """
    verdict = verdict_in(connection.scope)
    if not isinstance(verdict, Verdict) or not verdict.passes:
        raise RuntimeError("no ASCEND decision for this request: is AscendMiddleware added to this application?")
    return verdict
