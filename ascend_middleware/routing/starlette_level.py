"""One Starlette or FastAPI router: an index over its live routes, and what it selects for a request."""

from __future__ import annotations

from operator import attrgetter, is_
from threading import RLock
from typing import TYPE_CHECKING, Any, Final

from starlette.applications import Starlette
from starlette.routing import Host, Match, Mount, Router, WebSocketRoute
from starlette.staticfiles import StaticFiles

from .leaves import Kind, Leaf
from .segments import SegmentTree
from .starlette_classes import (
    answers_as_known,
    declared_at,
    fastapi_routing,
    has_middleware,
    in_context,
    indexable_template,
    is_followed,
    is_plain_include,
    is_transparent,
    methods_run,
    mounted_at,
    on_a_copy,
    root_path_of,
    routes_as_known,
    with_own_state,
)
from .starlette_entries import Entry, Selected

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, MutableMapping

    from ..rules import Declaration

    Scope = MutableMapping[str, Any]
    Matcher = Callable[[Scope], tuple[Match, Any]]

__all__ = ["Level", "route_path"]

# The convertors' expressions that cannot match a slash; a registered one of the same name may.
_SINGLE: Final = frozenset(
    {
        "[^/]+",
        "[0-9]+",
        r"[0-9]+(\.[0-9]+)?",
        "[0-9a-fA-F]{8}-?[0-9a-fA-F]{4}-?[0-9a-fA-F]{4}-?[0-9a-fA-F]{4}-?[0-9a-fA-F]{12}",
    }
)


_regex_of: Final = attrgetter("path_regex")


def route_path(scope: Scope) -> str:
    """Return the path below the root path, by the rule that Starlette's routers apply."""
    path: str = scope["path"]
    root: str = scope.get("root_path", "")
    if not root or not path.startswith(root):
        return path
    rest = path[len(root) :]
    return rest if not rest or rest[0] == "/" else path


def _is_below(path: str, prefix: str) -> bool:
    prefix = prefix.rstrip("/")
    return path == prefix or path.startswith(prefix + "/") or not prefix


