"""What is to be reached, beside what was; a goal whose table was not measured is left out."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any, NamedTuple

Figures = dict[str, Any]


class Goal(NamedTuple):
    """One goal; `reached` finds the values, each of which has to be at least, or at most, what is wanted."""

    title: str
    wanted: float
    at_least: bool
    reached: Callable[[Figures], list[float]]
    unit: str = ""


def _rates(
    section: str, ours: str, base: str, levels: tuple[str, ...] = ("16", "64")
) -> Callable[[Figures], list[float]]:
    def reached(figures: Figures) -> list[float]:
        table = figures[section]
        table = table.get("levels", table)
        return [_ratio(table[level][ours], table[level][base]) for level in levels]

    return reached


def _ratio(ours: dict[str, Any], base: dict[str, Any]) -> float:
    """Compare bursts of the same round, then take the median; two medians are not of the same moment."""
    rounds = zip(ours.get("rounds") or [ours["rate"]], base.get("rounds") or [base["rate"]], strict=True)
    return statistics.median(mine / other for mine, other in rounds)


def _added(figures: Figures) -> list[float]:
    return [figures["governed"]["levels"]["64"]["auto"]["cpu"] - 1]


def _calls(figures: Figures) -> list[float]:
    table = figures["governed"]["levels"]
    cost = {at: (table[at]["auto"]["cpu"] - 1) * table[at]["bare"]["cpu seconds"] for at in ("16", "64")}
    return [cost["64"] / cost["16"]]


def _in_process(ours: str) -> Callable[[Figures], list[float]]:
    def reached(figures: Figures) -> list[float]:
        found = figures["in process"]
        return [(found[name] - found["bare"]) / found["bare"] for name in (ours, f"{ours} elsewhere")]

    return reached


def _exempt(title: str) -> Callable[[Figures], list[float]]:
    return lambda figures: [1 / figures["exempt"][title]["rate"]]


def _imported(module: str) -> Callable[[Figures], list[float]]:
    return lambda figures: [figures["imports"][module] / figures["imports"]["httpx2"]]


def _lookups(kind: str) -> Callable[[Figures], list[float]]:
    return lambda figures: [figures["lookup"][f"{kind} 10000"] / figures["lookup"][f"{kind} 10"]]


def _largest(figures: Figures, name: str) -> list[float]:
    if figures["lookup"]["rules"] != 10_000:
        raise KeyError(name)
    return [figures["lookup"][name]]


def _times(section: str, ours: str, base: str) -> Callable[[Figures], list[float]]:
    return lambda figures: [figures[section][ours] / figures[section][base]]


GOALS = (
    Goal(
        "processor time added in process, engine that answers at once, journal off, × bare, uvicorn and another server",
        0.35,
        False,
        _in_process("instant"),
    ),
    Goal("the same with the journal on", 0.5, False, _in_process("instant+journal")),
    Goal("processor time added to one request, c=64, × bare", 0.7, False, _added),
    Goal("processor time per governed call, c=64 against c=16", 1.2, False, _calls),
    Goal("throughput, c=16 and 64, × the SDK", 6.5, True, _rates("governed", "auto", "sdk")),
    Goal("throughput, c=16 and 64, × bare", 0.6, True, _rates("governed", "auto", "bare")),
    Goal("throughput without httptools, c=16 and 64, × the SDK", 4, True, _rates("h11", "auto", "sdk")),
    Goal("outcomes reported against not, asyncio, c=16 and 64", 0.85, True, _rates("governed", "auto+reports", "auto")),
    Goal(
        "outcomes reported against not, threads, c=16 and 64",
        0.85,
        True,
        _rates("flask", "flask-auto+reports", "flask-auto"),
    ),
    Goal("throughput, Flask, c=16 and 64, × the SDK", 4, True, _rates("flask", "flask-auto", "flask-sdk")),
    Goal(
        "throughput, Django in threads, c=16 and 64, × the SDK",
        3.5,
        True,
        _rates("django", "django-auto", "django-sdk"),
    ),
    Goal(
        "exempt on FastAPI, 10 routes, repeated paths, × the no-op middleware",
        1.05,
        False,
        _exempt("FastAPI, 10 routes, repeated paths"),
    ),
    Goal(
        "exempt on FastAPI, 100 routes, every path different, × the no-op middleware",
        0.95,
        False,
        _exempt("FastAPI, 100 routes, every path different"),
    ),
    Goal(
        "exempt over an application that does nothing, 10,000 rules, × no-op",
        1.5,
        False,
        _exempt("an application that does nothing, 10,000 rules"),
    ),
    Goal(
        "exempt in process, 10 routes, processor time × the no-op middleware",
        1.05,
        False,
        _times("in process", "exempt", "exempt-no-op"),
    ),
    Goal(
        "cached decision in process, journal on, processor time × the no-op middleware",
        1.35,
        False,
        _times("in process", "cached", "no-op"),
    ),
    Goal("import of `ascend_middleware.client`, × that of `httpx2`", 1.2, False, _imported("ascend_middleware.client")),
    Goal("import of `ascend_middleware`, × that of `httpx2`", 1.2, False, _imported("ascend_middleware")),
    Goal(
        "the embedded authority, c=16 and 64, × a constant",
        0.28,
        True,
        lambda figures: [figures["embedded"][at]["ratio"] for at in ("16", "64")],
    ),
    Goal("a submission with 1,000 policies, × with 10", 2, False, _times("policies", "1000", "10")),
    Goal("lookup, hit, 10,000 rules against 10", 1.5, False, _lookups("hit")),
    Goal("lookup, miss, 10,000 rules against 10", 1.2, False, _lookups("miss")),
    Goal("building a table of 10,000 rules", 0.15, False, lambda figures: _largest(figures, "build"), " s"),
    Goal(
        "memory of a rule", 1, False, lambda figures: [size / 1024 for size in _largest(figures, "bytes a rule")], " KB"
    ),
)


def table(figures: Figures) -> list[str]:
    """Return the lines of the table of goals."""
    lines = ["| goal | wanted | reached | |", "|---|---|---|---|"]
    for goal in GOALS:
        try:
            reached = goal.reached(figures)
        except KeyError:
            continue
        met = min(reached) >= goal.wanted if goal.at_least else max(reached) <= goal.wanted
        sign = "≥" if goal.at_least else "≤"
        values = ", ".join(f"{value:.2f}" for value in reached)
        lines.append(
            f"| {goal.title} | {sign} {goal.wanted:g}{goal.unit} | {values}{goal.unit} | {'yes' if met else '**no**'} |"
        )
    return lines
