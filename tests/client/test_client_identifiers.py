"""Correlation ids and idempotency keys: each is drawn once, among threads and on both sides of a fork."""

import os
import threading

import pytest
from clocked import APPROVED, World

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
    threads = [threading.Thread(target=lambda: found.extend(drawn(core, 250))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 4000


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_child_draws_its_own(core):
    drawn(core, 1)
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.write(writing, "\n".join(drawn(core, 25)).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        theirs = set(pipe.read().split())
    os.waitpid(child, 0)
    assert len(theirs) == 50
    assert theirs.isdisjoint(drawn(core, 32))
