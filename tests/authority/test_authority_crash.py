"""What was acknowledged survives `kill -9` and a full disk, and nothing passes for decided that was not stored."""

import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest
from authority_process import Process
from load import POLICY, Load

from ascend_middleware.authority import Store
from ascend_middleware.authority.store.verification import verify

pytestmark = [pytest.mark.slow, pytest.mark.socket, pytest.mark.skipif(os.name != "posix", reason="needs signals")]


def test_kill_9_loses_no_acknowledged_decision(tmp_path, full, record_property):
    policy = tmp_path / "policy.toml"
    policy.write_text(POLICY)
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    dice = random.Random(seed)
    keys, submitted, approved = {}, {}, set()
    rounds = 200 if full else 10
    for _ in range(rounds):
        with Process(policy, "--no-access-log", log=tmp_path / "log") as authority:
            keys = keys or authority.keys
            load = Load(authority.url, keys["user"], keys["admin"], 16)
            assert load.running.wait(60)
            time.sleep(dice.uniform(0, 0.4))
            assert authority.end(signal.SIGKILL) == -signal.SIGKILL
            load.join()
        assert load.odd == []
        submitted |= load.submitted
        approved |= load.approved
        store = Store.open(tmp_path / "policy.db", now=time.time)
        stored = {row["id"]: row["status"] for row in store.rows("SELECT id, status FROM actions")}
        events = {(row["action_id"], json.loads(row["entry"])["event"]) for row in store.rows("SELECT * FROM audit")}
        found = verify(store)
        store.close()
        assert found.whole, found.findings
        assert submitted.keys() <= stored.keys()
        for number, word in submitted.items():
            # A pending one may have been approved without the word of it having come back.
            assert stored[number] == word or (word == "pending" and stored[number] == "approved")
        assert all(stored[number] == "approved" for number in approved)
        # Every stored action has its entry, and every approval too: they were written together.
        assert all((number, "ACTION_SUBMITTED") in events for number in stored)
        assert all((number, "ACTION_APPROVED") in events for number in approved)
    print(f"{rounds} rounds, {len(submitted)} acknowledged decisions, {len(approved)} approvals")
    record_property("acknowledged", len(submitted))
    assert len(submitted) > 16 * rounds / 2


def test_64_connections_lose_nothing(tmp_path):
    policy = tmp_path / "policy.toml"
    policy.write_text(POLICY)
    with Process(policy, "--no-access-log", log=tmp_path / "log") as authority:
        load = Load(authority.url, authority.keys["user"], authority.keys["admin"], 64)
        assert load.running.wait(60)
        time.sleep(2)
        assert authority.end(signal.SIGTERM) == 0
        load.join()
    assert load.odd == []
    store = Store.open(tmp_path / "policy.db", now=time.time)
    stored = {row["id"]: row["status"] for row in store.rows("SELECT id, status FROM actions")}
    assert load.submitted.keys() <= stored.keys() and len(load.submitted) > 64
    assert {stored[number] for number in load.approved} == {"approved"}
    assert verify(store).whole
    store.close()


@pytest.fixture
def small_disk(tmp_path):
    """A file system of eight megabytes, and what makes it larger."""
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("mounts a file system, which needs root on Linux; see test_a_full_database_refuses_and_recovers")
    place = tmp_path / "disk"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", place], check=True)
    try:
        yield place, lambda: subprocess.run(["mount", "-o", "remount,size=64m", place], check=True)
    finally:
        subprocess.run(["umount", "-l", place], check=True)


def test_a_full_disk_refuses_clearly_and_recovers(tmp_path, small_disk):
    disk, enlarge = small_disk
    policy = tmp_path / "policy.toml"
    policy.write_text(POLICY)
    with Process(policy, "--db", str(disk / "a.db"), log=tmp_path / "log") as authority:
        user, admin = authority.keys["user"], authority.keys["admin"]
        refund = {"agent_id": "a", "action_type": "refund"}
        waiting = [authority.call("/api/v1/actions/submit", user, refund)[1]["id"] for _ in range(30)]
        acknowledged = []
        body = {"agent_id": "a", "action_type": "read", "context": {"x": "y" * 20_000}}
        for _ in range(1000):
            status, answer = authority.call("/api/v1/actions/submit", user, body)
            if status != 200:
                break
            acknowledged.append(answer["id"])
        assert (status, answer["error"]["code"]) == (503, "STORAGE_UNAVAILABLE") and acknowledged
        assert "decision" not in answer and "decided" in answer["error"]["message"]
        # A person's word cannot be stored either, and then the action stays pending.
        for pending in waiting:
            status, answer = authority.call(f"/api/v1/actions/{pending}/approve", admin, {"comments": "c" * 4000})
            if status != 200:
                break
        assert (status, answer["error"]["code"]) == (503, "STORAGE_UNAVAILABLE")
        assert authority.call(f"/api/v1/actions/{pending}/status", user)[1]["status"] == "pending"
        status, answer = authority.call("/health", None)
        assert (status, answer["status"]) == (503, "unhealthy") and "database" in answer["problem"]
        enlarge()
        deadline = time.monotonic() + 60
        while authority.call("/health", None)[0] != 200:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert authority.call(f"/api/v1/actions/{pending}/approve", admin, {})[1]["status"] == "approved"
        status, answer = authority.call("/api/v1/actions/submit", user, body)
        assert status == 200
        for number in [*acknowledged, answer["id"]]:
            assert authority.call(f"/api/v1/actions/{number}/status", user)[1]["status"] == "approved"
        assert authority.end() == 0
    store = Store.open(disk / "a.db", now=time.time)
    assert verify(store).whole
    store.close()
    assert "disk is full" in (tmp_path / "log").read_text()
