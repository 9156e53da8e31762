"""Outages as a table: each with 64 connections of load, a real authority behind a proxy that goes wrong, real sockets.

What the clients got, how long it took, which handlers ran and by which cause, whether the journal is whole, and how fast
it recovered. With `-s` the table is printed; docs/outages.md holds one.
"""

import time
from collections import Counter

import pytest
from outage_rig import ALLOWANCE, CONNECTIONS, DEADLINE, PROBE, Rig

pytestmark = [pytest.mark.slow, pytest.mark.socket]

CONNECT = {"connect-error", "deadline", "breaker-open"}
LATE = {"deadline", "breaker-open"}
NEVER = set()
# Each outage with the causes by which an open rule may pass then. Answers, and what this service itself lacks, open none.
CAUSES = {
    "refused": CONNECT,
    "black-holed": LATE,
    "slow": LATE,
    "trickling": NEVER,
    "flapping": CONNECT,
    "answering 500": NEVER,
    "answering 429": NEVER,
    "answering HTML": NEVER,
    "answering garbage": NEVER,
    "half a body": NEVER,
    "resetting mid-body": NEVER,
    "TLS broken": NEVER,
    "DNS gone": CONNECT,
    "clock jumped by a day": NEVER,
    "event loop blocked": NEVER,
    "pool exhausted": NEVER,
}
# While the authority, or what stands for it, still decides.
DECIDING = {"slow", "flapping", "clock jumped by a day", "event loop blocked", "pool exhausted"}
BLOCKED_SECONDS = 0.8
ROWS = {
    "auto": [cause for cause in CAUSES if cause != "pool exhausted"],
    "httpx2": ["refused", "black-holed", "trickling", "answering 500", "half a body", "TLS broken"],
    "auto, 4 connections": ["pool exhausted"],
}
AFTERWARDS = "afterwards"
CASES = [(rig, cause) for rig, causes in ROWS.items() for cause in [*causes, AFTERWARDS]]


@pytest.fixture(scope="module")
def table():
    """The rows, printed at the end."""
    rows = []
    yield rows
    head = ("engine", "outage", "closed rule", "open rule", "p99", "handlers ran", "attempts / calls", "recovery")
    print()
    for row in (head, ("---",) * len(head), *rows):
        print("| " + " | ".join(row) + " |")


@pytest.fixture(scope="module")
def rigs(tmp_path_factory):
    """The processes for an engine, warmed up; one at a time."""
    made = {}

    def get(name):
        if name not in made:
            for rig in made.values():
                rig.close_once()
            made[name] = rig = Rig(
                tmp_path_factory.mktemp("outage"),
                name=name,
                engine=name.partition(",")[0],
                **({"max_connections": 4} if "," in name else {}),
            )
            # What is loaded late is loaded now: code and threads.
            rig.run(rig.outage("half a body", seconds=1.5))
            rig.level = level(rig)
        return made[name]

    yield get
    for rig in made.values():
        rig.close_once()


def level(rig):
    """Return how much is resident with as many connections to the authority as there are clients."""
    rig.run(rig.outage("slow", seconds=1.5, pause=0.1))
    return rig.vitals()["resident"]


def shown(counts):
    return ", ".join(f"{number} × {what}" for what, number in counts.most_common()) or "nothing"


def afterwards(rig):
    """The journal is whole, and nothing is held."""
    resident = level(rig)
    rig.settle(seconds=120)
    time.sleep(0.2)
    assert rig.missing() == []
    assert len(rig.handler_runs()) > 0
    after = rig.vitals()
    print(f"\n{rig.name}: {len(rig.handler_runs())} handler runs, resident {rig.level} before, {resident} KiB after")
    assert resident <= rig.level * 1.1
    assert after["tasks"] <= 10
    assert after["handles"] <= 64 + 100 + 20
    assert after["health"]["status"] == "ok"


@pytest.mark.parametrize(("name", "cause"), CASES, ids=lambda value: value.replace(" ", "-").replace(",", ""))
def test_an_outage(rigs, table, full, name, cause):
    rig = rigs(name)
    if cause == AFTERWARDS:
        afterwards(rig)
        return
    ran_before = len(rig.handler_runs())
    found = rig.run(rig.outage(cause, seconds=20.0 if full else 2.0))
    runs = rig.handler_runs()[ran_before:]
    closed = [run for run in runs if "-closed-" in run[0]]
    opened = [run for run in runs if run[1] == "open"]
    by_cause = Counter(run[2] for run in opened)
    table.append(
        (
            name,
            cause,
            shown(found.got("closed")),
            shown(found.got("open")),
            f"{found.slowest(0.99):.2f} s",
            f"closed {found.got('closed')['200 allowed']}, open {shown(by_cause)}",
            f"{found.attempts} / {len(found.during)}",
            f"{found.recovery:.2f} s" if found.recovery is not None else "none",
        )
    )
    # A closed rule's handler ran with a decision only; while nobody decides, never.
    assert {run[1] for run in closed} <= {"allowed"}
    if cause not in DECIDING:
        assert found.got("closed")["200 allowed"] == 0
    # An open rule's handler, by the allowed causes only.
    assert set(by_cause) <= CAUSES[cause]
    assert {run[1] for run in runs} <= {"allowed", "open"}
    # Everybody got an answer of ours, in time.
    assert {status for *_, status, _ in found.during} <= ({200, 500, 503} if cause == "TLS broken" else {200, 503})
    assert found.slowest() <= DEADLINE + ALLOWANCE + (2 * BLOCKED_SECONDS if cause == "event loop blocked" else 0)
    assert len(found.during) >= CONNECTIONS
    # And it came back by itself.
    assert found.recovery is not None
    assert found.recovery <= 2 * PROBE + DEADLINE + ALLOWANCE
    assert "Traceback" not in rig.app_log.read_text()
