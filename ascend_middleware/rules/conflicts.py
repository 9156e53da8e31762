"""What can be wrong between rules: two that claim the same request, one that can never match.

Two different templates that match one path are never of equal rank, so only rules of one template can conflict, and
only blocks can hide a rule of another template. Both are looked up, never compared pair by pair.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from ..problems import Report
from .index import Group, Index, members
from .rule import CompiledRule, outcome_of
from .templates import Method

__all__ = ["rank_declared", "report_blocked", "resolve"]


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
    if one.block is not None and two.block is not None and one.methods != two.methods:
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
    """Drop declared rules that repeat another, and report those that contradict a rule for the same endpoint.

    Args:
        declared: the rules that stand at a route's handler.
        rivals: the table's rules that name the route's endpoint; blocks are none, for they win.
        report: gets a problem for each pair of different outcomes; a handler and a table are never weighed.
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
