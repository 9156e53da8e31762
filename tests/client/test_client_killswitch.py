"""A stopped agent asks nothing and gets nothing: commands, polling, limits, forks. Time is the test's own."""

import json
import os
import signal
import threading
import time

import pytest
from kit.clients import KEY, KINDS, Desk, opened
from kit.processes import in_a_child, wait_until
from test_client_methods import APPROVED, OK, refused

from ascend_middleware import exceptions as errors
from ascend_middleware.api.models import KillSwitchStatus
from ascend_middleware.client import AsyncAscendClient, Response
from ascend_middleware.client.killswitch import KillState

MINUTE_PAST_NEW_YEAR = 1_767_225_660.0


class State:
    def __init__(self):
        self.time = 0.0
        self.kill = KillState(agent_id="a", clock=lambda: self.time, now=lambda: MINUTE_PAST_NEW_YEAR)

    def tell(self, kind, second=0, **fields):
        issued = {} if second is None else {"issued_at": f"2026-01-01T00:00:{second:02}Z"}
        command = {"command_id": f"{kind} {second}", "command_type": kind, "reason": kind.lower()}
        self.kill.learn_command({**command, **issued, **fields})
        return self.stopped

    @property
    def stopped(self):
        return self.kill.stopped() is not None


@pytest.fixture
def state():
    return State()


@pytest.mark.parametrize("stop", ["BLOCK", "SUSPEND", "QUARANTINE", "block", " BLOCK "])
@pytest.mark.parametrize("lift", ["UNBLOCK", "RESUME", "unblock"])
def test_c27_every_stop_stops_until_it_is_lifted(state, stop, lift):
    assert state.tell(stop, 1)
    with pytest.raises(errors.KillSwitchError, match=stop.strip().lower()):
        state.kill.check()
    assert not state.tell(lift, 2)
    state.kill.check()


def test_c27_the_newest_by_time_of_issue_counts(state):
    assert state.tell("BLOCK", 5)
    assert state.tell("UNBLOCK", 4)  # redelivered, older
    assert state.tell("UNBLOCK", 5)  # issued together: the stricter
    assert not state.tell("UNBLOCK", 6)
    assert not state.tell("BLOCK", 5)  # the same command again


def test_c27_what_cannot_be_read_stops_or_lifts_nothing(state):
    assert not state.tell("EXPLODE", 1)
    assert state.tell("BLOCK", None)
    assert state.tell("UNBLOCK", None)
    assert state.tell("UNBLOCK", issued_at="soon")
    assert state.tell("EXPLODE", 9)
    assert state.tell("UNBLOCK", 9)  # a stop without a time is of the moment it came
    assert not state.tell("UNBLOCK", issued_at="2026-01-01T00:01:01Z")


@pytest.mark.parametrize(
    "parameters", [None, {}, {"max_per_minute": 0}, {"max_per_minute": True}, {"max_per_minute": "lots"}, []]
)
def test_c27_a_rate_limit_without_a_number_stops(state, parameters):
    assert state.tell("RATE_LIMIT", 1, parameters=parameters)


def test_c27_a_rate_limit_bounds_actions_exactly(state):
    state.tell("RATE_LIMIT", 1, parameters={"max_per_minute": 2})
    state.kill.admit()
    state.time = 10.0
    state.kill.admit()
    state.time = 59.5
    with pytest.raises(errors.RateLimitError) as caught:
        state.kill.admit()
    assert (caught.value.retry_after, caught.value.limit, caught.value.remaining) == (0.5, 2, 0)
    state.time = 60.0
    state.kill.admit()
    with pytest.raises(errors.RateLimitError) as caught:
        state.kill.admit()
    assert caught.value.retry_after == 10.0
    assert state.tell("BLOCK", 2)  # a limit lifts no stop
    assert state.tell("RATE_LIMIT", 3, parameters={"max_per_minute": 9})
    assert not state.tell("UNBLOCK", 4)
    for _ in range(20):
        state.kill.admit()


@pytest.mark.parametrize(
    ("fields", "stops"),
    [
        ({"agent_id": "a"}, True), ({"agent_id": None}, True), ({"target_type": "organization"}, True),
        ({"agent_id": "b"}, False), ({"target_type": "mcp_server"}, False),
    ],
)  # fmt: skip
def test_c27_only_what_is_aimed_at_the_agent_counts(state, fields, stops):
    assert state.tell("BLOCK", 1, **fields) is stops


def test_silence_stops_while_somebody_listens(state):
    state.time = 1000.0
    assert not state.stopped
    state.kill.expect(5.0)
    state.time += 15.0
    assert not state.stopped
    state.time += 0.1
    assert state.stopped
    state.kill.learn_status(KillSwitchStatus({"blocked": False}))
    assert not state.stopped
    for number in range(3):
        assert not state.stopped
        state.kill.poll_failed(errors.NetworkError("x"))
    assert state.stopped
    state.kill.expect(None)
    assert not state.stopped
    state.kill.expect(5.0)
    state.kill.learn_status(KillSwitchStatus({"blocked": True, "reason": "incident"}))
    state.kill.expect(None)
    assert state.kill.stopped() == "incident"  # told, not guessed: it stays


