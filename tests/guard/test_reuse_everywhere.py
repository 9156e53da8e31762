"""Decisions that are used again, behind every adapter; and a property: requests share one only if nothing differs."""

import asyncio
import os
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kit.apps import EVERY
from kit.asgi import Handler, ask, guard, part, unattended
from kit.engine import GIVEN, plug
from kit.examples import examples
from kit.processes import in_a_child, python
from kit.reuse import SETTINGS, Authority

from ascend_middleware import Agent
from ascend_middleware.client.core import ClientCore
from ascend_middleware.config import Settings
from ascend_middleware.guard.plan import Case
from ascend_middleware.journal.recovery import adopt

RULE = {"match": "GET /pay", "action_type": "read", "cache": "30s", "coalesce": True}


@pytest.mark.parametrize("kind", EVERY)
def test_every_adapter_uses_a_decision_again(monkeypatch, ran, kind):
    house = plug(monkeypatch, Authority())
    party = kind([RULE], ran, **{**GIVEN, **SETTINGS})
    for _ in range(3):
        assert party.ask("GET", "/pay")[0] == 200
    assert len(house.submitted) == 1 and len(ran) == 3
    for query in (b"x=1", b"x=2", b"x=1"):
        assert party.ask("GET", "/pay", query=query)[0] == 200
    assert len(house.submitted) == 3
    for user in ("ann", "bob", "ann"):
        assert party.ask("GET", "/pay", headers=[("x-remote-user", user)])[0] == 200
    assert len(house.submitted) == 5
    for body in (b"1", b"2", b"1"):
        assert party.ask("GET", "/pay", body=body)[0] == 200
        assert ran[-1][2] in (body, b"")  # not every framework reads it
    assert len(house.submitted) == 7


# --- who may share


HEADERS = st.lists(
    st.sampled_from(
        [
            ("x-shop", "1"),
            ("x-shop", "2"),
            ("x_shop", "1"),
            ("cookie", "s=1"),
            ("cookie", "s=2"),
            ("authorization", "a"),
            ("x-forwarded-user", "ann"),
            ("x-forwarded-user", "bob"),
            ("accept", "x"),
            ("content-type", "text/plain"),
        ]
    ),
    max_size=3,
    unique_by=lambda one: one[0],
)
REQUESTS = st.fixed_dictionaries(
    {
        "method": st.sampled_from(["GET", "HEAD"]),
        "raw_path": st.sampled_from([b"/read/a", b"/read/%61", b"/read/b", b"/read/a/"]),
        "query": st.sampled_from([b"", b"q=1", b"q=2", b"q=1&p=1", b"p=1&q=1", b"q=%31"]),
        "headers": HEADERS,
        "host": st.sampled_from(["one", "other"]),
        "body": st.sampled_from([b"", b"1", b"2"]),
        "agent": st.sampled_from([Agent("bot"), Agent("bot", principal="ann"), Agent("bot", "B"), Agent("other")]),
        "root_path": st.sampled_from(["", "/in"]),
    }
)
RULES = [
    {
        "match": ["GET /read/{name}", "GET /in/read/{name}"],
        "action_type": "read",
        "resource_id": "{path.name}",
        "details": {"q": "query.q?", "shop": "header.x-shop?"},
        "cache": "30s",
    },
]
# By these, callers are told apart where nobody names a principal.
TELLING = ("cookie", "authorization", "x-forwarded-user")


def seen(request):
    """What a handler sees of a request that an authority, or an approval, might be asked about."""
    headers = [one for one in request["headers"] if one[0] not in ("accept", *TELLING)]
    if request["agent"].principal is None:
        headers += [one for one in request["headers"] if one[0] in TELLING]
    return {**request, "headers": sorted(headers)}


async def send(app, request):
    path = request["raw_path"].replace(b"%61", b"a").decode()
    headers = [("host", request["host"]), *request["headers"]]
    if request["body"]:
        headers.append(("content-length", str(len(request["body"]))))
    more = {key: request[key] for key in ("raw_path", "query", "root_path")}
    if request["root_path"]:
        path, more["raw_path"] = request["root_path"] + path, request["root_path"].encode() + more["raw_path"]
    return await ask(app, path, request["method"], body=[part(request["body"])], headers=headers, **more)


