"""Ordinary submissions go a straight way, and leave exactly what the thorough one leaves: answers, rows, entries, counts."""

import functools
import itertools
import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kit.desk import Desk
from kit.examples import examples

import ascend_middleware.authority.ordinary
from ascend_middleware.authority import parse_policy
from ascend_middleware.authority.core import advance
from ascend_middleware.authority.judging import Task
from ascend_middleware.authority.keys import Role
from ascend_middleware.authority.store.audit import digest
from ascend_middleware.authority.store.verification import verify
from ascend_middleware.exceptions import StorageError

SUBMIT = "/api/v1/actions/submit"
POLICY = """
[limits]
submit = {submit}
{more}
[[policy]]
name = "small"
action_types = ["payment"]
when = "action.action_details.amount < 10"
decision = "approved"
risk_score = 12

[[policy]]
name = "never \\"him\\""
agents = ["mallory*"]
decision = "denied"
reason = "not \\u00e4t all"

[[policy]]
name = "customer seven"
when = 'action.resource == "customer 7" && action.tool_name != "x"'
decision = "pending"
"""
PLAIN = {"agent_id": "a", "action_type": "data_access", "resource": "r"}


ORDERS = {
    "actions": "id",
    "audit": "seq",
    "answers": "key_id, path, name",
    "tallies": "tenant, hour, status, risk_level",
    "actors": "tenant, agent_id",
    "actor_days": "tenant, day, agent_id",
}


def encode(body):
    return json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode()


class Both:
    """Two desks that are asked alike: one answers as it does, the other never the straight way."""

    def __init__(self, make, *, submit=0, more="", before=lambda desk: None):
        policy = POLICY.format(submit=submit, more=more)
        self.desks = self.straight, self.thorough = make(policy), make(policy)
        self.numbers = itertools.count(1)
        self.told = {desk: [] for desk in self.desks}
        for desk in self.desks:
            desk.store.on_entry = functools.partial(self._note, desk)
            before(desk)

    def _note(self, desk, event, tenant, data, count):
        self.told[desk] += [(event, tenant, data.get("decision"), data.get("observed"))] * count

    def later(self, seconds):
        for desk in self.desks:
            desk.later(seconds)

    def ask(self, body, *, key="user", method="POST", path=SUBMIT, query="", **headers):
        """Ask both, compare what they answer, and return it with whether the one went the straight way."""
        content = body if isinstance(body, bytes) else encode(body)
        given = {"x-correlation-id": f"c-{next(self.numbers)}"}
        given |= {name.replace("_", "-"): value for name, value in headers.items()}
        asked = []
        for desk in self.desks:
            own = {"x-api-key": getattr(desk, key, key)} if key else {}
            asked.append((method, path, query, {**given, **own}, content))
        with self.straight.store.group():
            one = self.straight.authority.ordinary.answer(*asked[0])
        straight = one is not None
        if not straight:
            one = thoroughly(self.straight, asked[0])
        other = thoroughly(self.thorough, asked[1])
        assert (one.status, one.headers) == (other.status, other.headers)
        assert list(one.headers) == list(other.headers)
        assert stateless(one.body) == stateless(other.body)
        return one, straight

    def compare(self):
        """Compare all that is stored; what is drawn at random has to fit to the rest."""
        one, other = self.told.values()
        assert one == other
        for table in ("actions", "audit", "answers", "tallies", "actors", "actor_days"):
            one, other = (self._rows(desk, table) for desk in self.desks)
            assert one == other, table
        for desk in self.desks:
            assert verify(desk.store).whole

    @staticmethod
    def _rows(desk, table):
        rows = [dict(row) for row in desk.store.rows(f"SELECT * FROM {table} ORDER BY {ORDERS[table]}")]
        salts = {row["id"]: row.pop("salt") for row in rows} if table == "actions" else {}
        assert all(len(salt) == 32 for salt in salts.values())
        for row in rows:
            if table == "audit":
                del row["hash"], row["previous"]
                row["entry"] = _plain(desk, json.loads(row["entry"]))
            elif table == "answers":
                row["body"] = stateless(bytes(row["body"]))
        return rows


def _plain(desk, entry):
    """Return an entry without what is drawn at random."""
    data = entry["data"]
    if "sealed" in entry:
        assert len(entry.pop("salt")) == 32 and len(entry.pop("sealed")) == 64
    if entry["event"] == "ACTION_SUBMITTED":
        row = desk.store.rows("SELECT submission, salt FROM actions WHERE id = ?", (entry["action_id"],))[0]
        assert data.pop("submission") == digest(row["submission"], row["salt"])
    for kept in data.get("kept", ()):
        assert len(kept.pop("answer")) == 64  # of what has the state in it
    for name in ("fingerprint", "command_id", "stored"):
        data.pop(name, None)
    return entry


