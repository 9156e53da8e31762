"""The kill switch and the agent rate limit: who throws them, who obeys, and what nobody can do about it."""

import asyncio
import json
import logging
import os
import threading
import time

import pytest
from kit.asgi import JSON, Wire, ask, get, guard, http_scope, part
from kit.engine import GIVEN, answer, failed
from kit.processes import in_a_child
from kit.states import NOW, order, state_at

from ascend_middleware import Agent
from ascend_middleware.api.orders import EVERYBODY
from ascend_middleware.client import Send
from ascend_middleware.client.core import ClientCore
from ascend_middleware.client.http import ConnectFailed, DeadlinePassed, Response
from ascend_middleware.config import Settings
from ascend_middleware.exceptions import AscendError, ConfigurationError
from ascend_middleware.flow import Blocking, ReadBody, Sleep, drive
from ascend_middleware.guard import Guard
from ascend_middleware.guard.request import RequestView
from ascend_middleware.killswitch.poller import CommandPoller, LeasedPoller
from ascend_middleware.killswitch.switch import KillSwitch
from ascend_middleware.rules import RuleTable
from ascend_middleware.state.base import StateError

RULES = [
    {"match": "POST /run", "action_type": "transaction"},
    {"match": "GET /health", "exempt": True},
]


def guarded(app, **settings):
    return guard(app, RULES, **settings)


def throw(app, *orders):
    app.guard.state.apply(orders, command_id="", now=NOW)
    app.guard.kill.expire()


