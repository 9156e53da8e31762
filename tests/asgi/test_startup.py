"""What is wrong is said once, when the server starts, and the server does not start."""

import os
import subprocess
import sys

import pytest

from ascend_middleware.asgi import AscendMiddleware
from ascend_middleware.exceptions import ConfigurationError, MissingAPIKeyError

APPLICATION = """
from fastapi import FastAPI
from ascend_middleware.asgi import AscendMiddleware
app = FastAPI()
app.add_middleware(AscendMiddleware, rules={rules!r}, **{settings!r})
"""
RULES = {"ascend": {"agent_id": "x"}, "rule": [{"match": "GET /", "action_type": "a"}]}


@pytest.mark.socket
@pytest.mark.parametrize(
    ("rules", "settings", "says"),
    [
        (RULES, {}, "ASCEND_API_KEY"),
        (RULES, {"api_url": "local:missing.toml"}, "missing.toml"),
        (RULES, {"api_url": "http://example.org", "api_key": "owkai_test_0123456789"}, "TLS required"),
        ("missing-table.toml", {}, "missing-table.toml"),
        ({**RULES, "rule": [{"match": "GET /", "action_tipe": "a"}]}, {}, "action_tipe"),
    ],
)
def test_a_server_does_not_start_on_a_bad_configuration(tmp_path, rules, settings, says):
    (tmp_path / "application.py").write_text(APPLICATION.format(rules=rules, settings=settings))
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("ASCEND_", "OWKAI_"))}
    done = subprocess.run(
        [sys.executable, "-m", "uvicorn", "application:app", "--port", "0"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode != 0
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_construction_around_an_application_raises(monkeypatch):
    monkeypatch.delenv("ASCEND_API_KEY", raising=False)
    with pytest.raises(MissingAPIKeyError):
        AscendMiddleware(lambda scope, receive, send: None, rules=RULES)
    with pytest.raises(ConfigurationError) as caught:
        AscendMiddleware(lambda scope, receive, send: None, rules=RULES, timeout=-1, nonsense=1)
    assert len(caught.value.problems) == 2
