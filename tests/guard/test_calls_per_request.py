"""How many of the package's own functions one governed request passes; what is not called takes no time and is not read."""

import subprocess
import sys
from pathlib import Path

import pytest

# Lower these with the code; a tenth more fails, so that nobody pays for a hop without seeing it.
CALLS = {"fastapi": 142, "flask": 129, "django": 112, "wsgi": 110}


@pytest.mark.parametrize("framework", CALLS)
def test_a_governed_request_passes_few_functions(framework):
    script = Path(__file__).with_name("counted_app.py")
    done = subprocess.run([sys.executable, script, framework], capture_output=True, text=True, check=True, timeout=60)
    calls = done.stdout.splitlines()
    assert len(calls) <= CALLS[framework] * 1.1, f"{len(calls)} calls:\n{done.stdout}"
