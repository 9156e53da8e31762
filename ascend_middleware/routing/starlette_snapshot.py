"""What a router's routes were when an index was built from them, and whether they still are."""

from __future__ import annotations

from operator import attrgetter, is_
from typing import Any, Final

__all__ = ["Snapshot"]

# So many routes are looked at sooner than some of them are picked.
_FEW: Final = 16
_regex_of: Final = attrgetter("path_regex")


class Snapshot:
    """The routes of one router as they were.

    Attributes:
        routes: all of them, in their order.
        indexed: those that are found by their template, whose expression must stay what it was.
        included: FastAPI's inclusions of other routers, each with what it included.
    """

    __slots__ = ("_regexes", "included", "indexed", "routes")

    def __init__(self, routes: list[Any]) -> None:
        self.routes: Final = routes
        self.indexed: Final[list[Any]] = []
        self.included: Final[list[tuple[Any, object]]] = []
        self._regexes: list[Any] = []

    def finish(self) -> None:
        """Take the expressions of all that were indexed."""
        self._regexes = list(map(_regex_of, self.indexed))

    def holds(self, router: Any, place: tuple[int, int, int] | None = None) -> bool:
        """Tell whether the router's routes are the same, in all or up to a `place`: see `Entry`.

        Those behind it are not asked about a request that the route there takes.
        """
        now, routes, indexed, included = router.routes, self.routes, self.indexed, self.included
        regexes = self._regexes
        if place is None or len(routes) <= _FEW:
            if len(now) != len(routes):
                return False
        else:
            of_routes, of_indexed, of_included = place
            if len(now) < of_routes:
                return False
            routes, included = routes[:of_routes], included[:of_included]
            indexed, regexes = indexed[:of_indexed], regexes[:of_indexed]
        # By identity: routes compare equal by path and endpoint, and equal ones may still differ.
        return (
            all(map(is_, now, routes))
            and list(map(_regex_of, indexed)) == regexes
            and (not included or all(one.effective_candidates() is known for one, known in included))
        )
