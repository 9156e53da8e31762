"""Decisions that are used again by the workers of real servers, on a served authority: each run is in its audit log."""

import http.client
import os
import random
import signal
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest
from kit.processes import wait_until
from servers import Served

sys.path.append(str(Path(__file__).parents[1] / "authority"))
from authority_process import Process

from ascend_middleware.cli import main

pytestmark = [pytest.mark.slow, pytest.mark.socket]

NAMES = 4
ALLOWING = "[thresholds]\npending = 90\ndenied = 95\n"
DENYING = '[[policy]]\nname = "no more"\naction_types = ["r"]\ndecision = "denied"\n'


class Load:
    """Threads that read until they are stopped."""

    def __init__(self, server, threads=6):
        self.statuses, self.server = Counter(), server
        self._end = threading.Event()
        self._threads = [threading.Thread(target=self._read) for _ in range(threads)]
        for thread in self._threads:
            thread.start()

    def _read(self):
        while not self._end.is_set():
            connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=20)
            try:
                while not self._end.is_set():
                    connection.request("GET", f"/read/{random.randrange(NAMES)}")
                    answer = connection.getresponse()
                    answer.read()
                    self.statuses[answer.status] += 1
            except OSError:  # a worker was killed
                time.sleep(0.01)
            except http.client.HTTPException:
                time.sleep(0.01)
            finally:
                connection.close()

    def until(self, status, count):
        want = self.statuses[status] + count
        wait_until(lambda: self.statuses[status] >= want, f"no {status}: {self.statuses}")

    def stop(self):
        self._end.set()
        for thread in self._threads:
            thread.join()


@pytest.fixture
def house(tmp_path):
    (tmp_path / "policy.toml").write_text(ALLOWING)
    process = Process(tmp_path / "policy.toml", "--db", str(tmp_path / "a.db"))
    yield process
    process.end()


def test_workers_ask_seldom_obey_a_new_policy_and_tell_of_every_run_after_kill_9_too(house, tmp_path, monkeypatch):
    environment = {
        "ASCEND_API_URL": house.url,
        "ASCEND_API_KEY": house.keys["user"],
        "ASCEND_AGENT_ID": "bot",
        "ASCEND_STATE": str(tmp_path / "state.db"),
        "ASCEND_JOURNAL": str(tmp_path / "journal"),
        "ASCEND_KILL_SWITCH": "poll",
        "RAN": str(tmp_path / "ran"),
    }
    server = Served("gthread", environment, workers=2)
    load = Load(server)
    try:
        load.until(200, 300)
        os.kill(server.workers()[0], signal.SIGKILL)
        load.until(200, 300)
        (tmp_path / "policy.toml").write_text(DENYING)
        load.until(403, 1)
        wait_until(lambda: still_passes(load), "the decisions of before go on to pass")
    finally:
        load.stop()
        server.stop()
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert main(["journal", "deliver"]) == 0
    runs = Counter((tmp_path / "ran").read_text().split())
    told = Counter()
    for action in actions(house):
        details = house.call(f"/api/v1/actions/{action['id']}", house.keys["admin"])[1]
        if details["status"] != "approved":
            continue
        told[details["resource"]] += details["uses"] + (details["outcome"] is not None)
    assert told == runs, (told, runs)
    asked = sum(action["status"] == "approved" for action in actions(house))
    assert sum(runs.values()) > 600 and asked <= 6 * NAMES, (asked, runs)
    print(f"{sum(runs.values())} runs under {asked} decisions")


def actions(house):
    return house.call("/api/v1/actions?limit=1000", house.keys["admin"])[1]["actions"]


def still_passes(load):
    """Whether, of a good number of requests, none passes any more."""
    before = load.statuses[200]
    load.until(403, 60)
    return load.statuses[200] == before
