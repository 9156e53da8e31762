"""Two replicas on one PostgreSQL: whoever of them is asked, and whatever ends, there is one answer and one chain."""

import contextlib
import http.client
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.parse
from pathlib import Path

import pytest
import yaml
from authority_process import Process
from kit.databases import Cluster, behind
from kit.desk import Desk
from kit.processes import together, wait_until
from load import POLICY, Load

from ascend_middleware.authority import Role, Store, parse_policy
from ascend_middleware.authority.delivery import Attempt
from ascend_middleware.authority.store.verification import verify
from ascend_middleware.authority.webhooks import Outbox

pytestmark = [pytest.mark.slow, pytest.mark.socket, pytest.mark.skipif(os.name != "posix", reason="needs signals")]

ROUNDS = 25
APPROVALS = """
[limits]
submit = 0
admin = 0

[approvals.high]
count = 2

[[policy]]
name = "two"
action_types = ["two"]
decision = "pending"
risk_score = 75

[[policy]]
name = "one"
action_types = ["one"]
decision = "pending"
risk_score = 50
"""


@pytest.fixture
def desks(url):
    """Two authorities on one database; the keys of the first are good at both."""
    first = Desk(APPROVALS, url)
    second = Desk(APPROVALS, url)
    for attribute, *_ in Desk.KEYS:
        setattr(second, attribute, getattr(first, attribute))
    for name in ("ann", "bob"):
        key = first.store.issue_key(name=name, role=Role.ADMIN, tenant="default")
        for desk in (first, second):
            setattr(desk, name, key)
    yield first, second
    assert first.store.verify_audit() is None
    for desk in (first, second):
        desk.authority.close()


def race(*jobs):
    """Run jobs at once; return what each returned, in their order."""
    found, line = [None] * len(jobs), threading.Barrier(len(jobs))

    def run(number, job):
        line.wait(30)
        found[number] = job()

    together(*[lambda number=number, job=job: run(number, job) for number, job in enumerate(jobs)])
    return found


def test_one_of_two_decisions_counts(desks):
    first, second = desks
    for _ in range(ROUNDS):
        number = first.submit("one")[1]["id"]
        path = f"/api/v1/actions/{number}"
        (approved, _), (denied, _) = race(
            lambda path=path: first.post(f"{path}/approve", {}, key="admin"),
            lambda path=path: second.post(f"{path}/reject", {"reason": "no"}, key="ann"),
        )
        assert sorted((approved, denied)) == [200, 409]
        assert first.get(f"{path}/status")[1] == second.get(f"{path}/status")[1]


def test_two_people_at_two_replicas_approve_together(desks):
    first, second = desks
    for _ in range(ROUNDS):
        number = first.submit("two")[1]["id"]
        path = f"/api/v1/actions/{number}/approve"
        answers = race(
            lambda path=path: first.post(path, {}, key="ann"), lambda path=path: second.post(path, {}, key="bob")
        )
        assert sorted(answer["status"] for _, answer in answers) == ["approved", "pending"]
        # And nobody twice, whichever replica they ask.
        number = first.submit("two")[1]["id"]
        path = f"/api/v1/actions/{number}/approve"
        answers = race(
            lambda path=path: first.post(path, {}, key="ann"), lambda path=path: second.post(path, {}, key="ann")
        )
        assert sorted(status for status, _ in answers) == [200, 409]


def test_an_idempotency_key_at_two_replicas_gets_one_answer(desks):
    first, second = desks
    body = {"agent_id": "a", "action_type": "data_access"}
    for turn in range(4 * ROUNDS):
        answers = race(
            *[
                lambda desk=desk, turn=turn: desk.post("/api/v1/actions/submit", body, idempotency_key=f"k{turn}")
                for desk in desks
            ]
        )
        assert [status for status, _ in answers] == [200, 200]
        assert answers[0][1] == answers[1][1]
    assert first.store.rows("SELECT count(*) FROM actions")[0][0] == 4 * ROUNDS


