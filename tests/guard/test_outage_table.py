"""docs/state.md says what each outage refuses; here every cell is tried."""

import asyncio
import json
import os
import re
import sqlite3
from pathlib import Path

import pytest
from kit.asgi import JSON, guard
from kit.asgi import ask as ask_in
from kit.engine import Holding, answer, plug

from ascend_middleware.api.orders import Order
from ascend_middleware.client.http import ConnectFailed
from ascend_middleware.journal.journal import Limits

DOCS = Path(__file__).parents[2] / "docs" / "state.md"
RULES = [
    {"match": "GET /exempt", "exempt": True},
    {"match": "POST /allowed", "action_type": "allowed"},
    {"match": "POST /open", "action_type": "allowed", "on_failure": "open"},
    {"match": "POST /held", "action_type": "held"},
    {"match": "POST /resumed", "action_type": "held"},
    {"match": "POST /limited", "action_type": "allowed"},
]


def table():
    lines = DOCS.read_text().partition("## What each outage refuses")[2].partition("\n## ")[0].splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    head, _, *body = rows
    return {row[0]: dict(zip(head[1:], row[1:], strict=True)) for row in body}


TABLE = table()


class Scripted(Holding):
    """Holds what is called held, and approves all else."""

    async def send(self, request, timeout):
        found = await super().send(request, timeout)
        if request.url.endswith("/submit") and json.loads(request.content)["action_type"] != "held":
            number = json.loads(found.content)["action_id"]
            self.decide("approved", number)
            return answer(action_id=number)
        return found


class Outages:
    """Each outage, for a state in a file: what breaks and how it is mended."""

    def __init__(self, app, directory):
        self.app = app
        self.directory = directory
        self.guard = app.guard
        self.writer = None

    def expire(self):
        kill = self.guard.kill
        kill._read_at = kill._quiet_until = kill._idle_until = -1e9

    async def nothing(self):
        self.expire()

    the_authority = nothing

    async def the_state_cannot_be_read(self):
        self.guard.state.close()
        for path in self.directory.glob("state.db*"):
            path.unlink()
        (self.directory / "state.db").write_bytes(b"nonsense " * 1000)
        self.expire()

    async def the_state_cannot_be_written(self):
        self.writer = sqlite3.connect(self.directory / "state.db", isolation_level=None)
        self.writer.execute("BEGIN IMMEDIATE")
        self.expire()

    async def the_state_was_emptied(self):
        for path in self.directory.glob("state.db*"):
            path.unlink()
        self.expire()

    async def the_journal_cannot_be_written(self):
        log = self.guard.journal.log
        if log._descriptor < 0:
            log._next_segment()
        os.close(log._descriptor)
        log._descriptor = os.open("/dev/full", os.O_WRONLY)

    async def the_journal_is_full(self):
        journal = self.guard.journal
        journal.limits = Limits(size=1)
        journal.others_bytes = 1

    def mend(self):
        if self.writer is not None:
            self.writer.execute("ROLLBACK")
            self.writer.close()


class RedisOutages(Outages):
    def __init__(self, app, directory, server):
        super().__init__(app, directory)
        self.server = server

    async def the_state_cannot_be_read(self):
        self.server.stop()
        self.expire()

    async def Redis_is_out_of_memory(self):
        self.guard.state._redis.config_set("maxmemory", "1")
        self.expire()

    async def the_state_was_emptied(self):
        self.server.stop()
        self.server.start()
        self.expire()


async def ask(app, method, path, handle=None, **more):
    headers = [*JSON, ("ascend-approval", handle)] if handle else JSON
    return await ask_in(app, path, method, headers=headers, **more)


def shown(wire, before, handler):
    """Return what a cell of the table says about an answer."""
    if handler.ran > before:
        assert wire.status == 200
        return "runs"
    return f"{wire.status} `{wire.problem}`" if "type" in wire.json else str(wire.status)


async def observe(app, authority, handler, outages, outage):
    """Prepare what the columns need, let it break, and return what each column's request gets."""
    handle = (await ask(app, "POST", "/resumed")).json["approval"]["handle"]
    authority.decide("approved")
    watched = (await ask(app, "POST", "/held")).json["approval"]["handle"]
    guard = app.guard
    limit = Order(target="bot", slot="limit", kind="RATE_LIMIT", issued_at=1.0, max_per_minute=100)
    await getattr(outages, re.sub(r"\W", "_", outage))()
    found = {}

    async def column(name, method, path, handle=None, **more):
        before = handler.ran
        found[name] = shown(await ask(app, method, path, handle, **more), before, handler)

    away = ConnectFailed("away") if outage == "the authority" else None
    authority.down = away
    await column("exempt route", "GET", "/exempt")
    await column("allowed action", "POST", "/allowed")
    await column("status URL", "GET", f"/.ascend/approvals/{watched}")
    await column("resuming an approval", "POST", "/resumed", handle)
    await column("action that is held", "POST", "/held", query=b"another=1")
    guard.kill.snapshot.orders[("bot", "limit")] = limit
    await column("rate-limited agent", "POST", "/limited")
    del guard.kill.snapshot.orders[("bot", "limit")]
    authority.down = ConnectFailed("away")
    await column("open rule, authority away", "POST", "/open")
    return found


def test_the_table_has_a_row_for_each_outage_that_is_tried():
    assert {re.sub(r"\W", "_", name) for name in TABLE} <= set(dir(RedisOutages))


CASES = [("file", outage) for outage in TABLE if "Redis" not in outage] + [
    pytest.param("redis", outage, marks=pytest.mark.slow)
    for outage in TABLE
    if outage.startswith(("nothing", "the state", "Redis")) and outage != "the state cannot be written"
]


@pytest.mark.parametrize(("store", "outage"), CASES)
def test_what_an_outage_refuses(request, monkeypatch, handler, tmp_path, outage, store):
    authority = plug(monkeypatch, Scripted())
    server = request.getfixturevalue("own_redis") if store == "redis" else None
    app = guard(
        handler,
        RULES,
        report_outcomes=True,
        enable_circuit_breaker=False,
        poll_interval=0.001,
        state=str(tmp_path / "state.db") if server is None else server.url,
        state_timeout=0.3,
        journal=str(tmp_path / "journal"),
    )
    # Nothing of this is to be delivered anywhere.
    app._runner.worker.start = lambda: None
    outages = Outages(app, tmp_path) if server is None else RedisOutages(app, tmp_path, server)
    found = asyncio.run(observe(app, authority, handler, outages, outage))
    outages.mend()
    app.guard.state.close()
    assert found == TABLE[outage]
