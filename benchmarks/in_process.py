"""What the guard's own code costs, without any network: applications called as uvicorn would; prints JSON.

The engine answers at once. A request of uvicorn says by itself whether its client has left; at a server that does not,
the guard has to receive to see it, which is measured beside. Times are processor time; of many short rounds, in which the variants take turns, the
quickest of each counts: whatever disturbs a machine makes a round slower, never quicker.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

import ascend_middleware.adapters.runner as runner
from ascend_middleware.client.http.transport import Response

from . import apps
from .load import DECISION

PATH = "/customers/7"
PER_ROUND = 200
# After a variant's name: called as by another server than uvicorn.
OTHER = " elsewhere"


class Instant:
    """An engine that has the answer already."""

    def __init__(self) -> None:
        self._answer = Response(200, {"content-type": "application/json"}, json.dumps(DECISION).encode())

    def begin(self, request: object, timeout: float) -> None:
        """Leave it to `send`."""

    async def send(self, request: object, timeout: float) -> Response:  # noqa: ASYNC109 - an engine's
        """Answer."""
        return self._answer

    async def aclose(self) -> None:
        """Nothing is open."""


def scope_of(path: str) -> dict[str, Any]:
    """Return the scope of a request, as uvicorn makes it."""
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "server": ("127.0.0.1", 80),
        "client": ("127.0.0.1", 50_000),
        "scheme": "http",
        "method": "GET",
        "root_path": "",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [(b"host", b"127.0.0.1"), (b"user-agent", b"bench"), (b"accept", b"*/*")],
        "state": {},
    }


def of_uvicorn() -> Any:
    """Return the `receive` of a request of uvicorn, for handlers that do not call it."""
    none: Any = None
    return RequestResponseCycle(scope_of(PATH), none, none, none, none, False, [], none, False, True, none).receive  # type: ignore[arg-type]


async def serve(app: Any, path: str, count: int, *, elsewhere: bool) -> None:
    """Send requests, one after the other."""
    sent: list[Any] = []
    wait = asyncio.Event().wait

    async def receive() -> dict[str, Any]:
        if not sent:
            return {"type": "http.request", "body": b"", "more_body": False}
        await wait()
        raise AssertionError

    async def send(message: Any) -> None:
        sent.append(message)

    received = receive if elsewhere else of_uvicorn()
    for _ in range(count):
        sent.clear()
        await app(scope_of(path), received, send)
        if sent[0]["status"] != 200:
            raise SystemExit(f"{path} was answered with {sent[0]['status']}")


def variants(journal: str) -> dict[str, tuple[Any, str]]:
    """Return the applications, each with the path of a request."""
    url = "http://127.0.0.1:9"

    def governed(name: str, **settings: Any) -> tuple[Any, str]:
        guarded = apps.governed("bare", url)
        rule = {**apps.RULE, **({"cache": "60s"} if name == "cached" else {})}
        apps.guard(guarded, [rule], url, state="memory:", kill_switch="off", **settings)
        return guarded, PATH

    found = {
        "bare": (apps.governed("bare", url), PATH),
        "no-op": (apps.governed("no-op", url), PATH),
        "instant": governed("instant", journal="off", report_outcomes=False),
        "instant+journal": governed("instant", journal=os.path.join(journal, "instant")),
        "exempt-bare": (apps.exempt("exempt-bare", 10, url), "/service3/items/7"),
        "exempt-no-op": (apps.exempt("exempt-no-op", 10, url), "/service3/items/7"),
        "exempt": (apps.exempt("exempt", 10, url), "/service3/items/7"),
    }
    if apps.can_reuse():
        found["cached"] = governed("cached", journal=os.path.join(journal, "cached"))
    return found | {f"{name}{OTHER}": found[name] for name in ("instant", "instant+journal")}


async def measure(rounds: int, chosen: dict[str, tuple[Any, str]]) -> dict[str, float]:
    """Return the processor time of one request, in seconds."""
    best: dict[str, float] = {}
    for name, (app, path) in chosen.items():
        await serve(app, path, 50, elsewhere=name.endswith(OTHER))
    for _ in range(rounds):
        for name, (app, path) in chosen.items():
            began = time.process_time()
            await serve(app, path, PER_ROUND, elsewhere=name.endswith(OTHER))
            took = (time.process_time() - began) / PER_ROUND
            best[name] = min(best.get(name, took), took)
            await asyncio.sleep(0.01)  # what was journalled goes out, or is given up, between the rounds
    return best


def main(run: Callable[[Any], Any]) -> None:
    """Measure, and print the figures."""
    os.environ["ASCEND_STATE"], os.environ["ASCEND_KILL_SWITCH"] = "memory:", "off"
    runner.open_async_engine = lambda settings, **given: Instant()  # type: ignore[assignment]
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        rounds = 10 if "--quick" in sys.argv else 100
        print(json.dumps(run(measure(rounds, variants(folder)))), flush=True)
    os._exit(0)  # nobody takes the reports that wait


if __name__ == "__main__":
    import uvloop

    main(uvloop.run)
