"""Measure everything side by side and write the tables into README.md: `python -m benchmarks`."""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import apps, load
from .report import render

if TYPE_CHECKING:
    from collections.abc import Callable

CONCURRENCY = (1, 16, 64)
THREADED = (16, 64)
TRIVIAL_RULES = 10_000
EXEMPT = (("10 routes, repeated paths", 10, "repeated.lua"), ("10 routes, every path different", 10, "different10.lua"))
EXEMPT += (("100 routes, every path different", 100, "different100.lua"),)


class Bench:
    """The processes of one run, and the rounds over them."""

    def __init__(self, *, rounds: int, seconds: float, folder: Path, stack: contextlib.ExitStack) -> None:
        self.rounds = rounds
        self.seconds = seconds
        self._stack = stack
        cores = sorted(os.sched_getaffinity(0))
        self.app_core, self.load_core = cores[0], cores[1]
        # This process, the stub and the load generator share one core; an application moves to the other.
        os.sched_setaffinity(0, {self.load_core})
        self.authority = load.Authority(folder)
        stack.callback(self.authority.stop)

    def serve(self, name: str, *, python: str = sys.executable, routes: int = 0) -> load.Server:
        """Start one application."""
        port = load.free_port()
        command = [python, "-m", "benchmarks.apps", name, "--routes", str(routes), "--port", str(port)]
        command += ["--authority", self.authority.url, "--core", str(self.app_core)]
        server = load.Server(command, port)
        self._stack.callback(server.stop)
        return server

    def probe(self, server: load.Server, path: str) -> int:
        """Send one request that must succeed; return how often the authority was asked."""
        before = self.authority.answered()
        with urllib.request.urlopen(f"http://127.0.0.1:{server.port}{path}") as response:
            assert response.status == 200
        return self.authority.answered() - before - 1

    def interleave(self, bursts: dict[str, Callable[[], load.Sample]]) -> dict[str, list[load.Sample]]:
        """Run every burst once in each round, the first round for nothing."""
        found: dict[str, list[load.Sample]] = {name: [] for name in bursts}
        for turn in range(self.rounds + 1):
            print(f"round {turn} of {self.rounds}", file=sys.stderr)
            for name, run in bursts.items():
                sample = run()
                if turn:
                    found[name].append(sample)
        return found

    def governed(self) -> dict[str, Any]:
        """Measure the ways of governing a request."""
        python = load.sdk_python()
        servers = {name: self.serve(name, python=python if name == "sdk" else sys.executable) for name in apps.GOVERNED}
        for name, server in servers.items():
            asked = self.probe(server, "/customers/7")
            if (asked > 0) != (name not in ("bare", "no-op")):
                raise SystemExit(f"{name} asked the authority {asked} times about one request")
        return self._levels(servers, CONCURRENCY, free=("bare", "no-op"))

    def threaded(self) -> dict[str, Any]:
        """Measure the ways of governing a request of a server with threads."""
        python = load.sdk_python()
        servers = {
            name: self.serve(name, python=python if name == "flask-sdk" else sys.executable) for name in apps.THREADS
        }
        for name, server in servers.items():
            asked = self.probe(server, "/customers/7")
            if (asked > 0) != (name != "flask"):
                raise SystemExit(f"{name} asked the authority {asked} times about one request")
        return self._levels(servers, THREADED, free=("flask",))

    def _levels(
        self, servers: dict[str, load.Server], levels: tuple[int, ...], *, free: tuple[str, ...]
    ) -> dict[str, Any]:
        """Load all of them at each level of concurrency, compare with the first, and stop them."""
        result = {}
        for connections in levels:
            print(f"{free[0]}, c={connections}", file=sys.stderr)
            samples = self.interleave(
                {name: self._burst(server, connections, "governed.lua") for name, server in servers.items()}
            )
            for name, found in samples.items():
                if name not in free and min(sample.asked for sample in found) < 0.99:
                    raise SystemExit(f"{name} let requests pass without asking")
            result[str(connections)] = _against(samples, free[0])
        for server in servers.values():
            server.stop()
        return result

    def trivial(self) -> dict[str, Any]:
        """Measure what an exempt request pays over an application that does nothing, with many rules."""
        servers = {name: self.serve(name, routes=TRIVIAL_RULES) for name in apps.TRIVIAL}
        print("exempt, over an application that does nothing", file=sys.stderr)
        samples = self.interleave(
            {name: self._burst(server, 16, "different100.lua") for name, server in servers.items()}
        )
        for server in servers.values():
            server.stop()
        return _against(samples, "trivial-no-op")

    def imports(self) -> dict[str, float]:
        """Measure imports in processes of their own, the modules in turn; seconds."""
        found: dict[str, list[float]] = {}
        for _ in range(2 * self.rounds + 1):
            for module in ("httpx2", "ascend_middleware", "ascend_middleware.client"):
                program = (
                    f"import time; began = time.perf_counter(); import {module}; print(time.perf_counter() - began)"
                )
                done = subprocess.run(
                    [sys.executable, "-c", program], cwd=load.HERE.parent, check=True, capture_output=True, text=True
                )
                found.setdefault(module, []).append(float(done.stdout))
        return {module: statistics.median(seconds[1:]) for module, seconds in found.items()}

    def exempt(self) -> dict[str, Any]:
        """Measure what a request pays that needs no decision."""
        result = {}
        servers = {(name, routes): self.serve(name, routes=routes) for name in apps.EXEMPT for routes in (10, 100)}
        for title, routes, script in EXEMPT:
            print(f"exempt, {title}", file=sys.stderr)
            bursts = {}
            for name in apps.EXEMPT:
                server = servers[name, routes]
                if self.probe(server, "/service3/items/7"):
                    raise SystemExit("the authority was asked about an exempt request")
                bursts[name] = self._burst(server, 16, script)
            result[title] = _against(self.interleave(bursts), "no-op")
        return result

    def _burst(self, server: load.Server, connections: int, script: str) -> Callable[[], load.Sample]:
        return lambda: load.burst(server, self.authority, connections=connections, seconds=self.seconds, script=script)

    def lookup(self, *, quick: bool) -> dict[str, float]:
        """Measure the table by itself, on the application's core."""
        command = [sys.executable, "-m", "benchmarks.lookup", *(["--quick"] if quick else [])]
        print("lookup", file=sys.stderr)
        done = subprocess.run(
            command,
            cwd=load.HERE.parent,
            check=True,
            stdout=subprocess.PIPE,
            preexec_fn=lambda: os.sched_setaffinity(0, {self.app_core}),
        )
        return dict(json.loads(done.stdout))


