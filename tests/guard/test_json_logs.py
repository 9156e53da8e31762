"""With one setting, the log is JSON."""

import json
import logging
import subprocess
import sys
from datetime import datetime

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from ascend_middleware.asgi import AscendMiddleware

RULES = [{"match": "GET /orders/{id}", "name": "orders", "action_type": "data_access"}]


@pytest.fixture(autouse=True)
def untouched():
    """The package's logger, as it was."""
    logger = logging.getLogger("ascend_middleware")
    before = list(logger.handlers), logger.propagate, logger.level
    yield logger
    logger.handlers[:], logger.propagate = before[:2]
    logger.setLevel(before[2])


def client(**settings):
    app = FastAPI(openapi_url=None)
    app.add_middleware(AscendMiddleware, rules={"rule": RULES}, agent_id="a", kill_switch="off", **settings)
    app.add_api_route("/orders/{id}", lambda id: id)
    app.add_api_route("/forgotten", lambda: 1)
    return TestClient(app)


def lines(capsys):
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


@pytest.mark.parametrize("way", ["setting", "environment"])
def test_each_line_is_an_object(ascend_authority, capsys, monkeypatch, way):
    ascend_authority.approve()
    settings = {"log_format": "json"} if way == "setting" else {}
    if way == "environment":
        monkeypatch.setenv("ASCEND_LOG_FORMAT", "json")
    with client(**settings) as http, client(**settings) as again:
        assert http.get("/orders/7").status_code == again.get("/orders/7").status_code == 200
    found = [line for line in lines(capsys) if line["logger"] == "ascend_middleware.guard"]
    warning, line = found[0], found[-1]
    assert (warning["level"], "GET /forgotten" in warning["message"]) == ("WARNING", True)
    assert line["message"].startswith("GET /orders/{id}: allowed (orders, ")
    assert (line["level"], line["ascend_outcome"], line["ascend_rule"]) == ("INFO", "allowed", "orders")
    assert line["ascend_duration_ms"] > 0
    assert "ascend_would" not in line
    assert datetime.fromisoformat(line["time"]).utcoffset().total_seconds() == 0
    assert sum(one["message"].startswith("GET /orders/{id}: allowed") for one in found) == 2


def test_an_error_is_told_and_secrets_are_not(ascend_authority, capsys, untouched):
    with client(log_format="json"):
        try:
            raise ValueError("password=hunter2")
        except ValueError:
            logging.getLogger("ascend_middleware.guard").exception("it broke with %s", "token=abcdef")
    (line,) = (line for line in lines(capsys) if line["level"] == "ERROR")
    assert line["exception"].startswith("Traceback")
    assert "ValueError" in line["exception"]
    assert "hunter2" not in str(line)
    assert "abcdef" not in str(line)


def test_the_level_that_was_set_stands_and_other_loggers_are_not_touched(ascend_authority, capsys, untouched):
    ascend_authority.approve()
    untouched.setLevel(logging.WARNING)
    with client(log_format="json") as http:
        http.get("/orders/7")
    logging.getLogger("shop").info("not shown")
    assert {line["level"] for line in lines(capsys)} == {"WARNING"}


def test_without_it_nothing_is_configured(ascend_authority, untouched):
    before = list(untouched.handlers), untouched.propagate, untouched.level
    with client():
        pass
    assert (untouched.handlers, untouched.propagate, untouched.level) == before


@pytest.mark.slow
@pytest.mark.socket
def test_the_authority_heeds_the_variable(tmp_path):
    command = [sys.executable, "-m", "ascend_middleware.cli", "authority"]
    subprocess.run([*command, "init"], cwd=tmp_path, check=True, capture_output=True)
    with subprocess.Popen(
        [*command, "--port", "0"], cwd=tmp_path, stderr=subprocess.PIPE, text=True, env={"ASCEND_LOG_FORMAT": "json"}
    ) as process:
        try:
            line = json.loads(process.stderr.readline())
        finally:
            process.terminate()
    assert line["level"] == "INFO" and line["logger"] and line["message"]
