"""kill -9 of serving processes under load: every handler run is at the authority, with its outcome or "process ended"."""

import os
import random
import signal
import threading
import time

import pytest
from kit.processes import wait_until
from servers import Served, post

from ascend_middleware.cli import main

pytestmark = pytest.mark.slow


def wait_for_runs(path, count):
    wait_until(lambda: path.exists() and path.read_bytes().count(b"\n") >= count, "the servers do not serve")


def kill_a_worker(server):
    """Whether one was there: between the listing and the signal, the worker may have ended by itself."""
    try:
        os.kill(random.choice(server.workers()), signal.SIGKILL)
    except (IndexError, ProcessLookupError):
        return False
    return True


class Load:
    """Threads that send requests to whatever serves now."""

    def __init__(self, ports, *, threads=8, path="/run"):
        self._ports = ports
        self._path = path
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._number = 0
        self.statuses = []
        self._threads = [threading.Thread(target=self._send) for _ in range(threads)]
        for thread in self._threads:
            thread.start()

    def _send(self):
        while not self._stop.is_set():
            with self._lock:
                self._number += 1
                name = f"n{self._number}"
            try:
                status, _ = post(random.choice(self._ports()), f"{self._path}/{name}")
            except OSError:
                status = 0
                time.sleep(0.01)
            except Exception:
                status = 0
            self.statuses.append(status)

    def stop(self):
        self._stop.set()
        for thread in self._threads:
            thread.join()


def check(stub, environment, tmp_path, monkeypatch):
    """Deliver what is left, and compare what ran with what the authority was told."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert main(["journal", "deliver"]) == 0
    names = (tmp_path / "ran").read_text().split()
    assert len(names) == len(set(names)), "a handler ran twice"
    told = stub.told()
    missing = [name for name in names if not told.get(name)]
    assert missing == []
    contradictory = {name: told[name] for name in names if len(set(told[name])) != 1}
    assert contradictory == {}
    journals = [path for path in (tmp_path / "journal").rglob("*") if path.is_file()]
    assert journals == []
    return names, told


@pytest.mark.parametrize("kind", ["uvicorn", "gthread"])
def test_every_run_is_told_after_kill_9(stub, environment, tmp_path, monkeypatch, full, kind):
    rounds = 200 if full else 5
    servers = [Served(kind, environment, workers=2) for _ in range(2 if kind == "uvicorn" else 1)]
    load = Load(lambda: [server.port for server in servers])
    try:
        for number in range(rounds):
            wait_for_runs(tmp_path / "ran", 20 * (number + 1))
            time.sleep(random.uniform(0.0, 0.05))
            if kind == "uvicorn":
                place = number % len(servers)
                servers[place].kill()
                servers[place] = Served(kind, environment)
            else:
                wait_until(lambda: kill_a_worker(servers[0]), "no worker is there to kill")
        wait_for_runs(tmp_path / "ran", 20 * (rounds + 1))
    finally:
        load.stop()
        for server in servers:
            server.stop()
    names, told = check(stub, environment, tmp_path, monkeypatch)
    ended = sum(told[name] == ["process ended"] for name in names)
    print(f"{kind}: {rounds} kills, {len(names)} handler runs, {ended} reported as 'process ended'")
    assert load.statuses.count(200) > 10 * rounds


def test_what_passed_open_is_submitted_when_the_authority_is_back_also_after_kill_9(
    stub, environment, tmp_path, monkeypatch
):
    server = Served("uvicorn", {**environment, "ASCEND_KILL_SWITCH": "off"})
    load = Load(lambda: [server.port], threads=4, path="/open")
    try:
        time.sleep(0.5)
        stub.stop()
        time.sleep(1.5)
        server.kill()
        server = Served("uvicorn", environment)
        time.sleep(1.0)
        stub.start()
        time.sleep(0.5)
    finally:
        load.stop()
        server.stop()
    names, _ = check(stub, environment, tmp_path, monkeypatch)
    marked = {stub.actions[number] for number, context in stub.contexts.items() if context.get("passed_open")}
    assert len(marked & set(names)) > 5