def _against(samples: dict[str, list[load.Sample]], base: str) -> dict[str, dict[str, float]]:
    """Compare with the base burst of the same round, then take the median: a slow spell slows both."""
    result = {}
    for name, found in samples.items():
        pairs = list(zip(found, samples[base], strict=True))
        result[name] = {
            "rate": statistics.median(ours.rate / bare.rate for ours, bare in pairs),
            "cpu": statistics.median(ours.cpu / bare.cpu for ours, bare in pairs),
            "low": min(ours.rate / bare.rate for ours, bare in pairs),
            "high": max(ours.rate / bare.rate for ours, bare in pairs),
            "per second": statistics.median(ours.rate for ours in found),
            "cpu seconds": statistics.median(ours.cpu for ours in found),
            "asked": statistics.median(ours.asked for ours in found),
            "delivered": statistics.median(ours.delivered for ours in found),
            "worker": statistics.median(ours.worker for ours in found),
        }
    return result


def main() -> None:
    """Measure; write the tables into README.md unless it is a quick run."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=main.__doc__)
    parser.add_argument("--quick", action="store_true", help="one round of one second each, printed and not written")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=1, help="the length of one burst, in whole seconds")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    arguments = parser.parse_args()
    if problems := load.missing():
        raise SystemExit("missing: " + "; ".join(problems))
    rounds = 1 if arguments.quick else arguments.rounds
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        bench = Bench(rounds=rounds, seconds=arguments.seconds, folder=Path(folder), stack=stack)
        figures: dict[str, Any] = {
            "when": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"),
            "python": platform.python_version(),
            "rounds": rounds,
            "seconds": arguments.seconds,
            "busy": os.getloadavg()[0],
            "lookup": bench.lookup(quick=arguments.quick),
            "imports": bench.imports(),
            "governed": bench.governed(),
            "threaded": bench.threaded(),
            "exempt": bench.exempt(),
            "trivial": bench.trivial(),
        }
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1))
    text = render(figures)
    print(text)
    if not arguments.quick:
        readme = load.HERE / "README.md"
        head, _, rest = readme.read_text().partition("<!-- figures -->\n")
        tail = rest.partition("<!-- end of figures -->")[2]
        readme.write_text(f"{head}<!-- figures -->\n{text}<!-- end of figures -->{tail}")


if __name__ == "__main__":
    main()