def test_one_of_two_replicas_registers_an_agent(desks):
    for turn in range(ROUNDS):
        body = {"agent_id": f"agent-{turn}", "display_name": "x"}
        answers = race(*[lambda desk=desk, body=body: desk.post("/api/registry/agents", body) for desk in desks])
        assert sorted(status for status, _ in answers) == [200, 201]  # there already, and made
        assert desks[0].store.rows("SELECT count(*) FROM records WHERE name = ?", (body["agent_id"],))[0][0] == 1


# --- webhooks


def test_each_delivery_is_made_by_one_replica_and_in_order(desks):
    first, second = desks
    hooks = [
        first.post(
            "/api/webhooks",
            {"target_url": f"https://h{n}.example.com/", "event_types": ["action.approved"]},
            key="admin",
        )
        for n in range(3)
    ]
    assert {status for status, _ in hooks} <= {200, 201}, hooks
    for _ in range(40):
        first.submit("data_access")
    taken, lock = [], threading.Lock()

    def deliver(desk):
        outbox = Outbox(desk.authority)
        while outbox.fill():
            pass
        until = time.monotonic() + 60
        while first.store.rows("SELECT count(*) FROM deliveries")[0][0] and time.monotonic() < until:
            for delivery in outbox.due():
                if outbox.claim(delivery):
                    with lock:
                        taken.append((delivery["webhook"], int(delivery["name"].split("_")[1])))
                    outbox.settle(delivery, Attempt(status=200))

    race(lambda: deliver(first), lambda: deliver(second))
    assert len(taken) == len(set(taken)) == 3 * 40
    for webhook in {webhook for webhook, _ in taken}:
        told = [seq for name, seq in taken if name == webhook]
        assert told == sorted(told)


def test_a_delivery_that_one_replica_holds_is_skipped_by_the_other(desks):
    first, second = desks
    first.post(
        "/api/webhooks", {"target_url": "https://h.example.com/", "event_types": ["action.approved"]}, key="admin"
    )
    first.submit("data_access")
    first.submit("data_access")
    Outbox(first.authority).fill()
    outboxes = [Outbox(desk.authority) for desk in desks]
    (delivery,) = outboxes[0].due()
    assert outboxes[0].claim(delivery) and not outboxes[1].claim(delivery)
    assert outboxes[1].due() == []  # the second waits for the first
    first.time = second.time = first.time + 60  # who claimed it is gone
    (again,) = outboxes[1].due()
    assert again["id"] == delivery["id"] and outboxes[1].claim(again)


# --- processes


class Replicas:
    """Served replicas on one database."""

    def __init__(self, folder, url, stack):
        self.folder, self.stack = folder, stack
        self.policy = folder / "policy.toml"
        self.policy.write_text(POLICY)
        self.url = url
        with contextlib.closing(Store.open(url, now=time.time)) as store:
            self.user = store.issue_key(name="u", role=Role.USER, tenant="default")
            self.admin = store.issue_key(name="boss", role=Role.ADMIN, tenant="default")

    def start(self, name, *, policy=None):
        process = Process(policy or self.policy, "--db", self.url, "--no-access-log", log=self.folder / f"log-{name}")
        self.stack.callback(process.end, signal.SIGKILL)
        return process

    def load(self, process, connections=8, **options):
        return Load(process.url, self.user, self.admin, connections, **options)


@pytest.fixture
def replicas(tmp_path, url):
    with contextlib.ExitStack() as stack:
        yield Replicas(tmp_path, url, stack)


def check(url, loads):
    """Compare what was acknowledged with what is stored."""
    submitted, approved = {}, set()
    for load in loads:
        assert not submitted.keys() & load.submitted.keys()  # no number was given twice
        submitted |= load.submitted
        approved |= load.approved
    with contextlib.closing(Store.open(url, now=time.time)) as store:
        stored = {row["id"]: row["status"] for row in store.rows("SELECT id, status FROM actions")}
        events = {(row["action_id"], json.loads(row["entry"])["event"]) for row in store.rows("SELECT * FROM audit")}
        found = verify(store)
    assert found.whole, found.findings
    assert submitted.keys() <= stored.keys()
    for number, word in submitted.items():
        assert stored[number] == word or (word == "pending" and stored[number] == "approved")
    assert all(stored[number] == "approved" for number in approved)
    assert all((number, "ACTION_SUBMITTED") in events for number in stored)
    assert all((number, "ACTION_APPROVED") in events for number in approved)
    return len(submitted), len(approved)


