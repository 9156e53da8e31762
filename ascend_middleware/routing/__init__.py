"""Which route a request runs: a resolver for each framework, what all of them tell, and the listing of routes."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..rules import Declaration

__all__ = ["MATCH", "Confirmed", "Entered", "Kind", "Known", "Leaf", "Resolved", "Stop"]


# Where the scope of a request has the match that its next router is to take.
MATCH: Final = "ascend_middleware.match"


class Kind(StrEnum):
    """What stands at the end of routing; the last four are answered by the framework itself."""

    ROUTE = "route"
    STATIC = "static"
    OPAQUE = "opaque"
    NOT_FOUND = "not-found"
    METHOD_NOT_ALLOWED = "method-not-allowed"
    REDIRECT = "redirect"
    OPTIONS = "options"


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True, kw_only=True)
class Leaf:
    """One governed unit: a route, a mounted file tree, or a foreign application behind a mount.

    Compared and hashed by identity, so that it keys a cache at no cost. A resolver hands out the same object for the
    same unit as long as the unit stands. `app` is what runs there, where the resolver knows it; `declared` are the
    rules that stand at it (`rules.declared`).
    """

    kind: Kind
    template: str
    endpoint: str | None = None
    methods: frozenset[str] | None = None
    websocket: bool = False
    host: str | None = None
    app: object | None = field(default=None, repr=False)
    declared: tuple[Declaration, ...] = ()


class Stop:
    """What an adapter put into an application's own chain of callables.

    Attributes:
        app: the next of the chain.
    """

    app: Any


class Entered(NamedTuple):
    """A place on the way of a request where something of the application may still change it.

    `owner` is a mounted application or router, or a route with middleware of its own; `root_path` and `params` are what
    it is given, and `route` is the one of its own routes that leads on.
    """

    owner: Any
    root_path: str
    params: Mapping[str, Any]
    route: Confirmed | None = None


class Confirmed(msgspec.Struct, frozen=True, eq=False):
    """The route that a router is to run, and the match that was decided about; nothing is matched a second time.

    `stand_in` takes the route's place among the router's routes. It is made once for each route, and finds the `match`
    where the request carries it. `full` is the word for it, `child` what the match adds to the scope; with `params`,
    which stand for its `path_params`, it serves many requests.
    """

    stand_in: Any
    full: Any
    child: Mapping[str, Any]
    params: Mapping[str, Any] | None = None

    @property
    def match(self) -> tuple[Any, Any]:
        """The match as a router takes it, for one request: its parameters are the handler's to change."""
        if self.params is None:
            return self.full, self.child
        return self.full, {**self.child, "path_params": {**self.params}}


class Known:
    """What a path came to under a method that came before, for as long as it comes to the same.

    Attributes:
        target: the whole path, and the bytes that it came as, that were found to be ordinary.
        told: what whoever decides about such requests keeps of it for the next.
        way: likewise, whoever runs what is decided about, and what comes next being `behind`.
    """

    __slots__ = ("behind", "target", "told", "way")

    def __init__(self) -> None:
        self.target: tuple[str, bytes | None] | None = None
        self.told: Any = None
        self.behind: Any = None
        self.way: Any = None


class Resolved(msgspec.Struct, frozen=True):
    """What one request will run, or each of many that come to the same.

    `leaf` is None where the framework answers itself. `params` are the router's converted path parameters, `path` is
    the decoded path below the server's root path, as the outermost router saw it. `entered` are the places on the way
    that are to be looked at again. `route` is the one of the outermost router's own routes that leads there; None
    where no route does. `known` is one object for all requests of the same path and method that came to the same; None
    where nobody can tell.
    """

    leaf: Leaf | None
    kind: Kind
    params: Mapping[str, Any]
    path: str
    entered: tuple[Entered, ...] = ()
    route: Confirmed | None = None
    known: Known | None = None