@pytest.mark.anyio
class TestObeying:
    @pytest.mark.parametrize("kind", ["BLOCK", "SUSPEND", "QUARANTINE"])
    @pytest.mark.parametrize("target", ["bot", EVERYBODY])
    async def test_a_blocked_agent_gets_503_without_retry_after_and_nobody_is_asked(
        self, engine, handler, kind, target
    ):
        app = guarded(handler)
        throw(app, order(kind, target=target, reason="misbehaves"))
        wire = await ask(app)
        assert (wire.status, wire.problem, handler.ran) == (503, "kill-switch", 0)
        assert "retry-after" not in wire.headers
        assert "misbehaves" in wire.json["detail"]
        assert engine.requests == []
        assert (await get(app, "/health")).status == 200
        throw(app, order("UNBLOCK", target=target, at=NOW + 1))
        assert (await ask(app)).status == 200

    @pytest.mark.parametrize("settings", [{"mode": "observe"}, {"on_failure": "open"}, {"pending": "wait:30s"}])
    async def test_it_beats_observing_failing_open_and_waiting(self, engine, handler, settings):
        engine.answers = [ConnectFailed("no")]
        app = guarded(handler, **settings)
        throw(app, order())
        assert (await ask(app)).problem == "kill-switch"
        assert handler.ran == 0

    async def test_one_agents_block_is_not_anothers_and_lifting_one_lifts_not_all(self, engine, handler):
        agent = ["bot"]
        app = guarded(handler, identify=lambda _: Agent(agent[0]))
        throw(app, order())
        agent[0] = "other"
        assert (await ask(app)).status == 200
        throw(app, order(target=EVERYBODY), order("UNBLOCK", target="other", at=NOW + 5))
        assert (await ask(app)).problem == "kill-switch"

    async def test_what_another_process_keeps_is_obeyed_within_the_cache(self, engine, handler, tmp_path):
        place = {"state": str(tmp_path / "state.db"), "journal": "memory:"}
        first, second = guarded(handler, **place), guarded(handler, **place)
        assert [(await ask(app)).status for app in (first, second)] == [200, 200]
        first.guard.state.apply([order()], command_id="c", now=NOW)
        began = time.monotonic()
        while (await ask(second)).status == 200:
            await asyncio.sleep(0.01)
        assert time.monotonic() - began < 10  # a quarter of a second for the cache, and a busy machine
        for app in (first, second):
            await app.aclose()

    async def test_waiting_requests_of_a_killed_agent_end_at_once(self, engine, handler):
        engine.answers = [answer("pending")]
        app = guarded(handler, pending="wait:50s", poll_interval=40)
        waiting = [asyncio.ensure_future(ask(app)) for _ in range(3)]
        while app.guard.waiters < 3:
            await asyncio.sleep(0.001)
        app.guard.state.apply([order()], command_id="c", now=NOW)
        began = time.monotonic()
        wires = await asyncio.gather(*waiting)
        assert [wire.problem for wire in wires] == ["kill-switch"] * 3
        assert time.monotonic() - began < 20  # of the 40 seconds until the next question
        assert app.guard.waiters == 0

    @pytest.mark.parametrize("polls", [0.7, 5.0, 40.0])
    @pytest.mark.parametrize("moment", [0.1, 0.99, 7.3, 39.8])
    def test_a_kill_ends_a_wait_within_half_a_second_of_its_coming(self, moment, polls):
        """On a clock of its own, and however seldom the authority is asked."""
        time = [0.0]
        settings = {**GIVEN, "journal": "off"}
        core = ClientCore(Settings(**settings), clock=lambda: time[0], now=lambda: NOW + time[0])
        state = state_at()
        table = RuleTable.from_mapping({"rule": [{**RULES[0], "pending": "wait:50s"}]})
        waits = Settings(**settings, poll_interval=polls)
        guard = Guard(table=table, settings=waits, core=core, state=state, journal=None, random=lambda: 0.5)
        view = RequestView(method="POST", path="/run", raw_path="/run", query=b"", headers=[])

        def perform(step):
            if isinstance(step, Send):
                return answer("pending")
            if isinstance(step, Blocking):
                return step.function(*step.arguments)
            if isinstance(step, ReadBody):
                return b""
            if time[0] <= moment < time[0] + step.seconds:
                state.apply([order()], command_id="c", now=NOW)
            time[0] += step.seconds
            return False

        verdict = drive(guard.triage(view), perform)
        assert (verdict.outcome, verdict.passes) == ("kill-switch", False)
        assert moment < time[0] <= moment + 0.5

    async def test_an_approved_action_of_a_blocked_agent_is_not_resumed(self, engine, handler):
        engine.answers = [answer("pending"), answer("approved")]
        app = guarded(handler)
        handle = (await ask(app)).json["approval"]["handle"]
        throw(app, order())
        wire = await ask(app, headers=[*JSON, ("ascend-approval", handle)])
        assert (wire.problem, handler.ran) == ("kill-switch", 0)

    async def test_a_state_that_was_emptied_lifts_nothing(self, engine, handler, tmp_path, caplog):
        app = guarded(handler, state=str(tmp_path / "state.db"), journal="memory:")
        throw(app, order())
        assert (await ask(app)).problem == "kill-switch"
        for path in tmp_path.glob("state.db*"):
            path.unlink()
        app.guard.kill.expire()
        assert (await ask(app)).problem == "kill-switch"
        assert "put back" in caplog.text
        assert app.guard.state.snapshot(now=NOW).orders["bot", "block"] == order()
        await app.aclose()

    async def test_an_unreadable_state_refuses_what_is_governed_and_nothing_else(
        self, engine, handler, tmp_path, caplog
    ):
        path = tmp_path / "state.db"
        app = guarded(handler, state=str(path), journal="memory:", on_failure="open")
        assert (await ask(app)).status == 200
        kill = app.guard.kill
        app.guard.state.close()
        content = path.read_bytes()
        path.write_bytes(b"nonsense " * 1000)
        kill._read_at = kill._quiet_until = kill._idle_until = -1e9
        wire = await ask(app)
        assert (wire.status, wire.problem, wire.headers["retry-after"]) == (503, "unavailable", "1")
        assert handler.ran == 1
        assert (await get(app, "/health")).status == 200
        assert "kill state cannot be read" in caplog.text
        path.write_bytes(content)
        kill._failed_at = -1e9
        assert (await ask(app)).status == 200
        await app.aclose()

    async def test_a_state_that_hangs_holds_up_nobody_for_longer_than_one_call(self, engine, handler):
        app = guarded(handler)
        state, reads = app.guard.state, []

        def hang(**_):
            reads.append(time.monotonic())
            time.sleep(0.5)
            raise StateError("no answer")

        state.snapshot, state.blocks = hang, True
        began = time.monotonic()
        for _ in range(3):
            wires = await asyncio.gather(*(ask(app) for _ in range(64)))
            assert {wire.problem for wire in wires} == {"unavailable"}
        assert time.monotonic() - began < 50  # one after the other they would take 96 seconds
        assert len(reads) <= 40
        del state.snapshot
        await asyncio.sleep(0.3)
        assert (await ask(app)).status == 200
        await app.aclose()

    async def test_a_cold_start_reads_once_for_all(self, engine, handler):
        app = guarded(handler)
        state, reads = app.guard.state, []
        snapshot = state.snapshot

        def slow(**named):
            reads.append(1)
            time.sleep(0.1)
            return snapshot(**named)

        state.snapshot, state.blocks = slow, True
        wires = await asyncio.gather(*(ask(app) for _ in range(64)))
        assert {wire.status for wire in wires} == {200}
        assert len(reads) <= 2
        await app.aclose()