class Level:
    """One router below its mounts: the index over its routes, rebuilt when they changed."""

    __slots__ = (
        "_behind",
        "_entries",
        "_host",
        "_included",
        "_indexed",
        "_leaves",
        "_lock",
        "_names",
        "_opaque",
        "_prefix",
        "_regexes",
        "_router",
        "_routes",
        "_snapshot",
        "_stack",
        "_tree",
        "owner",
    )

    def __init__(
        self, owner: Starlette | Router, *, prefix: str, host: str | None, names: str, behind: bool = False
    ) -> None:
        self.owner, self._prefix, self._host, self._names = owner, prefix, host, names
        self._behind = behind
        self._leaves: dict[tuple[object, ...], Leaf] = {}
        self._lock = RLock()
        self._opaque: Leaf | None = None
        # Built at first use: applications may be mounted in a circle.
        self._router: Any = None

    @property
    def root_path(self) -> str:
        """The root path that the application sets on entry (FastAPI's do), or an empty one."""
        return root_path_of(self.owner)

    @property
    def is_behind_middleware(self) -> bool:
        """Whether a middleware of a mount or a router may change a request on its way here, or answer it."""
        return self._behind or (isinstance(self.owner, Router) and has_middleware(self.owner))

    @property
    def is_built(self) -> bool:
        """Whether anything was asked of this level yet."""
        return self._router is not None

    @property
    def whole(self) -> Leaf:
        """This level as one unit."""
        return self._leaf({}, Kind.OPAQUE, self._prefix + "/**", app=self.owner)

    # Matching.

    def match(self, scope: Scope) -> Selected[Level]:
        """Return what the router selects."""
        # One event loop never waits here; a second one must not see an index half built.
        with self._lock:
            return self._match(scope)

    def _match(self, scope: Scope) -> Selected[Level]:
        if not self.is_current():
            self._build()
        if self._opaque is not None:
            return Selected(self._opaque)
        selected = self._select(scope)
        if selected is not None and not selected[1].is_current():
            self._build()
            selected = self._select(scope)
        if selected is not None:
            full, entry, child = selected
            if not full and not entry.partial_runs:
                return Selected(Kind.METHOD_NOT_ALLOWED, child)
            route = entry.confirmed(Match.FULL if full else Match.PARTIAL, child)
            return Selected(entry.child or entry.leaf or self.whole, child, route, entry.pure, entry.inside)
        if self._redirects(scope):
            return Selected(Kind.REDIRECT)
        return Selected(self._low_priority(scope) or self._default() or Kind.NOT_FOUND)

    def _select(self, scope: Scope) -> tuple[bool, Entry[Level], Any] | None:
        partial = None
        for number in self._tree.candidates(route_path(scope)):
            entry = self._entries[number]
            match, child = entry.match(scope)
            if match is Match.FULL:
                return True, entry, child
            if match is Match.PARTIAL and partial is None:
                partial = (False, entry, child)
        return partial

    def _redirects(self, scope: Scope) -> bool:
        path = route_path(scope)
        if scope["type"] != "http" or not self._router.redirect_slashes or path == "/":
            return False
        full = scope["path"]
        other = {**scope, "path": full.rstrip("/") if path.endswith("/") else full + "/"}
        return self._select(other) is not None

    def _low_priority(self, scope: Scope) -> Leaf | Kind | None:
        """Ask FastAPI's routes for front ends, which come after everything else."""
        ask = getattr(self._router, "_match_low_priority", None)
        if ask is None:
            return None
        match, _, route, context = ask(with_own_state(scope))
        if match is Match.NONE or route is None:
            return None
        if match is Match.PARTIAL:
            return Kind.METHOD_NOT_ALLOWED
        prefix = getattr(context, "frontend_prefix", "")
        below = route_path(scope)
        held = [part for part in getattr(route, "routes", ()) if _is_below(below, prefix + str(part.path))]
        if not held:
            return self._leaf(self._leaves, Kind.OPAQUE, self._prefix + "/**", app=route)
        return self._frontend(max(held, key=lambda part: len(part.path)), prefix)

    def _frontend(self, route: Any, prefix: str) -> Leaf:
        template = self._prefix + (prefix + str(route.path)).rstrip("/") + "/**"
        methods = frozenset(("GET", "HEAD"))
        return self._leaf(self._leaves, Kind.STATIC, template, methods=methods, app=getattr(route, "app", None))

    def _default(self) -> Leaf | None:
        """Return the application that stands in for "not found", if one does."""
        default = self._router.default
        if getattr(default, "__func__", None) is Router.not_found:
            return None
        return self._leaf(self._leaves, Kind.OPAQUE, self._prefix + "/**", app=default)

    # Listing.

    def items(self) -> list[Leaf | Level]:
        """Return what stands below this router, in its order."""
        with self._lock:
            return list(self._items())

    def _items(self) -> Iterator[Leaf | Level]:
        if not self.is_current() or not all(entry.is_current() for entry in self._entries):
            self._build()
        if self._opaque is not None:
            yield self._opaque
            return
        for entry in self._entries:
            yield entry.child or entry.leaf or self.whole
        for candidate in getattr(self._router, "_iter_low_priority_routes", tuple)():
            prefix = getattr(candidate, "frontend_prefix", "")
            group = getattr(candidate, "original_route", candidate)
            for route in getattr(group, "routes", ()):
                yield self._frontend(route, prefix)
        if (default := self._default()) is not None:
            yield default

    # Building.

    def is_current(self) -> bool:
        """Tell whether the routes are still those that the index was built from."""
        router = self.owner.router if isinstance(self.owner, Starlette) else self.owner
        if router is not self._router or getattr(router, "middleware_stack", None) is not self._stack:
            return False
        if self._opaque is not None:
            return True
        routes = router.routes
        snapshot = self._snapshot
        # By identity: routes compare equal by path and endpoint, and equal ones may still differ.
        return (
            len(routes) == len(snapshot)
            and all(map(is_, routes, snapshot))
            and list(map(_regex_of, self._indexed)) == self._regexes
            and (
                not self._included
                or all(included.effective_candidates() is known for included, known in self._included)
            )
        )

    def _build(self) -> None:
        router: Any = self.owner.router if isinstance(self.owner, Starlette) else self.owner
        self._router = None  # until all of it stands: a build that failed is no index
        self._snapshot: list[Any] = list(router.routes) if isinstance(router, Router) else []
        self._entries: list[Entry[Level]] = []
        self._indexed: list[Any] = []
        self._included: list[tuple[Any, object]] = []
        self._tree = SegmentTree()
        known, self._leaves = self._leaves, {}
        self._opaque = None
        self._stack = getattr(router, "middleware_stack", None)
        if not isinstance(router, Router) or not routes_as_known(router) or not is_followed(router):
            self._opaque = self._leaf(known, Kind.OPAQUE, self._prefix + "/**", app=self.owner)
        else:
            for route in self._snapshot:
                self._add(route, known)
        self._regexes = list(map(_regex_of, self._indexed))
        self._router = router

    def _add(self, route: Any, known: dict[tuple[object, ...], Leaf], includes: tuple[Any, ...] = ()) -> None:
        """Add a route; `includes` are the inclusions in which it stands, the outermost first."""
        fastapi = fastapi_routing()
        included = getattr(fastapi, "_IncludedRouter", None)
        if included is None or not isinstance(route, included):
            self._register(route, route, route.matches, (), None, known)
            return
        candidates = getattr(route, "effective_candidates", None)
        router_class = type(route.original_router)
        if candidates is None or type(route) is not included or not is_plain_include(fastapi, router_class):
            leaf = self._leaf(known, Kind.OPAQUE, self._prefix + "/**", app=route)
            self._tree.add_anywhere(len(self._entries))
            match = on_a_copy(route.matches)
            self._entries.append(Entry(route, match, includes, None, leaf=leaf, child=None, partial_runs=True))
            return
        live = candidates()
        self._included.append((route, live))
        for candidate in live:
            if isinstance(candidate, included):
                self._add(candidate, known, (*includes, route))
                continue
            original = candidate.original_route
            rebuilt = getattr(candidate, "starlette_route", None)
            place = (*includes, route), candidate, known
            if rebuilt is not None:
                self._register(rebuilt, rebuilt, candidate.matches, *place)
            elif answers_as_known(original, "matches"):
                self._register(candidate, original, candidate.matches, *place)
            else:
                self._register(candidate, original, in_context(candidate), *place)

    def _register(
        self,
        subject: Any,
        original: Any,
        match: Matcher,
        includes: tuple[Any, ...],
        candidate: Any,
        known: dict[tuple[object, ...], Leaf],
    ) -> None:
        """Add one route: `subject` has its effective path and name, `original` answers.

        FastAPI reaches it through `includes`, the last of which selects `candidate`; a router's own has neither.
        """
        number = len(self._entries)
        if not answers_as_known(original, "matches"):
            match = on_a_copy(match)
            self._tree.add_anywhere(number)
        else:
            template = indexable_template(subject)
            if template is None:
                self._tree.add_anywhere(number)
            else:
                singles = frozenset(
                    name for name, convertor in subject.param_convertors.items() if convertor.regex in _SINGLE
                )
                self._tree.add(number, template, single=singles, subtree=isinstance(subject, Mount))
            if not includes and not isinstance(subject, Host):
                self._indexed.append(subject)
        leaf, child = self._content(subject, original, known)
        runs = not answers_as_known(original, "handle")
        self._entries.append(
            Entry(subject, match, includes, candidate, leaf=leaf, child=child, partial_runs=runs),
        )

    def _content(
        self, subject: Any, original: Any, known: dict[tuple[object, ...], Leaf]
    ) -> tuple[Leaf | None, Level | None]:
        if isinstance(subject, Mount | Host):
            return self._below(subject, original, known)
        path = getattr(subject, "path", None)
        name = getattr(subject, "name", None)
        endpoint = self._names + name if isinstance(name, str) else None
        if not isinstance(path, str) or (path and not path.startswith("/")):
            return self._leaf(known, Kind.OPAQUE, self._prefix + "/**", endpoint=endpoint, app=subject), None
        websocket = isinstance(original, WebSocketRoute)
        template = self._prefix + path.replace(":str}", "}")
        methods = None if websocket else methods_run(subject, original)
        leaf = self._leaf(
            known,
            Kind.ROUTE,
            template,
            endpoint=endpoint,
            methods=methods,
            websocket=websocket,
            declared=declared_at(subject, original),
        )
        return leaf, None

    def _below(
        self, subject: Any, original: Any, known: dict[tuple[object, ...], Leaf]
    ) -> tuple[Leaf | None, Level | None]:
        prefix, host = self._prefix, self._host
        if isinstance(subject, Host):
            host = subject.host
        else:
            prefix += subject.path.replace(":str}", "}")
        names = f"{self._names}{subject.name}:" if subject.name else self._names
        app, behind = mounted_at(subject)
        plain = answers_as_known(original, "matches") and answers_as_known(original, "handle")
        if plain and is_transparent(app):
            return None, Level(app, prefix=prefix, host=host, names=names, behind=behind)
        kind = Kind.STATIC if plain and isinstance(app, StaticFiles) else Kind.OPAQUE
        endpoint = self._names + subject.name if subject.name else None
        # Its own answer to any other method is 405.
        methods = frozenset(("GET", "HEAD")) if type(app) is StaticFiles else None
        leaf = self._leaf(known, kind, prefix + "/**", endpoint=endpoint, methods=methods, host=host, app=app)
        return leaf, None

    def _leaf(
        self,
        known: dict[tuple[object, ...], Leaf],
        kind: Kind,
        template: str,
        *,
        endpoint: str | None = None,
        methods: frozenset[str] | None = None,
        websocket: bool = False,
        host: str | None = None,
        app: object | None = None,
        declared: tuple[Declaration, ...] = (),
    ) -> Leaf:
        """Return the leaf with these values: the one of the last build, if it stands still."""
        host = host or self._host
        key = (kind, template, endpoint, methods, websocket, host, id(app), *(one.key for one in declared))
        leaf = self._leaves.get(key) or known.get(key)
        if leaf is None:
            leaf = Leaf(
                kind=kind,
                template=template,
                endpoint=endpoint,
                methods=methods,
                websocket=websocket,
                host=host,
                app=app,
                declared=declared,
            )
        self._leaves[key] = leaf
        return leaf
