"""The tree in which templates are found: one step for each segment of a path, whatever the number of rules."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias

from .rule import CompiledRule
from .templates import INT, NAME, REST, UUID, Method, Template, is_int, is_open, is_uuid, segments_overlap

__all__ = ["Group", "Index", "members", "pick"]

# The rules of one template by method; "*" holds the rule for every other method. Mostly there is one rule only.
Group: TypeAlias = "CompiledRule | dict[Method, CompiledRule]"


def pick(group: Group, method: Method) -> CompiledRule | None:
    """Choose by method: a listed one, GET for HEAD, then `*`."""
    if isinstance(group, CompiledRule):
        methods = group.methods
        if method in methods or "*" in methods or (method == "HEAD" and "GET" in methods):
            return group
        return None
    found = group.get(method)
    if found is None:
        if method == "HEAD":
            found = group.get("GET")
        if found is None:
            found = group.get("*")
    return found


def members(group: Group) -> tuple[CompiledRule, ...]:
    """Return the rules of a group; one may occur for several methods."""
    return (group,) if isinstance(group, CompiledRule) else tuple(group.values())


class _Node:
    """One place in the tree. An only literal child is kept without a dict: most places have one, and memory is time."""

    __slots__ = ("here", "integer", "literals", "name", "only", "only_child", "rest", "uuid")

    def __init__(self) -> None:
        self.only: str | None = None
        self.only_child: _Node | None = None
        self.literals: dict[str, _Node] | None = None
        self.uuid: _Node | None = None
        self.integer: _Node | None = None
        self.name: _Node | None = None
        self.here: Group | None = None
        self.rest: Group | None = None

    def literal(self, part: str) -> _Node | None:
        """Return the child of a literal segment."""
        if self.literals is not None:
            return self.literals.get(part)
        return self.only_child if self.only == part else None

    def add_literal(self, segment: str) -> _Node:
        """Return the child of a literal segment, made if need be."""
        found = self.literal(segment)
        if found is not None:
            return found
        child = _Node()
        if self.literals is not None:
            self.literals[segment] = child
        elif self.only is None or self.only_child is None:
            self.only, self.only_child = segment, child
        else:
            self.literals = {self.only: self.only_child, segment: child}
            self.only = self.only_child = None
        return child


class Index:
    """Templates with their groups; what it finds first is the most specific.

    A literal comes before a uuid, an int, a `{name}` and the rest, decided at the first segment where two differ.
    """

    __slots__ = ("_root",)

    def __init__(self) -> None:
        self._root: _Node | None = None

    def __bool__(self) -> bool:
        return self._root is not None

    def add(self, segments: tuple[str, ...], group: Group) -> None:
        """Put a template's rules in; each template once."""
        node = self._root
        if node is None:
            node = self._root = _Node()
        for segment in segments:
            if segment == REST:
                node.rest = group
                return
            if segment[0] != "{":
                child = node.add_literal(segment)
            elif segment == NAME:
                child = node.name = node.name or _Node()
            elif segment == INT:
                child = node.integer = node.integer or _Node()
            else:
                child = node.uuid = node.uuid or _Node()
            node = child
        node.here = group

    def find(self, parts: list[str]) -> Group | None:
        """Return the group of the most specific template that matches a split path."""
        return _find(self._root, parts, 0, len(parts)) if self._root is not None else None

    def find_for(self, parts: list[str], method: Method) -> CompiledRule | None:
        """Return the most specific rule that matches path and method; a template without the method is passed over."""
        return _find_for(self._root, parts, 0, len(parts), method) if self._root is not None else None

    def overlapping(self, route: Template) -> Iterator[tuple[tuple[str, ...], Group]]:
        """Yield every template that shares a path with a route's template, most specific first."""
        if self._root is not None:
            yield from _overlapping(self._root, route.segments, 0, ())

    def covering(self, segments: tuple[str, ...]) -> Iterator[Group]:
        """Yield the groups of the templates that cover a rule's template."""
        if self._root is not None:
            yield from _covering(self._root, segments, 0)


def _find(node: _Node, parts: list[str], at: int, end: int) -> Group | None:
    if at == end:
        return node.here if node.here is not None else node.rest
    part = parts[at]
    at += 1
    literals = node.literals  # as in `literal`, without the call
    child = literals.get(part) if literals is not None else node.only_child if node.only == part else None
    if child is not None:
        found = _find(child, parts, at, end)
        if found is not None:
            return found
    if part:
        for child in _parameters(node, part):
            found = _find(child, parts, at, end)
            if found is not None:
                return found
    return node.rest


def _parameters(node: _Node, part: str) -> list[_Node]:
    found = []
    if node.uuid is not None and is_uuid(part):
        found.append(node.uuid)
    if node.integer is not None and is_int(part):
        found.append(node.integer)
    if node.name is not None:
        found.append(node.name)
    return found


def _find_for(node: _Node, parts: list[str], at: int, end: int, method: Method) -> CompiledRule | None:
    if at == end:
        found = pick(node.here, method) if node.here is not None else None
    else:
        found = None
        part = parts[at]
        child = node.literal(part)
        if child is not None:
            found = _find_for(child, parts, at + 1, end, method)
        if found is None and part:
            for child in _parameters(node, part):
                found = _find_for(child, parts, at + 1, end, method)
                if found is not None:
                    break
    return found if found is not None or node.rest is None else pick(node.rest, method)


def _children(node: _Node) -> Iterator[tuple[str, _Node]]:
    if node.literals is not None:
        yield from node.literals.items()
    elif node.only is not None and node.only_child is not None:
        yield node.only, node.only_child
    for segment, child in ((UUID, node.uuid), (INT, node.integer), (NAME, node.name)):
        if child is not None:
            yield segment, child


def _overlapping(
    node: _Node, route: tuple[str, ...], at: int, above: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], Group]]:
    wide = at < len(route) and is_open(route[at])
    if node.here is not None and (wide or at == len(route)):
        here = (above, node.here)
    else:
        here = None
    if wide:
        for segment, child in _children(node):
            yield from _overlapping(child, route, at, (*above, segment))
    elif at < len(route):
        wanted = route[at]
        if "{" in wanted:
            children: Iterator[tuple[str, _Node]] = _children(node)
        else:
            children = _on_path(node, wanted)
        for segment, child in children:
            if segments_overlap(segment, wanted):
                yield from _overlapping(child, route, at + 1, (*above, segment))
    if here is not None:
        yield here
    if node.rest is not None:
        yield (*above, REST), node.rest


def _on_path(node: _Node, literal: str) -> Iterator[tuple[str, _Node]]:
    child = node.literal(literal)
    if child is not None:
        yield literal, child
    for segment, other in ((UUID, node.uuid), (INT, node.integer), (NAME, node.name)):
        if other is not None:
            yield segment, other


def _covering(node: _Node, segments: tuple[str, ...], at: int) -> Iterator[Group]:
    if node.rest is not None:
        yield node.rest
    if at == len(segments):
        if node.here is not None:
            yield node.here
        return
    segment = segments[at]
    if segment == REST:
        return
    if "{" not in segment:
        literal = node.literal(segment)
        children = [*([literal] if literal is not None else []), *_parameters(node, segment)]
    else:
        own = {UUID: node.uuid, INT: node.integer, NAME: None}[segment]
        children = [child for child in (own, node.name) if child is not None]
    for child in children:
        yield from _covering(child, segments, at + 1)
