"""Paths that come again, in frameworks that route a request before anybody else sees it.

Such a request is routed by its framework, each time. What is told of it is kept for the next one of the same path and
method that came to the same: then whoever decides about it need not make the same of it once more.
"""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any, Final

import msgspec

from . import Known, Resolved

if TYPE_CHECKING:
    from collections.abc import Mapping

    from . import Leaf

__all__ = ["Recurring"]

_PLACES: Final = 1024
_LONGEST: Final = 200
# Of these types, values that are equal are the same.
_PLAIN: Final = frozenset({str, int, uuid.UUID})


class _Kept(msgspec.Struct, frozen=True, eq=False):
    method: str
    types: tuple[type, ...]
    resolved: Resolved


class Recurring:
    """What the requests of one application came to; a path that does not come again takes no more than its number."""

    __slots__ = ("_places",)

    def __init__(self) -> None:
        self._places: list[Any] = [None] * _PLACES

    def resolve(self, leaf: Leaf, method: str, params: Mapping[str, Any], path: str) -> Resolved:
        """Return what a request runs: one object for all that come to the same, from the second one on.

        Args:
            leaf: what the framework found.
            method: the request's.
            params: as they stand now; the application's own functions may have changed them.
            path: decoded and application-relative.
        """
        number = hash((path, method))
        kept = self._places[number % _PLACES]
        if type(kept) is _Kept:
            found = kept.resolved
            if (
                found.leaf is leaf
                and found.path == path
                and kept.method == method
                and found.params == params
                and kept.types == (*map(type, params.values()),)
            ):
                return found
        # A copy: what the view gets is the application's to change.
        own, known = dict(params), None
        types = (*map(type, own.values()),)
        if kept == number and len(path) <= _LONGEST and _PLAIN.issuperset(types):
            known = Known()
        found = Resolved(leaf, leaf.kind, own, path, (), None, known)
        self._places[number % _PLACES] = number if known is None else _Kept(method, types, found)
        return found