@pytest.mark.anyio
class TestLocalSwitch:
    async def test_while_the_file_exists_everybody_is_blocked(self, engine, handler, tmp_path):
        path = tmp_path / "kill"
        app = guarded(handler, kill_file=str(path))
        for status in (200, 503, 200):
            path.touch() if status == 503 else path.unlink(missing_ok=True)
            app.guard.kill.expire()
            assert (await ask(app)).status == status

    @pytest.mark.parametrize(("content", "blocked"), [("bot\n", True), ("other\n x \n", False), ("*", True)])
    async def test_the_file_may_name_agents(self, engine, handler, tmp_path, content, blocked):
        path = tmp_path / "kill"
        path.write_text(content)
        wire = await ask(guarded(handler, kill_file=str(path)))
        assert (wire.status == 503) is blocked

    async def test_a_file_that_cannot_be_read_blocks_and_is_told_once(self, engine, handler, tmp_path, caplog):
        (tmp_path / "kill").mkdir()
        app = guarded(handler, kill_file=str(tmp_path / "kill"))
        for _ in range(3):
            app.guard.kill.expire()
            assert (await ask(app)).problem == "kill-switch"
        assert [line.getMessage().rpartition(", ")[2] for line in caplog.records if line.levelname == "ERROR"] == [
            "which cannot be read: Is a directory"
        ]

    @pytest.mark.parametrize(
        ("value", "blocked"), [("1", True), ("all", True), ("bot, other", True), ("other", False), ("0", False)]
    )
    async def test_the_environment(self, engine, handler, monkeypatch, value, blocked):
        monkeypatch.setenv("ASCEND_KILL", value)
        assert ((await ask(guarded(handler))).status == 503) is blocked

    async def test_it_works_while_the_state_does_not(self, engine, handler, tmp_path):
        path = tmp_path / "kill"
        path.touch()
        app = guarded(handler, kill_file=str(path))
        app.guard.state.snapshot = lambda **_: (_ for _ in ()).throw(StateError("no"))
        assert (await ask(app)).problem == "kill-switch"


@pytest.mark.anyio
class TestRateLimit:
    async def test_429_with_the_exact_wait_shared_by_all_workers(self, engine, handler, tmp_path):
        place = {"state": str(tmp_path / "state.db"), "journal": "memory:"}
        apps = [guarded(handler, **place) for _ in range(2)]
        throw(apps[0], order("RATE_LIMIT", slot="limit", max_per_minute=3))
        statuses = [(await ask(apps[number % 2])).status for number in range(3)]
        assert statuses == [200, 200, 200]
        wire = await ask(apps[1])
        assert (wire.status, wire.problem, handler.ran) == (429, "agent-rate-limit", 3)
        assert 55 <= int(wire.headers["retry-after"]) <= 60
        assert len(engine.submitted) == 3
        throw(apps[0], order("UNBLOCK", slot="limit", at=NOW + 1))
        assert (await ask(apps[0])).status == 200
        for app in apps:
            await app.aclose()

    async def test_a_limit_never_lifts_a_block(self, engine, handler):
        app = guarded(handler)
        throw(app, order(), order("RATE_LIMIT", slot="limit", at=NOW + 5, max_per_minute=30))
        assert (await ask(app)).problem == "kill-switch"

    async def test_the_lower_of_two_limits_counts(self, engine, handler):
        app = guarded(handler)
        limits = {"slot": "limit", "kind": "RATE_LIMIT"}
        throw(app, order(max_per_minute=5, **limits), order(target=EVERYBODY, max_per_minute=1, **limits))
        assert [(await ask(app)).status for _ in range(2)] == [200, 429]


