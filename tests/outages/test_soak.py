"""Half of what the machine can do, for long, with faults at random: nothing grows, nothing is stuck, nothing ran unseen."""

import asyncio
import json
import random
import time
from collections import Counter

import pytest
from outage_rig import ALLOWANCE, CONNECTIONS, DEADLINE, Load, Rig

pytestmark = [pytest.mark.slow, pytest.mark.socket]

FAULTS = [
    *("refused", "black-holed", "slow", "trickling", "flapping", "answering 500", "answering 429", "answering HTML"),
    *("answering garbage", "half a body", "resetting mid-body", "TLS broken", "DNS gone"),
]
FULL_SECONDS = 20 * 60.0
SHORT_SECONDS = 30.0
# What the service may still be slow to give back: connections that were open at once, and the allocator's blocks.
GROWTH = 1.1


def capacity(rig, *, seconds):
    """Return how many requests a second the service answers, the delivery of what ran included."""

    async def run():
        load = Load(rig.port, "capacity", pause=0.0)
        await asyncio.sleep(seconds)
        await load.end()
        return len(load.results)

    began = time.monotonic()
    answered = rig.run(run())
    took = time.monotonic() - began
    rig.settle(seconds=300)
    return answered / took, answered / (time.monotonic() - began)


async def soak(rig, *, seconds, rate, draw):
    """Load at a rate, with a fault now and then; return results by outcome, the latest of them, samples, and faults."""
    samples, got, late, faults = [], Counter(), [], 0
    load = Load(rig.port, "soak", pause=CONNECTIONS / rate, most=10**9)
    began = time.monotonic()

    def take():
        results, load.results = load.results, []
        for at, took, rule, status, problem in results:
            got[f"{rule}: {status} {problem}"] += 1
            late.append((round(took, 2), f"{rule}: {status} {problem}", round(at - began), fault))
        late[:] = sorted(late, key=lambda one: -one[0])[:10]

    fault = None
    while (elapsed := time.monotonic() - began) < seconds:
        if draw.random() < 0.6:
            faults += 1
            fault = draw.choice(FAULTS)
            await rig.begin(fault)
            await asyncio.sleep(draw.uniform(0.5, 4.0))
            await rig.end(fault)
        await asyncio.sleep(draw.uniform(1.0, 4.0))
        take()
        vitals = await rig.look()
        samples.append((elapsed, vitals["resident"], vitals["handles"], vitals["tasks"]))
    await load.end()
    take()
    return got, late, samples, faults


def test_soak(tmp_path, full):
    seconds = FULL_SECONDS if full else SHORT_SECONDS
    seed = random.randrange(10**6)
    rig = Rig(tmp_path, name="soak", engine="auto")
    try:
        burst, most = capacity(rig, seconds=10.0 if full else 2.0)
        rate = most / 2
        rig.run(rig.outage("half a body", seconds=2.0))
        rig.run(rig.outage("slow", seconds=2.0, pause=0.1))  # as many connections as there will be
        level = rig.vitals()["resident"]
        rig.settle(seconds=300)
        got, latest, samples, faults = rig.run(soak(rig, seconds=seconds, rate=rate, draw=random.Random(seed)))
        rig.settle(seconds=900 if full else 120)
        time.sleep(1.0)
        after = rig.vitals()
        runs = rig.handler_runs()
        quarter = max(1, len(samples) // 4)
        early = max(level, *(one[1] for one in samples[:quarter]))
        late = max(one[1] for one in samples[-quarter:])
        figures = {
            "seed": seed,
            "seconds": seconds,
            "requests a second": {"in a burst": round(burst), "for long": round(most), "soak": round(rate)},
            "faults": faults,
            "requests": sum(got.values()),
            "got": dict(got.most_common()),
            "latest (seconds, what, when, last fault)": latest,
            "handler runs": dict(Counter(f"{run[1]} {run[2] or ''}".strip() for run in runs)),
            "resident KiB": {"first quarter": early, "last quarter": late, "after": after["resident"]},
            "handles": {"most": max(one[2] for one in samples), "after": after["handles"]},
            "tasks after": after["tasks"],
        }
        print(f"\nsoak: {json.dumps(figures, indent=1)}")
        missing = rig.missing()
        assert missing == [], len(missing)
        assert {run[1] for run in runs if "-closed-" in run[0]} <= {"allowed"}
        assert {run[2] for run in runs if run[1] == "open"} <= {"connect-error", "deadline", "breaker-open"}
        assert late <= early * GROWTH
        assert after["resident"] <= early * GROWTH
        assert after["handles"] <= CONNECTIONS + 100 + 20
        assert after["tasks"] <= 10
        assert latest[0][0] <= DEADLINE + 2 * ALLOWANCE
        assert after["health"]["status"] == "ok"
        assert "Traceback" not in rig.app_log.read_text()
    finally:
        rig.close_once()
