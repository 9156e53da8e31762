"""Requests at fixed times, however long answers take: `python -m benchmarks.open_loop PORT RATE SECONDS`; prints JSON.

A request that has to wait, because all connections wait for answers, is as late as it is: its time counts from when it
was due. A closed loop (wrk) would send it later, and count less.
"""

from __future__ import annotations

import asyncio
import json
import math
import sys
import time
from collections import deque

_CONNECTIONS = 64
_REQUEST = b"GET /customers/7 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"


class Load:
    """The requests that are due, and the connections that are free."""

    def __init__(self) -> None:
        self.due: deque[float] = deque()
        self.free: list[Connection] = []
        self.took: list[float] = []
        self.failed = 0

    def send(self) -> None:
        """Send what is due on what is free."""
        while self.due and self.free:
            self.free.pop().send(self.due.popleft())

    def done(self, connection: Connection, due: float, *, succeeded: bool) -> None:
        """Note an answer."""
        self.took.append(time.perf_counter() - due)
        self.failed += not succeeded
        self.free.append(connection)
        self.send()


class Connection(asyncio.Protocol):
    """One connection to the server."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._received = b""
        self._due = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._load.free.append(self)

    def send(self, due: float) -> None:
        """Send a request that was due at a time."""
        self._due = due
        self._transport.write(_REQUEST)  # type: ignore[attr-defined]  # of a connection

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, blank, body = self._received.partition(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0] or 0)
        if blank and len(body) >= length:
            self._received = b""
            self._load.done(self, self._due, succeeded=head.startswith(b"HTTP/1.1 200"))


async def run(port: int, rate: float, seconds: float) -> dict[str, float]:
    """Send the requests; times are in milliseconds."""
    load, loop = Load(), asyncio.get_running_loop()
    for _ in range(_CONNECTIONS):
        await loop.create_connection(lambda: Connection(load), "127.0.0.1", port)
    count = int(rate * seconds)
    began = time.perf_counter() + 0.05
    for number in range(count):
        due = began + number / rate
        pause = due - time.perf_counter()
        if pause > 0:
            await asyncio.sleep(pause)
        load.due.append(due)
        load.send()
    limit = time.perf_counter() + 5
    while len(load.took) < count and time.perf_counter() < limit:  # noqa: ASYNC110 - rarely more than once
        await asyncio.sleep(0.01)
    took = sorted(load.took)

    def at(share: float) -> float:
        return took[min(len(took) - 1, math.ceil(share * len(took)) - 1)] * 1000

    return {"p50": at(0.5), "p99": at(0.99), "failed": load.failed + count - len(took)}


if __name__ == "__main__":
    import uvloop

    port, rate, seconds = sys.argv[1:]
    print(json.dumps(uvloop.run(run(int(port), float(rate), float(seconds)))))