PARTS = ["method", "raw_path", "query", "headers", "host", "body", "agent", "root_path"]


@settings(max_examples=examples(150), deadline=None)
@given(first=REQUESTS, other=REQUESTS, change=st.sampled_from([*PARTS, "all", "nothing"]))
def test_requests_share_a_decision_only_if_nothing_differs_that_a_handler_sees(first, other, change):
    """Most pairs differ in one thing, as an attacker's would."""
    second = other if change == "all" else {**first, **{name: other[name] for name in PARTS if name == change}}
    described = []
    with pytest.MonkeyPatch.context() as patch:
        house = plug(patch, Authority())
        agents = []
        app = unattended(guard(Handler(), RULES, **SETTINGS, identify=lambda _: agents[0]))
        describe = Case.describe

        def noted(case):
            found = describe(case)
            described.append(case.action)
            return found

        patch.setattr(Case, "describe", noted)

        async def both():
            statuses = []
            for request in (first, second):
                agents[:] = [request["agent"]]
                statuses.append((await send(app, request)).status)
            return statuses

        statuses = asyncio.run(both())
        asked = len(house.submitted)
    if statuses != [200, 200]:
        assert 400 in statuses  # a header in two spellings
        return
    same = seen(first) == seen(second)
    assert asked == (1 if same else 2)
    if asked == 1:
        assert described[0] == described[-1]


# --- what a process leaves behind


DYING = """
import os, sys
from pathlib import Path
from ascend_middleware.journal.journal import Journal
journal = Journal(Path(sys.argv[1]))
for how in ("allowed", "cached", "cached", "coalesced"):
    journal.enter(journal.next_number(), {"id": "1", "how": how, "rule": "r", "agent": "bot"})
journal.conclude(1, error=None, duration_ms=1)
journal.conclude(2, error=None, duration_ms=1)
os.kill(os.getpid(), 9)
"""


@pytest.mark.parametrize("batches", [True, False], ids=["together", "one by one"])
def test_uses_are_told_after_kill_9_too(tmp_path, batches):
    house = Authority()
    body = {"agent_id": "bot", "action_type": "read", "resource": "r"}
    assert house.desk.post("/api/v1/actions/submit", body)[1]["action_id"] == "1"
    done = python("-c", DYING, tmp_path / "journal")
    assert done.returncode == -9, done.stderr
    core = ClientCore(Settings(api_url=GIVEN["api_url"], api_key=GIVEN["api_key"], max_retries=0))
    core.outcomes_at_once = 500 if batches else 0
    assert adopt(tmp_path / "journal", core=core, state=None, perform=house.performed) == 1
    told = [(use["how"], use["outcome"], use.get("error"), use["use"].rpartition("-")[2]) for use in house.uses]
    assert sorted(told, key=lambda one: one[3]) == [
        ("cached", "completed", None, "2"),
        ("cached", "failed", "process ended", "3"),
        ("coalesced", "failed", "process ended", "4"),
    ]
    assert house.desk.events().count("ACTION_COMPLETED") == 1
    assert os.listdir(tmp_path / "journal") == []
    assert house.desk.store.verify_audit() is None


@pytest.mark.skipif(sys.platform == "win32", reason="no fork")
def test_a_forked_child_keeps_nothing_of_its_parent(monkeypatch, ran):
    house = plug(monkeypatch, Authority())
    party = EVERY[0]([RULE], ran, **{**GIVEN, **SETTINGS})
    party.ask("GET", "/pay")

    def asks_for_itself():
        party.ask("GET", "/pay")
        party.ask("GET", "/pay")
        return len(house.submitted) == 2

    assert in_a_child(asks_for_itself)
    party.ask("GET", "/pay")
    assert len(house.submitted) == 1
