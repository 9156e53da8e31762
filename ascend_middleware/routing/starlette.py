"""Which route a request runs in Starlette and FastAPI: an index over the live routes, confirmed by their own match.

The application's routers are asked, never copied: a route that was added, replaced or changed since the last request
counts from the next one on. What this file does not know (a route class of somebody else's, an application behind a
middleware) it does not look into: such a thing is asked in its turn, and is one opaque unit.
"""

from __future__ import annotations

from operator import is_
from threading import RLock
from typing import TYPE_CHECKING, Any, Final

from starlette.applications import Starlette
from starlette.routing import Host, Match, Mount, Route, Router, WebSocketRoute
from starlette.staticfiles import StaticFiles

from . import Entered, Kind, Leaf, Resolved
from .starlette_classes import (
    answers_as_known,
    declared_at,
    fastapi_routing,
    has_middleware,
    in_context,
    indexable_template,
    is_below,
    is_followed,
    is_plain_include,
    is_transparent,
    methods_run,
    mounted_at,
    on_a_copy,
    root_path_of,
    route_path_of,
    routes_as_known,
    single_segments,
    with_own_state,
)
from .starlette_entries import Entry, SegmentTree, Selected
from .starlette_paths import KnownPaths, is_made_of
from .starlette_snapshot import Snapshot

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, MutableMapping

    Scope = MutableMapping[str, Any]

_MAX_DEPTH: Final = 32


class StarletteResolver:
    """Tell what a request runs in a Starlette or FastAPI application.

    The scope is expected as the application's own router gets it, that is after `FastAPI.__call__` and after every
    middleware. It is never changed. `reached` is told of each router that requests may come to, when it is found.
    """

    __slots__ = ("_level",)

    def __init__(self, app: Starlette | Router, reached: Callable[[Any], None] | None = None) -> None:
        self._level = _Level(app, reached=reached)

    def resolve(self, scope: Scope) -> Resolved:
        """Return what this HTTP or WebSocket request runs, by the routes as they stand now."""
        path = below = route_path_of(scope) if scope.get("root_path") else scope["path"]
        level, keeps = self._level, False
        if scope["type"] == "http":
            # Nothing that came before has a part in the match.
            keeps = "path_params" not in scope and "fastapi" not in scope
            if keeps and (recalled := level.recall((path, scope["method"]))) is not None:
                return recalled
        elif scope["type"] != "websocket":
            return Resolved(None, Kind.NOT_FOUND, {}, path)
        step = level.match(scope, below, keeps=keeps)
        found, outermost = step.found, step.route
        if isinstance(found, Leaf) and step.inside is None:  # as most do
            params: Mapping[str, Any] | None = (step.child or {}).get("path_params")
            if params is None:
                params = scope.get("path_params", {})
            return Resolved(found, found.kind, params, path, (), outermost)
        return self._descend(scope, path, below, step)

    def _descend(self, scope: Scope, path: str, below: str, step: Selected) -> Resolved:
        """Return what is run below the outermost router, which selected `step`."""
        level, current, outermost = self._level, scope, step.route
        entered: tuple[Entered, ...] = ()
        unit: Leaf | None = None
        for _ in range(_MAX_DEPTH):
            root: str = current.get("root_path", "")
            given: Mapping[str, Any] = current.get("path_params", {})
            deeper = level is not self._level
            if deeper and (not step.pure or level.is_behind_middleware or has_middleware(level.owner)):
                entered = (*entered, Entered(level.owner, root, given, step.route))
                if unit is None and level.is_behind_middleware:
                    unit = level.whole
            found, child = step.found, step.child or {}
            params: Mapping[str, Any] = child.get("path_params", given)
            if isinstance(found, Leaf):
                if step.inside is not None:
                    entered = (*entered, Entered(step.inside, root, params))
                return Resolved(found, found.kind, params, path, entered, outermost)
            if isinstance(found, Kind):
                if unit is not None:  # what no route takes, that middleware may answer
                    return Resolved(unit, Kind.OPAQUE, params, path, entered, outermost)
                return Resolved(None, found, params, path, entered)
            level, current = found, {**current, **child}
            # FastAPI.__call__ does this on the way in.
            if root_path := root_path_of(level.owner):
                current["root_path"] = root_path
            below = route_path_of(current)
            step = level.match(current, below)
        return Resolved(level.whole, Kind.OPAQUE, current.get("path_params", {}), path, entered, outermost)

    def leaves(self) -> list[Leaf]:
        """Return every unit that a request can run, in the order in which the routers ask."""
        return list(dict.fromkeys(self._walk(self._level, ())))

    def _walk(self, level: _Level, above: tuple[object, ...]) -> Iterator[Leaf]:
        if len(above) >= _MAX_DEPTH or any(level.owner is owner for owner in above):
            yield level.whole
            return
        for item in level.items():
            if isinstance(item, Leaf):
                yield item
            else:
                yield from self._walk(item, (*above, level.owner))


