"""Identical requests that are asked about at the same time: one call, and for each of them what it is owed."""

import asyncio
import threading
import time

import anyio
import pytest
from kit.asgi import Wire, guard, http_scope, part, unattended
from kit.engine import GIVEN, answer, plug
from kit.reuse import READ, SETTINGS, Authority, entries
from kit.states import NOW, order
from kit.wsgi import Call, environ
from kit.wsgi import Handler as WSGIHandler

from ascend_middleware import Agent
from ascend_middleware.client.http import ConnectFailed, DeadlinePassed
from ascend_middleware.wsgi import AscendMiddleware as WSGIMiddleware

RULE = {key: value for key, value in READ.items() if key != "cache"} | {"coalesce": True}


class Slow(Authority):
    """Answers a submit when it is told to; each of the `failures` goes ahead of an answer."""

    def __init__(self):
        super().__init__()
        self.failures = []
        self.asked = 0
        self.may_answer = threading.Event()

    def send(self, request, timeout):
        return self._in_threads(request, timeout) if self.blocks else self._on_a_loop(request, timeout)

    blocks = False

    def _in_threads(self, request, timeout):
        if request.url.endswith("/submit"):
            self.asked += 1
            assert self.may_answer.wait(10)
            if self.failures:
                raise self.failures.pop(0)
        return super().send(request, timeout)

    async def _on_a_loop(self, request, timeout):
        if request.url.endswith("/submit"):
            self.asked += 1
            with anyio.fail_after(10):
                while not self.may_answer.is_set():
                    await anyio.sleep(0.001)
            if self.failures:
                raise self.failures.pop(0)
        return super().send(request, timeout)


@pytest.fixture
def house(monkeypatch):
    return plug(monkeypatch, Slow())


@pytest.fixture
def build(handler, house):
    return lambda rule=RULE, **more: unattended(guard(handler, [rule], **{**SETTINGS, **more}))


class Waiting(Wire):
    """On either kind of event loop."""

    def __init__(self, *messages):
        super().__init__(*messages)
        self.gone = anyio.Event()


async def get(app, path, *, headers=(), query=b""):
    return await Waiting(part()).through(app, http_scope("GET", path, headers=headers, query=query))


async def settle():
    for _ in range(20):
        await anyio.sleep(0)


async def together(app, house, count, **more):
    """Send so many requests, let the authority answer when all of them wait, and return what they got."""
    wires = []

    async def one():
        wires.append(await get(app, "/read/a", **more))

    async with anyio.create_task_group() as group:
        for _ in range(count):
            group.start_soon(one)
        await settle()
        house.may_answer.set()
    return wires


BACKENDS = pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])


@BACKENDS
@pytest.mark.anyio
async def test_a_herd_is_one_call_and_each_has_an_entry_of_its_own(build, house, handler, anyio_backend):
    app = build()
    wires = await together(app, house, 100)
    assert [wire.status for wire in wires] == [200] * 100 and handler.ran == 100
    assert len(house.submitted) == 1
    assert sorted(entries(app.guard)) == [("allowed", "1"), *[("coalesced", "1")] * 99]
    assert app.health()["cache"]["coalesced"] == 99
    house.tell(app.guard)
    assert len(house.uses) == 99 and house.desk.events().count("ACTION_COMPLETED") == 1
    assert (await get(app, "/read/a")).status == 200
    assert len(house.submitted) == 2  # nothing is kept


@pytest.mark.anyio
async def test_with_a_cache_the_next_one_asks_nobody(build, house):
    app = build(RULE | {"cache": "30s"})
    await together(app, house, 10)
    await get(app, "/read/a")
    assert len(house.submitted) == 1
    assert entries(app.guard)[-1] == ("cached", "1")


