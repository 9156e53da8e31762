"""`audit verify` names every row that is not what the log says, by its table, its id and the fact."""

import contextlib
import json
import shutil
import sqlite3
import time

import pytest
from kit.databases import Owner, keep, rows
from kit.desk import Desk

from ascend_middleware.authority import Role, Store
from ascend_middleware.authority.approvals import Management
from ascend_middleware.authority.keys import operator
from ascend_middleware.authority.page.sessions import Sessions
from ascend_middleware.authority.store.audit import canonical_json
from ascend_middleware.authority.store.verification import verify
from ascend_middleware.authority.webhooks import Outbox
from ascend_middleware.cli import main

POLICY = """
[approvals.high]
count = 2

[[policy]]
name = "high"
action_types = ["high"]
decision = "pending"
risk_score = 75

[[policy]]
name = "low"
action_types = ["low"]
decision = "pending"
risk_score = 5
"""


class People(Desk):
    KEYS = tuple(
        (name, name, Role.USER if name == "agent" else Role.ADMIN, "default") for name in ("agent", "alice", "bob")
    )
    KEY = "agent"

    def decide(self, number, key, word="approve", **body):
        return self.post(f"/api/v1/actions/{number}/{word}", body, key=key)


def lived(desk):
    """Fill a desk's database with something in every table."""
    desk.time = time.time()  # kept answers are compared as long as they are answered
    for number, kind in enumerate(("high", "high", "high", "low", "read")):
        key = {"idempotency_key": f"k{number}"}
        body = {"agent_id": "a", "action_type": kind, "resource": "r", "orchestration_session_id": "s"}
        assert desk.post("/api/v1/actions/submit", body, **key)[0] == 200
    # One approval of two is given of action 1, both of action 2; action 3 is denied, and action 4 was carried out.
    decisions = ((1, "alice", "approve"), (2, "alice", "approve"), (2, "bob", "approve"), (3, "bob", "reject"))
    for number, key, word in decisions:
        desk.time += 1
        assert desk.decide(number, key, word, comments=f"{key} says so")[0] == 200
    assert desk.decide(4, "bob")[0] == 200
    assert desk.post("/api/agent-action/4/complete", {"result": {"n": 1}})[0] == 200
    registered(desk)
    for target, more in (("a", {}), ("a", {"command_type": "RATE_LIMIT", "parameters": {"max_per_minute": 9}})):
        body = {"command_type": "BLOCK", "reason": "why", **more}
        _, answer = desk.post(f"/api/registry/agents/{target}/commands", body, key="alice")
        path = f"/api/registry/agents/{target}/commands/{answer['command_id']}/ack"
        assert desk.post(path, {})[0] == 200
        assert desk.post(path, {})[0] == 200
    desk.store.rotate_key(2, overlap=60, lifetime=90)
    desk.store.revoke_key(1)
    who = desk.store.find_key(desk.bob)
    sessions = Sessions(desk.store, now=desk.authority.now)
    ended = [sessions.open(who) for _ in range(4)]
    sessions.close(ended[0], everywhere=False)
    sessions.close(ended[1], everywhere=True)
    sessions.open(who)
    desk.authority.tokens.issue(who, now=desk.time)
    desk.store.note_uses()
    while Outbox(desk.authority).fill():
        pass
    with desk.store.write():
        plan = {"name": "actions-1-9.jsonl.gz", "kind": "actions", "first": 1, "last": 9, "state": "planned"}
        desk.store.insert("archives", plan)
        desk.store.insert("leases", {"name": "archive", "holder": "x", "until": desk.time})


