"""The rules of one route, in order of precedence, and the choice among them for a request."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from .index import Group, members, pick
from .templates import Method, matches_parts, split_path

if TYPE_CHECKING:
    from ..problems import Problem
    from .rule import CompiledRule

__all__ = ["Entry", "RoutePart", "RouteRules"]

# A template's segments, its rules, and whether it covers the whole route.
Entry: TypeAlias = "tuple[tuple[str, ...], Group, bool]"


class RouteRules:
    """The rules that can apply to one route.

    Attributes:
        problem: why no rule can be chosen: rules of equal rank contradict each other. Such a route is refused.
    """

    __slots__ = ("_blocks", "_declared", "_entries", "problem")

    def __init__(
        self,
        blocks: tuple[Entry, ...],
        entries: tuple[Entry, ...],
        declared: Group | None = None,
        problem: Problem | None = None,
    ) -> None:
        self._blocks = blocks
        self._entries = entries
        self._declared = declared
        self.problem = problem

    def candidates(self, *, whole: bool = False) -> tuple[CompiledRule, ...]:
        """Return every rule that some request of the route may get, each once.

        Args:
            whole: as in `select_whole`.
        """
        groups = [group for _, group, _ in self._blocks]
        groups += [] if self._declared is None else [self._declared]
        groups += [group for _, group, covers in self._entries if covers or not whole]
        return tuple({id(rule): rule for group in groups for rule in members(group)}.values())

    def select(self, method: Method, path: str) -> CompiledRule | None:
        """Return the rule for a request of the route, or None if it is unmapped.

        Args:
            method: upper case, or a handshake.
            path: decoded and application-relative; read only where rules cover a part of the route.
        """
        found = self._blocking(method, path) if self._blocks else None
        if found is not None:
            return found
        if self._declared is not None:
            found = pick(self._declared, method)
            # A class declares for some methods only; what it leaves open the table governs.
            if found is not None:
                return found
        parts: list[str] | None = None
        for segments, group, covers in self._entries:
            if not covers:
                if parts is None:
                    parts = split_path(path) or []
                if not matches_parts(segments, parts):
                    continue
            return pick(group, method)
        return None

    def select_whole(self, method: Method, path: str) -> CompiledRule | None:
        """Return the rule for a request of a route that is one unit, such as a foreign application.

        Nobody knows what a path runs in there, so a rule that covers a part of it says nothing, unless it blocks.
        """
        found = self._blocking(method, path)
        if found is None and self._declared is not None:
            found = pick(self._declared, method)
        if found is None and self._entries and self._entries[-1][2]:
            found = pick(self._entries[-1][1], method)
        return found

    def _blocking(self, method: Method, path: str) -> CompiledRule | None:
        parts: list[str] | None = None
        for segments, group, covers in self._blocks:
            found = pick(group, method)
            if found is not None:
                if not covers and parts is None:
                    parts = split_path(path) or []
                if covers or matches_parts(segments, parts or []):
                    return found
        return None

    def parts(self, method: Method, *, whole: bool = False) -> list[RoutePart]:
        """Return what `select` chooses for each part of the route's paths, in order of precedence.

        The last part covers what is left: its rule is None if requests there are unmapped.

        Args:
            method: as in `select`; `*` for every method that no rule names.
            whole: as in `select_whole`.
        """
        found: list[RoutePart] = []
        for _, group, covers in self._blocks:
            rule = pick(group, method)
            if rule is not None:
                found.append(RoutePart(rule, rule.template.text, covers))
                if covers:
                    return found
        if self._declared is not None and (rule := pick(self._declared, method)) is not None:
            return [*found, RoutePart(rule, rule.template.text, True)]
        for _, group, covers in self._entries:
            if covers or not whole:
                found.append(RoutePart(pick(group, method), members(group)[0].template.text, covers))
            if covers:
                return found
        return [*found, RoutePart(None, "", True)]


class RoutePart(NamedTuple):
    """A part of a route's paths, and the rule that governs it for one method; None if they are unmapped there.

    `covers` tells that this is all of the route that the parts before have left.
    """

    rule: CompiledRule | None
    template: str
    covers: bool