def test_threads_share_a_call(house):
    house.blocks, handler = True, WSGIHandler()
    app = WSGIMiddleware(handler, **{**GIVEN, **SETTINGS}, rules={"rule": [RULE]})
    app._runner.worker = None
    calls = []
    threads = [threading.Thread(target=lambda: calls.append(Call(app, environ("GET", "/read/a")))) for _ in range(16)]
    for thread in threads:
        thread.start()
    until = time.monotonic() + 10
    while len(app._runner._sharing._calls) < 1 and time.monotonic() < until:
        time.sleep(0.001)
    time.sleep(0.1)
    house.may_answer.set()
    for thread in threads:
        thread.join()
    assert [call.status for call in calls] == [200] * 16 and handler.ran == 16
    assert len(house.submitted) == 1
    assert sorted(how for how, _ in entries(app.guard)) == ["allowed", *["coalesced"] * 15]


@BACKENDS
@pytest.mark.anyio
async def test_who_began_the_call_may_leave_and_nobody_hears_of_it(build, house, handler, anyio_backend):
    app, wires = build(), []

    async def follow():
        wires.append(await get(app, "/read/a"))

    async with anyio.create_task_group() as group:
        leader = anyio.CancelScope()

        async def lead():
            with leader:
                await get(app, "/read/a")

        group.start_soon(lead)
        await settle()
        for _ in range(5):
            group.start_soon(follow)
        await settle()
        leader.cancel()
        await settle()
        house.may_answer.set()
    assert [wire.status for wire in wires] == [200] * 5
    assert len(house.submitted) == 1
    assert sorted(how for how, _ in entries(app.guard)) == ["allowed", *["coalesced"] * 4]


@pytest.mark.anyio
async def test_one_who_joined_may_leave_too(build, house):
    app = build()
    tasks = [asyncio.ensure_future(get(app, "/read/a")) for _ in range(3)]
    await settle()
    tasks[1].cancel()
    await settle()
    house.may_answer.set()
    found = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(found[1], asyncio.CancelledError) and [found[0].status, found[2].status] == [200, 200]
    assert len(house.submitted) == 1 and len(entries(app.guard)) == 2


@pytest.mark.anyio
@pytest.mark.parametrize("failure", [ConnectFailed("away"), DeadlinePassed("late")], ids=str)
async def test_where_the_call_fails_the_others_ask_for_themselves(build, house, failure):
    app = build()
    house.failures = [failure]
    statuses = sorted(wire.status if wire.sent else 0 for wire in await together(app, house, 4))
    assert statuses[:3] == [200] * 3 and statuses[3] in (500, 503)
    assert house.asked == 4 and sorted(how for how, _ in entries(app.guard)) == ["allowed"] * 3


@pytest.mark.anyio
async def test_each_keeps_a_deadline_of_its_own(build, house):
    app = build(deadline=0.4)
    first = asyncio.ensure_future(get(app, "/read/a"))
    await settle()
    began = time.monotonic()
    second = asyncio.ensure_future(get(app, "/read/a"))
    # The engine does not look at its time: who joined does not wait for longer than its own all the same.
    while not second.done() and house.asked < 2:
        await anyio.sleep(0.005)
    assert 0.3 < time.monotonic() - began < 5
    house.may_answer.set()
    await first
    await second


@pytest.mark.anyio
async def test_a_denial_is_shared_and_nothing_runs(build, house, handler):
    app = build(RULE | {"action_type": "forbidden"})
    wires = await together(app, house, 5)
    assert {(wire.status, wire.json["action_id"]) for wire in wires} == {(403, "1")}
    assert len(house.submitted) == 1 and handler.ran == 0 and entries(app.guard) == []


@pytest.mark.anyio
async def test_what_waits_for_a_person_is_one_action_of_a_caller_who_is_known(build, house, handler):
    app = build(RULE | {"action_type": "held"})
    wires = await together(app, house, 5, headers=[("authorization", "me")])
    assert len(house.submitted) == 1
    handles = {wire.json["approval"]["handle"] for wire in wires}
    assert len(handles) == 1
    assert house.desk.post("/api/v1/actions/1/approve", {}, key="admin")[0] == 200
    given = [("authorization", "me"), ("ascend-approval", handles.pop())]
    assert (await get(app, "/read/a", headers=given)).status == 200
    assert (await get(app, "/read/a", headers=given)).status == 409
    assert handler.ran == 1