class Authority:
    """The kill-switch endpoints of an authority."""

    def __init__(self):
        self.rows = []
        self.acked = []
        self.asked = []
        self.status = {"blocked": False, "active": False, "is_active": False}
        self.failing = None
        self.of_agents = {}

    def answer(self, request):
        self.asked.append(request.url.removeprefix("https://authority.example"))
        if self.failing is not None:
            raise self.failing
        if request.url.endswith("/ack"):
            self.acked.append(request.url.split("/")[-2])
            found = {"success": True}
        elif request.url.endswith("/commands"):
            found = self.of_agents.get(request.url.split("/")[-2], {"commands": self.rows})
            if isinstance(found, Exception):
                raise found
        else:
            found = self.status
        return found if isinstance(found, Response) else Response(200, {}, json.dumps(found).encode())

    def perform(self, step):
        if isinstance(step, Sleep):
            return None
        if isinstance(step, Blocking):
            return step.function(*step.arguments)
        return self.answer(step.request)


class TestReceiving:
    @pytest.fixture
    def authority(self):
        return Authority()

    @pytest.fixture
    def state(self):
        return state_at()

    @pytest.fixture
    def kill(self, state):
        return KillSwitch(state, now=lambda: NOW, environ={})

    @pytest.fixture
    def receiver(self, state, kill):
        settings = Settings(**GIVEN, organization_id="4")
        return CommandPoller(ClientCore(settings), state, kill, settings, now=lambda: NOW)

    def row(self, kind="BLOCK", **more):
        return {"command_id": f"c-{kind}", "command_type": kind, "reason": "r", "created_at": NOW - 5, **more}

    def poll(self, receiver, authority, kill):
        drive(receiver.poll(), authority.perform)
        kill.refresh()
        return kill.refusal("bot"), kill.refusal("other")

    def test_a_fetched_block_blocks_and_is_acknowledged(self, receiver, authority, state, kill):
        authority.rows = [self.row()]
        mine, others = self.poll(receiver, authority, kill)
        assert (mine is not None, others) == (True, None)
        assert authority.acked == ["c-BLOCK"]
        assert state.snapshot(now=NOW).confirmed_at == NOW
        authority.rows = [self.row("UNBLOCK", created_at=NOW)]
        assert self.poll(receiver, authority, kill) == (None, None)

    def test_a_stale_lift_that_comes_late_lifts_nothing(self, receiver, authority, kill):
        authority.rows = [self.row(), self.row("UNBLOCK", created_at=NOW - 60)]
        assert self.poll(receiver, authority, kill)[0] is not None
        authority.rows = [self.row()]  # given again
        assert self.poll(receiver, authority, kill)[0] is not None

    def test_a_broadcast_blocks_everybody(self, receiver, authority, kill):
        authority.rows = [self.row(is_broadcast=True, agent_id=None)]
        mine, others = self.poll(receiver, authority, kill)
        assert mine is not None
        assert others is not None

    def test_foreign_unknown_and_malformed_ones_do_nothing_loudly(self, receiver, authority, kill, caplog):
        caplog.set_level(logging.INFO, logger="ascend_middleware")
        authority.rows = [
            self.row(organization_id=5),
            self.row("PARDON"),
            "nonsense",
            {"command_id": "x"},
            self.row("UNBLOCK", created_at=None),
        ]
        assert self.poll(receiver, authority, kill) == (None, None)
        assert authority.acked == []
        for text in ("organisation '5' is ignored", "PARDON", "malformed", "issue time"):
            assert text in caplog.text
        caplog.clear()
        self.poll(receiver, authority, kill)
        assert caplog.text == ""

    def test_commands_of_other_agents_that_were_seen_are_fetched_too(self, receiver, authority, state, kill):
        for number in range(25):
            state.see(f"agent-{number}", now=NOW)
        for _ in range(3):
            drive(receiver.poll(), authority.perform)
        asked = {url.split("/")[-2] for url in authority.asked if url.endswith("/commands")}
        assert asked == {"bot", *(f"agent-{number}" for number in range(25))}

    def test_every_agent_of_a_day_has_its_turn(self, receiver, authority, state, kill):
        for number in range(120):
            state.see(f"agent-{number}", now=NOW - number)
        authority.of_agents["agent-119"] = {"commands": [self.row()]}
        for _ in range(12):
            self.poll(receiver, authority, kill)
        asked = [url.split("/")[-2] for url in authority.asked if url.endswith("/commands")]
        assert sorted(asked) == sorted(["bot"] * 12 + [f"agent-{number}" for number in range(120)])
        assert kill.refusal("agent-119") is not None

    @pytest.mark.parametrize(
        "answer",
        [
            *(failed(code) for code in (403, 422, 500)),
            {"commands": "none"},
            {"commands": [7]},
            ConnectFailed("no"),
        ],
    )
    def test_what_is_wrong_with_one_agent_keeps_nothing_from_the_others(
        self, receiver, authority, state, kill, answer, caplog
    ):
        for name in ("..", "first", "second", "third"):
            state.see(name, now=NOW)
        authority.of_agents = {"first": answer, "second": {"commands": [self.row()]}}
        authority.status = {"blocked": False}
        self.poll(receiver, authority, kill)
        assert kill.refusal("second") is not None
        assert kill.refusal("third") is None
        assert state.snapshot(now=NOW).confirmed_at == NOW
        assert "'..' cannot be received" in caplog.text
        authority.status = {"blocked": True}
        assert None not in self.poll(receiver, authority, kill)

    def test_a_command_that_cannot_be_acknowledged_is_obeyed_and_so_is_the_next(self, receiver, authority, kill):
        def answer(request):
            return failed(403) if request.url.endswith("/ack") else Authority.answer(authority, request)

        authority.answer = answer
        authority.rows = [self.row(), self.row("RATE_LIMIT", parameters={"max_per_minute": 3})]
        assert self.poll(receiver, authority, kill)[0] is not None
        assert kill.limit("bot") == 3

    @pytest.mark.parametrize(("whose", "confirmed"), [("status", 0.0), ("bot", 0.0), ("zoe", NOW)])
    def test_what_cannot_be_kept_is_neither_acknowledged_nor_passed_over(
        self, receiver, authority, state, kill, whose, confirmed
    ):
        def full(*arguments, **named):
            raise StateError("full")

        state.see("zoe", now=NOW)
        if whose == "status":
            authority.status = {"blocked": True}
        else:
            authority.of_agents[whose] = {"commands": [self.row()]}
        apply, state.apply = state.apply, full
        with pytest.raises(StateError, match="full"):
            drive(receiver.poll(), authority.perform)
        assert (state.snapshot(now=NOW).confirmed_at, authority.acked) == (confirmed, [])
        state.apply = apply
        blocked = [refusal is not None for refusal in self.poll(receiver, authority, kill)]
        assert blocked == [whose in ("status", "bot"), whose == "status"]
        assert (kill.refusal("zoe") is not None) is (whose != "bot")

    @pytest.mark.parametrize("failing", ["status", "commands"])
    def test_what_was_heard_counts_at_the_next_request_also_where_the_rest_failed(
        self, receiver, authority, kill, failing
    ):
        kill.refresh()
        assert kill.is_fresh
        authority.rows, authority.status = [self.row()], {"blocked": True}
        if failing == "status":
            authority.status = failed(500)
        else:
            authority.of_agents["bot"] = failed(500)
        with pytest.raises(AscendError):
            drive(receiver.poll(), authority.perform)
        assert not kill.is_fresh
        kill.refresh()
        assert [kill.refusal(agent) is not None for agent in ("bot", "other")] == [True, failing == "commands"]

    def test_an_agent_of_which_nothing_is_heard_takes_no_time_of_the_others(self, state, kill):
        time = [0.0]
        settings = Settings(**GIVEN)
        core = ClientCore(settings, clock=lambda: time[0])
        receiver = CommandPoller(core, state, kill, settings, now=lambda: NOW)
        authority = Authority()
        for number in range(8):
            state.see(f"silent-{number}", now=NOW)
        state.see("zoe", now=NOW)

        def perform(step):
            if not isinstance(step, Sleep | Blocking) and "/silent-" in step.request.url:
                time[0] += step.timeout
                raise DeadlinePassed("silent")
            return authority.perform(step)

        authority.of_agents["zoe"] = {"commands": [self.row()]}
        for _ in range(2):
            drive(receiver.poll(), perform)
        kill.refresh()
        assert kill.refusal("zoe") is not None
        assert kill.refusal("silent-1") is None
        assert state.snapshot(now=NOW).confirmed_at == NOW

    @pytest.mark.parametrize(
        "status",
        [
            {"blocked": True},
            {"active": True},
            {"is_active": True, "blocked": False},
            {"is_blocked": True},
            {"status": "blocked"},
            {"status": "success", "data": {"blocked": True}},
            {"blocked": False, "status": "suspended"},
            {"blocked": False, "status": "Quarantined "},
            {"status": "killed"},
            {"blocked": False, "data": {"status": "active"}},
            {"blocked": True, "active": "yes"},
        ],
    )
    def test_every_shape_of_a_thrown_switch_blocks(self, receiver, authority, kill, status):
        authority.status = status
        assert None not in self.poll(receiver, authority, kill)
        authority.status = {"blocked": False}
        assert self.poll(receiver, authority, kill) == (None, None)

    def test_what_stays_as_it_is_is_said_once(self, receiver, authority, state, caplog):
        """Also where no requests come, so that nobody but the poll itself reads what it kept."""
        kept = []
        for blocked in (True, True, True, False, False, True):
            authority.status = {"blocked": blocked}
            drive(receiver.poll(), authority.perform)
            kept.append(state.snapshot(now=NOW).orders[EVERYBODY, "status"].issued_at)
        said = [line.getMessage() for line in caplog.records if "the authority's kill switch is" in line.getMessage()]
        assert [text.rpartition(" ")[2] for text in said] == ["thrown", "released", "thrown"]
        assert (len(set(kept[:3])), len(set(kept))) == (1, 3)

    @pytest.mark.parametrize(
        "status",
        [
            {},
            {"blocked": "no"},
            {"blocked": None},
            {"blocked": False, "active": None},
            {"active": False, "blocked": 0},
            {"status": "released"},
            {"status": "inactive"},
            failed(200, b"<html>"),
            failed(403, b'{"detail": {"error": "governance violation", "code": "X"}}'),
            failed(500),
            failed(429),
            ConnectFailed("no"),
        ],
    )
    def test_no_other_answer_lifts_it_or_confirms_anything(self, receiver, authority, state, kill, status):
        authority.status = {"blocked": True}
        self.poll(receiver, authority, kill)
        state.confirm(now=1.0)
        authority.status = status
        if isinstance(status, Exception):
            authority.failing = status
        with pytest.raises(AscendError):
            drive(receiver.poll(), authority.perform)
        kill.refresh()
        assert kill.refusal("bot") is not None
        assert state.snapshot(now=NOW).confirmed_at == 1.0

    def test_an_authority_without_these_endpoints_is_left_alone(self, receiver, authority, state, kill):
        authority.status, authority.of_agents = failed(501), {"bot": failed(501)}
        for _ in range(3):
            drive(receiver.poll(), authority.perform)
        assert len(authority.asked) == 2
        assert state.snapshot(now=NOW).confirmed_at == 0.0

    def test_one_process_receives_at_a_time_and_another_one_when_it_is_silent(self, receiver, authority, state):
        now = [NOW]
        clocks = {"clock": lambda: now[0], "now": lambda: now[0]}
        one, two = (
            LeasedPoller(receiver, state=state, owner=lambda name=name: name, interval=5.0, **clocks)
            for name in ("one", "two")
        )
        assert one(authority.perform) == 5.0
        asked = len(authority.asked)
        assert asked == 2
        now[0] += 14.9
        assert two(authority.perform) == 5.0
        assert len(authority.asked) == asked
        now[0] += 0.2
        two(authority.perform)
        one(authority.perform)
        assert len(authority.asked) == 2 * asked

    @pytest.mark.parametrize(("works", "polled"), [(True, [0.0, 60.0]), (False, [0.0, 5.0, 59.9])])
    def test_beside_a_queue_that_works_it_is_asked_less_often(self, receiver, authority, state, works, polled):
        def queue():
            if works:
                return 0.5
            raise ConnectFailed("no queue")

        now, found = [0.0], []
        given = {"owner": lambda: "one", "interval": 5.0, "queue": queue, "clock": lambda: now[0]}
        leased = LeasedPoller(receiver, state=state, **given)
        for now[0] in (0.0, 4.9, 5.0, 59.9, 60.0):
            authority.asked.clear()
            assert leased(authority.perform) == (0.5 if works else 5.0)
            found += [now[0]] * bool(authority.asked)
        assert found == polled

    @pytest.mark.parametrize("way", ["queue", "http"])
    def test_what_cannot_be_received_is_said_at_first_and_after_a_while(self, receiver, authority, state, caplog, way):
        """Also where the other way works."""

        def queue():
            if way == "queue" and fails:
                raise ConnectFailed("no")
            return 0.0

        now = [0.0]
        given = {"owner": lambda: "one", "interval": 1.0, "queue": queue, "clock": lambda: now[0]}
        leased = LeasedPoller(receiver, state=state, **given)
        for fails in (True, False, True):
            authority.failing = ConnectFailed("no") if way == "http" and fails else None
            said = []
            for _ in range(22 if fails else 1):
                caplog.clear()
                now[0] += 12.0
                leased(authority.perform)
                said.append(caplog.text.count("kill-switch commands cannot be received"))
            assert said == ([1, *[0] * 9, 1, *[0] * 11] if fails else [0])


