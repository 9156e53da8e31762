"""What one governed request costs: the package's own functions that it passes, and the bytes that are allocated meanwhile.

What is not called takes no time and is not read.
"""

import sys
from pathlib import Path

import pytest
from kit.processes import python

# Lower these with the code; a tenth more fails, so that nobody pays for a hop without seeing it.
CALLS = {
    ("fastapi", "exempt"): 20,
    ("fastapi", "allowed"): 61,
    ("fastapi", "cached"): 41,
    ("fastapi", "denied"): 120,
    ("fastapi", "held"): 391,
    ("flask", "allowed"): 68,
    ("django", "allowed"): 56,
    ("wsgi", "allowed"): 74,
}
# By the version of Python, whose objects differ in size.
BYTES = {
    (3, 11): {"exempt": 7330, "allowed": 11945, "cached": 8434, "denied": 12932, "held": 12796},
    (3, 13): {"exempt": 7250, "allowed": 11561, "cached": 8338, "denied": 12747, "held": 12722},
}


def counted(*arguments):
    done = python(Path(__file__).with_name("counted_app.py"), *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize(("framework", "way"), CALLS)
def test_a_governed_request_passes_few_functions(framework, way):
    calls = counted(framework, way)
    assert len(calls) <= CALLS[framework, way] * 1.1, f"{len(calls)} calls:\n" + "\n".join(calls)


@pytest.mark.skipif(sys.version_info[:2] not in BYTES, reason="no figures for this version of Python")
@pytest.mark.parametrize("way", BYTES[3, 11])
def test_a_governed_request_allocates_few_bytes(way):
    found = int(counted("bytes", way)[-1])
    assert found <= BYTES[sys.version_info[:2]][way] * 1.1, found
