"""Paths that come again, with what the router found for them.

What a route of Starlette with Starlette's convertors makes of a request depends on the path and the method only. So
it is not asked a third time about a path that came twice, as long as the routes stand as they stood.
"""

from __future__ import annotations

from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final

import msgspec
from starlette.routing import Match

from . import Confirmed, Known, Resolved

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .starlette_entries import Entry

__all__ = ["KnownPath", "KnownPaths", "is_made_of"]

_MOST: Final = 1024
_LONGEST: Final = 200
_SEEN: Final = 4096
# All that a match tells, but the parameters.
_TOLD: Final = frozenset({"endpoint", "route"})
# What a route matches by, and what it runs; its methods are compared by value.
is_made_of: Final = attrgetter("path_regex", "param_convertors", "endpoint", "path", "name", "app")


class KnownPath(msgspec.Struct, frozen=True, eq=False):
    """One path under one method: what it runs, by the last of the routes that were `asked`.

    Of each of these, `asked` has what it was made of (see `is_made_of`), and its methods; `place` is the last one's.
    """

    resolved: Resolved
    place: tuple[int, int, int]
    asked: tuple[tuple[Any, tuple[Any, ...], frozenset[str] | None], ...]


class KnownPaths(dict[tuple[str, str], KnownPath]):
    """The paths of one router, by path and method; those that do not come again take no place."""

    def __init__(self) -> None:
        super().__init__()
        self._seen = [0] * _SEEN

    def come_again(self, path: str, method: str) -> bool:
        """Say whether such a request came before, of late; from now on one has."""
        number = hash(path) ^ hash(method)
        place = number % _SEEN
        if self._seen[place] == number:
            return True
        self._seen[place] = number
        return False

    def keep(self, path: str, method: str, asked: Sequence[Entry], child: dict[str, Any]) -> None:
        """Keep the full match of the last route that was asked, if nothing but path and method plays a part."""
        last, told = asked[-1], dict(child)
        params = told.pop("path_params", None)
        if len(path) > _LONGEST or params is None or not _TOLD.issuperset(told) or last.inside is not None:
            return
        if not all(entry.is_by_path for entry in asked):
            return
        if len(self) >= _MOST:
            self.clear()
        routes = tuple((route, is_made_of(route), route.methods) for route in (entry.subject for entry in asked))
        route = Confirmed(last.confirmed(Match.FULL, child).stand_in, Match.FULL, told, dict(params))
        resolved = Resolved(last.content, last.content.kind, dict(params), path, (), route, Known())
        self[path, method] = KnownPath(
            resolved,
            last.place,
            tuple((route, parts, methods and frozenset(methods)) for route, parts, methods in routes),
        )