@pytest.mark.anyio
class TestStaleness:
    @pytest.fixture
    def authority(self, engine):
        authority = Authority()
        engine.answers = [lambda request: answer() if request.url.endswith("/submit") else authority.answer(request)]
        return authority

    async def test_a_stale_state_is_confirmed_once_for_all(self, authority, handler):
        app = guarded(handler, max_staleness=30)
        wires = await asyncio.gather(*(ask(app) for _ in range(10)))
        assert {wire.status for wire in wires} == {200}
        assert len(authority.asked) == 2

    async def test_who_waited_for_it_gets_the_body_that_comes_then(self, authority, handler):
        """While it waits a receive is under way, which sees the client leave; its message is the handler's."""

        class Uvicorn:
            __module__ = "uvicorn.protocols.http.any"
            disconnected = False

            def __init__(self):
                self.queue = asyncio.Queue()

            async def receive(self):
                return await self.queue.get()

        async def runs(scope, receive, send):
            if scope["client"] == ("late", 1):
                asyncio.get_running_loop().call_soon(server.queue.put_nowait, part(b"late"))
            await handler(scope, receive, send)

        server, app = Uvicorn(), guarded(runs, max_staleness=30)
        late = app(http_scope("POST", "/run", client=("late", 1)), server.receive, Wire().send)
        await asyncio.gather(ask(app), asyncio.wait_for(late, 20))
        assert (handler.ran, handler.body) == (2, b"late")

    async def test_what_the_confirmation_brings_is_obeyed(self, authority, handler):
        authority.rows = [{"command_id": "c", "command_type": "BLOCK", "reason": "r"}]
        assert (await ask(guarded(handler, max_staleness=30))).problem == "kill-switch"
        assert handler.ran == 0

    async def test_where_it_cannot_be_confirmed_everything_governed_is_blocked(self, authority, handler, caplog):
        authority.failing = ConnectFailed("no")
        app = guarded(handler, max_staleness=30, on_failure="open", journal="memory:")
        for _ in range(5):
            assert (await ask(app)).problem == "kill-switch"
        assert len(authority.asked) == 2  # the status and the agent's commands; nobody tries again at once
        assert handler.ran == 0
        assert "stale" in caplog.text

    @pytest.mark.parametrize("wrong", [ConnectFailed("no"), failed(403), {"commands": "none"}])
    async def test_of_another_agent_its_own_commands_have_to_be_heard(self, authority, handler, caplog, wrong):
        authority.of_agents["other"] = wrong
        agent = ["other"]
        app = guarded(handler, max_staleness=30, kill_switch="off", identify=lambda _: Agent(agent[0]))
        for _ in range(5):
            assert (await ask(app)).problem == "kill-switch"
        assert "agent 'other' is stale" in caplog.text
        assert len([url for url in authority.asked if "/other/" in url]) == 1  # nobody tries again at once
        for agent[0] in ("bot", "third"):
            assert (await ask(app)).status == 200
        assert handler.ran == 2

    def test_another_agent_is_heard_of_again_after_max_staleness(self, authority):
        time = [0.0]
        settings = Settings(**GIVEN, max_staleness=30)
        core = ClientCore(settings, clock=lambda: time[0], now=lambda: NOW + time[0])
        state = state_at()
        table = RuleTable.from_mapping({})
        guard = Guard(table=table, settings=settings, core=core, state=state, journal=None)

        def obeyed(agent):
            authority.asked.clear()
            refusal = drive(guard.kill.obey(agent, guard.poller, deadline=time[0] + 5), authority.perform)
            return refusal is None, [url for url in authority.asked if f"/{agent}/commands" in url]

        url = ["/api/registry/agents/other/commands"]
        assert obeyed("other") == (True, url)
        time[0] = 30.0
        assert obeyed("other") == (True, [])
        state.confirm(now=NOW + 30)  # what is known of the organisation and of `bot` says nothing of others
        time[0] = 30.1
        guard.kill.expire()
        assert obeyed("other") == (True, url)
        time[0] = 61.0
        state.confirm(now=NOW + 61)
        guard.kill.expire()
        authority.of_agents["other"] = {"commands": [{"command_id": "c", "command_type": "BLOCK", "reason": "r"}]}
        assert obeyed("other")[0] is False
        # An authority that does not know the agent has no commands for it.
        authority.of_agents["third"] = failed(404)
        assert obeyed("third")[0] is True
        time[0] = 90.0
        assert drive(guard.poller.ask_for("third", deadline=95.0), authority.perform) is None  # nobody is asked so soon
        time[0] = 100.0
        state.confirm(now=NOW + 100)
        guard.kill.expire()
        authority.of_agents["third"] = ConnectFailed("no")
        assert obeyed("third")[0] is False

    async def test_no_event_loop_waits_for_a_state_on_a_disk(self, authority, handler, tmp_path):
        """Neither for the first look nor for the one after a confirmation."""
        app = guarded(handler, max_staleness=30, state=str(tmp_path / "state.db"), journal="memory:")
        app._runner.worker = None
        state, threads, here = app.guard.state, [], threading.get_ident()
        snapshot = state.snapshot

        def watched(**named):
            threads.append(threading.get_ident())
            return snapshot(**named)

        state.snapshot = watched
        assert (await ask(app)).status == 200
        assert len(threads) >= 2
        assert here not in threads


