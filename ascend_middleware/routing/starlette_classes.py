"""What is known of the classes of Starlette and FastAPI: which of them route as this package expects.

FastAPI is looked at only where somebody else has imported it. Private names are asked for, never relied upon: where one
is missing, a thing is unknown, and the resolver treats it as one opaque unit.
"""

from __future__ import annotations

import sys
from inspect import isfunction
from typing import TYPE_CHECKING, Any, Final

from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint
from starlette.routing import Host, Match, Mount, Route, Router, WebSocketRoute, compile_path

from ..rules import VERBS, declared
from . import Stop

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, MutableMapping
    from types import ModuleType

    from ..rules import Declaration

    Scope = MutableMapping[str, Any]
    Matcher = Callable[[Scope], tuple[Match, Any]]

# The convertors' expressions that cannot match a slash; a registered one of the same name may.
_SINGLE: Final = frozenset(
    {
        "[^/]+",
        "[0-9]+",
        r"[0-9]+(\.[0-9]+)?",
        "[0-9a-fA-F]{8}-?[0-9a-fA-F]{4}-?[0-9a-fA-F]{4}-?[0-9a-fA-F]{4}-?[0-9a-fA-F]{12}",
    }
)
# Longer chains of middlewares are in a circle.
_MAX_CHAIN: Final = 100


def _application() -> Any:
    """Return FastAPI's class of applications, or Starlette's where FastAPI is not in use."""
    return getattr(sys.modules.get("fastapi"), "FastAPI", Starlette)


def root_path_of(app: object) -> str:
    """Return the root path that an application sets on entry: `FastAPI.__call__` does, if it was given one."""
    application = _application()
    return getattr(app, "root_path", "") or "" if application is not Starlette and isinstance(app, application) else ""


def fastapi_routing() -> ModuleType | None:
    """Return FastAPI's routing module, if FastAPI is in use."""
    return sys.modules.get("fastapi.routing")


def known_methods(base: type, name: str) -> set[object]:
    """Return the frameworks' own implementations of a method, for `base` and what FastAPI derives from it."""
    derived = {Router: "APIRouter", Route: "APIRoute", WebSocketRoute: "APIWebSocketRoute"}.get(base, "")
    own = getattr(fastapi_routing(), derived, None) if derived else None
    return {getattr(cls, name) for cls in (base, own) if cls is not None}


def answers_as_known(route: object, name: str) -> bool:
    """Tell whether a route has the frameworks' own implementation of `matches` or `handle`."""
    if name in getattr(route, "__dict__", ()):
        return False
    base = next((base for base in (Route, WebSocketRoute, Mount, Host) if isinstance(route, base)), None)
    return base is not None and getattr(type(route), name) in known_methods(base, name)


def is_plain_include(fastapi: Any, router_class: type) -> bool:
    """Tell whether a router, once included, selects among its routes as FastAPI does."""
    return all(getattr(router_class, name) is getattr(fastapi.APIRouter, name) for name in ("matches", "handle"))


def is_transparent(app: object) -> bool:
    """Tell whether a mounted application does nothing but hand the request to its router (and middleware)."""
    if isinstance(app, Starlette):
        return type(app).__call__ in (Starlette.__call__, _application().__call__)
    return isinstance(app, Router) and type(app).__call__ is Router.__call__ and is_followed(app)


def routes_as_known(router: Router) -> bool:
    """Tell whether a router routes as the frameworks' own do."""
    return type(router).app in known_methods(Router, "app") and "app" not in vars(router)


def is_followed(router: Router) -> bool:
    """Tell whether a router's own middleware can be followed to where it routes."""
    return _leads_to(getattr(router, "middleware_stack", router.app), router.app)


def _leads_to(app: Any, end: Any) -> bool:
    """Tell whether a chain of middlewares can be followed, each by its `app`, to where it ends."""
    for _ in range(_MAX_CHAIN):
        if app == end:
            return True
        app = getattr(app, "app", None)
    return False


def mounted_at(mount: Any) -> tuple[Any, bool]:
    """Return what is mounted, and whether middleware of the mount itself stands before it."""
    outer = without_body_limit(_beneath(mount.app))
    base = getattr(mount, "_base_app", outer)
    if outer is not base and is_transparent(base) and _leads_to(outer, base):
        return base, True
    return outer, False


def has_middleware(app: Starlette | Router) -> bool:
    """Tell whether an application or a router has middleware of its own, beside what every application has."""
    if isinstance(app, Router):
        return bool(_beneath(getattr(app, "middleware_stack", app.app)) != app.app)
    builders = (Starlette.build_middleware_stack, _application().build_middleware_stack)
    if app.user_middleware or type(app).build_middleware_stack not in builders:
        return True
    stack = _beneath(getattr(app.router, "middleware_stack", None))
    return bool(stack != getattr(app.router, "app", None))


def _beneath(app: Any) -> Any:
    """Look through what this package put there."""
    while isinstance(app, Stop):
        app = app.app
    return app


def converts_purely(route: Any) -> bool:
    """Tell whether a route's match gives the same parameters whenever it is asked: Starlette's own convertors do."""
    convertors = getattr(route, "param_convertors", None)
    return convertors is not None and all(type(one).__module__ == "starlette.convertors" for one in convertors.values())


