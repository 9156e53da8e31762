"""What one submission costs the embedded authority, in what does not depend on the machine; benchmarks measure the time.

And what must not change because submissions wait for each other's commit.
"""

import collections
import contextlib

import pytest
from kit.desk import Desk

from ascend_middleware.authority.store.verification import verify

SUBMIT = "/api/v1/actions/submit"
TOGETHER = 64


def submit(desk, name):
    """Submit under an idempotency key, and return the answer."""
    body = {"agent_id": "a", "action_type": "data_access", "resource": "r"}
    status, answer = desk.call("POST", SUBMIT, body, idempotency_key=str(name))
    assert status == 200, answer
    return answer


def test_a_group_of_submissions_is_written_by_few_statements(tmp_path):
    """A statement for each table, however many rows come; and no savepoint, which would copy every page that changes."""
    desk = Desk(path=tmp_path / "a.db")
    said = []
    with contextlib.closing(desk.store):
        for first in (0, TOGETHER):
            desk.store.engine.connection.set_trace_callback(said.append if first else None)
            with desk.store.group():
                for number in range(first, first + TOGETHER):
                    assert submit(desk, number)["status"] == "approved"
        desk.store.engine.connection.set_trace_callback(None)
        assert desk.store.rows("SELECT count(*) FROM actions")[0][0] == 2 * TOGETHER
    kinds = collections.Counter(" ".join(statement.split()[:2]) for statement in said)
    assert kinds.pop("SELECT fingerprint,") == TOGETHER  # whether the key came before
    assert kinds.total() <= 15 and not {"SAVEPOINT part", "RELEASE part"} & kinds.keys(), kinds


@pytest.mark.parametrize("looks", [False, True], ids=["unseen", "seen"])
def test_a_submission_that_is_undone_harms_no_other_of_its_group(desk, looks):
    """Also where the rows that wait were added meanwhile, because somebody looked."""
    store = desk.store
    with store.group():
        before = submit(desk, "before")
        with pytest.raises(ZeroDivisionError), store.write():
            undone = submit(desk, "undone")
            if looks:
                assert store.rows("SELECT count(*) FROM actions")[0][0] == 2
                assert store.rows("SELECT count(*) FROM answers")[0][0] == 2
            raise ZeroDivisionError
        again = submit(desk, "undone")
        assert submit(desk, "before") == before
    ids = [row["id"] for row in store.rows("SELECT id FROM actions ORDER BY id")]
    assert ids == [before["id"], again["id"]] and again["id"] == undone["id"] == before["id"] + 1
    assert submit(desk, "undone") == again
    assert submit(desk, "next")["id"] == again["id"] + 1
    assert verify(store).whole


def test_actions_are_numbered_alike_by_all_who_share_a_database(desk_of, new_place):
    place = new_place()
    desks = desk_of(path=place), desk_of(path=place)
    given = [submit(desk, number)["id"] for number in range(3) for desk in desks]
    assert given == list(range(given[0], given[0] + 6))
