"""Correlation ids and idempotency keys: each is drawn once, among threads and on both sides of a fork."""

import os

import pytest
from kit.clocked import APPROVED, World
from kit.processes import in_a_child, together

from ascend_middleware.api.models import AgentAction

ACTION = AgentAction("a", "A", "data_access", "r")


def drawn(core, calls):
    """Begin so many calls, and return the identifiers of all."""
    found = []
    for _ in range(calls):
        headers = dict(next(core.submit(ACTION)).request.headers)
        found += [headers["X-Correlation-ID"], headers["Idempotency-Key"]]
    return found


@pytest.fixture
def core():
    return World(APPROVED).core


def test_each_is_new_and_of_one_shape(core):
    found = drawn(core, 500)
    assert len(set(found)) == 1000
    assert all(len(one) == 32 and set(one) <= set("0123456789abcdef") for one in found)


def test_threads_get_none_twice(core):
    found = []
    together(*[lambda: found.extend(drawn(core, 250))] * 8)
    assert len(set(found)) == 4000


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_child_draws_its_own(core):
    mine = set(drawn(core, 32)) | set(drawn(core, 1))
    reading, writing = os.pipe()
    assert in_a_child(lambda: os.write(writing, "\n".join(drawn(core, 25)).encode()))
    os.close(writing)
    with os.fdopen(reading) as pipe:
        theirs = set(pipe.read().split())
    assert len(theirs) == 50
    assert theirs.isdisjoint({*mine, *drawn(core, 32)})
