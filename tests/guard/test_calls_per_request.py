"""How many of the package's own functions one governed request passes; what is not called takes no time and is not read."""

from pathlib import Path

import pytest
from kit.processes import python

# Lower these with the code; a tenth more fails, so that nobody pays for a hop without seeing it.
CALLS = {"fastapi": 94, "flask": 90, "django": 80, "wsgi": 88}


@pytest.mark.parametrize("framework", CALLS)
def test_a_governed_request_passes_few_functions(framework):
    done = python(Path(__file__).with_name("counted_app.py"), framework)
    assert done.returncode == 0, done.stderr
    calls = done.stdout.splitlines()
    assert len(calls) <= CALLS[framework] * 1.1, f"{len(calls)} calls:\n{done.stdout}"
