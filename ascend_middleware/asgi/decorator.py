"""A rule at the handler: `@governed(action_type=…)` for endpoints of Starlette and FastAPI."""

from __future__ import annotations

import inspect
import sys
from typing import TYPE_CHECKING, Any, Final, TypeVar, Unpack

from ..adapters.decorator import VERDICT, Framework, attach
from ..guard import Verdict
from ..rules import RuleFields

if TYPE_CHECKING:
    from collections.abc import Callable

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
        guarded = attach(target, fields, _FRAMEWORK)
        if guarded is not target:
            _ask_for_connection(guarded, target)
        return guarded

    return decorate


def _find_verdict(args: tuple[Any, ...], kwargs: dict[str, Any]) -> object:
    connection = kwargs.pop(_CONNECTION, None)
    scopes = (_scope_of(one) for one in (connection, *args, *kwargs.values()))
    return next((scope.get(VERDICT) for scope in scopes if scope is not None), None)


_FRAMEWORK: Final = Framework(_find_verdict, "__await__", "an HTTPEndpoint or WebSocketEndpoint class")
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


try:
    from starlette.requests import HTTPConnection as _Connection
except ImportError:  # pragma: no cover - another ASGI framework
    _Connection = Any  # type: ignore[assignment,misc]


def require_decision(connection: _Connection) -> Verdict:
    """Return the verdict under which this request passed; a FastAPI dependency or a call in a handler.

    Args:
        connection: the request or the WebSocket.

    Raises:
        RuntimeError: the middleware was left out, so nobody decided; the handler does not run.
    """
    verdict = connection.scope.get(VERDICT)
    if not isinstance(verdict, Verdict) or not verdict.passes:
        raise RuntimeError("no ASCEND decision for this request: is AscendMiddleware added to this application?")
    return verdict
