"""The background worker's turns, one at a time: how long it waits after a failure, and what it says of it."""

import json
import sys
import threading
from types import SimpleNamespace

import pytest
from kit.engine import API, KEY, Engine, failed
from kit.states import state_at

from ascend_middleware.client.core import ClientCore
from ascend_middleware.client.http import ConnectFailed
from ascend_middleware.config import Settings
from ascend_middleware.journal.journal import Journal
from ascend_middleware.journal.worker import BackgroundWorker, LateEngine

ENTRY = {"id": "7", "how": "allowed", "rule": "refund", "agent": "bot"}


class Authority(Engine):
    """Gives one answer to all, and keeps when it was asked."""

    def __init__(self, clock):
        super().__init__(ConnectFailed("away"))
        self.clock = clock
        self.asked = []

    def send(self, request, timeout):
        self.asked.append((self.clock[0], json.loads(request.content or b"{}").get("action_id")))
        return super().send(request, timeout)


class Kept:
    """A background worker of a journal in memory, whose turns are taken one by one."""

    def __init__(self, *, random=1.0):
        self.clock = [1000.0]
        settings = Settings(api_url=API, api_key=KEY, max_retries=0)
        core = ClientCore(settings, clock=lambda: self.clock[0], random=lambda: 0.0)
        self.authority = Authority(self.clock)
        self.journal = Journal(None)
        self.engine = LateEngine(lambda: self.authority)
        given = {"journal": self.journal, "state": state_at(), "random": lambda: random}
        self.worker = BackgroundWorker(core, lambda: self.authority, **given)

    def run(self, action_id="7"):
        number = self.journal.next_number()
        self.journal.enter(number, {**ENTRY, "id": action_id})
        self.journal.conclude(number, error=None, duration_ms=1)

    def turns(self, seconds):
        """Take a turn each quarter of a second; return when the authority was asked meanwhile."""
        self.authority.asked.clear()
        began = self.clock[0]
        while self.clock[0] <= began + seconds:
            while self.worker._turn(self.journal, self.engine, stopping=False):
                pass
            self.clock[0] += 0.25
        return [at - began for at, _ in self.authority.asked]


@pytest.mark.parametrize(("random", "share"), [(1.0, 1.0), (0.0, 0.5)])
def test_after_each_failure_it_waits_twice_as_long_but_never_longer_than_half_a_minute(caplog, random, share):
    kept = Kept(random=random)
    kept.run()
    asked = kept.turns(100)
    pauses = [share * pause for pause in (0.5, 1, 2, 4, 8, 16, 30, 30, 30, 30, 30, 30)]
    assert asked == [sum(pauses[:count]) for count in range(len(asked))]
    assert len(asked) == (9 if share == 1 else 12)
    # Said at first, and once more when it lasts.
    assert caplog.text.count("the journal waits for the authority") == 2


def test_what_it_says_comes_with_the_first_and_the_sixth_failure(caplog):
    kept = Kept()
    kept.run()
    said = []
    for _ in range(8):
        caplog.clear()
        assert len(kept.turns(0)) == 1
        said.append(caplog.text.count("the journal waits for the authority"))
        kept.clock[0] += 30
    assert said == [1, 0, 0, 0, 0, 1, 0, 0]


@pytest.mark.parametrize(("asked", "pause"), [("0", 0.5), ("20", 20.0), ("99", 30.0)])
def test_an_authority_that_names_a_time_is_not_asked_before_it(asked, pause):
    kept = Kept()
    kept.run()
    kept.authority.answers = [failed(429, retry_after=asked)]
    assert kept.turns(35)[1] == pause


def test_when_it_is_back_all_is_delivered_in_order_and_the_next_failure_is_a_first_one(caplog):
    kept = Kept()
    for action_id in ("1", "2", "3"):
        kept.run(action_id)
    kept.turns(20)
    kept.authority.answers = [failed(200, b'{"success": true}')]
    kept.turns(40)
    assert [action_id for _, action_id in kept.authority.asked] == ["1", "2", "3"]
    assert kept.journal.backlog == 0
    caplog.clear()
    kept.authority.answers = [ConnectFailed("away")]
    kept.run("4")
    assert kept.turns(3) == [0.0, 0.5, 1.5]
    assert caplog.text.count("the journal waits for the authority") == 1


@pytest.mark.parametrize(("status", "level"), [(401, "ERROR"), (503, "WARNING")])
def test_a_key_that_is_refused_is_an_error(caplog, status, level):
    kept = Kept()
    kept.run()
    kept.authority.answers = [failed(status)]
    kept.turns(0)
    (said,) = [one for one in caplog.records if "the journal waits" in one.getMessage()]
    assert said.levelname == level
    assert kept.journal.backlog > 0


@pytest.mark.parametrize(("worker", "mule", "runs"), [(0, 0, False), (1, 0, True), (0, 1, True), (None, None, True)])
def test_where_uwsgi_only_loads_and_forks_no_thread_starts(monkeypatch, worker, mule, runs):
    if worker is not None:
        own = SimpleNamespace(worker_id=lambda: worker, mule_id=lambda: mule)
        monkeypatch.setitem(sys.modules, "uwsgi", own)
    before = set(threading.enumerate())
    background = Kept().worker
    for _ in range(2):
        background.start()
        assert background.is_running is runs
    started = [thread.name for thread in set(threading.enumerate()) - before]
    assert started.count("ascend-worker") == runs
    background.close()
    assert not background.is_running
    assert [thread.name for thread in set(threading.enumerate()) - before] == []
