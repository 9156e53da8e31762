"""A forked worker: everything of it is made once, and nothing of its parent is used, whoever forked."""

import sys

import pytest
from kit.processes import python

PROGRAM = """
import ctypes, os, sys, threading
from pathlib import Path
from ascend_middleware.client.http.transport import PerProcess
from ascend_middleware.journal.journal import Journal

sys.setswitchinterval(1e-6)
opened = []
journal, engine = Journal(Path(sys.argv[1])), PerProcess(lambda: opened.append(1) or object())
journal.next_number(), engine.get()
opened.clear()
for child in range(40):
    if not (os.fork() if child % 2 else ctypes.PyDLL(None).fork()):  # with Python's hooks, and without
        break
    if os.wait()[1]:
        sys.exit(1)
else:
    sys.exit(0)
before = set(Path(sys.argv[1]).glob("*.journal"))
together, numbers, problems = threading.Barrier(16), [], []

def use():
    together.wait()
    try:
        for _ in range(4):
            engine.get()
            number = journal.next_number()
            numbers.append(number)
            journal.enter(number, {"id": str(number), "how": "allowed", "rule": "r", "agent": "a"})
    except Exception as error:
        problems.append(repr(error))

threads = [threading.Thread(target=use) for _ in range(16)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
files = set(Path(sys.argv[1]).glob("*.journal")) - before
lines = b"".join(file.read_bytes() for file in files).count(b"\\n")
found = problems, len(opened), sorted(numbers) == list(range(1, 65)), len(files), lines
if found != ([], 1, True, 1, 64):
    print(found, flush=True)
    os._exit(1)
os._exit(0)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork")
def test_many_first_uses_in_a_child_renew_once(tmp_path):
    done = python("-c", PROGRAM, tmp_path, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


INHERITED = """
import ctypes, os, sys, threading
from pathlib import Path
from ascend_middleware import AgentAction, CircuitBreakerOpen
from ascend_middleware.client import ClientCore
from ascend_middleware.client.breaker import CircuitBreaker
from ascend_middleware.config import Settings
from ascend_middleware.fork import FileLock, ProcessLock
from ascend_middleware.journal.journal import Journal

folder = Path(sys.argv[1])
core, lock, journal = ClientCore(Settings(api_url="http://localhost")), ProcessLock(), Journal(folder)
draw = lambda: dict(next(core.submit(AgentAction("a", "A", "t", "r"))).request.headers)["Idempotency-Key"]
draw()
breaker = CircuitBreaker(threshold=1, timeout=0.0, clock=lambda: 0.0)
breaker.acquire().fail()
probe = breaker.acquire()
held = FileLock.take(folder / "mine.lock")
number = journal.next_number()
journal.enter(number, {"id": "7", "how": "allowed", "rule": "r", "agent": "a"})
written = {file: file.read_bytes() for file in folder.glob("*.journal")}
taken, done = threading.Event(), threading.Event()

def hold():
    with lock:
        taken.set()
        done.wait()

threading.Thread(target=hold, daemon=True).start()
taken.wait()
reading, writing = os.pipe()
if not (os.fork() if sys.argv[2] == "os" else ctypes.PyDLL(None).fork()):
    with lock:
        breaker.acquire().succeed()
    assert FileLock.take(folder / "mine.lock") is None, "the parent's"
    assert journal.conclude(number, error=None, duration_ms=1)
    assert not journal.is_open
    os.write(writing, " ".join(draw() for _ in range(50)).encode())
    os._exit(0)
assert os.wait()[1] == 0
theirs = os.read(reading, 65536).decode().split()
assert len(set(theirs)) == 50
assert not {draw() for _ in range(63)} & set(theirs)
try:
    breaker.acquire()
except CircuitBreakerOpen:
    pass
else:
    raise AssertionError("the child's success is not the parent's")
assert {file: file.read_bytes() for file in folder.glob("*.journal")} == written, "it was concluded by the child"
assert journal.conclude(number, error=None, duration_ms=1)
assert {file: file.read_bytes() for file in folder.glob("*.journal")} != written
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork")
@pytest.mark.parametrize("fork", ["os", "bare"])
def test_a_child_uses_nothing_of_its_parent_also_where_no_hook_runs(tmp_path, fork):
    done = python("-c", INHERITED, tmp_path, fork)
    assert done.returncode == 0, done.stdout + done.stderr


EMULATED = """
import mmap

class Yes(mmap.mmap):
    def madvise(self, *_):
        pass

mmap.mmap = Yes
from ascend_middleware.fork import known_id, process_id
import os
assert process_id() == os.getpid() and known_id[0] == 0
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the system is asked at each use")
def test_a_system_that_says_yes_to_all_advice_is_asked_at_each_use():
    done = python("-c", EMULATED)
    assert done.returncode == 0, done.stdout + done.stderr
