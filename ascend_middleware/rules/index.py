"""Rules in order of precedence: the tree in which templates are found, the choice for a route, and what contradicts.

A lookup takes one step for each segment of a path, whatever the number of rules. Two different templates that match one
path are never of equal rank, so only rules of one template can conflict, and only blocks can hide a rule of another
template. Both are looked up, never compared pair by pair.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from .rule import CompiledRule, outcome_of
from .templates import (
    INT,
    NAME,
    REST,
    UUID,
    Method,
    Template,
    is_int,
    is_open,
    is_uuid,
    matches_parts,
    segments_overlap,
    split_path,
)

if TYPE_CHECKING:
    from ..problems import Problem, Report

# The rules of one template by method; "*" holds the rule for every other method. Mostly there is one rule only.
Group: TypeAlias = "CompiledRule | dict[Method, CompiledRule]"
# A template's segments, its rules, and whether it covers the whole route.
Entry: TypeAlias = "tuple[tuple[str, ...], Group, bool]"
_PARAMETERS: Final = (UUID, INT, NAME)


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


class Index:
    """Templates with their groups, as a tree, of which this is a place; what it finds first is the most specific.

    A literal comes before a uuid, an int, a `{name}` and the rest, decided at the first segment where two differ. No
    literal looks like a parameter, so that the children of both kinds share a dict. Below a place that only one
    template goes through there are none: it keeps all of that template's segments, which need no memory of their own.
    """

    __slots__ = ("_alone", "_children", "_here", "_rest")

    def __init__(self, alone: tuple[str, ...] | None = None, group: Group | None = None) -> None:
        self._alone = alone
        self._children: dict[str, Index] = {} if alone is None else _NOTHING
        self._here = group
        self._rest: Group | None = None

    def add(self, segments: tuple[str, ...], group: Group) -> None:
        """Put a template's rules in; each template once."""
        place = self
        for depth, segment in enumerate(segments):
            place._open(depth)
            if segment == REST:
                place._rest = group
                return
            child = place._children.get(segment)
            if child is None:
                place._children[segment] = Index(segments, group)
                return
            place = child
        place._open(len(segments))
        place._here = group

    def _open(self, depth: int) -> None:
        """Make room for another template at this place, which so many segments lead to."""
        if self._alone is not None:
            self._children, self._here, self._rest = self._at(depth)
            self._alone = None

    def _at(self, depth: int) -> tuple[dict[str, Index], Group | None, Group | None]:
        """Return the children, and the groups of the templates that end here and of those whose rest begins here."""
        alone, group = self._alone, self._here
        if alone is None:
            return self._children, group, self._rest
        if depth == len(alone):
            return {}, group, None
        segment = alone[depth]
        return ({}, None, group) if segment == REST else ({segment: Index(alone, group)}, None, None)

    def find(self, parts: list[str], method: Method, *, listed: bool = False) -> CompiledRule | None:
        """Return the rule of the most specific template that matches a split path.

        With `listed`, a template without the method is passed over.
        """
        group = self._find(parts, 0, method if listed else None)
        return pick(group, method) if group is not None else None

    def _find(self, parts: list[str], at: int, method: Method | None) -> Group | None:
        here, rest, alone = self._here, self._rest, self._alone
        if alone is not None:
            if here is not None and matches_parts(alone, parts, at) and (method is None or pick(here, method)):
                return here
            return None
        if at < len(parts):
            for child in _matching(self._children, parts[at]):
                found = child._find(parts, at + 1, method)
                if found is not None:
                    return found
        elif here is not None and (method is None or pick(here, method) is not None):
            return here
        return rest if rest is None or method is None or pick(rest, method) is not None else None

    def entries(self, route: Template) -> list[Entry]:
        """Return every template that shares a path with a route's template, most specific first."""
        found = self._overlapping(route.segments, 0, ())
        return [(segments, group, Template("", segments, ()).covers(route)) for segments, group in found]

    def _overlapping(
        self, route: tuple[str, ...], at: int, above: tuple[str, ...]
    ) -> Iterator[tuple[tuple[str, ...], Group]]:
        children, here, rest = self._at(len(above))
        wanted = route[at] if at < len(route) else None
        wide = wanted is not None and is_open(wanted)
        if wanted is not None:
            # Below a literal nothing but itself and parameters counts, however many others there are.
            literals = (wanted,) if "{" not in wanted and not wide else (one for one in children if one[0] != "{")
            for segment in (*literals, *_PARAMETERS):
                child = children.get(segment)
                if child is not None and (wide or segments_overlap(segment, wanted)):
                    yield from child._overlapping(route, at if wide else at + 1, (*above, segment))
        if here is not None and (wide or wanted is None):
            yield above, here
        if rest is not None:
            yield (*above, REST), rest

    def covering(self, segments: tuple[str, ...], at: int = 0) -> Iterator[Group]:
        """Yield the groups of the templates that cover a rule's template, from its segment `at` on."""
        children, here, rest = self._at(at)
        if rest is not None:
            yield rest
        if at == len(segments):
            if here is not None:
                yield here
            return
        segment = segments[at]
        if segment == REST:
            return
        if "{" in segment:
            found = [children[one] for one in dict.fromkeys((segment, NAME)) if one in children]
        else:
            found = _matching(children, segment)
        for child in found:
            yield from child.covering(segments, at + 1)


