"""The embedded authority under submissions, beside the same server answering a constant: `python -m benchmarks.authority`."""

from __future__ import annotations

import json
import os
import re
import socket
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .load import DECISION, HERE, BenchmarkError, Server, free_port

LEVELS = (1, 16, 64)
ROUNDS = 6
SECONDS = 1
POLICY = """
[limits]
submit = 0

[[policy]]
name = "large refunds need a person"
action_types = ["transaction", "refund"]
when = "has(action.action_details.amount) && action.action_details.amount > 1000"
decision = "pending"

[[policy]]
name = "reading is fine"
action_types = ["data_access", "database_read"]
when = "size(action.resource) < 200"
decision = "approved"
"""


@dataclass(frozen=True, slots=True)
class Sample:
    """One burst of submissions; latencies in milliseconds."""

    rate: float
    median: float
    p99: float


def burst(server: Server, connections: int, key: str) -> Sample:
    """Submit for a second; fail if anything was refused."""
    command = ["wrk", "-t1", f"-c{connections}", f"-d{SECONDS}s", "--timeout", "10s", "-s", str(HERE / "submit.lua")]
    command.append(f"http://127.0.0.1:{server.port}/")
    done = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, "BENCH_KEY": key})
    found = re.search(r"DURATION (\d+)\nRESULT (\d+) (\d+) (\d+)\nLATENCY (\d+) (\d+)", done.stdout)
    if found is None or int(found[3]) or int(found[4]):
        raise BenchmarkError(f"errors under load: {done.stdout}{done.stderr}")
    return Sample(int(found[2]) / (int(found[1]) / 1e6), int(found[5]) / 1000, int(found[6]) / 1000)


def serve_constant(port: int) -> None:
    """Answer everything with the same decision, by the same server with the same settings."""
    import uvicorn

    content = json.dumps(DECISION, separators=(",", ":")).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(content)).encode())]

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        while (await receive()).get("more_body"):
            continue
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": content})

    config = uvicorn.Config(
        app, port=port, log_config=None, access_log=False, server_header=False, proxy_headers=False, lifespan="off"
    )
    uvicorn.Server(config).run(sockets=[_bound(port)])


def _bound(port: int) -> socket.socket:
    listener = socket.socket(proto=socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    listener.listen(512)
    return listener


def start(folder: Path, cores: set[int], *options: str) -> tuple[Server, str]:
    """Start an authority on some cores and return it with a key for submissions."""
    policy = folder / "policy.toml"
    policy.write_text(POLICY)
    command = [sys.executable, "-m", "ascend_middleware.cli"]
    made = subprocess.run(
        [*command, "keys", "issue", "--name", "bench", "--policy", str(policy)],
        capture_output=True,
        text=True,
        check=True,
    )
    port = free_port()
    serving = [*command, "authority", "--policy", str(policy), "--port", str(port), *options]
    return Server(_pinned(serving, cores), port).await_start(), made.stdout.strip()


def _pinned(command: list[str], cores: set[int]) -> list[str]:
    return ["taskset", "-c", ",".join(map(str, cores)), *command]


def measure(rounds: int, *, levels: tuple[int, ...] = LEVELS, cores: set[int]) -> dict[str, dict[str, float]]:
    """Return for each number of connections the medians of what the rounds gave."""
    figures: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as name:
        port = free_port()
        command = [sys.executable, "-m", "benchmarks.authority", "--constant", str(port)]
        constant = Server(_pinned(command, cores), port).await_start()
        authority, key = start(Path(name), cores, "--no-access-log")
        try:
            for level in levels:
                pairs = []
                for number in range(rounds + 1):
                    pair = burst(constant, level, key), burst(authority, level, key)
                    if number:  # the first warms up
                        pairs.append(pair)
                figures[str(level)] = {
                    "ratio": statistics.median(ours.rate / theirs.rate for theirs, ours in pairs),
                    "low": min(ours.rate / theirs.rate for theirs, ours in pairs),
                    "high": max(ours.rate / theirs.rate for theirs, ours in pairs),
                    "rate": statistics.median(ours.rate for _, ours in pairs),
                    "constant": statistics.median(theirs.rate for theirs, _ in pairs),
                    "tail": statistics.median(ours.p99 / ours.median for _, ours in pairs),
                    "median": statistics.median(ours.median for _, ours in pairs),
                    "p99": statistics.median(ours.p99 for _, ours in pairs),
                }
        finally:
            constant.stop()
            authority.stop()
    return figures


def main() -> None:
    """Print the table."""
    if "--constant" in sys.argv:
        serve_constant(int(sys.argv[-1]))
        return
    print("\n".join(table(measure(2 if "--quick" in sys.argv else ROUNDS, cores={1}))))


def table(figures: dict[str, dict[str, float]]) -> list[str]:
    """Return the lines of the table."""
    head = " | ".join(f"c={level}" for level in figures)
    lines = [f"| the embedded authority, × the same server answering a constant | {head} |"]
    lines.append("|---" * (len(figures) + 1) + "|")

    def row(title: str, text: str) -> None:
        lines.append(f"| {title} | {' | '.join(text.format(**one) for one in figures.values())} |")

    row("throughput, decision, audit and commit included", "{ratio:.2f}")
    row("*lowest and highest round*", "{low:.2f}–{high:.2f}")
    row("p99, × the median", "{tail:.1f}")
    row("*absolute*", "{rate:.0f}/s of {constant:.0f}/s, {median:.1f} ms, p99 {p99:.1f} ms")
    return lines


if __name__ == "__main__":
    main()