class _Level:
    """One router below its mounts: the index over its routes, rebuilt when they changed.

    It is mounted under the template `prefix`, at a `host`, `behind` a middleware of the mount; the names of its routes
    begin with `names`.
    """

    __slots__ = (
        "_behind",
        "_entries",
        "_is_application",
        "_known",
        "_leaves",
        "_lock",
        "_names",
        "_opaque",
        "_reached",
        "_router",
        "_snapshot",
        "_stack",
        "_tree",
        "host",
        "owner",
        "paths",
        "prefix",
    )

    def __init__(
        self,
        owner: Starlette | Router,
        *,
        prefix: str = "",
        host: str | None = None,
        names: str = "",
        behind: bool = False,
        reached: Callable[[_Level], None] | None = None,
    ) -> None:
        self.owner: Any = owner
        self.prefix, self.host, self._names = prefix, host, names
        self._is_application: Final = isinstance(owner, Starlette)
        self._behind = behind
        self._leaves: dict[tuple[object, ...], Leaf] = {}
        self._known: dict[tuple[object, ...], Leaf] = {}
        self._lock = RLock()
        self._opaque: Leaf | None = None
        # Built at first use: applications may be mounted in a circle.
        self._router: Any = None
        self.paths = KnownPaths()
        self._reached = reached
        if reached is not None:
            reached(self)

    @property
    def is_behind_middleware(self) -> bool:
        """Whether a middleware of a mount or a router may change a request on its way here, or answer it."""
        return self._behind or (isinstance(self.owner, Router) and has_middleware(self.owner))

    @property
    def whole(self) -> Leaf:
        """This level as one unit."""
        return self._unit(self.owner)

    # Matching.

    def recall(self, key: tuple[str, str]) -> Resolved | None:
        """Return what an HTTP request runs whose path came before, if nothing but path and method decides about it."""
        # Without the lock: whoever builds the index anew, in another thread, begins with other paths.
        paths = self.paths
        known = paths.get(key)
        if known is None:
            return None
        router = self._known_router()
        if router is None or not self._snapshot.holds(router, known.place):
            return None
        for route, parts, methods in known.asked:
            if route.methods != methods or not all(map(is_, is_made_of(route), parts)):
                return None
        return known.resolved if self.paths is paths else None

    def match(self, scope: Scope, path: str, *, keeps: bool = False) -> Selected:
        """Return what the router selects; `path` is the one below the root path.

        What `keeps` is kept for `recall`, if it comes again.
        """
        # One event loop never waits here; a second one must not see an index half built.
        with self._lock:
            router = self._known_router() or self._build()
            selected = self._select(scope, path)
            # What was selected is the first that matches as long as those before it stand.
            place = selected[1].place if selected is not None and selected[0] is Match.FULL else None
            stands = self._opaque is not None or self._snapshot.holds(router, place)
            if not stands or (selected is not None and not selected[1].is_current()):
                self._build()
                selected = self._select(scope, path)
            if self._opaque is not None:
                return Selected(self._opaque)
            if selected is not None:
                match, entry, child = selected
                if match is Match.PARTIAL and not entry.partial_runs:
                    return Selected(Kind.METHOD_NOT_ALLOWED, child)
                if keeps and match is Match.FULL and self.paths.come_again(path, scope["method"]):
                    self.paths.keep(path, scope["method"], self._asked(path, entry), child)
                return Selected(entry.content, child, entry.confirmed(match, child), entry.pure, entry.inside)
            if self._redirects(scope, path):
                return Selected(Kind.REDIRECT)
            return Selected(self._low_priority(scope, path) or self._default() or Kind.NOT_FOUND)

    def _select(self, scope: Scope, path: str) -> tuple[Match, Entry, Any] | None:
        partial = None
        for number in self._tree.candidates(path):
            entry = self._entries[number]
            match, child = entry.match(scope)
            if match is Match.FULL:
                return match, entry, child
            if match is Match.PARTIAL and partial is None:
                partial = match, entry, child
        return partial

    def _asked(self, path: str, last: Entry) -> list[Entry]:
        entries = [self._entries[number] for number in self._tree.candidates(path)]
        return entries[: entries.index(last) + 1]

    def _redirects(self, scope: Scope, path: str) -> bool:
        if scope["type"] != "http" or not self._router.redirect_slashes or path == "/":
            return False
        full = scope["path"]
        other = {**scope, "path": full.rstrip("/") if path.endswith("/") else full + "/"}
        return self._select(other, route_path_of(other)) is not None

    def _low_priority(self, scope: Scope, path: str) -> Leaf | Kind | None:
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
        held = [part for part in getattr(route, "routes", ()) if is_below(path, prefix + str(part.path))]
        if not held:
            return self._unit(route)
        return self._frontend(max(held, key=lambda part: len(part.path)), prefix)

    def _frontend(self, route: Any, prefix: str) -> Leaf:
        template = self.prefix + (prefix + str(route.path)).rstrip("/") + "/**"
        return self._leaf(Kind.STATIC, template, methods=_FILES, app=getattr(route, "app", None))

    def _default(self) -> Leaf | None:
        """Return the application that stands in for "not found", if one does."""
        default = self._router.default
        return None if getattr(default, "__func__", None) is Router.not_found else self._unit(default)

    # Listing.

    def items(self) -> list[Leaf | _Level]:
        """Return what stands below this router, in its order."""
        with self._lock:
            return list(self._items())

    def _items(self) -> Iterator[Leaf | _Level]:
        router = self._known_router()
        stands = router is not None and (self._opaque is not None or self._snapshot.holds(router))
        if not stands or not all(entry.is_current() for entry in self._entries):
            self._build()
        if self._opaque is not None:
            yield self._opaque
            return
        for entry in self._entries:
            yield entry.content
        for candidate in getattr(self._router, "_iter_low_priority_routes", tuple)():
            prefix = getattr(candidate, "frontend_prefix", "")
            group = getattr(candidate, "original_route", candidate)
            for route in getattr(group, "routes", ()):
                yield self._frontend(route, prefix)
        if (default := self._default()) is not None:
            yield default

    # Building.

    def _known_router(self) -> Any:
        """Return the router that stands here now, if the index was built from it."""
        router: Any = self.owner.router if self._is_application else self.owner
        known = router is self._router and getattr(router, "middleware_stack", None) is self._stack
        return router if known else None

    def _build(self) -> Any:
        router: Any = self.owner.router if self._is_application else self.owner
        self.paths = KnownPaths()  # before all else: see `recall`
        self._router = None  # until all of it stands: a build that failed is no index
        self._snapshot = snapshot = Snapshot(list(router.routes) if isinstance(router, Router) else [])
        self._entries: list[Entry] = []
        self._tree = SegmentTree()
        self._known, self._leaves = self._leaves, {}
        self._opaque = None
        self._stack = getattr(router, "middleware_stack", None)
        if not isinstance(router, Router) or not routes_as_known(router) or not is_followed(router):
            self._opaque = self.whole
        else:
            for number, route in enumerate(snapshot.routes, 1):
                done = len(self._entries)
                self._add(route)
                place = number, len(snapshot.indexed), len(snapshot.included)
                for entry in self._entries[done:]:
                    entry.place = place
        snapshot.finish()
        self._known = {}
        self._router = router
        return router

    def _add(self, route: Any, includes: tuple[Any, ...] = ()) -> None:
        """Add a route; `includes` are the inclusions in which it stands, the outermost first."""
        fastapi = fastapi_routing()
        included = getattr(fastapi, "_IncludedRouter", None)
        if included is None or not isinstance(route, included):
            self._register(route, route, route.matches)
            return
        candidates = getattr(route, "effective_candidates", None)
        if (
            candidates is None
            or type(route) is not included
            or not is_plain_include(fastapi, type(route.original_router))
        ):
            self._tree.add_anywhere(len(self._entries))
            match = on_a_copy(route.matches)
            self._entries.append(Entry(route, match, self._unit(route), includes, None, partial_runs=True))
            return
        live = candidates()
        self._snapshot.included.append((route, live))
        for candidate in live:
            if isinstance(candidate, included):
                self._add(candidate, (*includes, route))
                continue
            original = candidate.original_route
            rebuilt = getattr(candidate, "starlette_route", None)
            subject, match = candidate, candidate.matches
            if rebuilt is not None:
                subject = original = rebuilt
            elif not answers_as_known(original, "matches"):
                match = in_context(candidate)
            self._register(subject, original, match, (*includes, route), candidate)

    def _register(
        self, subject: Any, original: Any, match: Any, includes: tuple[Any, ...] = (), candidate: Any = None
    ) -> None:
        """Add one route: `subject` has its effective path and name, `original` answers.

        FastAPI reaches it through `includes`, the last of which selects `candidate`; a router's own has neither.
        """
        template = None
        if answers_as_known(original, "matches"):
            template = indexable_template(subject)
            if not includes and not isinstance(subject, Host):
                self._snapshot.indexed.append(subject)
        else:
            match = on_a_copy(match)
        number = len(self._entries)
        if template is None:
            self._tree.add_anywhere(number)
        else:
            self._tree.add(number, template, single=single_segments(subject), subtree=isinstance(subject, Mount))
        content = self._content(subject, original)
        runs = not answers_as_known(original, "handle")
        is_by_path = answers_as_known(original, "matches") and isinstance(original, Route)
        entry = Entry(subject, match, content, includes, candidate, partial_runs=runs, is_by_path=is_by_path)
        self._entries.append(entry)

    def _content(self, subject: Any, original: Any) -> Leaf | _Level:
        if isinstance(subject, Mount | Host):
            return self._mounted(subject, original)
        path, name = getattr(subject, "path", None), getattr(subject, "name", None)
        endpoint = self._names + name if isinstance(name, str) else None
        if not isinstance(path, str) or (path and not path.startswith("/")):
            return self._unit(subject, endpoint=endpoint)
        websocket = isinstance(original, WebSocketRoute)
        return self._leaf(
            Kind.ROUTE,
            self.prefix + path.replace(":str}", "}"),
            endpoint=endpoint,
            methods=None if websocket else methods_run(subject, original),
            websocket=websocket,
            app=getattr(original, "endpoint", None),
            declared=declared_at(subject, original),
        )

    def _mounted(self, subject: Any, original: Any) -> Leaf | _Level:
        prefix, host = self.prefix, self.host
        if isinstance(subject, Host):
            host = subject.host
        else:
            prefix += subject.path.replace(":str}", "}")
        app, behind = mounted_at(subject)
        plain = answers_as_known(original, "matches") and answers_as_known(original, "handle")
        if plain and is_transparent(app):
            names = f"{self._names}{subject.name}:" if subject.name else self._names
            return _Level(app, prefix=prefix, host=host, names=names, behind=behind, reached=self._reached)
        kind = Kind.STATIC if plain and isinstance(app, StaticFiles) else Kind.OPAQUE
        endpoint = self._names + subject.name if subject.name else None
        # Its own answer to any other method is 405.
        methods = _FILES if type(app) is StaticFiles else None
        return self._leaf(kind, prefix + "/**", endpoint=endpoint, methods=methods, host=host, app=app)

    def _unit(self, app: Any, *, endpoint: str | None = None) -> Leaf:
        """Return the leaf of something that may answer everything below this level."""
        return self._leaf(Kind.OPAQUE, self.prefix + "/**", endpoint=endpoint, app=app)

    def _leaf(self, kind: Kind, template: str, *, host: str | None = None, app: Any = None, **values: Any) -> Leaf:
        """Return the leaf with these values: the one of the last build, if it stands still."""
        made = Leaf(kind=kind, template=template, host=host or self.host, app=app, **values)
        declared = (one.key for one in made.declared)
        key = (kind, template, made.endpoint, made.methods, made.websocket, made.host, id(app), *declared)
        leaf = self._leaves[key] = self._leaves.get(key) or self._known.get(key) or made
        return leaf


_FILES: Final = frozenset(("GET", "HEAD"))