def stateless(body):
    """Return an answer without the state that it tells, and without a command's id."""
    return re.sub(rb'"(?:policy_state|command_id)":"[^"]+"', b"", body)


def thoroughly(desk, asked):
    """Answer a request the thorough way, whatever it asks."""
    flow = desk.authority.answering(*asked)
    step = advance(flow, None)
    while isinstance(step, Task):
        step = advance(flow, step.perform())
    return step


@pytest.fixture
def both(desk_of):
    return functools.partial(Both, desk_of)


ORDINARY = {
    "plain": PLAIN,
    "as Python writes it": json.dumps({**PLAIN, "resource": "\u00e4\U0001f600"}).encode(),
    "everything": {
        **PLAIN,
        "agent_name": 'Ä "quoted"',
        "resource_id": "7",
        "tool_name": "t",
        "description": "words",
        "business_justification": "because",
        "action_details": {"list": [1, {"deep": [True, None, 1.5]}]},
        "context": {"environment": "production", "n": 1, "external": True},
        "risk_indicators": {"pii": True, "bulk": "low", "odd": 0, "n": 3},
    },
    "other fields are left out": {**PLAIN, "action_details": {}, "context": {}, "risk_indicators": {}},
    "tool only": {"agent_id": "a", "action_type": "x", "tool_name": "t"},
    "type only": {"agent_id": "ä", "action_type": "Zahlung"},
    "denied by a policy": {**PLAIN, "agent_id": "mallory-1"},
    "denied by its score": {**PLAIN, "action_type": "injection", "risk_indicators": {"pii": True}},
    "approved by a condition": {**PLAIN, "action_type": "payment", "action_details": {"amount": 5}},
    "signs": {**PLAIN, "resource": '\u2028 </script> \\ "', "description": "\x7f"},
}
OTHER = {
    "pending": {**PLAIN, "resource": "customer 7", "tool_name": "t"},
    "by its score": {**PLAIN, "action_type": "drop"},
    "a condition fails": {**PLAIN, "action_type": "payment"},
    "a claim": {**PLAIN, "risk_score": 80},
    "a claim within": {**PLAIN, "action_details": {"a": [{"riskLevel": "low"}]}},
    "a session": {**PLAIN, "orchestration_session_id": "s"},
    "no such parent": {**PLAIN, "parent_action_id": 99},
    "a server": {**PLAIN, "mcp_server_name": "nobody"},
    "a model": {**PLAIN, "model_id": 3},
    "parameters": {**PLAIN, "parameters": {"a": 1}},
    "an unknown field": {**PLAIN, "whatever": 1},
    "null": {**PLAIN, "tool_name": None},
    "empty": {**PLAIN, "tool_name": ""},
    "no agent": {"action_type": "x"},
    "agent unknown": {**PLAIN, "agent_id": "unknown"},
    "a wrong type": {**PLAIN, "context": []},
    "a wrong name": {**PLAIN, "agent_id": " a"},
    "observed": {**PLAIN, "context": {"observed": True}},
    "not plain": json.dumps(PLAIN, indent=1).encode(),
    "an escape": b'{"agent_id":"a","action_type":"x","r\\u0069sk_score":90}',
    "a name twice": b'{"agent_id":"a","agent_id":"b","action_type":"x"}',
    "no JSON": b"{",
    "no object": b"[]",
    "nothing": b"",
}


@pytest.mark.parametrize("kept", [False, True], ids=["", "kept"])
def test_both_ways_leave_the_same(both, kept):
    pair = both()
    for number, (name, body) in enumerate({**ORDINARY, **OTHER}.items()):
        headers = {"idempotency_key": f'k"{number}'} if kept else {}
        # The first of a minute forgets old answers.
        straight = pair.ask(body, **headers)[1]
        assert straight is (name in ORDINARY and not (kept and not number)), name
        pair.ask(body, **headers)
    pair.compare()


def test_both_ways_know_a_repetition(both):
    pair = both()
    pair.ask(PLAIN, idempotency_key="first")
    first, straight = pair.ask(PLAIN, idempotency_key="k")
    assert straight and first.status == 200
    again, straight = pair.ask(PLAIN, idempotency_key="k")
    assert not straight and again.body == first.body and again.headers["idempotency-replayed"] == "true"
    assert pair.ask({**PLAIN, "resource": "s"}, idempotency_key="k")[0].status == 409
    assert pair.ask(PLAIN, idempotency_key="k", key="peer")[1], "another key's own"
    assert pair.ask(PLAIN, idempotency_key="a b")[0].status == 422
    pair.compare()


