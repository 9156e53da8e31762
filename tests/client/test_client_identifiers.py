import os
import threading

import pytest

from ascend_middleware.client.calls import Identifiers


def test_each_is_new_and_of_one_shape():
    identifiers = Identifiers()
    drawn = [identifiers.draw() for _ in range(1000)]
    assert len(set(drawn)) == 1000
    assert all(len(one) == 32 and set(one) <= set("0123456789abcdef") for one in drawn)


def test_threads_get_none_twice():
    identifiers, drawn = Identifiers(), []

    def draw():
        mine = [identifiers.draw() for _ in range(2000)]
        drawn.extend(mine)

    threads = [threading.Thread(target=draw) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(drawn)) == 16_000


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_child_draws_its_own():
    identifiers = Identifiers()
    identifiers.draw()
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.write(writing, "\n".join(identifiers.draw() for _ in range(50)).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        theirs = set(pipe.read().split())
    os.waitpid(child, 0)
    assert len(theirs) == 50
    assert theirs.isdisjoint(identifiers.draw() for _ in range(63))