# Of places without children; nobody writes to it.
_NOTHING: Final[dict[str, Index]] = {}


def _matching(children: dict[str, Index], part: str) -> list[Index]:
    """Return the children that match a part of a path, the most specific first."""
    found = []
    if part[:1] != "{" and (child := children.get(part)) is not None:
        found.append(child)
    if (child := children.get(UUID)) is not None and is_uuid(part):
        found.append(child)
    if (child := children.get(INT)) is not None and is_int(part):
        found.append(child)
    if part and (child := children.get(NAME)) is not None:
        found.append(child)
    return found


# --- the rules of one route


class RouteRules:
    """The rules that can apply to one route.

    `problem` tells why none can be chosen: rules of equal rank contradict each other. Such a route is refused.
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
        """Return every rule that some request of the route may get, each once; `whole` as in `parts`."""
        groups = [group for _, group, _ in self._blocks]
        groups += [] if self._declared is None else [self._declared]
        groups += [group for _, group, covers in self._entries if covers or not whole]
        return tuple({id(rule): rule for group in groups for rule in members(group)}.values())

    def select(self, method: Method, path: str, *, whole: bool = False) -> CompiledRule | None:
        """Return the rule for a request of the route, or None if it is unmapped; `whole` as in `parts`.

        The path is decoded and application-relative; it is read only where rules cover a part of the route.
        """
        split: list[str] | None = None
        for part in self.parts(method, whole=whole):
            if part.covers:
                return part.rule
            if split is None:
                split = split_path(path) or []
            if matches_parts(part.template.segments, split):
                return part.rule
        return None

    def parts(self, method: Method, *, whole: bool = False) -> Iterator[RoutePart]:
        """Yield what is chosen for each part of the route's paths, in order of precedence.

        The last part covers what is left: its rule is None if requests there are unmapped. The method `*` stands for
        every one that no rule names. A route may be one unit as a `whole`, such as a foreign application: nobody knows
        what a path runs in there, so a rule that covers a part of it says nothing, unless it blocks.
        """
        for _, group, covers in self._blocks:
            rule = pick(group, method)
            if rule is not None:
                yield RoutePart(rule, rule.template, covers)
                if covers:
                    return
        # A class declares for some methods only; what it leaves open the table governs.
        if self._declared is not None and (rule := pick(self._declared, method)) is not None:
            yield RoutePart(rule, rule.template, True)
            return
        for _, group, covers in self._entries:
            if covers or not whole:
                yield RoutePart(pick(group, method), members(group)[0].template, covers)
            if covers:
                return
        yield RoutePart(None, Template("", (), ()), True)


class RoutePart(NamedTuple):
    """A part of a route's paths, and the rule that governs it for one method; None if they are unmapped there.

    `covers` tells that this is all of the route that the parts before have left.
    """

    rule: CompiledRule | None
    template: Template
    covers: bool


# --- what contradicts


def resolve(rules: Sequence[CompiledRule], report: Report) -> Group:
    """Choose the rule for each method among the rules of one template, the narrower method set first."""
    if len(rules) == 1:
        return rules[0]
    # Nothing here may depend on the rules' order.
    ranked = sorted(rules, key=lambda rule: (len(rule.methods), sorted(map(str, rule.methods))))
    group: dict[Method, CompiledRule] = {}
    conflicts: dict[tuple[int, int], Method] = {}
    for method in sorted({method for rule in rules for method in rule.methods}, key=str):
        best, *others = [place for place, rule in enumerate(ranked) if method in rule.methods]
        group[method] = ranked[best]
        for other in others:
            if not ranked[best].methods < ranked[other].methods:
                conflicts.setdefault((best, other), method)
    told = set()
    for (first, second), method in conflicts.items():
        if _report_conflict(ranked[first], ranked[second], method, report):
            told |= {id(ranked[first]), id(ranked[second])}
    alive = {id(rule) for rule in group.values()}
    for rule in rules:
        if id(rule) not in alive and id(rule) not in told:
            winners = ", ".join(sorted({group[method].place for method in rule.methods}))
            report.add("dead", (rule.place,), f"can never match: every method of it belongs to {winners}", "remove it")
    return group


def _report_conflict(one: CompiledRule, two: CompiledRule, method: Method, report: Report) -> bool:
    first, second = sorted((one, two), key=lambda rule: rule.number)
    if _same(one, two):
        if one.methods == two.methods:
            report.add("duplicate", (second.place,), f"says the same as {_shown(first)}", "remove one")
        return one.methods == two.methods
    if two.block is not None and one.methods != two.methods:
        return False  # both refuse
    report.add(
        "conflict",
        (second.place,),
        f"{_witness(one, method)} matches {_shown(first)} as well, with another outcome",
        "give one of them a more specific template or fewer methods",
    )
    return True


def _shown(rule: CompiledRule) -> str:
    return rule.place if rule.name is None or rule.line else f"{rule.label} (rule {rule.number})"


def _witness(rule: CompiledRule, method: Method) -> str:
    return f"{'GET' if method == '*' else method} {rule.template.example()}"


def rank_declared(
    declared: Sequence[CompiledRule], rivals: Sequence[CompiledRule], report: Report
) -> list[CompiledRule]:
    """Drop rules declared at a route's handler that repeat another, and report those that contradict a rival.

    Rivals are the table's rules that name the route's endpoint; blocks are none, for they win. A handler and a table
    are never weighed.
    """
    kept: list[CompiledRule] = []
    for rule in declared:
        if any(rule.methods == other.methods and _same(rule, other) for other in kept):
            continue
        kept.append(rule)
        for rival in rivals:
            shared = "*" in rule.methods or "*" in rival.methods or rule.methods & rival.methods
            if rule.block is None and shared and not _same(rule, rival):
                report.add(
                    "conflict",
                    (rule.place,),
                    f"{_shown(rival)} names the same endpoint, with another outcome",
                    "keep the rule at the handler or the one in the table",
                )
    return kept


def _same(one: CompiledRule, two: CompiledRule) -> bool:
    return outcome_of(one.given) == outcome_of(two.given)


def report_blocked(
    rules: Iterable[CompiledRule], blocks_of: Callable[[CompiledRule], Sequence[Index]], report: Report
) -> None:
    """Report every rule of which all requests are blocked; `blocks_of` names the blocks that can concern a rule."""
    for rule in rules:
        blocked: dict[Method, CompiledRule] = {}
        for index in blocks_of(rule):
            for group in index.covering(rule.template.segments):
                for block in members(group):
                    blocked.update((method, block) for method in block.methods if method not in blocked)
        if not blocked:
            continue
        if "*" in blocked:
            by = blocked["*"]
        elif all(method in blocked or (method == "HEAD" and "GET" in blocked) for method in rule.methods):
            by = blocked.get(min(rule.methods, key=str)) or blocked["GET"]
        else:
            continue
        witness = _witness(rule, min(rule.methods, key=str))
        report.add(
            "dead",
            (rule.place,),
            f"can never match: {witness} and all else it matches is blocked by {_shown(by)}",
            "remove one of the two",
        )
