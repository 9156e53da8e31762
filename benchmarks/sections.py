"""What is measured, a function for each table; each returns figures that `report` makes lines of."""

from __future__ import annotations

import json
import resource
import socket
import statistics
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

from . import apps, authority, load
from .bench import against

if TYPE_CHECKING:
    from collections.abc import Callable

    from .bench import Bench

    Section = Callable[[Bench], dict[str, Any]]

TRIVIAL_RULES = 10_000
EXEMPT = (
    ("10 routes, repeated paths", 10, "repeated.lua"),
    ("10 routes, every path different", 10, "different10.lua"),
    ("100 routes, every path different", 100, "different100.lua"),
)
FEWER = 3  # rounds of tables that have many rows, or for which there is no goal
OPEN_RATE = 500  # requests per second, below what the slowest variant reaches


def levels(bench: Bench, *wanted: int) -> tuple[int, ...]:
    """Return the numbers of connections."""
    return (16,) if bench.quick else wanted


def governed(bench: Bench) -> dict[str, Any]:
    """FastAPI under uvicorn, httptools and uvloop: the ways of governing a request."""
    names = ["bare", "no-op", "sdk", "auto", "auto+reports", "httpx2", "tls"]
    if apps.can_reuse():
        names += ["cached", "coalesced"]
    free = ("bare", "no-op")
    if bench.quick:
        names = [name for name in names if name not in ("sdk", "httpx2")]
    if bench.is_beside:
        with bench.serving("bare", "auto", "auto+reports") as servers:
            return {"levels": bench.levels(servers, levels(bench, 16, 64), free=free, rounds=FEWER)}
    with bench.serving(*bench.known(*names)) as servers:
        result: dict[str, Any] = {"levels": bench.levels(servers, levels(bench, 1, 16, 64), free=free)}
        print("  at a fixed rate", file=sys.stderr)
        timed = [name for name in ("bare", "no-op", "sdk", "auto", "auto+reports") if name in servers]
        found: dict[str, list[dict[str, float]]] = {name: [] for name in timed}
        for _ in range(1 if bench.quick else FEWER):
            for name in timed:
                seconds = "0.5" if bench.quick else "3"
                port = str(servers[name].port)
                told = bench.program("open_loop", port, str(OPEN_RATE), seconds, loads=True)
                found[name].append(json.loads(told))
                servers[name].settle()
        result["open loop"] = {
            name: {part: statistics.median(one[part] for one in some) for part in ("p50", "p99", "failed")}
            for name, some in found.items()
        }
    return result


def h11(bench: Bench) -> dict[str, Any]:
    """The same where httptools is not installed: uvicorn reads requests with h11."""
    names = bench.known("bare", "sdk", "auto")
    with bench.serving(*names, options=["--http", "h11"]) as servers:
        return bench.levels(servers, levels(bench, 16, 64), free=("bare",), rounds=FEWER)


def flask(bench: Bench) -> dict[str, Any]:
    """Flask under gunicorn with threads."""
    names = apps.THREADS[::2] if bench.quick else bench.known(*apps.THREADS)
    with bench.serving(*names) as servers:
        return bench.levels(servers, levels(bench, 16, 64), free=("flask",))


def django(bench: Bench) -> dict[str, Any]:
    """Django under gunicorn with threads."""
    names = apps.DJANGO[::2] if bench.quick else bench.known(*apps.DJANGO)
    with bench.serving(*names) as servers:
        return bench.levels(servers, levels(bench, 16, 64), free=("django",))


def django_async(bench: Bench) -> dict[str, Any]:
    """Django's ASGI application under uvicorn."""
    with bench.serving(*apps.DJANGO_ASYNC[: 2 if bench.quick else 3]) as servers:
        return bench.levels(servers, levels(bench, 16, 64), free=("django-async",), rounds=FEWER)


def exempt(bench: Bench) -> dict[str, Any]:
    """What a request pays that needs no decision."""
    result = {}
    for title, routes, script in EXEMPT[: 1 if bench.quick else 3]:
        with bench.serving("exempt-no-op", "exempt", options=["--routes", str(routes)]) as servers:
            for server in servers.values():
                # What is polled for in the background may come between.
                if all(bench.probe(server, "/service3/items/7") for _ in range(3)):
                    raise load.BenchmarkError("the authority was asked about an exempt request")
            bursts = {name: bench.burst(server, 16, script) for name, server in servers.items()}
            result[f"FastAPI, {title}"] = against(bench.interleave(bursts), "exempt-no-op")["exempt"]
    with bench.serving(*apps.TRIVIAL, options=["--routes", str(TRIVIAL_RULES)]) as servers:
        bursts = {name: bench.burst(server, 16, "different100.lua") for name, server in servers.items()}
        found = against(bench.interleave(bursts, rounds=FEWER), "trivial-no-op")["trivial-exempt"]
        result["an application that does nothing, 10,000 rules"] = found
    return result


