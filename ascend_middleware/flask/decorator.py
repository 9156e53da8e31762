"""A rule at the handler: `@governed(action_type=…)` for Flask's views.

The extension decides under the rule that stands here. The view is only seen to: it runs on the verdict that was made
under this very rule, or not at all.
"""

from __future__ import annotations

import functools
import inspect
from typing import TYPE_CHECKING, Any, TypeVar, Unpack

import flask
from flask.views import View

from ..exceptions import ConfigurationError
from ..guard import standing
from ..rules import RuleFields, declare, declared, place_of
from ..wsgi.middleware import VERDICT

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["governed"]

Target = TypeVar("Target", bound="Callable[..., Any]")


def governed(**fields: Unpack[RuleFields]) -> Callable[[Target], Target]:
    """Return a decorator that puts a rule at a view: a function, a method of a `MethodView`, or a class of views.

        @app.post("/refunds")
        @governed(action_type="transaction", details={"amount": "body.amount"})
        def refund(): ...

    It stands below `route`, and ranks like a rule of the table that names the route's endpoint. Without the extension
    on the application the view does not run.

    Args:
        fields: what a `[[rule]]` may say, but `match` and `endpoint`.

    Raises:
        ConfigurationError: at decoration, with everything that is wrong, naming module and function.
    """

    def decorate(target: Target) -> Target:
        if isinstance(target, type):
            if not issubclass(target, View):
                raise ConfigurationError(f"{place_of(target)}: governed stands at a View or MethodView class")
            marked: Any = target
            marked.dispatch_request = _guarded(target.dispatch_request, lambda self: declared(type(self)))
            return declare(target, fields)
        if not inspect.isroutine(target) and not isinstance(target, functools.partial):
            kind = type(target).__name__
            raise ConfigurationError(f"{place_of(target)}: governed stands at a function or a class, not at a {kind}")
        guarded: Target = _guarded(target, lambda *_: declared(guarded))
        return declare(guarded, fields)

    return decorate


def _guarded(function: Any, rules_of: Callable[..., Any]) -> Any:
    """Return the function so that it runs only on a verdict under one of its own rules."""

    def see(arguments: tuple[Any, ...]) -> None:
        standing(flask.request.environ.get(VERDICT), rules_of(*arguments))

    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def guarded(*arguments: Any, **named: Any) -> Any:
            see(arguments)
            return await function(*arguments, **named)

    else:

        @functools.wraps(function)
        def guarded(*arguments: Any, **named: Any) -> Any:
            see(arguments)
            return function(*arguments, **named)

    return guarded
