"""The OpenAPI document: what it says is what the authority does."""

import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import msgspec
import pytest
from kit.desk import POLICY

from ascend_middleware.api.endpoints import TABLE

PUBLISHED = Path(__file__).parents[2] / "docs" / "authority-openapi.json"
UNLIMITED = "[limits]\nsubmit = 0\nlist = 0\nanalytics = 0\nadmin = 0\nfailed_sign_ins = 0\n"


def test_the_document_lists_every_endpoint_and_needs_no_key(desk):
    status, document = desk.get("/openapi.json", key=None)
    assert status == 200 and document["openapi"].startswith("3.1")
    listed = {(method.upper(), path) for path, operations in document["paths"].items() for method in operations}
    assert listed == {(route.method, route.path) for route in TABLE} | {
        ("GET", path) for path in ("/health", "/ready", "/metrics", "/openapi.json")
    }
    names = [
        operation.get("operationId") for operations in document["paths"].values() for operation in operations.values()
    ]
    assert len(set(names)) == len(names) - 3  # the four that need no key have none


@pytest.mark.skipif(msgspec.__version__ < "0.21", reason="an older msgspec writes the same schemas in other words")
def test_the_document_that_is_published_is_the_one_that_is_served(desk):
    """A change is one of the API: say it in CHANGELOG.md, delete the file, and run this test twice."""
    _, document = desk.get("/openapi.json", key=None)
    document["info"]["version"] = "…"
    now = json.dumps(document, indent=1, ensure_ascii=False) + "\n"
    if not PUBLISHED.exists():
        PUBLISHED.write_text(now)
        pytest.fail(f"{PUBLISHED.name} was written anew: commit it")
    assert now.splitlines() == PUBLISHED.read_text().splitlines()


def test_every_reference_of_the_document_has_its_schema(desk):
    content = desk.authority.handle("GET", "/openapi.json", "", {}, b"")[2].decode()
    schemas = json.loads(content)["components"]["schemas"]
    assert set(re.findall(r"#/components/schemas/(\w+)", content)) <= schemas.keys()


@pytest.mark.parametrize("route", TABLE, ids=lambda route: f"{route.method} {route.path}")
def test_no_endpoint_answers_without_a_credential_or_with_an_error_of_its_own(desk, route):
    path = re.sub(r"\{\w+\}", "1", route.path)
    assert desk.code(desk.call(route.method, path, key=None)) == (401, "AUTHENTICATION_FAILED")
    for key in ("user", "admin"):
        status, answer = desk.call(route.method, path, key=key)
        assert status < 500
        if status >= 400:
            assert answer["status"] == "error" and answer["detail"] and answer["meta"]["request_id"]
        elif route.admin:
            assert key == "admin"
    if route.admin:
        assert desk.code(desk.call(route.method, path)) == (403, "ADMIN_REQUIRED")
        assert desk.events()[-1] == "ACCESS_REFUSED"


@pytest.mark.slow
@pytest.mark.socket
@pytest.mark.full_on_postgres
def test_generated_requests_find_nothing(desk_of, database, tmp_path):
    import uvicorn

    from ascend_middleware.authority.server import create_app

    desk = desk_of(UNLIMITED + POLICY, path=database)
    # What the generator's requests can name.
    desk.submit("transaction", agent_id="a", amount=5000)
    desk.post("/api/registry/agents", {"agent_id": "a"}, key="admin")
    desk.post("/api/registry/mcp-servers", {"server_name": "files-of-the-test"}, key="admin")
    desk.post("/api/smart-rules", {"name": "r", "condition": "false", "action": "deny"}, key="admin")
    desk.post("/api/governance/policies", {"name": "p", "when": "false", "decision": "denied"}, key="admin")
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(create_app(desk.authority), log_config=None))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        until = time.monotonic() + 30
        while not server.started and time.monotonic() < until:
            time.sleep(0.02)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/openapi.json"
        phases = "coverage,fuzzing,stateful"
        command = [sys.executable, "-m", "schemathesis.cli", "run", url, "-H", f"X-API-Key: {desk.admin}"]
        done = subprocess.run(
            # Texts stay ASCII: which other characters a name may not hold is a class too large for a pattern.
            [*command, "--phases", phases, "-n", "8", "--seed", "1", "--generation-codec", "ascii"],
            env={**os.environ, "SCHEMATHESIS_HOOKS": "openapi_hooks", "PYTHONPATH": str(Path(__file__).parent)},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=400,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert desk.store.verify_audit() is None
    finally:
        server.should_exit = True
        thread.join(30)
        listener.close()
        desk.authority.close()