def slow_authority(bench: Bench) -> dict[str, Any]:
    """Throughput where the authority takes its time, as one that is far away does; 64 connections."""
    result: dict[str, Any] = {}
    for milliseconds in (10,) if bench.quick else (10, 50):
        port = load.free_port()
        command = [sys.executable, "-m", "benchmarks.slow_authority", str(port), str(milliseconds / 1000), "approved"]
        stub = load.Server(command, port).await_start()
        names = ["auto"] if bench.quick else bench.known("auto", "sdk")
        try:
            with bench.serving(*names, authority=f"http://127.0.0.1:{port}") as servers:
                bursts = {name: bench.burst(server, 64, "governed.lua") for name, server in servers.items()}
                samples = bench.interleave(bursts, rounds=FEWER)
        finally:
            stub.stop()
        for name, found in samples.items():
            rate = statistics.median(sample.rate for sample in found)
            most = 64 / (milliseconds / 1000)
            result[f"{milliseconds}"] = {**result.get(f"{milliseconds}", {"most": most}), name: rate}
    return result


def workers(bench: Bench) -> dict[str, Any]:
    """Throughput and processor time of several workers that share a state, all of them on one core; 64 connections."""
    result = {}
    for count in (2,) if bench.quick else (1, 2, 3, 4):
        with bench.serving("auto+reports", options=["--workers", str(count)]) as servers:
            (server,) = servers.values()
            bench.probe(server)
            samples = bench.interleave({"one": bench.burst(server, 64, "governed.lua")}, rounds=FEWER)["one"]
        result[str(count)] = {
            "rate": statistics.median(sample.rate for sample in samples),
            "cpu": statistics.median(sample.cpu for sample in samples),
        }
    return result


def memory(bench: Bench) -> dict[str, Any]:
    """Memory of a process for each 1,000 requests that wait for a person, beside requests whose handler waits; bytes."""
    count = 100 if bench.quick else 1_000
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    port = load.free_port()
    command = [sys.executable, "-m", "benchmarks.slow_authority", str(port), "0", "pending"]
    stub = load.Server(command, port).await_start()
    result = {}
    try:
        with bench.serving("slow", "waiting", authority=f"http://127.0.0.1:{port}") as servers:
            for name, server in servers.items():
                held = _hold(server, 20)
                time.sleep(0.5)
                before = server.memory()
                held += _hold(server, count)
                server.settle()
                result[name] = (server.memory() - before) / count
                # Whoever was answered does not wait.
                if any(_is_readable(one) for one in held):
                    raise load.BenchmarkError(f"{name} answered requests that were to wait")
                for one in held:
                    one.close()
    finally:
        stub.stop()
    return result


def _hold(server: load.Server, count: int) -> list[socket.socket]:
    held = []
    for number in range(count):
        connection = socket.create_connection(("127.0.0.1", server.port), 10)
        connection.sendall(f"GET /slow/{number} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
        held.append(connection)
    return held


def _is_readable(connection: socket.socket) -> bool:
    connection.setblocking(False)
    try:
        return connection.recv(1) != b""
    except BlockingIOError:
        return False


def in_process(bench: Bench) -> dict[str, Any]:
    """The guard's own code, without a network."""
    return dict(json.loads(bench.program("in_process", *_quick(bench))))


def policies(bench: Bench) -> dict[str, Any]:
    """A submission at the embedded authority, with few and with many policies."""
    return dict(json.loads(bench.program("policies", *_quick(bench))))


def lookup(bench: Bench) -> dict[str, Any]:
    """The rule table by itself."""
    return dict(json.loads(bench.program("lookup", *_quick(bench))))


def _quick(bench: Bench) -> tuple[str, ...]:
    return ("--quick",) if bench.quick else ()


def imports(bench: Bench) -> dict[str, Any]:
    """Imports in processes of their own, the modules in turn; seconds.

    Each from bytecode of this run: what an environment holds of it depends on how the packages were installed, and where
    one side had to be compiled at each import, that would be measured.
    """
    found: dict[str, list[float]] = {}
    environment = {**bench.environment, "PYTHONPYCACHEPREFIX": str(bench.folder / "bytecode")}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    for _ in range(2 if bench.quick else 11):
        for module in ("httpx2", "ascend_middleware", "ascend_middleware.client"):
            text = f"import time; began = time.perf_counter(); import {module}; print(time.perf_counter() - began)"
            command = [bench.python, "-c", text]
            done = subprocess.run(
                command, cwd=load.HERE.parent, env=environment, check=True, capture_output=True, text=True, timeout=60
            )
            found.setdefault(module, []).append(float(done.stdout))
    return {module: statistics.median(seconds[1:]) for module, seconds in found.items()}


def embedded(bench: Bench) -> dict[str, Any]:
    """The embedded authority, beside the same server answering a constant."""
    wanted = (16,) if bench.quick else (16, 64)
    return {**authority.measure(1 if bench.quick else 4, levels=wanted, cores=bench.app_cores)}


# In the order in which they are measured: what there are goals for comes first.
SECTIONS: dict[str, Section] = {
    "in process": in_process,
    "governed": governed,
    "flask": flask,
    "django": django,
    "exempt": exempt,
    "h11": h11,
    "embedded": embedded,
    "policies": policies,
    "imports": imports,
    "lookup": lookup,
    "django async": django_async,
    "slow authority": slow_authority,
    "workers": workers,
    "memory": memory,
}
# What is measured with another interpreter, too.
BESIDE = ("in process", "governed")
