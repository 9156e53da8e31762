"""What takes long to judge is judged outside of the writer, and by what holds when the action is stored."""

import asyncio
import itertools
import json
import os
import pathlib
import signal
import sys
import threading
import time

import pytest
from kit.served import Place

from ascend_middleware.authority import parse_policy
from ascend_middleware.authority.core import advance
from ascend_middleware.authority.judging import Task

pytestmark = pytest.mark.anyio

RULES = "/api/smart-rules"
TRY = "/api/governance/policies/evaluate-realtime"
# Looks at every entry of a list: some milliseconds for as many as there may be.
SLOW = "action.context.l.exists(x, x < -{})"
LONG = {"l": list(range(9000)), "t": "a" * 60_000}
NUMBERS = itertools.count(1)  # conditions that no other test has had compiled


def make_rules(desk, count, tenant="other", condition=SLOW, **fields):
    """Give an organisation rules that take long, as if they had been made through the API; return the last."""
    with desk.store.write():
        for number in itertools.islice(NUMBERS, count):
            rule = {"condition": condition.format(number), "action": "deny", "enabled": True, **fields}
            rule |= {"action_types": [], "agents": [], "risk_score": None, "reason": None}
            made = desk.store.add("smart_rule", f"r{number}", rule, tenant=tenant, key_id=1)
    return made


@pytest.fixture
def served(new_place):
    place = Place(new_place(), "")
    yield place
    place.authority.close()


async def until(holds):
    async with asyncio.timeout(60):
        while not holds():
            await asyncio.sleep(0.001)


@pytest.mark.parametrize(
    ("count", "condition"),
    [
        (120, SLOW),
        (500, "action.context.t.matches('([a-z]{{1,25}}){{1,20}}n{}')"),
        (300, "has(action.context.l) && size(action.context.l) < {}"),
    ],
)
async def test_one_tenants_rules_never_hold_up_what_another_submits(served, count, condition):
    make_rules(served, count, condition=condition)
    async with served.serving():
        slow = asyncio.create_task(served.submit(key=served.stranger, context=LONG))
        await until(lambda: served.service.judges.count)
        # The others are answered one by one while that one is judged, and the list is not looked at in this process.
        for number in range(5):
            status, answer = await served.submit(number)
            assert (status, answer["status"]) == (200, "approved")
        assert not slow.done()
        status, answer = await slow
        assert status == 200 and answer["status"] == "denied"
        entries = [data for event, data in served.audit() if event == "ACTION_SUBMITTED"]
        (faults,) = (one["faults"] for one in entries if "faults" in one)
        assert "the policies before it have used up the time for judging this action" in faults.values()


async def test_the_process_that_serves_spends_no_time_on_them(served):
    make_rules(served, 120)
    async with served.serving():
        await served.submit(key=served.stranger, context=LONG)  # now the process that judges is there
        began = time.process_time()
        status, answer = await served.submit(key=served.stranger, context=LONG)
        spent = time.process_time() - began
    assert status == 200 and answer["status"] == "denied"
    assert spent < 0.2  # they take a quarter of a second, and then no more time is left for the rest


async def test_a_dry_run_is_judged_there_too(served):
    make_rules(served, 120)
    async with served.serving():
        body = {"action_type": "read", "resource": "r", "context": LONG}
        tried = asyncio.create_task(served.ask("POST", TRY, body, key=served.stranger))
        await until(lambda: served.service.judges.count)
        assert (await served.submit())[0] == 200
        assert not tried.done()
        status, answer = await tried
        assert (status, answer["decision"]) == (200, "denied")


async def test_one_organisation_cannot_take_all_places_of_those_that_wait(served):
    make_rules(served, 3)
    make_rules(served, 3, tenant="default")
    async with served.serving():
        many = [asyncio.create_task(served.submit(n, key=served.stranger, context=LONG)) for n in range(40)]
        await until(lambda: served.service.judges.count == 16)
        other = await served.submit(context=LONG)
        assert (other[0], other[1]["status"]) == (200, "approved")
        answers = await asyncio.gather(*many)
        codes = [answer["error"]["code"] for status, answer in answers if status == 503]
        judged = [answer["status"] for status, answer in answers if status == 200]
        assert codes == ["JUDGES_BUSY"] * (40 - len(judged)) and judged == ["approved"] * len(judged)
        assert 16 <= len(judged) < 40
        assert served.service.judges.count == 0


async def test_without_another_process_they_are_judged_here(served, monkeypatch, caplog):
    make_rules(served, 2)
    async with served.serving():
        monkeypatch.setattr(sys, "executable", "/no/such/python")
        status, answer = await served.submit(key=served.stranger, context=LONG)
    assert (status, answer["status"]) == (200, "approved")
    assert "no process can be started" in caplog.text


def judging_processes():
    """Return the processes in which this thread's authority judges: no other child, such as a database."""
    children = pathlib.Path(f"/proc/self/task/{threading.get_native_id()}/children").read_text().split()
    found = [int(child) for child in children if b"anyio" in pathlib.Path(f"/proc/{child}/cmdline").read_bytes()]
    assert found
    return found


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks for the process in /proc")
async def test_an_action_whose_process_ends_is_not_decided_and_the_next_is_judged_in_another(served, caplog):
    make_rules(served, 120)
    async with served.serving():
        await served.submit(key=served.stranger, context=LONG)  # now there is one
        slow = asyncio.create_task(served.submit(key=served.stranger, context=LONG))
        await until(lambda: served.service.judges.count)
        for child in judging_processes():
            os.kill(child, signal.SIGKILL)
        status, answer = await slow
        assert (status, answer["error"]["code"]) == (503, "NOT_JUDGED")
        assert "ended meanwhile" in caplog.text
        began = time.process_time()
        status, answer = await served.submit(key=served.stranger, context=LONG)
        assert status == 200 and answer["status"] == "denied"
        assert time.process_time() - began < 0.2


