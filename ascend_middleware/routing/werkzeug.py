"""Which route a request runs in Flask: what Werkzeug's router found, in the form that all resolvers share.

Flask has asked its router before anybody else sees the request, and what it found is what it runs: nothing is matched
a second time here.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from werkzeug.exceptions import MethodNotAllowed
from werkzeug.routing import (
    FloatConverter,
    IntegerConverter,
    PathConverter,
    RequestRedirect,
    Rule,
    UUIDConverter,
)

from ..rules import WEBSOCKET, declared
from . import Kind, Leaf, Resolved
from .recurring import Recurring

if TYPE_CHECKING:
    from flask import Flask, Request

    from ..rules import Method

# A parameter as Werkzeug's own parser reads it.
_PARAMETER: Final = re.compile(r"<(?:([a-zA-Z_][a-zA-Z0-9_]*)(?:\((.*?)\))?:)?([a-zA-Z_][a-zA-Z0-9_]*)>")
# What rules may name by type. A class derived from one of them may match something else, so it does not count.
_TYPES: Final = {IntegerConverter: "int", FloatConverter: "float", UUIDConverter: "uuid", PathConverter: "path"}


class FlaskResolver:
    """Tell what a request runs in one Flask application, by the URL map as it stands now."""

    __slots__ = ("_app", "_leaves", "_recurring")

    def __init__(self, app: Flask) -> None:
        self._app = app
        # By identity: Werkzeug's rules compare equal by content. Each is held, so that none gets the number of another.
        self._leaves: dict[int, tuple[Rule, Any, Leaf]] = {}
        self._recurring: Final = Recurring()

    def resolve(self, request: Request, path: str) -> Resolved:
        """Return what a request runs, which Flask has matched; the path is decoded, below SCRIPT_NAME."""
        rule, problem = request.url_rule, request.routing_exception
        if problem is not None or rule is None:
            kind = Kind.NOT_FOUND
            if isinstance(problem, RequestRedirect):
                kind = Kind.REDIRECT
            elif isinstance(problem, MethodNotAllowed):
                kind = Kind.METHOD_NOT_ALLOWED
            return Resolved(None, kind, {}, path)
        if request.method == "OPTIONS" and getattr(rule, "provide_automatic_options", False):
            return Resolved(None, Kind.OPTIONS, {}, path)
        leaf = self._leaf(rule)
        return self._recurring.resolve(leaf, request.method, request.view_args or {}, path)

    def leaves(self) -> list[Leaf]:
        """Return every unit that a request can run, in the order of the URL map."""
        url_map = self._app.url_map
        return [
            self._leaf(rule)
            for rule in url_map.iter_rules()
            if not (rule.build_only or rule.redirect_to is not None or (rule.alias and url_map.redirect_defaults))
        ]

    def _leaf(self, rule: Rule) -> Leaf:
        view = self._app.view_functions.get(rule.endpoint)
        known = self._leaves.get(id(rule))
        if known is None or known[1] is not view:
            known = self._leaves[id(rule)] = rule, view, self._build(rule, view)
        return known[2]

    def _build(self, rule: Rule, view: Any) -> Leaf:
        endpoint = rule.endpoint
        static = endpoint == "static" or endpoint.endswith(".static")
        methods = rule.methods
        if methods is not None and getattr(rule, "provide_automatic_options", False):
            methods = methods - {"OPTIONS"}
        return Leaf(
            kind=Kind.STATIC if static else Kind.ROUTE,
            template=template_of(rule),
            endpoint=endpoint,
            methods=None if methods is None else frozenset(methods),
            websocket=rule.websocket,
            host=rule.host or rule.subdomain or None,
            app=view,
            declared=declared(view),
        )


def method_of(request: Request, resolved: Resolved) -> Method:
    """Return a request's method, or that it is a handshake: it is one where the route is one for WebSockets."""
    return WEBSOCKET if resolved.leaf is not None and resolved.leaf.websocket else request.method


def template_of(rule: Rule) -> str:
    """Return a rule's template as rule tables write them: `/items/<int:n>` is `/items/{n:int}`.

    A parameter of a type that no table can name is `{name}` where it never holds a slash.
    """
    return _PARAMETER.sub(lambda found: _parameter(rule, found[1] or "default", found[3]), rule.rule)


def _parameter(rule: Rule, name: str, variable: str) -> str:
    # The converter itself, where Werkzeug lets it be seen: it may differ from its class.
    converter = getattr(rule, "_converters", {}).get(variable) or rule.map.converters[name]
    known = _TYPES.get(converter if isinstance(converter, type) else type(converter))
    if known is not None:
        return f"{{{variable}:{known}}}"
    return f"{{{variable}}}" if converter.part_isolating else f"{{{variable}:{name}}}"
