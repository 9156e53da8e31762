"""A rule at the handler: `@governed(action_type=…)` for Flask's views."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeVar, Unpack

import flask

from ..adapters.decorator import VERDICT, Framework, attach
from ..rules import RuleFields

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
    return lambda target: attach(target, fields, _FRAMEWORK)


_FRAMEWORK: Final = Framework(
    lambda args, kwargs: flask.request.environ.get(VERDICT), "dispatch_request", "a View or MethodView class"
)