def test_kill_9_of_a_replica_loses_nothing_and_the_other_goes_on(replicas, full, record_property):
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    dice, loads = random.Random(seed), []
    stays = replicas.start("stays")
    rounds = 100 if full else 10
    for turn in range(rounds):
        with replicas.start("ends") as ends:
            pair = replicas.load(stays), replicas.load(ends)
            loads += pair
            assert all(load.running.wait(60) for load in pair)
            time.sleep(dice.uniform(0, 0.4))
            assert ends.end(signal.SIGKILL) == -signal.SIGKILL
            # The other one goes on at once: the lock of the dead one is let go with its connection.
            count = len(pair[0].submitted)
            wait_until(lambda pair=pair, count=count: len(pair[0].submitted) > count + 8, seconds=20)
            for load in pair:
                load.stop()
                load.join()
                assert load.odd == []
        if turn % 10 == 9:
            print(turn + 1, *check(replicas.url, loads))
    found = check(replicas.url, loads)
    record_property("acknowledged", found)
    assert found[0] > 16 * rounds / 2
    assert stays.end() == 0


@pytest.fixture
def own_cluster():
    cluster = Cluster()
    yield cluster
    cluster.stop()


def test_kill_9_of_postgresql_loses_nothing_and_both_go_on(tmp_path, own_cluster, full, record_property):
    loads, answers = [], 0
    with contextlib.ExitStack() as stack:
        replicas = Replicas(tmp_path, own_cluster.fresh(), stack)
        pair = [replicas.start(f"{n}") for n in range(2)]
        for _ in range(50 if full else 5):
            running = [replicas.load(process, tolerant=True) for process in pair]
            loads += running
            assert all(load.running.wait(60) for load in running)
            own_cluster.kill()
            wait_until(lambda running=running: all(load.odd for load in running))
            own_cluster.start()
            for load in running:
                count = len(load.submitted)
                wait_until(lambda load=load, count=count: len(load.submitted) > count + 8)
                load.stop()
                load.join()
                assert {status for status, _ in load.odd} == {503}
                assert {body["error"]["code"] for _, body in load.odd} == {"STORAGE_UNAVAILABLE"}
                answers += len(load.odd)
        record_property("acknowledged", check(replicas.url, loads))
        print(f"{answers} answers of 503")
        for process in pair:
            wait_until(lambda process=process: process.call("/ready", None)[0] == 200)
            assert process.end() == 0


def test_a_held_request_at_one_replica_ends_when_the_other_decides(replicas):
    here, there = replicas.start("here"), replicas.start("there")
    for _ in range(3):
        number = here.call("/api/v1/actions/submit", replicas.user, {"agent_id": "a", "action_type": "refund"})[1]["id"]
        ended = []

        def wait(number=number, ended=ended):
            answer = here.call(f"/api/v1/actions/{number}/status?wait=20", replicas.user)
            ended.append((time.monotonic(), answer[1]["status"]))

        waiting = threading.Thread(target=wait)
        waiting.start()
        time.sleep(0.3)
        assert there.call(f"/api/v1/actions/{number}/approve", replicas.admin, {})[0] == 200
        decided = time.monotonic()
        waiting.join(30)
        assert ended[0][1] == "approved" and ended[0][0] - decided < 0.9  # not by the look each second


# --- what is counted once


LIMITED = """
[limits]
submit = 10
failed_sign_ins = 5
"""


@pytest.fixture
def limited(url):
    first, second = Desk(LIMITED, url), Desk(LIMITED, url)
    second.user = first.user
    yield first, second
    for desk in (first, second):
        desk.authority.close()


