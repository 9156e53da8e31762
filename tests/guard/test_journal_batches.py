"""Many outcomes at once: in order, at least once, and never at the price of one of them."""

import json
import os
import sys
import threading
import time

import pytest
from kit.desk import POLICY, Desk
from kit.engine import API, KEY, failed
from kit.processes import python
from kit.states import NOW, approval, state_at

from ascend_middleware.client.core import ClientCore
from ascend_middleware.client.http import ConnectFailed, Response
from ascend_middleware.config import Settings
from ascend_middleware.exceptions import AscendError
from ascend_middleware.flow import Sleep, drive
from ascend_middleware.journal.delivery import Delivery
from ascend_middleware.journal.journal import Journal
from ascend_middleware.journal.lines import decode_line
from ascend_middleware.journal.recovery import adopt
from ascend_middleware.journal.segments import FileLog
from ascend_middleware.journal.worker import BackgroundWorker

SETTINGS = Settings(api_url=API, api_key=KEY, max_retries=0)
ENTRY = {"id": "7", "how": "allowed", "rule": "refund", "agent": "bot"}
ACTION = {"agent_id": "bot", "agent_name": "bot", "action_type": "transaction", "resource": "r"}


class House:
    """An embedded authority, and what it was asked; before it answers, an answer of `instead` goes ahead."""

    def __init__(self, path=":memory:"):
        self.desk = Desk(POLICY, path)
        self.asked = []
        self.instead = []

    def __call__(self, step):
        return None if isinstance(step, Sleep) else self.send(step.request, step.timeout)

    def send(self, request, timeout):
        place = request.url.removeprefix(API)
        self.asked.append(place.rpartition("/")[2])
        found = self.instead.pop(0) if self.instead and not place.endswith("-info") else None
        if isinstance(found, Exception):
            raise found
        if found is not None:
            return failed(found)
        headers = {name.lower(): value for name, value in request.headers} | {"x-api-key": self.desk.user}
        headers.pop("authorization", None)
        return Response(*self.desk.authority.handle(request.method, place, "", headers, request.content))

    def close(self):
        """Close nothing, as an engine: it is the test's."""

    def submit(self):
        return self.desk.submit()[1]["action_id"]

    @property
    def events(self):
        return [event for event in self.desk.events() if event.startswith("ACTION_") and event != "ACTION_SUBMITTED"]


@pytest.fixture
def house():
    made = House()
    yield made
    assert made.desk.store.verify_audit() is None
    made.desk.authority.close()


def core_of(house):
    core = ClientCore(SETTINGS, random=lambda: 0.0)
    drive(core.try_key(seconds=1), house)
    house.asked.clear()
    return core


@pytest.fixture(params=["memory", "file"])
def journal(request, tmp_path):
    made = Journal(None if request.param == "memory" else tmp_path / "journal", now=lambda: NOW)
    yield made
    made.close(remove=True)


def run(journal, action_id, *, error=None, **more):
    number = journal.next_number()
    journal.enter(number, {**ENTRY, "id": action_id})
    journal.conclude(number, error=error, duration_ms=12, **more)


def delivery_of(journal, core):
    return Delivery(journal.log, process=journal.process, core=core, now=lambda: NOW)


def deliver_all(delivery, house):
    while drive(delivery.deliver_many(), house):
        pass


def test_outcomes_go_out_together_and_are_what_single_ones_would_be(house, journal):
    actions = [house.submit() for _ in range(5)]
    for number, action in enumerate(actions):
        run(journal, action, error="it raised" if number == 1 else None)
    delivery = delivery_of(journal, core_of(house))
    deliver_all(delivery, house)
    assert house.asked == ["outcomes"] and journal.backlog == 0 and delivery.delivered == 5
    records = [house.desk.get(f"/api/v1/actions/{action}")[1]["outcome"] for action in actions]
    assert [one["status"] for one in records] == ["completed", "failed", *["completed"] * 3]
    assert records[1]["error"] == "it raised" and records[0]["duration_ms"] == 12
    assert records[0]["completed_at"] == "2027-01-15T08:00:00.000Z"