BLOCK = {
    "commands": [{"command_id": "1", "command_type": "BLOCK", "reason": "odd", "created_at": "2026-01-01T00:00:00Z"}]
}
CALLS = [
    lambda c: c.submit_action(action_type="t", resource="r"),
    lambda c: c.evaluate_action("t", "r"),
    lambda c: c.evaluate_mcp_action("s", "n", "v", "r"),
]


@pytest.mark.parametrize("fail_mode", ["closed", "open"])
@KINDS
def test_a_fetched_block_is_obeyed_by_every_path(kind, fail_mode):
    desk = Desk(BLOCK, OK)
    with opened(kind, desk, fail_mode=fail_mode) as client:
        assert not client.is_blocked()
        assert client.get_pending_commands()[0]["reason"] == "odd"
        assert client.is_blocked()
        for call in CALLS:
            with pytest.raises(errors.KillSwitchError, match="odd"):
                call(client)
        bulk = client.evaluate_actions([{"action_type": "t", "resource": "r"}] * 2, max_concurrent=50)
        assert [type(each.exception) for each in bulk.results] == [errors.KillSwitchError] * 2
        assert len(desk.requests) == 1
        assert client.ack_command("1") and client.is_blocked()  # received is not lifted


@KINDS
def test_commands_of_another_agent_are_only_shown(kind):
    with opened(kind, Desk(BLOCK)) as client:
        client.get_pending_commands("b")
        assert client.is_blocked() is False


@KINDS
def test_a_stop_ends_a_wait_and_outlives_an_approval(kind):
    """The stop arrives while a decision is awaited: neither the wait nor the approval at its end counts."""

    def stop(request):
        client.kill.learn_command(BLOCK["commands"][0])
        return APPROVED

    desk = Desk({"action_id": "7", "status": "pending"}, stop)
    with opened(kind, desk) as client, pytest.raises(errors.KillSwitchError):
        client.evaluate_action("t", "r", timeout=5)
    assert len(desk.requests) == 2


class Switch(Desk):
    """Answers kill-switch questions by its own switch, everything else with an approval."""

    def __init__(self):
        super().__init__(APPROVED)
        self.answer = {"blocked": False}
        self.polled = threading.Semaphore(0)

    def send(self, request, timeout):
        if "kill-switch" not in request.url:
            return super().send(request, timeout)
        self.requests.append(request)
        try:
            if isinstance(self.answer, Response):
                return self.answer
            return Response(200, {}, json.dumps(self.answer).encode())
        finally:
            self.polled.release()

    def wait(self):
        for _ in range(2):  # the first may have been answered before the switch was turned
            assert self.polled.acquire(timeout=10)


def test_polling_obeys_within_its_interval_and_stops_with_the_client():
    desk = Switch()
    with opened("sync", desk) as client:
        client.start_kill_switch_polling(0.01)
        client.start_kill_switch_polling(0.01)  # replaces the first
        desk.wait()
        assert client.submit_action(action_type="t", resource="r").is_approved()
        desk.answer = {"active": True, "reason": "incident"}
        desk.wait()
        desk.wait()
        assert client.is_blocked()
        with pytest.raises(errors.KillSwitchError, match="incident"):
            client.submit_action(action_type="t", resource="r")
        desk.answer = refused(403, {"detail": {"error": "governance violation", "code": "AGENT_BLOCKED"}})
        desk.wait()
        desk.wait()
        assert client.is_blocked()
        with pytest.raises(errors.KillSwitchError, match="governance violation"):
            client.submit_action(action_type="t", resource="r")
        desk.answer = {"blocked": False}
        desk.wait()
        desk.wait()
        assert not client.is_blocked()
        desk.answer = refused(500)
        for _ in range(3):
            desk.wait()
        assert client.is_blocked()
        client.stop_kill_switch_polling()
    asked = len(desk.requests)
    threads = [thread for thread in threading.enumerate() if thread.name == "ascend-kill-switch"]
    for thread in threads:
        thread.join(10)
    assert len(desk.requests) <= asked + len(threads)


def test_polling_and_heartbeats_on_an_event_loop():
    desk = Switch()
    desk.answer = {"blocked": True}
    with opened("async", desk) as client:
        client.start_kill_switch_polling(0.01)
        client.start_heartbeat(0.01)
        wait_until(client.is_blocked)
        wait_until(lambda: any("heartbeat" in request.url for request in desk.requests))
        with pytest.raises(errors.KillSwitchError):
            client.evaluate_action("t", "r")
        client.stop_heartbeat()
        client.stop_kill_switch_polling()
        asked = len(desk.requests)
        time.sleep(0.05)
        assert len(desk.requests) == asked


def test_the_background_needs_asyncio():
    client = AsyncAscendClient(KEY, api_url="http://localhost", agent_id="a", engine=None)
    with pytest.raises(errors.ConfigurationError, match="asyncio"):
        client.start_heartbeat(1).send(None)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks are a matter of POSIX")
def test_a_forked_child_obeys_and_polls_by_itself():
    desk = Switch()
    with opened("sync", desk) as client:
        client.start_kill_switch_polling(0.02)
        desk.wait()

        def obeys():
            signal.alarm(20)
            desk.answer = {"blocked": True}  # only in the child: nothing of the parent's thread tells it
            with pytest.raises(errors.KillSwitchError):
                while True:
                    client.submit_action(action_type="t", resource="r")
            return True

        assert in_a_child(obeys)
        assert not client.is_blocked()