def test_a_limit_counts_once_for_all_replicas(limited):
    first, second = limited
    statuses = [limited[turn % 2].submit()[0] for turn in range(20)]
    assert statuses == [200] * 10 + [429] * 10
    assert (first.headers["x-ratelimit-limit"], first.headers["x-ratelimit-remaining"]) == ("10", "0")
    assert 0 < int(second.headers["retry-after"]) <= 60
    first.time = second.time = first.time + 61
    behind(first.store, "UPDATE allowances SET at = at - 61")
    answers = race(
        *[lambda desk=desk: [desk.submit()[0] for _ in range(10)] for desk in limited],
    )
    assert sorted(answers[0] + answers[1]) == [200] * 10 + [429] * 10


@pytest.mark.parametrize("seconds", [-3600, -40, 40, 3600])
def test_a_limit_counts_once_where_the_clocks_of_replicas_differ(limited, seconds):
    limited[1].time += seconds
    assert [limited[turn % 2].submit()[0] for turn in range(24)] == [200] * 10 + [429] * 14
    assert 0 < int(limited[1].headers["retry-after"]) <= 60
    limited[0].authority.peers.forget()
    assert {desk.submit()[0] for desk in limited} == {429}


def test_failed_sign_ins_count_once_for_all_replicas(limited):
    def attempt(desk):
        return desk.get("/api/v1/actions", key="owkai_user_" + "0" * 64, client="203.0.113.7")[0]

    assert [attempt(limited[turn % 2]) for turn in range(8)] == [401] * 5 + [429] * 3
    assert limited[0].submit()[0] == 200


def test_a_large_limit_is_taken_in_parts_that_one_replica_does_not_keep_for_ever(url):
    policy = "[limits]\nsubmit = 200\n"
    first, second = Desk(policy, url), Desk(policy, url)
    second.user = first.user
    answers = [desk.submit()[0] for desk in (first, second) * 110]
    assert answers.count(200) == 200
    for desk in (first, second):
        desk.authority.close()


def test_without_the_database_each_counts_alone(limited, caplog):
    first, second = limited
    behind(first.store, "ALTER TABLE allowances RENAME TO gone")
    try:
        assert [first.submit()[0] for _ in range(12)] == [200] * 10 + [429] * 2
        assert "counted by this replica alone" in caplog.text
    finally:
        behind(first.store, "ALTER TABLE gone RENAME TO allowances")


def test_replicas_that_decide_by_different_files_are_told_of_loudly(url, caplog):
    first, second = Desk("", url), Desk("", url)
    for desk in (first, second, first):
        desk.authority.peers.meet(desk.authority.policy.version)
    assert first.get("/ready", key=None)[1]["differing_policy_versions"] == [] and "different" not in caplog.text
    assert first.get("/ready", key=None)[1]["replicas"] == 2
    second.authority.use(parse_policy(LIMITED))
    for desk in (second, first):
        desk.authority.peers.meet(desk.authority.policy.version)
    versions = [desk.authority.policy.version for desk in (first, second)]
    for desk, other in ((first, versions[1]), (second, versions[0])):
        assert desk.get("/ready", key=None)[1]["differing_policy_versions"] == [other]
    assert f"this one by version {versions[0]}, {second.authority.peers.name} by {versions[1]}" in caplog.text
    second.authority.peers.leave()
    first.authority.peers.meet(versions[0])
    assert first.get("/ready", key=None)[1]["differing_policy_versions"] == []
    assert "by the same policy file again" in caplog.text
    for desk in (first, second):
        desk.authority.close()


def signed_in(process, key):
    """Return what reads a page of a replica as somebody who is signed in."""
    with contextlib.closing(http.client.HTTPConnection(process.url.removeprefix("http://"), timeout=30)) as connection:
        headers = {"Origin": process.url, "Content-Type": "application/x-www-form-urlencoded"}
        connection.request("POST", "/sign-in", urllib.parse.urlencode({"key": key}), headers)
        answer = connection.getresponse()
        assert answer.status == 303, answer.read()
        cookie = answer.headers["Set-Cookie"].partition(";")[0]
    return lambda: process.text("/", {"Cookie": cookie})