def test_an_idempotency_key_that_comes_twice_in_a_group_counts_once(both):
    pair = both()
    pair.ask(PLAIN, idempotency_key="first")
    desk = pair.straight
    with desk.store.group():
        answers = [desk.call("POST", SUBMIT, raw=encode(PLAIN), idempotency_key="k") for _ in range(3)]
    assert answers[0] == answers[1] == answers[2]
    assert desk.store.rows("SELECT count(*) FROM actions")[0][0] == 2
    assert verify(desk.store).whole


HEADERS = {
    "envelope": {"path": "/api/v2/actions/submit"},
    "a version": {"x_api_version": "2025-12-01"},
    "no version": {"x_api_version": "1999"},
    "its own organisation": {"x_organization_slug": "default"},
    "another organisation": {"x_organization_slug": "other"},
    "a bearer beside": {"authorization": "Bearer else"},
    "no key": {"key": ""},
    "a wrong key": {"key": "owkai_user_0"},
    "a query": {"query": "a=1"},
    "another method": {"method": "GET"},
    "an admin": {"key": "admin"},
    "a stranger": {"key": "stranger"},
    "an odd correlation id": {"x_correlation_id": "ok:1-2_3.4"},
}


@pytest.mark.parametrize("given", HEADERS.values(), ids=HEADERS)
def test_both_ways_see_who_asks_and_for_what(both, given):
    pair = both()
    pair.ask(PLAIN, **given)
    pair.compare()


def test_both_ways_ask_what_a_key_may(both):
    def more_keys(desk):
        desk.viewer = desk.store.issue_key(name="v", role=Role.VIEWER, tenant="default")
        desk.narrow = desk.store.issue_key(name="n", role=Role.USER, tenant="default", agents=["a", "b-*"])
        desk.ended = desk.store.issue_key(name="e", role=Role.USER, tenant="default", lifetime=60)

    pair = both(before=more_keys)
    assert not pair.ask(PLAIN, key="viewer")[1]
    assert pair.ask(PLAIN, key="narrow")[1] and pair.ask({**PLAIN, "agent_id": "b-1"}, key="narrow")[1]
    answer, straight = pair.ask({**PLAIN, "agent_id": "c"}, key="narrow")
    assert answer.status == 403 and not straight
    assert pair.ask(PLAIN, key="ended")[1]
    pair.later(61)
    answer, straight = pair.ask(PLAIN, key="ended")
    assert answer.status == 401 and not straight
    pair.compare()


def test_both_ways_refuse_beyond_the_limit(both):
    pair = both(submit=3)
    assert [pair.ask(PLAIN)[0].status for _ in range(5)] == [200, 200, 200, 429, 429]
    pair.later(61)
    assert pair.ask(PLAIN)[0].status == 200
    pair.compare()


def test_both_ways_require_what_a_strict_policy_requires(both):
    pair = both(more="[submissions]\nstrict = true\n")
    assert pair.ask(PLAIN)[0].status == 400
    assert pair.ask({**PLAIN, "tool_name": "t", "description": "d"})[0].status == 200
    pair.compare()


def test_both_ways_know_agents_and_commands(both):
    pair = both()

    def order(path, **body):
        for desk in pair.desks:
            status, answer = desk.post(path, body, key="admin", x_correlation_id="order")
            assert status < 300, answer

    order("/api/registry/agents", agent_id="a", display_name="The Agent")
    assert pair.ask(PLAIN)[1]
    order("/api/registry/agents/a/commands", command_type="RATE_LIMIT", reason="r", parameters={"max_per_minute": 2})
    answers = [pair.ask(PLAIN) for _ in range(2)]
    assert [(answer.status, straight) for answer, straight in answers] == [(200, False), (429, False)]
    assert pair.ask({**PLAIN, "agent_id": "b"})[1]
    order("/api/registry/agents/a/commands", command_type="BLOCK", reason="r")
    assert pair.ask(PLAIN)[0].status == 403
    order("/api/registry/commands", command_type="SUSPEND", reason="r")
    assert pair.ask({**PLAIN, "agent_id": "b"})[0].status == 403
    order("/api/registry/commands", command_type="UNBLOCK", reason="r")
    assert pair.ask({**PLAIN, "agent_id": "b"})[1]
    order("/api/registry/agents/a/commands", command_type="UNBLOCK", reason="r")
    assert pair.ask(PLAIN)[1]
    pair.compare()


