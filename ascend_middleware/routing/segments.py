"""A tree of path segments that narrows many route templates down to the few that can match a path.

It may name a candidate too many, never one too few: whoever asks confirms each by the framework's own match.
"""

from __future__ import annotations

import re

__all__ = ["SegmentTree"]

_PARAMETER = re.compile(r"\{([a-zA-Z_][a-zA-Z0-9_]*)(?::[a-zA-Z_][a-zA-Z0-9_]*)?\}")


class _Node:
    __slots__ = ("any", "here", "literal", "rest")

    def __init__(self) -> None:
        self.literal: dict[str, _Node] = {}
        self.any: _Node | None = None
        self.here: list[int] = []  # templates that end exactly here
        self.rest: list[int] = []  # templates that may match whatever follows


class SegmentTree:
    """Candidates by number; a lower number was registered earlier and is asked first."""

    __slots__ = ("_root",)

    def __init__(self) -> None:
        self._root = _Node()

    def add_anywhere(self, number: int) -> None:
        """Register what no template describes: a candidate for every path."""
        self._root.rest.append(number)

    def add(self, number: int, template: str, *, single: frozenset[str], subtree: bool) -> None:
        """Register a template.

        Args:
            number: what `candidates` returns.
            template: a path, each parameter as `{name}` or `{name:convertor}`.
            single: the parameters that cannot hold a slash.
            subtree: whether the template covers everything below it, too.
        """
        node = self._root
        for segment in template.split("/")[1:]:
            if "{" not in segment:
                node = node.literal.setdefault(segment, _Node())
                continue
            parameter = _PARAMETER.fullmatch(segment)
            if parameter is None or parameter[1] not in single:
                node.rest.append(number)
                return
            if node.any is None:
                node.any = _Node()
            node = node.any
        (node.rest if subtree else node.here).append(number)

    def candidates(self, path: str) -> list[int]:
        """Return the numbers of all templates that may match, in order of registration."""
        # `$` in a route's regular expression also matches before a final newline.
        segments = path.rstrip("\n").split("/")
        last = len(segments)
        found: list[int] = []
        todo = [(self._root, 1)]
        while todo:
            node, depth = todo.pop()
            if node.rest:
                found += node.rest
            if depth >= last:
                found += node.here
                continue
            literal = node.literal.get(segments[depth])
            if literal is not None:
                todo.append((literal, depth + 1))
            if node.any is not None:
                todo.append((node.any, depth + 1))
        if len(found) > 1:
            found.sort()
        return found