def test_two_replicas_whose_policy_files_differ_say_so_everywhere_until_they_agree(replicas):
    other = replicas.policy.with_name("other.toml")
    other.write_text(POLICY.replace("no schema", "none of it"))
    first, second = replicas.start("one"), replicas.start("two", policy=other)

    def ready(process):
        return process.call("/ready", None)[1]

    def numbers(process):
        found = re.search(
            r"^ascend_authority_policies_agree (.*)$", process.text("/metrics", {"X-API-Key": replicas.admin}), re.M
        )
        return float(found[1])

    pages = {process: signed_in(process, replicas.admin) for process in (first, second)}
    wait_until(lambda: all(ready(process)["differing_policy_versions"] for process in pages))
    ours, theirs = (ready(process)["policy_version"] for process in pages)
    assert ours != theirs and {ready(process)["replicas"] for process in pages} == {2}
    for process, own, others in ((first, ours, theirs), (second, theirs, ours)):
        assert ready(process)["differing_policy_versions"] == [others] and numbers(process) == 0
        (notice,) = re.findall(
            r'<p class="notice" role="alert">(Replicas decide .*?)</p>', re.sub("</?bdi>", "", pages[process]())
        )
        assert notice.startswith(f"Replicas decide by different policy files: this one by version {own[:8]}, ")
        assert notice.endswith(f" by {others[:8]}."), notice
    assert "Replicas decide" not in second.text("/sign-in")  # only who is signed in is told
    for name, own, others in (("one", ours, theirs), ("two", theirs, ours)):
        told = (replicas.folder / f"log-{name}").read_text()
        assert re.search(rf"ERROR .*different policy files: this one by version {own}, .* by {others}", told), told
    # The same file at both again: a new one in the other's place, as programs that roll out put it there.
    replicas.policy.with_name("new.toml").write_text(replicas.policy.read_text())
    replicas.policy.with_name("new.toml").replace(other)
    wait_until(lambda: not any(ready(process)["differing_policy_versions"] for process in pages))
    assert {ready(process)["policy_version"] for process in pages} == {ours}
    for process, page in pages.items():
        assert "Replicas decide" not in page() and numbers(process) == 1
    for name in ("one", "two"):
        assert "by the same policy file again" in (replicas.folder / f"log-{name}").read_text()


# --- the example


EXAMPLE = Path(__file__).parents[2] / "examples" / "fleet"


@pytest.mark.skipif(shutil.which("nginx") is None, reason="needs nginx")
def test_the_examples_story_goes_on_while_a_replica_is_killed():
    told = subprocess.run([sys.executable, EXAMPLE / "fleet.py"], capture_output=True, text=True, timeout=300)
    assert told.returncode == 0, told.stdout + told.stderr
    lines = told.stdout.splitlines()
    assert lines.index("authority-1 is killed") < lines.index("a large refund, held, and released after the kill: 200")
    assert lines[-1] == "everything was as expected"


def test_the_compose_file_has_what_the_script_does_not_run():
    """Its commands, environments, health check and mounted files are those that the script runs."""
    services = yaml.safe_load((EXAMPLE / "compose.yaml").read_text())["services"]
    assert set(services) == {"database", "authority-1", "authority-2", "balancer"}
    recipe = (EXAMPLE / "Dockerfile").read_text()
    assert 'ENTRYPOINT ["ascend-middleware"]' in recipe and "EXPOSE 8700" in recipe
    for name in ("authority-1", "authority-2"):
        assert f"server {name}:8700" in (EXAMPLE / "nginx.conf").read_text()
        assert services[name]["depends_on"] == {"database": {"condition": "service_healthy"}}
        for volume in services[name]["volumes"]:
            assert (EXAMPLE / volume.split(":")[0]).is_file()
    assert services["balancer"]["ports"] == ["127.0.0.1:8700:8700"]