class TestSettings:
    def test_a_queue_needs_to_know_its_organisation(self, handler):
        with pytest.raises(ConfigurationError, match="organization_id"):
            guarded(handler, kill_switch="sqs", kill_queue_url="https://sqs.eu-1.amazonaws.com/1/q")

    def test_failing_open_needs_a_journal(self, handler):
        with pytest.raises(ConfigurationError, match="journal = off"):
            guarded(handler, on_failure="open", journal="off")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_still_obeys():
    state = state_at()
    kill = KillSwitch(state, environ={})
    state.apply([order()], command_id="c", now=NOW)
    kill.refresh()

    def obeys():
        kill.expire()
        kill.refresh()  # the child's memory holds nothing: what the parent knew is put back
        return kill.refusal("bot") is not None

    assert in_a_child(obeys)


def test_a_state_that_answers_again_is_read_at_once(monkeypatch):
    def away(**given):
        asked.append(given)
        raise StateError("away")

    asked, state = [], state_at()
    kill = KillSwitch(state, clock=lambda: 0.0, environ={})
    with monkeypatch.context() as context:
        context.setattr(state, "snapshot", away)
        assert [drive(kill.look(), lambda step: step.function(*step.arguments)) for _ in range(2)] == [False, False]
    assert len(asked) == 1
    kill.refresh()
    kill.expire()
    assert drive(kill.look(), lambda step: step.function(*step.arguments))


def test_a_state_that_cannot_be_read_is_told_once_a_minute(caplog):
    def away(**given):
        raise StateError("away")

    time, state = [0.0], state_at()
    state.snapshot = away
    kill = KillSwitch(state, clock=lambda: time[0], environ={})
    told = []
    for moment in (0, 0, 0.5, 1, 59.9, 60, 61, 121):
        time[0] = moment
        caplog.clear()
        with pytest.raises(StateError):
            kill.refresh()
        told += [moment] * len(caplog.records)
    assert told == [0, 60, 121]


@pytest.mark.parametrize(
    ("confirmed", "stale"), [(NOW, False), (NOW + 299, False), (NOW + 301, True), (NOW - 31, True)]
)
def test_a_confirmation_from_the_future_confirms_nothing(confirmed, stale):
    state = state_at()
    state.confirm(now=confirmed)
    kill = KillSwitch(state, max_staleness=30, now=lambda: NOW, environ={})
    kill.refresh()
    assert kill.is_stale is stale
