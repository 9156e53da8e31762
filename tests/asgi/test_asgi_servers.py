"""Servers with several processes: spawned, forked after the application was made, started again when a file changes."""

import os
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import pytest

from ascend_middleware import AscendClient

APPS = Path(__file__).parents[1] / "apps"
POLICY = """
[[policy]]
name = "pay"
action_types = ["pay"]
decision = "approved"

[[policy]]
name = "no"
action_types = ["forbidden"]
decision = "denied"
"""

pytestmark = [pytest.mark.slow, pytest.mark.socket]


class Served:
    """One server process with its workers; it listens on a socket that is open already."""

    def __init__(self, folder, command):
        self.folder = folder
        (folder / "policy.toml").write_text(POLICY)
        listener = socket.socket()
        listener.bind(("127.0.0.1", 0))
        listener.listen(128)
        listener.set_inheritable(True)
        self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        environ = {**os.environ, "SERVED_FOLDER": str(folder), "PYTHONPATH": str(APPS)}
        environ |= {"ASCEND_STATE": str(folder / "state.db"), "ASCEND_JOURNAL": str(folder / "journal")}
        arguments = [part.format(fd=listener.fileno(), folder=folder) for part in command]
        self.log = folder / "log"
        with self.log.open("wb") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-W", "ignore", *arguments],
                env=environ,
                stdout=errors,
                stderr=errors,
                pass_fds=[listener.fileno()],
            )
        listener.close()
        self.client = httpx2.Client(base_url=self.url, timeout=30)

    def pid(self):
        """Which process answers a new connection."""
        with httpx2.Client(base_url=self.url, timeout=30) as fresh:
            return fresh.get("/pid").json()

    def until(self, condition, *, seconds=60):
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            try:
                if condition():
                    return
            except httpx2.HTTPError:
                pass
            time.sleep(0.1)
        raise AssertionError(self.log.read_text())

    def pay(self, amount):
        with httpx2.Client(base_url=self.url, timeout=30) as fresh:
            answer = fresh.post("/pay", json={"amount": amount})
            assert answer.status_code == 200, (answer.text, self.log.read_text())
            return answer.json()

    def close(self):
        self.client.close()
        self.process.terminate()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def ran(self):
        return [line.split() for line in (self.folder / "ran").read_text().splitlines()]

    def actions(self):
        with AscendClient(api_url=f"local:{self.folder / 'policy.toml'}", agent_id="reader") as client:
            return {row.action_id: client.get_action(row.action_id) for row in client.list_actions(limit=200).actions}


COMMANDS = {
    "uvicorn-workers": ["-m", "uvicorn", "--fd", "{fd}", "--workers", "2", "served_asgi:app"],
    "uvicorn-workers-wrapped": ["-m", "uvicorn", "--fd", "{fd}", "--workers", "2", "served_asgi:wrapped"],
    "hypercorn-workers": ["-m", "hypercorn", "--bind", "fd://{fd}", "--workers", "2", "served_asgi:app"],
    "hypercorn-trio": ["-m", "hypercorn", "-k", "trio", "--bind", "fd://{fd}", "--workers", "2", "served_asgi:app"],
    "gunicorn-preload": [
        *("-m", "gunicorn", "--bind", "fd://{fd}", "--preload", "--workers", "2", "--worker-class", "asgi"),
        "served_asgi:wrapped",
    ],
}


@pytest.fixture(params=COMMANDS)
def served(request, tmp_path):
    served = Served(tmp_path, COMMANDS[request.param])
    try:
        served.until(lambda: served.pid())
        yield served
    finally:
        served.close()


def test_every_worker_governs_and_reports(served):
    pids = set()
    served.until(lambda: pids.add(served.pid()) or len(pids) == 2)
    with ThreadPoolExecutor(8) as pool:
        answered = list(pool.map(served.pay, range(40)))
    assert served.client.post("/forbidden").status_code == 403
    assert set(answered) <= pids
    assert not (served.folder / "forbidden").exists()
    ran = served.ran()
    assert sorted(int(amount) for _, amount in ran) == list(range(40))
    served.close()
    actions = served.actions()
    for number, amount in ran:
        assert actions[number]["action_details"] == {"amount": int(amount)}
    assert len({number for number, _ in ran}) == 40
    told = [str(actions[number]["audit_trail"]).upper() for number, _ in ran]
    assert sum("COMPLETED" in trail for trail in told) == 40


def test_a_reloaded_server_governs_by_its_new_rules(tmp_path):
    application = (APPS / "served_asgi.py").read_text()
    (tmp_path / "reloaded.py").write_text(application)
    command = ["-m", "uvicorn", "--fd", "{fd}", "--reload", "--reload-dir", "{folder}", "--app-dir", "{folder}"]
    served = Served(tmp_path, [*command, "reloaded:app"])
    try:
        served.until(lambda: served.pid())
        first = served.pid()
        served.pay(1)
        time.sleep(1.1)  # the reloader goes by the time of change
        (tmp_path / "reloaded.py").write_text(application.replace('"pay", "details"', '"forbidden", "details"'))
        served.until(lambda: served.pid() != first)
        assert served.client.post("/pay", json={"amount": 2}).status_code == 403
    finally:
        served.close()
    assert [amount for _, amount in served.ran()] == ["1"]
