"""The examples run with one command, as they stand, and do what their first lines say."""

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import httpx2
import pytest
from kit.processes import python
from wire import wait_until_open

EXAMPLES = Path(__file__).parents[2] / "examples"

pytestmark = [pytest.mark.slow, pytest.mark.socket]


@pytest.fixture
def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("fastapi_app.py", ()),
        ("flask_app.py", ()),
        ("wsgi_app.py", ()),
        ("django_project/manage.py", ("runserver", "--noreload", "127.0.0.1:{port}")),
    ],
)
def test_an_example_runs(tmp_path, free_port, name, arguments):
    folder = tmp_path / "examples"
    shutil.copytree(EXAMPLES, folder)
    environ = {
        **os.environ,
        "PORT": str(free_port),
        "ASCEND_STATE": str(tmp_path / "state.db"),
        "ASCEND_JOURNAL": str(tmp_path / "journal"),
    }
    with (tmp_path / "log").open("wb") as log:
        command = [sys.executable, str(folder / name), *(text.format(port=free_port) for text in arguments)]
        process = subprocess.Popen(command, env=environ, stdout=log, stderr=log)
    try:
        wait_until_open(free_port)
        with httpx2.Client(base_url=f"http://127.0.0.1:{free_port}", timeout=30) as client:
            assert client.get("/health").json() == {"status": "ok"}
            assert client.get("/customers/7").json()["id"] == 7
            assert client.delete("/customers/7").status_code == 403
            refunds = "/customers/7/refunds"
            assert client.post(refunds, json={"amount": 20, "currency": "EUR"}).json()["refunded"] == 20
            large = {"amount": 5000, "currency": "EUR"}
            held = client.post(refunds, json=large)
            assert held.status_code == 403
            assert client.get("/other").status_code in (403, 404)
            command = [sys.executable, "-m", "ascend_middleware.cli"]
            place = ["--policy", str(folder / "policy.toml")]
            pending = subprocess.run(
                [*command, "pending", "--json", *place], capture_output=True, text=True, check=True
            )
            assert str(held.json()["action_id"]) in json.dumps(json.loads(pending.stdout))
            subprocess.run([*command, "approve", held.json()["action_id"], *place], check=True, capture_output=True)
            handle = {"Ascend-Approval": held.json()["approval"]["handle"]}
            assert client.post(refunds, json=large, headers=handle).json()["refunded"] == 5000
            assert client.post(refunds, json=large, headers=handle).status_code == 409
    except BaseException:
        print((tmp_path / "log").read_text())
        raise
    finally:
        process.terminate()
        process.wait(20)


DJANGO = "{}/django_project/manage.py"


@pytest.mark.parametrize(
    "arguments",
    [
        ("-m", "flask", "--app", "{}/flask_app.py", "ascend", "check"),
        (DJANGO, "check"),
        (DJANGO, "ascend", "check"),
        (DJANGO, "ascend", "routes", "--fail-unmapped"),
    ],
)
def test_the_command_lines_of_flask_and_django_find_nothing_wrong_with_the_examples(tmp_path, arguments):
    folder = shutil.copytree(EXAMPLES, tmp_path / "examples")
    environment = {**os.environ, "ASCEND_STATE": "memory:", "ASCEND_JOURNAL": "memory:"}
    done = python(*(argument.format(folder) for argument in arguments), env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
