"""Rule lookup and table building, by themselves; prints JSON."""

from __future__ import annotations

import gc
import json
import random
import statistics
import sys
import time
import tracemalloc
from typing import TYPE_CHECKING, Any

from ascend_middleware.rules import RuleTable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

SIZES = (10, 1_000, 10_000)


def _content(size: int) -> dict[str, Any]:
    rules = [
        {"match": f"GET /service{number}/items/{{item_id}}", "action_type": "data_access", "resource": "items"}
        for number in range(size)
    ]
    return {"ascend": {"agent_id": "billing-api"}, "rule": rules}


def _per_call(call: Callable[[str], object], paths: Sequence[str]) -> float:
    began = time.perf_counter()
    for path in paths:
        call(path)
    return (time.perf_counter() - began) / len(paths)


def _werkzeug(size: int) -> tuple[Callable[[str], object], Callable[[str], object], float]:
    from werkzeug.exceptions import NotFound
    from werkzeug.routing import Map, Rule

    began = time.perf_counter()
    rules = [Rule(f"/service{n}/items/<item_id>", endpoint=str(n), methods=["GET"]) for n in range(size)]
    adapter = Map(rules).bind("localhost")
    adapter.match("/service0/items/1", "GET")
    seconds = time.perf_counter() - began

    def miss(path: str) -> None:
        try:
            adapter.match(path, "GET")
        except NotFound:
            return
        raise AssertionError(path)

    return (lambda path: adapter.match(path, "GET")), miss, seconds


def measure(sizes: tuple[int, ...], *, rounds: int, calls: int) -> dict[str, Any]:
    """Measure everything; times are seconds."""
    dice = random.Random(7)
    tables = {size: RuleTable.from_mapping(_content(size)) for size in sizes}
    routers = {size: _werkzeug(size) for size in sizes}
    times: dict[str, list[float]] = {}
    for turn in range(rounds + 1):
        # Sizes alternate, so that no table keeps the processor's caches to itself.
        for size in sizes:
            numbers = [dice.randrange(size) for _ in range(calls)]
            hits = [f"/service{number}/items/{place}" for place, number in enumerate(numbers)]
            misses = [f"/service{number}/nothing/{place}" for place, number in enumerate(numbers)]
            lookup = tables[size].lookup
            assert lookup("GET", hits[0]) is not None and lookup("GET", misses[0]) is None
            match, no_match, _ = routers[size]
            some = slice(0, max(1, calls // 10))
            found = {
                f"hit {size}": _per_call(lambda path, ask=lookup: ask("GET", path), hits),
                f"miss {size}": _per_call(lambda path, ask=lookup: ask("GET", path), misses),
                f"werkzeug hit {size}": _per_call(match, hits[some]),
                f"werkzeug miss {size}": _per_call(no_match, misses[some]),
            }
            if turn:
                for name, value in found.items():
                    times.setdefault(name, []).append(value)
    result: dict[str, Any] = {name: statistics.median(values) for name, values in times.items()}
    result["werkzeug build"] = routers[sizes[-1]][2]
    del tables, routers
    result |= _build(sizes[-1], rounds)
    return result


def _build(size: int, rounds: int) -> dict[str, float]:
    seconds = []
    for _ in range(rounds):
        content = _content(size)
        gc.collect()
        began = time.perf_counter()
        table = RuleTable.from_mapping(content)
        seconds.append(time.perf_counter() - began)
        del table, content
    gc.collect()
    tracemalloc.start()
    content = _content(size)
    table = RuleTable.from_mapping(content)
    del content
    gc.collect()
    kept = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert table.lookup("GET", "/service3/items/1") is not None
    return {"rules": size, "build": statistics.median(seconds), "bytes a rule": kept / size}


if __name__ == "__main__":
    quick = "--quick" in sys.argv
    given = {"rounds": 1, "calls": 1_000} if quick else {"rounds": 5, "calls": 20_000}
    print(json.dumps(measure(SIZES[:2] if quick else SIZES, **given)))