# --- what changes meanwhile


class Asking:
    """One submission on its way: what is asked to be done outside of the writer, and the answer."""

    def __init__(self, desk, key="stranger", **fields):
        headers = {"x-api-key": getattr(desk, key), **fields.pop("headers", {})}
        body = {"agent_id": "a", "action_type": "read", "resource": "r", "context": LONG, **fields}
        content = json.dumps(body).encode()
        self.flow = desk.authority.answering("POST", "/api/v1/actions/submit", "", headers, content)
        self.step = advance(self.flow, None)

    @property
    def apart(self):
        return isinstance(self.step, Task)

    def go_on(self):
        self.step = advance(self.flow, self.step.perform())
        return self

    def fields(self):
        return self.step.status, json.loads(self.step.body)


@pytest.fixture
def rules(desk):
    return make_rules(desk, 5)


def test_what_takes_next_to_no_time_is_judged_at_once(desk):
    make_rules(desk, 20, condition="action.context.n > {} && action.agent_id.matches('^[a-z]+$')")
    asked = Asking(desk, context={"n": 1})
    assert asked.apart and asked.step.question is None  # they are only compiled, and only once
    assert not asked.go_on().apart
    assert not Asking(desk, context={"n": 1}).apart
    assert Asking(desk, context=LONG | {"n": 1}).apart


def test_the_answer_counts_if_nothing_has_changed(desk, rules):
    asked = Asking(desk)
    assert asked.apart
    desk.submit(key="stranger")
    desk.submit()
    assert not asked.go_on().apart
    assert asked.fields()[1]["status"] == "approved"


@pytest.mark.parametrize("change", ["changed", "removed", "added", "file"])
def test_it_is_judged_anew_where_policies_changed_meanwhile(desk, rules, change):
    place = f"{RULES}/{rules['id']}"
    asked = Asking(desk, agent_id="b")
    if change == "changed":
        desk.call("PUT", place, {"condition": "action.agent_id == 'b'"}, key="stranger")
    elif change == "removed":
        desk.call("DELETE", place, key="stranger")
    elif change == "added":
        make_rules(desk, 1, condition="{} > 0")
    else:
        desk.authority.use(parse_policy('[[policy]]\nname = "no"\naction_types = ["read"]\ndecision = "denied"'))
    asked.go_on()
    if asked.apart:
        asked.go_on()
    assert not asked.apart
    expected = "approved" if change == "removed" else "denied"
    assert asked.fields()[1]["status"] == expected


def test_rules_of_another_organisation_change_nothing(desk, rules):
    asked = Asking(desk)
    make_rules(desk, 1, tenant="default")
    assert not asked.go_on().apart


def test_a_claim_that_means_something_else_now_is_judged_anew(desk, rules):
    asked = Asking(desk)
    desk.post("/api/registry/agents", {"agent_id": "a", "agent_name": "Alpha"}, key="stranger")
    asked.go_on()
    assert asked.apart and asked.step.question.action["agent_name"] == "Alpha"
    assert not asked.go_on().apart


@pytest.mark.parametrize("what", ["key", "agent"])
def test_who_was_locked_out_meanwhile_gets_no_decision(desk, rules, what):
    asked = Asking(desk)
    if what == "key":
        desk.store.revoke_key(desk.store.find_key(desk.stranger).key_id)
    else:
        body = {"command_type": "BLOCK", "reason": "no"}
        assert desk.post("/api/registry/agents/a/commands", body, key="stranger")[0] == 201
    asked.go_on()
    status, answer = asked.fields()
    assert (status, answer["error"]["code"]) == {
        "key": (401, "AUTHENTICATION_FAILED"),
        "agent": (403, "AGENT_BLOCKED"),
    }[what]
    assert "ACTION_SUBMITTED" not in desk.events()


def test_policies_that_change_all_the_time_end_in_no_decision(desk, rules):
    asked = Asking(desk)
    for number in range(3):
        desk.call("PUT", f"{RULES}/{rules['id']}", {"reason": f"reason {number}"}, key="stranger")
        assert asked.go_on().apart
    desk.call("PUT", f"{RULES}/{rules['id']}", {"reason": "another one"}, key="stranger")
    status, answer = asked.go_on().fields()
    assert (status, answer["error"]["code"]) == (503, "POLICIES_CHANGING")
    assert "ACTION_SUBMITTED" not in desk.events()


def test_it_counts_once_against_the_limits_and_under_its_idempotency_key(desk_of):
    desk = desk_of("[limits]\nsubmit = 3")
    make_rules(desk, 5)
    asked = [Asking(desk, headers={"idempotency-key": "one"}) for _ in range(2)]
    answers = [one.go_on().fields() for one in asked]
    assert answers[0] == answers[1] and answers[0][0] == 200
    assert desk.events().count("ACTION_SUBMITTED") == 1
    assert desk.submit(key="stranger")[0] == 200
    assert desk.code(desk.submit(key="stranger")) == (429, "RATE_LIMITED")


def test_another_thread_submits_while_one_is_judged_in_its_own(desk):
    """Where nothing serves, as in `local:`, the one that is judged holds no lock of the database."""
    make_rules(desk, 5)
    asked = Asking(desk)
    assert asked.apart
    assert desk.store.memo is None and desk.submit()[0] == 200  # nothing is left of its transaction
    asked.go_on()
