"""What one submission costs the embedded authority, in what does not depend on the machine; benchmarks measure the time.

And what must not change because submissions wait for each other's commit.
"""

import collections
import contextlib
import sys
from pathlib import Path

import pytest
from kit.desk import Desk

import ascend_middleware
from ascend_middleware.authority.store.verification import verify

SUBMIT = "/api/v1/actions/submit"
BODY = b'{"agent_id":"a","action_type":"data_access","resource":"r"}'  # as clients write it
TOGETHER = 64
ROOT = str(Path(ascend_middleware.__file__).parent)
# Functions of the package that one submission passes, in a group. Lower it with the code; a tenth more fails.
CALLS = 75


def submit(desk, name):
    """Submit under an idempotency key, and return the answer."""
    status, answer = desk.call("POST", SUBMIT, raw=BODY, idempotency_key=str(name))
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
    assert kinds.pop("SELECT name,") == TOGETHER  # whether the key came before
    assert kinds.total() <= 15 and not {"SAVEPOINT part", "RELEASE part"} & kinds.keys(), kinds


def test_a_submission_passes_few_functions(tmp_path):
    desk = Desk(path=tmp_path / "a.db")
    passed = []

    def note(frame, event, _):
        name = frame.f_code.co_qualname
        # What newer versions of Python do in place counts in none.
        if event == "call" and not name.endswith("comp>") and frame.f_code.co_filename.startswith(ROOT):
            passed.append(name)

    with contextlib.closing(desk.store):
        submit(desk, "first")
        with desk.store.group():
            submit(desk, "second")
            sys.setprofile(note)
            try:
                submit(desk, "third")
            finally:
                sys.setprofile(None)
    assert len(passed) <= CALLS * 1.1, f"{len(passed)} calls:\n" + "\n".join(passed)


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
