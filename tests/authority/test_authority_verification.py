"""`audit verify` names every row that is not what the log says, by its table, its id and the fact."""

import contextlib
import json
import shutil
import sqlite3

import pytest
from kit.desk import Desk

from ascend_middleware.authority import Role, Store
from ascend_middleware.authority.store.verification import verify
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


def lived(path):
    """Fill a database with something in every table, and return its desk."""
    desk = People(POLICY, path)
    for kind in ("high", "high", "high", "low", "read"):
        assert desk.submit(kind, key="agent", orchestration_session_id="s")[0] == 200
    # One approval of two is given of action 1, both of action 2; action 3 is denied, and action 4 was carried out.
    for number, key, word in (
        (1, "alice", "approve"),
        (2, "alice", "approve"),
        (2, "bob", "approve"),
        (3, "bob", "reject"),
    ):
        desk.time += 1
        assert desk.decide(number, key, word, comments=f"{key} says so")[0] == 200
    assert desk.decide(4, "bob")[0] == 200
    assert desk.post("/api/agent-action/4/complete", {"result": {"n": 1}})[0] == 200
    return desk


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    path = tmp_path_factory.mktemp("whole") / "a.db"
    desk = lived(path)
    assert verify(desk.store).whole
    desk.authority.close()
    return path


@pytest.fixture
def path(whole, tmp_path):
    return shutil.copy(whole, tmp_path / "a.db")


def tamper(path, *statements):
    """Change a database as whoever can write the file can."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as raw:
        triggers = raw.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").fetchall()
        for name, _ in triggers:
            raw.execute(f"DROP TRIGGER {name}")
        for statement, *values in statements:
            assert raw.execute(statement, values).rowcount == 1, statement
        for _, trigger in triggers:
            raw.execute(trigger)


def found(path, capsys):
    """Return what the command finds, as table, row and fact."""
    code = main(["audit", "verify", "--db", str(path), "--json"])
    told = json.loads(capsys.readouterr().out)
    assert (code == 0) == told["whole"] == (told["findings"] == [])
    return [(one.get("table"), one.get("row"), one.get("fact")) for one in told["findings"]]


def test_what_nobody_touched_is_whole(path, capsys):
    assert found(path, capsys) == []


def columns(*tables):
    with contextlib.closing(Store.open(":memory:", now=lambda: 0.0)) as store:
        return [(table, row["name"]) for table in tables for row in store.rows(f"PRAGMA table_info({table})")]


@pytest.mark.parametrize(("table", "column"), columns("actions", "approvals"))
def test_one_value_that_is_changed_is_named(path, capsys, table, column):
    key = {"actions": "id", "approvals": "action_id"}[table]
    with contextlib.closing(sqlite3.connect(path)) as raw:
        (value,) = raw.execute(f"SELECT {column} FROM {table} WHERE {key} = 1").fetchone()
    other = value + 77 if isinstance(value, int) else "2001-01-01T00:00:00.000Z" if value is None else f"{value} "
    tamper(path, (f"UPDATE {table} SET {column} = ? WHERE {key} = 1", other))
    names = found(path, capsys)
    row = "1" if table == "actions" else "1/alice"
    if column in (key, "approver"):
        assert {(table, row, "row")} < set(names)
    else:
        assert names == [(table, row, column)]


@pytest.mark.parametrize(
    ("path_of", "value", "fact"),
    [
        ("$.approval.count", 1, "judgement.approval.count"),
        ("$.approval.names", "x", "judgement.approval.names"),
        ("$.reason", "x", "judgement.reason"),
        ("$.explanation.decided_by", "x", "judgement"),
        ("$.more", "x", "judgement.more"),
    ],
)
def test_what_is_changed_of_a_judgement_is_named(path, capsys, path_of, value, fact):
    tamper(path, ("UPDATE actions SET judgement = json_set(judgement, ?, ?) WHERE id = 1", path_of, value))
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
                " submitted_by, session, submission, judgement, approval, outcome, expires_at, submitter FROM actions"
                " WHERE id = 2",
            ),
            ("actions", "77", "row"),
        ),
    ],
)
def test_a_row_that_was_added_or_removed_is_named(path, capsys, statement, name):
    tamper(path, statement)
    assert found(path, capsys) == [name]


@pytest.mark.parametrize(
    "forged", [(FORGED, 1), ("UPDATE actions SET judgement = json_set(judgement, '$.approval.count', 1) WHERE id = 1",)]
)
def test_no_single_person_finishes_what_two_must_by_a_forged_row(path, desk_of, forged):
    tamper(path, forged)
    desk = desk_of(POLICY, path, People)
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
