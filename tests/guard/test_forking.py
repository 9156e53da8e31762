"""A forked worker whose first requests come all at once: everything of it is made once."""

import subprocess
import sys

import pytest

PROGRAM = """
import os, sys, threading
from pathlib import Path
from ascend_middleware.client.exchange import PerProcess
from ascend_middleware.guard.journal import Journal

sys.setswitchinterval(1e-6)
opened = []
journal, engine = Journal(Path(sys.argv[1])), PerProcess(lambda: opened.append(1) or object())
journal.next_number(), engine.get()
opened.clear()
for child in range(40):
    if not os.fork():
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
    done = subprocess.run([sys.executable, "-c", PROGRAM, str(tmp_path)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
