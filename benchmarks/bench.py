"""The processes of one run, and rounds over them in which the variants take turns."""

from __future__ import annotations

import contextlib
import os
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from . import load

# What is compared: by the name of the variant, its burst.
Bursts = Mapping[str, Callable[[], load.Sample]]


class Bench:
    """What all measurements share.

    Attributes:
        rounds: that count, of the tables for which there are goals; others have fewer.
        quick: whether this is only to see that everything runs.
        python: the interpreter of the applications; the SDK has one of its own.
        deadline: by the monotonic clock; what is being measured then gets no further round.
        folder: for state, journals and what else a run writes.
    """

    def __init__(self, *, rounds: int, seconds: int, quick: bool, folder: Path, stack: contextlib.ExitStack) -> None:
        self.rounds, self.seconds, self.quick, self.folder = rounds, seconds, quick, folder
        self.python = sys.executable
        self.deadline = float("inf")
        cores = sorted(os.sched_getaffinity(0))
        self.app_cores, self.load_cores = {cores[0]}, {cores[1]}
        if quick:  # nothing is compared, so that all may use what is there
            self.app_cores = self.load_cores = set(cores)
        # This process, the authority and the load generator share one core; an application moves to the other.
        os.sched_setaffinity(0, self.load_cores)
        stack.callback(os.sched_setaffinity, 0, set(cores))
        self.authority = load.Authority(folder)
        stack.callback(self.authority.stop)
        # A state and a journal of its own for each run: nothing of an earlier one is delivered in this.
        self.environment = {**os.environ, "XDG_STATE_HOME": str(folder / "state"), "ASCEND_API_URL": ""}

    @property
    def is_beside(self) -> bool:
        """Whether this is another interpreter, of which only the main rows are compared."""
        return self.python != sys.executable

    @property
    def sdk(self) -> str | None:
        """The interpreter that has the SDK; None where there is none, or no time to install it."""
        return load.sdk_python(install=not self.quick)

    def known(self, *names: str) -> list[str]:
        """Return the variants that can be measured: without the SDK's own, where it is not there."""
        return [name for name in names if "sdk" not in name or self.sdk is not None]

    @contextlib.contextmanager
    def serving(
        self, *names: str, authority: str = "", options: Sequence[str] = ()
    ) -> Iterator[dict[str, load.Server]]:
        """Serve some applications, side by side, and stop them in the end."""
        with contextlib.ExitStack() as stack:
            servers = {}
            for name in names:
                port = load.free_port()
                python = self.sdk if "sdk" in name else self.python
                command = [str(python), "-m", "benchmarks.apps", name, "--port", str(port), *options]
                command += ["--authority", authority or self.authority.url, "--cores", *map(str, self.app_cores)]
                if "tls" in name:
                    command += ["--ca", str(self.authority.certificate), "--authority", self.authority.secure_url]
                servers[name] = load.Server(command, port, environment=self.environment)
                stack.callback(servers[name].stop)
            for server in servers.values():
                server.await_start()
            yield servers

    def probe(self, server: load.Server, path: str = "/customers/7") -> int:
        """Send one request that must succeed; return how often the authority was asked."""
        before = self.authority.answered()
        with urllib.request.urlopen(f"http://127.0.0.1:{server.port}{path}", timeout=30) as response:
            if response.status != 200:
                raise load.BenchmarkError(f"{path} was answered with {response.status}")
        return self.authority.answered() - before - 1

    def interleave(self, bursts: Bursts, *, rounds: int = 0) -> dict[str, list[load.Sample]]:
        """Run every burst once in each round, the first round for nothing.

        Every second round goes the other way: what slows a machine down, or heats it up, is nobody's in particular.
        """
        found: dict[str, list[load.Sample]] = {name: [] for name in bursts}
        warm = 0 if self.quick else 1
        for turn in range((rounds or self.rounds) + warm):
            if turn > warm and time.monotonic() > self.deadline:
                break
            for name in list(bursts)[:: -1 if turn % 2 else 1]:
                sample = bursts[name]()
                if turn >= warm:
                    found[name].append(sample)
        return found

    def burst(self, server: load.Server, connections: int, script: str) -> Callable[[], load.Sample]:
        """Return what loads a server once."""
        given = {"connections": connections, "seconds": self.seconds, "script": script, "settles": not self.quick}
        return lambda: load.burst(server, self.authority, **given)

    def levels(
        self, servers: dict[str, load.Server], levels: Sequence[int], *, free: Sequence[str], rounds: int = 0
    ) -> dict[str, Any]:
        """Load all of them at each level of concurrency, and compare with the first.

        The authority is asked about each request, except of those that are `free`.
        """
        for name, server in servers.items():
            if self.probe(server) == 0 and name not in free:
                raise load.BenchmarkError(f"{name} did not ask the authority about a request")
        result = {}
        for connections in levels:
            print(f"  c={connections}", file=sys.stderr)
            bursts = {name: self.burst(server, connections, "governed.lua") for name, server in servers.items()}
            samples = self.interleave(bursts, rounds=rounds)
            for name, found in samples.items():
                shares = not {"cached", "coalesced"}.isdisjoint(name.split("-"))
                if name not in free and not shares and min(sample.asked for sample in found) < 0.99:
                    raise load.BenchmarkError(f"{name} let requests pass without asking")
            result[str(connections)] = against(samples, next(iter(servers)))
        return result

    def program(self, module: str, *arguments: str, loads: bool = False) -> str:
        """Run a module of this package on the application's core, or on that of what loads it; return what it prints."""
        cores = self.load_cores if loads else self.app_cores
        done = subprocess.run(
            [self.python, "-m", f"benchmarks.{module}", *arguments],
            cwd=load.HERE.parent,
            env=self.environment,
            stdout=subprocess.PIPE,
            text=True,
            timeout=240,
            check=True,
            preexec_fn=lambda: os.sched_setaffinity(0, cores),
        )
        return done.stdout


def against(samples: Mapping[str, list[load.Sample]], base: str) -> dict[str, dict[str, Any]]:
    """Compare with the base burst of the same round, then take the median: a slow spell slows both."""
    result: dict[str, dict[str, Any]] = {}
    for name, found in samples.items():
        pairs = list(zip(found, samples[base], strict=True))
        result[name] = {
            "rate": statistics.median(ours.rate / bare.rate for ours, bare in pairs),
            "cpu": statistics.median(ours.cpu / bare.cpu for ours, bare in pairs),
            "low": min(ours.rate / bare.rate for ours, bare in pairs),
            "high": max(ours.rate / bare.rate for ours, bare in pairs),
            "per second": statistics.median(ours.rate for ours in found),
            "rounds": [ours.rate for ours in found],
            "cpu seconds": statistics.median(ours.cpu for ours in found),
            "asked": statistics.median(ours.asked for ours in found),
            "delivered": statistics.median(ours.delivered for ours in found),
            "worker": statistics.median(ours.worker for ours in found),
        }
    return result