def registered(desk):
    """Register something of each kind, and change some of it."""
    hook = {"url": "https://h.example", "events": ["action.approved", "agent.blocked"]}
    for path, body, key in (
        ("/api/registry/agents", {"agent_id": "a", "agent_type": "supervised"}, "alice"),
        ("/api/registry/agents", {"agent_id": "gone", "agent_type": "supervised"}, "alice"),
        ("/api/registry/mcp-servers", {"server_name": "files"}, "bob"),
        ("/api/governance/policies", {"name": "p", "action_types": ["x"], "decision": "denied"}, "bob"),
        ("/api/webhooks/configure", hook, "alice"),
        ("/api/agents/health/heartbeat", {"agent_id": "a"}, "agent"),
    ):
        status, answer = desk.post(path, body, key=key)
        assert status in (200, 201), (path, answer)
    assert desk.call("PUT", "/api/registry/agents/a", {"description": "changed"}, key="alice")[0] == 200
    assert desk.call("DELETE", "/api/registry/agents/gone", key="alice")[0] == 200
    Management(store=desk.store, by=operator()).set_approvers("critical", count=2, names=("alice", "bob"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    path = tmp_path_factory.mktemp("whole") / "a.db"
    desk = People(POLICY, path, development=True)
    lived(desk)
    assert verify(desk.store).whole
    desk.authority.close()
    return path


@pytest.fixture(scope="module")
def whole_url(cluster):
    """The same in PostgreSQL, and what puts its rows back."""
    url = cluster.fresh()
    desk = People(POLICY, url, development=True)
    lived(desk)
    desk.authority.close()
    return url, keep(url)


@pytest.fixture
def path(engine_kind, request, tmp_path):
    """Where a database is in which something has happened, of either engine."""
    if engine_kind == "sqlite":
        return shutil.copy(request.getfixturevalue("whole"), tmp_path / "a.db")
    url, put_back = request.getfixturevalue("whole_url")
    put_back()
    return url


def tamper(path, *statements):
    """Change a database as whoever owns it can."""
    with Owner(path, guarded=False) as owner:
        for statement, *values in statements:
            assert owner.change(statement, *values) == 1, statement


def found(path, capsys):
    """Return what the command finds, as table, row and fact."""
    code = main(["audit", "verify", "--db", str(path), "--json"])
    told = json.loads(capsys.readouterr().out)
    assert (code == 0) == told["whole"] == (told["findings"] == [])
    return [(one.get("table"), one.get("row"), one.get("fact")) for one in told["findings"]]


def test_what_nobody_touched_is_whole(path, capsys):
    assert found(path, capsys) == []


# For every table by which columns a row is named, and which of its columns are compared with the log; of others, why not.
TABLES = {
    "actions": ("id", {}),
    "approvals": ("action_id, approver", {}),
    "keys": ("id", {"used_at": "no entry tells of a use, which would be an entry for every request"}),
    "records": ("id", {}),
    "commands": ("command_id", {}),
    "acks": ("command_id, agent_id", {}),
    "answers": ("key_id, path, name", {}),
    "organizations": ("id", {}),
    "secrets": ("name", {}),
    "sessions": ("hash", {"seen_at": "no entry tells of a click; the session ends at `expires_at` at the latest"}),
    "tallies": ("tenant, hour, status, risk_level", {"highest": "may be that of an action that left the status"}),
    "actors": ("tenant, agent_id", {}),
    "actor_days": ("tenant, day, agent_id", {}),
    "audit": ("seq", {}),
    "audit_head": ("one", {"one": "a table of one row, which may have no other number"}),
    "heartbeats": "signs of life: nothing is decided by them",
    "deliveries": "what webhooks are owed, made of the log and gone when it is delivered",
    "webhook_scan": "how far the log has been read for webhooks",
    "archives": "a plan tells nothing; each file is compared with the entry that names it, see test_authority_archive.py",
    "leases": "whose turn a chore is, for some seconds",
    "revision": "a random number by which processes learn that something changed",
}
COUNTS = ("tallies", "actors", "actor_days")


def _columns():
    """Return every column of every table of the schema, with its type."""
    with contextlib.closing(Store.open(":memory:", now=lambda: 0.0)) as store:
        names = store.rows("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite%'")
        tables = sorted(row["name"] for row in names)
        return {
            (table, row["name"]): row["type"] for table in tables for row in store.rows(f"PRAGMA table_info({table})")
        }


COLUMNS = _columns()


def test_what_is_compared_is_decided_for_every_table():
    assert {table for table, _ in COLUMNS} == TABLES.keys()
    for table, decided in TABLES.items():
        if not isinstance(decided, str):
            assert {(table, column) for column in decided[1]} <= COLUMNS.keys()


def named(path, table):
    """Return how a row is named, and what finds it."""
    keys = TABLES[table][0]
    (values,) = rows(path, f"SELECT {keys} FROM {table} ORDER BY {keys} LIMIT 1")
    name = (" " if table == "answers" else "/").join(map(str, values))
    return name, " AND ".join(f"{key} = ?" for key in keys.split(", ")), values


def changed(value, kind):
    if value is None:
        return 77 if kind == "INTEGER" else "x"
    if isinstance(value, bytes):
        return value + b" "
    return value + 77 if isinstance(value, int | float) else f"{value} "


@pytest.mark.full_on_postgres
@pytest.mark.parametrize(("table", "column"), COLUMNS)
def test_one_value_that_is_changed_is_named(path, capsys, table, column):
    decided = TABLES[table]
    if column == "one":
        return  # the database takes no other value
    if isinstance(decided, str):
        with Owner(path, guarded=False) as owner:
            (values,) = owner.rows(f"SELECT * FROM {table} LIMIT 1")
            owner.change(f"DELETE FROM {table}")
            row = dict(zip([name for place, name in COLUMNS if place == table], values, strict=True)) | {column: "7"}
            owner.change(f"INSERT INTO {table} ({', '.join(row)}) VALUES ({', '.join('?' * len(row))})", *row.values())
        assert found(path, capsys) == []
        return
    keys, others = decided
    name, where, values = named(path, table)
    ((value,),) = rows(path, f"SELECT {column} FROM {table} WHERE {where}", *values)
    tamper(path, (f"UPDATE {table} SET {column} = ? WHERE {where}", changed(value, COLUMNS[table, column]), *values))
    names = found(path, capsys)
    if column in others:
        assert names == []
    elif table in ("audit", "audit_head"):
        assert names[0] == (None, None, None)
    elif column in keys.split(", "):
        assert table in {one[0] for one in names}
    else:
        facts = {fact for where, row, fact in names if (where, row) == (table, name)}
        assert facts == {
            "answer" if table == "answers" and column != "seq" else "row" if table == "answers" else column
        }
        assert {one[0] for one in names} <= {table, *COUNTS}


@pytest.mark.parametrize("value", ["x", *(pytest.param(one, marks=pytest.mark.slow) for one in (b"\x00\xff", 1.5, -1))])
def test_a_value_of_another_kind_ends_in_a_finding(whole, tmp_path, capsys, value):
    for number, (table, column) in enumerate(COLUMNS):
        decided = TABLES[table]
        if isinstance(decided, str) or column in decided[1]:
            continue
        path = shutil.copy(whole, tmp_path / f"{number}.db")
        _, where, values = named(path, table)
        try:
            tamper(path, (f"UPDATE {table} SET {column} = ? WHERE {where}", value, *values))
        except sqlite3.IntegrityError:
            continue  # the numbers of rows are numbers
        assert found(path, capsys), (table, column)


@pytest.mark.parametrize("table", [table for table, decided in TABLES.items() if not isinstance(decided, str)])
@pytest.mark.parametrize("what", ["added", "removed"])
def test_a_row_of_any_table_that_is_added_or_removed_is_named(path, capsys, table, what):
    if table in ("audit", "audit_head"):
        return  # tests/authority/test_authority_storage.py
    keys = TABLES[table][0].split(", ")
    name, where, values = named(path, table)
    if what == "removed":
        tamper(path, (f"DELETE FROM {table} WHERE {where}", *values))
    else:
        types = {column: kind for (place, column), kind in COLUMNS.items() if place == table}
        unique = {"keys": ("hash",), "records": ("name",), "commands": ("seq",), "organizations": ("tenant",)}
        other = {**dict.fromkeys(unique.get(table, ()), "?"), keys[-1]: "?"}
        shown = ", ".join(
            f"CAST(CAST({one} AS TEXT) || '77' AS {kind})" if one in other else one for one, kind in types.items()
        )
        tamper(path, (f"INSERT INTO {table} ({', '.join(types)}) SELECT {shown} FROM {table} WHERE {where}", *values))
        name = f"{name}77"
    names = found(path, capsys)
    if (table, what) == ("sessions", "removed"):
        assert names == []  # whoever it was is signed out
    elif (table, what) == ("answers", "removed"):
        assert names == [(table, "told by entry 4", "row")]
    else:
        assert (table, name) in {one[:2] for one in names}
        assert {one[0] for one in names} <= {table, "approvals", *COUNTS}


def test_a_session_that_was_signed_out_does_not_come_back(path, capsys):
    entries = [json.loads(entry) for (entry,) in rows(path, "SELECT entry FROM audit ORDER BY seq")]
    told = [one["data"]["stored"][0] for one in entries if one["event"] == "SIGNED_IN"]
    for one in told[:2]:
        row = one["id"], one["key_id"], one["created_at"], one["created_at"], one["expires_at"]
        tamper(
            path, ("INSERT INTO sessions (hash, key_id, created_at, seen_at, expires_at) VALUES (?, ?, ?, ?, ?)", *row)
        )
    assert found(path, capsys) == sorted(("sessions", one["id"], "row") for one in told[:2])


@pytest.mark.parametrize(
    ("names", "value", "fact"),
    [
        (("approval", "count"), 1, "judgement.approval.count"),
        (("approval", "names"), "x", "judgement.approval.names"),
        (("reason",), "x", "judgement.reason"),
        (("explanation", "decided_by"), "x", "judgement"),
        (("more",), "x", "judgement.more"),
    ],
)
def test_what_is_changed_of_a_judgement_is_named(path, capsys, names, value, fact):
    ((text,),) = rows(path, "SELECT judgement FROM actions WHERE id = 1")
    judgement = inner = json.loads(text)
    for name in names[:-1]:
        inner = inner[name]
    inner[names[-1]] = value
    tamper(path, ("UPDATE actions SET judgement = ? WHERE id = 1", canonical_json(judgement)))
    assert found(path, capsys) == [("actions", "1", fact)]


FORGED = "INSERT INTO approvals (action_id, approver, key_id, comments, at) VALUES (?, 'bob', 3, '', '2023')"


@pytest.mark.parametrize(
    ("statement", "name"),
    [
        ((FORGED, 1), ("approvals", "1/bob", "row")),
        ((FORGED, 99), ("approvals", "99/bob", "row")),
        (("DELETE FROM approvals WHERE action_id = 2",), ("approvals", "2/alice", "row")),
        (("DELETE FROM actions WHERE id = 5",), ("actions", "5", "row")),
        (
            (
                "INSERT INTO actions SELECT 77, tenant, agent_id, status, risk_score, risk_level, created_at, updated_at,"
                " submitted_by, session, submission, judgement, approval, outcome, expires_at, submitter, salt FROM actions"
                " WHERE id = 2",
            ),
            ("actions", "77", "row"),
        ),
    ],
)
def test_a_row_that_was_added_or_removed_is_named(path, capsys, statement, name):
    tamper(path, statement)
    assert [one for one in found(path, capsys) if one[0] not in COUNTS] == [name]


@pytest.mark.parametrize(
    "forged",
    [
        (FORGED, 1),
        ("UPDATE actions SET judgement = replace(judgement, '\"count\":2', '\"count\":1') WHERE id = 1",),
    ],
)
def test_no_single_person_finishes_what_two_must_by_a_forged_row(database, desk_of, forged):
    desk = desk_of(POLICY, database, People)
    assert desk.submit("high", key="agent")[1]["required_approvers"] == ["admin", "admin"]
    assert desk.decide(1, "alice")[1]["status"] == "pending"
    tamper(database, forged)
    for key in ("alice", "bob"):
        setattr(desk, key, desk.store.issue_key(name=key, role=Role.ADMIN, tenant="default"))
        assert desk.code(desk.decide(1, key)) == (500, "NOT_AS_LOGGED")
    assert desk.get("/api/v1/actions/1/status", key="bob")[1]["status"] == "pending"
    assert desk.decide(1, "bob", "reject")[0] == 200  # a denial lets nothing happen


def test_who_finished_an_action_with_a_forged_row_is_found_when_the_row_is_gone(path, capsys):
    """As an authority does that trusts the table."""
    desk = People(POLICY, path)
    with desk.store.write():
        forged = [{"at": "2023", "by": "bob", "comments": "", "key": 3}]
        data = {"by": "alice", "key": 2, "comments": "", "via": "api", "approvals": forged}
        desk.store.settle(1, "approved", tenant="default", event="ACTION_APPROVED", actor="alice", data=data)
    desk.authority.close()
    assert found(path, capsys) == [("actions", "1", "approvals"), ("actions", "1", "required count")]


def test_what_is_said_of_an_action_with_an_idempotency_key_is_whole(desk):
    for number, name in ((1, "approve"), (2, "reject")):
        desk.submit("transaction", amount=5000)
        path = f"/api/v1/actions/{number}/{name}"
        assert desk.post(path, {"reason": "fine"}, key="admin", idempotency_key=name)[0] == 200
    assert desk.post("/api/agent-action/1/complete", {"success": True}, idempotency_key="done")[0] == 200
    assert verify(desk.store).findings == ()
