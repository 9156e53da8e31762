"""FastAPI's per-route form: a rule among a route's dependencies.

    @app.post("/refunds", dependencies=[Depends(governed(action_type="transaction"))])

The same on a router or on the application governs each of its routes. `AscendMiddleware` decides; the dependency sees
to it that the handler runs on that verdict or not at all.
"""

# Annotations are real here: FastAPI reads those of the dependency, which is no function with globals of its own.
from collections.abc import Callable, Coroutine
from typing import Any, Unpack

from starlette.requests import HTTPConnection

from .adapters.decorator import VERDICT, caller_place, require_verdict
from .asgi import AscendMiddleware, require_decision
from .asgi.middleware import find_added
from .asgi.openapi import Documents
from .compose import build_table
from .guard import Verdict
from .routing.starlette import StarletteResolver
from .rules import Declaration, RuleFields, declaration, declare

__all__ = ["AscendMiddleware", "governed", "openapi", "require_decision"]


def governed(**fields: Unpack[RuleFields]) -> Callable[[HTTPConnection], Coroutine[Any, Any, Verdict]]:
    """Return a dependency that puts a rule at a route, at a router's routes, or at all of an application's.

    Its value is the verdict. It ranks like a rule of the table that names the route's endpoint. A route has one such
    rule: two with different outcomes, as from a router and a route, contradict each other, and the route is refused.

    Args:
        fields: what a `[[rule]]` may say, but `match` and `endpoint`.

    Raises:
        ConfigurationError: with everything that is wrong, naming module and line.
    """
    rule = declaration(caller_place(), fields)
    return declare(_Governed(rule), rule)


def openapi(app: Any) -> dict[str, Any]:
    """Return the OpenAPI document of an application with what the guards tell that were added to it.

    `app.openapi()` returns the same as soon as the application serves; this is for programs that write it to a file.

    Args:
        app: a FastAPI application. Neither key nor authority is needed.

    Raises:
        ConfigurationError: a rule table or a setting is wrong.
    """
    added = []
    for rules, settings, hooks in find_added(app):
        documents = Documents(*build_table(rules, settings), rendered=hooks.get("render") is not None)
        added.append((documents, StarletteResolver(app, documents.reached)))  # told for as long as they live
    found: dict[str, Any] = app.openapi()
    return found


class _Governed:
    """The dependency of one rule."""

    def __init__(self, rule: Declaration) -> None:
        self._rule = rule

    async def __call__(self, connection: HTTPConnection) -> Verdict:
        return require_verdict(connection.scope.get(VERDICT), (self._rule,))