def test_more_than_one_batch_holds_go_out_in_several(house, journal):
    action = house.submit()
    for _ in range(450):
        run(journal, action)
    deliver_all(delivery_of(journal, core_of(house)), house)
    assert house.asked == ["outcomes"] * 3 and house.events == ["ACTION_COMPLETED"]


def test_one_that_is_refused_is_set_aside_and_stops_no_other(house, tmp_path, caplog):
    journal = Journal(tmp_path, now=lambda: NOW)
    for action in (house.submit(), "999", house.submit()):
        run(journal, action)
    deliver_all(delivery_of(journal, core_of(house)), house)
    assert house.asked == ["outcomes"] and house.events == ["ACTION_COMPLETED"] * 2
    assert "set aside" in caplog.text
    (kept,) = tmp_path.glob("*.rejected")
    assert decode_line(kept.read_bytes())["n"] == 2
    journal.close(remove=True)


@pytest.mark.parametrize("status", [404, 405, 501])
def test_an_authority_that_knows_no_batches_any_more_is_told_one_by_one(house, journal, status):
    for _ in range(3):
        run(journal, house.submit())
    house.instead = [status]
    deliver_all(delivery_of(journal, core_of(house)), house)
    assert house.asked == ["outcomes", "complete", "complete", "complete"]
    assert house.events == ["ACTION_COMPLETED"] * 3


@pytest.mark.parametrize("status", [400, 403, 409, 413, 422])
def test_a_batch_that_is_refused_as_a_whole_is_told_one_by_one_and_the_next_one_together(house, journal, status):
    for _ in range(3):
        run(journal, house.submit())
    delivery = delivery_of(journal, core_of(house))
    house.instead = [status]
    deliver_all(delivery, house)
    for _ in range(2):
        run(journal, house.submit())
    deliver_all(delivery, house)
    assert house.asked == ["outcomes", "complete", "complete", "complete", "outcomes"]
    assert house.events == ["ACTION_COMPLETED"] * 5


@pytest.mark.parametrize("failure", [500, 503, 429, 401, ConnectFailed("no")], ids=str)
def test_what_cannot_be_told_now_stays_next(house, journal, failure):
    for _ in range(3):
        run(journal, house.submit())
    delivery = delivery_of(journal, core_of(house))
    house.instead = [failure]
    with pytest.raises(AscendError):
        deliver_all(delivery, house)
    assert journal.backlog > 0 and house.events == []
    deliver_all(delivery, house)
    assert house.events == ["ACTION_COMPLETED"] * 3


@pytest.mark.parametrize("answer", [b"{}", b'{"outcomes": [{"status": 200}]}', b'{"outcomes": [{}, {}]}'])
def test_an_answer_that_does_not_say_what_became_of_each_is_none(house, journal, answer):
    for _ in range(2):
        run(journal, house.submit())
    delivery = delivery_of(journal, core_of(house))
    given = iter([Response(200, {}, answer)])
    with pytest.raises(AscendError, match="what became of each"):
        drive(delivery.deliver_many(), lambda step: next(given))
    deliver_all(delivery, house)
    assert house.asked == ["complete", "complete"] and house.events == ["ACTION_COMPLETED"] * 2


def test_what_passed_open_is_submitted_before_what_comes_behind_it(house, journal):
    run(journal, house.submit())
    number = journal.next_number()
    journal.enter(number, {**ENTRY, "id": "", "how": "open", "action": ACTION})
    journal.conclude(number, error=None, duration_ms=1)
    run(journal, house.submit())
    deliver_all(delivery_of(journal, core_of(house)), house)
    assert house.asked == ["complete", "submit", "outcomes"]
    assert house.events == ["ACTION_COMPLETED"] * 3


