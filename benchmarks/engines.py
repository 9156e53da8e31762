"""One request to the authority by each engine, of threads and on an event loop: `python -m benchmarks.engines`."""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ascend_middleware.client.http import Request, open_async_engine, open_engine
from ascend_middleware.config import Settings

from .load import Authority

if TYPE_CHECKING:
    from collections.abc import Callable

LEVELS = (1, 16, 64)
BODY = b'{"agent_id":"billing-api","action_type":"data_access","resource":"customers","resource_id":"7"}'
HEADERS = (("X-API-Key", "owkai_benchmark_0123456789"), ("Content-Type", "application/json"), ("Accept", "*/*"))


def threaded(engine: Any, url: str) -> Callable[[int, float], int]:
    """Return what lets so many threads ask for so many seconds, and counts the answers."""

    def burst(level: int, seconds: float) -> int:
        counts, end = [0] * level, time.perf_counter() + seconds

        def ask(number: int) -> None:
            while time.perf_counter() < end:
                answer = engine.send(Request("POST", f"{url}/api/v1/actions/submit", HEADERS, BODY), 10.0)
                assert answer.status == 200
                counts[number] += 1

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(level)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return sum(counts)

    return burst


def looped(engine: Any, url: str) -> Callable[[int, float], int]:
    """The same for tasks of one event loop."""

    async def ask(end: float) -> int:
        count = 0
        while time.perf_counter() < end:
            answer = await engine.send(Request("POST", f"{url}/api/v1/actions/submit", HEADERS, BODY), 10.0)
            assert answer.status == 200
            count += 1
        return count

    async def burst(level: int, seconds: float) -> int:
        end = time.perf_counter() + seconds
        found = sum(await asyncio.gather(*(ask(end) for _ in range(level))))
        await engine.aclose()
        return found

    return lambda level, seconds: asyncio.run(burst(level, seconds))


def variants(url: str) -> dict[str, Callable[[int, float], int]]:
    """Return what is measured."""
    found = {}
    for name in ("auto", "httpx2"):
        settings = Settings(api_url=url, engine=name)
        found[f"threads, `{name}`"] = threaded(open_engine(settings), url)
        found[f"event loop, `{name}`"] = looped(open_async_engine(settings), url)
    return found


def measure(bursts: dict[str, Callable[[int, float], int]], *, rounds: int, seconds: float) -> None:
    """Print a table: medians of bursts in turn, the first round for nothing."""
    cells: dict[str, list[str]] = {name: [] for name in sorted(bursts)}
    for level in LEVELS:
        samples: dict[str, list[tuple[float, float]]] = {name: [] for name in bursts}
        for turn in range(rounds + 1):
            print(f"c={level}, round {turn} of {rounds}", file=sys.stderr)
            for name, burst in bursts.items():
                began, cpu = time.perf_counter(), time.process_time()
                count = burst(level, seconds)
                cpu, elapsed = time.process_time() - cpu, time.perf_counter() - began
                if turn:
                    samples[name].append((count / elapsed, cpu / count * 1e6))
        for name, found in samples.items():
            rates, costs = ([pair[part] for pair in found] for part in (0, 1))
            spread = f"{min(rates):.0f} to {max(rates):.0f}"
            cells[name].append(f"{statistics.median(rates):.0f} ({spread}), {statistics.median(costs):.0f} µs")
    print(f"| requests per second (lowest to highest), CPU | {' | '.join(f'c={level}' for level in LEVELS)} |")
    print("|" + "---|" * (len(LEVELS) + 1))
    for name, row in cells.items():
        print(f"| {name} | {' | '.join(row)} |")


def main(extra: Callable[[str], dict[str, Any]] = lambda _url: {}) -> None:
    """Measure each engine against nginx on another core."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.engines", description=main.__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0)
    arguments = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as folder:
        os.sched_setaffinity(0, {cores[1]})
        authority = Authority(Path(folder))
        try:
            os.sched_setaffinity(0, {cores[0]})
            measure(
                {**variants(authority.url), **extra(authority.url)}, rounds=arguments.rounds, seconds=arguments.seconds
            )
        finally:
            authority.stop()


if __name__ == "__main__":
    main()