def without_body_limit(app: Any) -> Any:
    """Look through Starlette's body limit, which changes no routing."""
    limit = getattr(sys.modules.get("starlette.middleware.body_limit"), "RequestBodyLimitMiddleware", None)
    while limit is not None and type(app) is limit and hasattr(app, "app"):
        app = app.app
    return app


def methods_of(route: Any) -> frozenset[str] | None:
    """Return a route's methods, or None if it takes any."""
    methods = getattr(route, "methods", None)
    return frozenset(methods) if methods else None


def methods_run(route: Any, original: Any) -> frozenset[str] | None:
    """Return the methods on which a route runs something of the application, or None for any.

    An endpoint class answers 405 itself for those that it has no function for.
    """
    cls = getattr(original, "endpoint", None)
    own = ("__init__", "dispatch", "method_not_allowed")
    if (
        (methods := methods_of(route)) is not None
        or not (isinstance(cls, type) and issubclass(cls, HTTPEndpoint))
        # Older ones call whatever function is named like the method.
        or "_allowed_methods" not in HTTPEndpoint.dispatch.__code__.co_names
        or any(getattr(cls, name) is not getattr(HTTPEndpoint, name) for name in own)
    ):
        return methods
    found = {verb.upper() for verb in VERBS if getattr(cls, verb, None) is not None}
    return frozenset(found | ({"HEAD"} if "GET" in found else set()))


def indexable_template(route: Any) -> str | None:
    """Return the template that the route's regular expression was compiled from, or None if it was not."""
    path, regex = getattr(route, "path", None), getattr(route, "path_regex", None)
    if not isinstance(path, str) or not path.startswith("/"):
        return None
    try:
        expected = compile_path(path + "/{path:path}" if isinstance(route, Mount) else path)[0]
    except (AssertionError, ValueError):
        return None
    return path if expected == regex else None


def single_segments(route: Any) -> frozenset[str]:
    """Return the names of a route's parameters that cannot hold a slash."""
    convertors = route.param_convertors.items()
    return frozenset(name for name, convertor in convertors if convertor.regex in _SINGLE)


def route_path_of(scope: Scope) -> str:
    """Return the path below the root path, by the rule that Starlette's routers apply."""
    path: str = scope["path"]
    root: str = scope.get("root_path", "")
    if not path.startswith(root):
        return path
    rest = path[len(root) :]
    return rest if not rest or rest[0] == "/" else path


def is_below(path: str, prefix: str) -> bool:
    """Tell whether a path is the prefix or lies below it."""
    prefix = prefix.rstrip("/")
    return path == prefix or path.startswith(prefix + "/") or not prefix


def with_own_state(scope: Scope) -> Scope:
    """Copy a scope so that FastAPI's bookkeeping during a match stays in the copy."""
    state = scope.get("fastapi")
    return {**scope, "fastapi": dict(state)} if isinstance(state, dict) else dict(scope)


def on_a_copy(match: Matcher) -> Matcher:
    """Let a match that may write to its scope write to a copy; what it wrote is part of what it adds."""

    def matches(scope: Scope) -> tuple[Match, Any]:
        trial = with_own_state(scope)
        found, child = match(trial)
        own = {key: value for key, value in trial.items() if value is not scope.get(key) and value != scope.get(key)}
        return found, {**own, **(child or {})}

    return matches


def in_context(candidate: Any) -> Matcher:
    """Ask an included route of somebody else's class as FastAPI does: with the inclusion in the scope."""
    key = getattr(fastapi_routing(), "_FASTAPI_EFFECTIVE_ROUTE_CONTEXT_KEY", "effective_route_context")

    def match(scope: Scope) -> tuple[Match, Any]:
        trial = {**scope, "fastapi": {**(scope.get("fastapi") or {}), key: candidate}}
        found: tuple[Match, Any] = candidate.original_route.matches(trial)
        return found

    return match


def declared_at(subject: Any, original: Any) -> tuple[Declaration, ...]:
    """Return the rules that stand at a route's handler, or among its dependencies at any depth.

    `subject` has the route's own dependencies, with those of the routers that it was included through.
    """
    found = list(declared(getattr(original, "endpoint", None)))
    for call in _dependencies(getattr(subject, "dependant", None) or getattr(original, "dependant", None)):
        found += declared(call)
    return tuple({one.key: one for one in found}.values())


def _dependencies(dependant: Any) -> Iterator[object]:
    todo, seen = [dependant], set[int]()
    while todo:
        one = todo.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        yield getattr(one, "call", None)
        todo += reversed(getattr(one, "dependencies", ()))


def has_own_middleware(route: Any) -> bool:
    """Tell whether something of the application stands between a route and its endpoint."""
    return isinstance(route, Route | WebSocketRoute) and not _is_end(without_body_limit(route.app), route)


def end_of(route: Any) -> tuple[Any, str] | None:
    """Return what holds a route's endpoint, inside the route's own middleware, and in which attribute.

    None where a middleware keeps its application in another place than `app`.
    """
    holder, name = route, "app"
    while not _is_end(inner := getattr(holder, name), route):
        if not hasattr(inner, "app"):
            return None
        holder, name = inner, "app"
    return holder, name


def _is_end(app: Any, route: Any) -> bool:
    # Starlette and FastAPI put a function of theirs around one of the application.
    made = isfunction(app) and app.__module__ in ("starlette.routing", "fastapi.routing")
    return made or app is route.endpoint or isinstance(app, Stop)