CRASHING = """
import os, sys
from pathlib import Path
sys.path[:0] = {path!r}
from test_journal_batches import *
house, journal = House({database!r}), Journal(Path(sys.argv[1]), now=lambda: NOW)
house.desk.user = {key!r}
for action in {actions!r}:
    run(journal, action)
run(journal, {given_back!r}, error="the handler did not run", given_back=1)
def killed(step):
    answer = house(step)
    os.kill(os.getpid(), 9)
core = core_of(house)
drive(delivery_of(journal, core).deliver_many(), killed)
"""


@pytest.mark.parametrize("batches", [True, False], ids=["together", "one by one"])
def test_a_kill_between_a_batch_and_the_note_of_it_loses_nothing_and_doubles_nothing(tmp_path, batches):
    house = House(tmp_path / "a.db")
    actions, given_back = [house.submit() for _ in range(3)], house.submit()
    given = {"path": sys.path, "database": str(tmp_path / "a.db"), "key": house.desk.user}
    body = CRASHING.format(**given, actions=actions, given_back=given_back)
    done = python("-c", body, tmp_path / "journal")
    assert done.returncode == -9, done.stderr
    assert house.events == ["ACTION_COMPLETED"] * 3
    core = core_of(house) if batches else ClientCore(SETTINGS, random=lambda: 0.0)
    assert adopt(tmp_path / "journal", core=core, state=None, perform=house, now=lambda: NOW) == 1
    assert house.asked == (["outcomes"] if batches else ["complete"] * 3 + ["fail"])
    assert house.events == ["ACTION_COMPLETED"] * 3
    assert house.desk.events().count("APPROVAL_GIVEN_BACK") == 1
    house.desk.authority.close()


@pytest.mark.parametrize("batches", [True, False], ids=["together", "one by one"])
def test_what_a_dead_process_claimed_and_never_finished_is_told_once(house, tmp_path, batches):
    state, actions = state_at(), [house.submit() for _ in range(3)]
    journal = Journal(tmp_path, now=lambda: NOW)
    for number, action in enumerate(actions, 1):
        journal.enter(number, {**ENTRY, "id": action})
        state.hold(approval(action), now=NOW)
        state.claim(action, by="x", process=journal.process, entry=json.dumps({"n": number}), now=NOW)
    for number in (1, 3):
        journal.conclude(number, error=None if number == 1 else "no", duration_ms=1)
    journal.close(remove=False)
    core = core_of(house) if batches else ClientCore(SETTINGS, random=lambda: 0.0)
    assert adopt(tmp_path, core=core, state=state, perform=house, now=lambda: NOW) == 1
    assert house.asked == (["outcomes", "fail"] if batches else ["complete", "fail", "fail"])
    assert [state.find(action).outcome for action in actions] == ["completed", "unknown", "failed"]


def test_reader_and_writers_at_once(house, tmp_path):
    journal = Journal(tmp_path, now=lambda: NOW)
    journal._log = FileLog(tmp_path, journal.process, segment_bytes=2000)
    delivery, action = delivery_of(journal, core_of(house)), house.submit()
    threads = [threading.Thread(target=lambda: [run(journal, action) for _ in range(200)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        deliver_all(delivery, house)
    for thread in threads:
        thread.join()
    deliver_all(delivery, house)
    assert (delivery.delivered, journal.backlog, delivery.open_entries) == (800, 0, 0)
    assert len(list(tmp_path.glob("*.journal"))) <= 2
    journal.close(remove=True)


def test_the_background_worker_learns_what_the_authority_offers_and_tells_its_processor_time(house, tmp_path):
    journal = Journal(tmp_path)
    actions = [house.submit() for _ in range(20)]
    worker = BackgroundWorker(ClientCore(SETTINGS), lambda: house, journal=journal, state=state_at())
    worker.start()
    until = time.monotonic() + 20
    while not worker._core.outcomes_at_once and time.monotonic() < until:
        time.sleep(0.005)
    for action in actions:
        run(journal, action)
    worker.close()
    assert house.events == ["ACTION_COMPLETED"] * 20
    assert len(house.asked) < 15 and os.listdir(tmp_path) == []
    assert journal.delivered == 20 and 0 < journal.worker_seconds < 5