def test_a_command_counts_for_the_next_of_the_same_group(desk):
    with desk.store.group():
        assert desk.call("POST", SUBMIT, raw=encode(PLAIN))[0] == 200
        body = {"command_type": "BLOCK", "reason": "r"}
        assert desk.post("/api/registry/agents/a/commands", body, key="admin")[0] == 201
        assert desk.call("POST", SUBMIT, raw=encode(PLAIN))[0] == 403


def test_a_revoked_key_and_another_policy_file_count_for_the_next_of_the_same_group(desk):
    with desk.store.group():
        assert desk.call("POST", SUBMIT, raw=encode(PLAIN))[1]["status"] == "approved"
        desk.authority.use(parse_policy('[[policy]]\nname = "none"\naction_types = ["*"]\ndecision = "denied"\n'))
        assert desk.call("POST", SUBMIT, raw=encode(PLAIN))[1]["status"] == "denied"
        desk.store.revoke_key(1)
        assert desk.call("POST", SUBMIT, raw=encode(PLAIN))[0] == 401


def test_what_fails_halfway_takes_its_group_with_it(desk):
    """An action is never stored without its audit entry, nor the other way round."""

    class Full(list):
        def append(self, _):
            raise MemoryError

    with pytest.raises(StorageError), desk.store.group():
        for _ in range(2):  # where replicas share the limits, the first one takes a part of them, which is not ordinary
            assert desk.call("POST", SUBMIT, raw=encode(PLAIN))[0] == 200
        desk.store.joined().straight[1].rows = Full()
        assert desk.call("POST", SUBMIT, raw=encode(PLAIN))[0] == 500
    assert desk.store.rows("SELECT count(*) FROM actions")[0][0] == 0


NAMES = st.text(min_size=1, max_size=6)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-10, 2**63) | st.floats(allow_nan=False, allow_infinity=False) | NAMES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES | st.just("risk_score"), inner, max_size=3),
    max_leaves=6,
)
OBJECTS = st.dictionaries(NAMES | st.sampled_from(["pii", "environment", "amount", "external"]), VALUES, max_size=3)
BODIES = st.fixed_dictionaries(
    {"agent_id": st.sampled_from(["a", "mallory-2", "b"]), "action_type": st.sampled_from(["payment", "read", "Drop"])},
    optional={
        **dict.fromkeys(("resource", "description", "business_justification"), NAMES),
        **dict.fromkeys(("agent_name", "tool_name", "resource_id"), NAMES | st.just("")),
        **dict.fromkeys(("action_details", "context", "risk_indicators"), OBJECTS),
        "whatever": VALUES,
    },
)


@settings(max_examples=examples(40))
@given(bodies=st.lists(st.tuples(BODIES, st.sampled_from([None, "k1", "k2", "k3"])), max_size=6))
def test_both_ways_leave_the_same_of_any_body(bodies):
    desks = []

    def make(policy):
        desks.append(Desk(policy))
        return desks[-1]

    try:
        pair = Both(make)
        for body, name in bodies:
            pair.ask(body, **({} if name is None else {"idempotency_key": name}))
        pair.compare()
    finally:
        for desk in desks:
            desk.store.close()


def test_what_submissions_have_in_common_fills_no_memory(desk_of, monkeypatch):
    """Whoever may submit chooses the agents, types and contexts, and what conditions ask for."""
    monkeypatch.setattr(ascend_middleware.authority.ordinary, "_MOST_KNOWN", 50)
    desk = desk_of(POLICY.format(submit=0, more=""))
    with desk.store.group():
        for number, length in itertools.product(range(60), (10, 2000)):
            body = {**PLAIN, "agent_id": f"a{number % 7}", "action_type": f"t{number}"}
            raw = encode({**body, "context": {"a": f"{number:{length}}"}})
            assert desk.call("POST", SUBMIT, raw=raw)[0] == 200
    askers = [found[1] for key, found in desk.store._cached.items() if key[0] == "ordinary"]
    known = [place for one in askers for place in one.known]
    rulings = [found for one in askers for those in one.rulings.values() for found in those.values()]
    assert len(askers) == 7 and 0 < len(known) <= 50 and 0 < len(rulings) <= 50
    assert max(len(place[2]) for place in known) < 1000
    assert len(desk.authority.ordinary._askers) <= 50