@pytest.mark.anyio
async def test_of_callers_whom_nobody_knows_each_has_an_action_of_its_own(build, house):
    app = build(RULE | {"action_type": "held"})
    wires = await together(app, house, 5)
    assert len({wire.json["approval"]["handle"] for wire in wires}) == 5
    assert len({wire.json["action_id"] for wire in wires}) == 5 == len(house.submitted)


@pytest.mark.anyio
async def test_callers_agents_and_targets_are_not_mixed_up(build, house):
    agents = {"/read/a": Agent("bot", principal="ann"), "/read/b": Agent("bot", principal="bob")}
    app = build(identify=lambda connection: agents[connection["path"]])
    rows = [("/read/a", b""), ("/read/a", b""), ("/read/b", b""), ("/read/a", b"x=1")]

    async with anyio.create_task_group() as group:
        for path, query in rows:
            group.start_soon(lambda path=path, query=query: get(app, path, query=query))
        await settle()
        house.may_answer.set()
    assert len(house.submitted) == 3


@pytest.mark.anyio
async def test_a_kill_meanwhile_stops_every_one(build, house, handler):
    app = build()

    async with anyio.create_task_group() as group:
        wires = []

        async def one():
            wires.append(await get(app, "/read/a"))

        for _ in range(3):
            group.start_soon(one)
        await settle()
        app.guard.state.apply([order("BLOCK")], command_id="1", now=NOW)
        app.guard.kill.expire()
        house.may_answer.set()
    assert {wire.problem for wire in wires} == {"kill-switch"} and handler.ran == 0


@pytest.mark.anyio
async def test_who_comes_after_a_kill_does_not_join_what_began_before(build, house):
    app = build()
    first = asyncio.ensure_future(get(app, "/read/a"))
    await settle()
    app.guard.state.apply([order("BLOCK", target="other")], command_id="1", now=NOW)
    app.guard.kill.refresh()
    second = asyncio.ensure_future(get(app, "/read/a"))
    await settle()
    assert house.asked == 2
    house.may_answer.set()
    await first
    await second


@pytest.mark.anyio
@pytest.mark.parametrize("identifies", [False, True])
@pytest.mark.parametrize("says", [{}, {"cache": "30s"}])
async def test_without_the_word_of_the_rule_each_is_asked_about(build, house, says, identifies):
    more = {"identify": lambda _: Agent("bot")} if identifies else {}
    app = build({key: value for key, value in RULE.items() if key != "coalesce"} | says, **more)
    await together(app, house, 3)
    assert len(house.submitted) == 3


ALONE = [
    {"approved_by": ["boss"]},
    {"approval_request_id": "7"},
    {"decided_by": "boss"},
    {"conditions": ["x"]},
    {"policy_state": ""},
    {"policy_state": None},
]


@pytest.mark.anyio
@pytest.mark.parametrize("more", ALONE, ids=str)
async def test_a_permission_that_does_not_stand_alone_is_for_who_asked(monkeypatch, handler, more):
    class Personal(Slow):
        async def _on_a_loop(self, request, timeout):
            await super()._on_a_loop(request, timeout)
            return answer(**{"policy_state": "p", **more})

    house = plug(monkeypatch, Personal())
    app = unattended(guard(handler, [RULE], **SETTINGS))
    wires = await together(app, house, 3)
    assert [wire.status for wire in wires] == [200] * 3
    assert house.asked == 3 and {how for how, _ in entries(app.guard)} == {"allowed"}


@pytest.mark.anyio
async def test_where_no_uses_are_taken_nobody_waits_for_anothers_answer(build, house):
    app = build()
    app.guard.core.policy_state = ""  # as a first answer told

    async with anyio.create_task_group() as group:
        for _ in range(3):
            group.start_soon(get, app, "/read/a")
        await settle()
        asked = house.asked
        house.may_answer.set()
    assert asked == 3
