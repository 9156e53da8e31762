"""The programs of examples/agents, with the real libraries and a scripted model, against a governed service."""

import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from mcp.server.mcpserver import MCPServer

from ascend_middleware.asgi import AscendMiddleware
from ascend_middleware.cli import main

RECIPES = Path(__file__).parents[2] / "examples" / "agents"

pytestmark = [pytest.mark.slow, pytest.mark.socket]


@pytest.fixture
def run(tmp_path):
    """Runs a recipe in an empty folder: its status, and what it printed."""

    def run(program, *arguments, **environment):
        start = {".py": sys.executable, ".mjs": shutil.which("node"), ".sh": shutil.which("bash")}[Path(program).suffix]
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("ASCEND_", "OPENAI_"))}
        done = subprocess.run(
            [start, str(RECIPES / program), *arguments],
            cwd=tmp_path, env=kept | environment, capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        return done.returncode, done.stdout + done.stderr

    return run


@pytest.fixture
def person(ascend_authority):
    """Decides about an action as soon as it is on hold."""
    threads = []

    def person(*, approved=True):
        def decide():
            until = time.monotonic() + 60
            while (
                not any(action["status"] == "pending" for action in ascend_authority.actions.values())
                and time.monotonic() < until
            ):
                time.sleep(0.02)
            ascend_authority.decide(approved=approved)

        threads.append(threading.Thread(target=decide))
        threads[-1].start()

    yield person
    for thread in threads:
        thread.join(60)


def test_langgraph_goes_on_from_its_checkpoint_after_a_restart(run, site, ascend_authority):
    ascend_authority.hold()
    program = "langgraph_agent.py", site.url, "7", "5000"
    for _ in range(2):  # nobody has decided yet: it waits on
        assert run(*program) == (75, "on hold: a person has to approve the refund\n")
    ascend_authority.decide()
    assert run(*program) == (0, 'The service says: {"refunded":true}\n')
    assert [json.loads(body) for body, _ in site.ran] == [{"amount": 5000}]
    assert len(ascend_authority.asked) == 1


def test_langgraph_tells_the_model_of_a_denial(run, site, ascend_authority):
    ascend_authority.hold()
    assert run("langgraph_agent.py", site.url, "7", "5000")[0] == 75
    ascend_authority.decide(approved=False)
    status, told = run("langgraph_agent.py", site.url, "7", "5000")
    assert (status, site.ran) == (0, [])
    assert "denied" in told


class Model(BaseHTTPRequestHandler):
    """Chat completions by a script: a call of the tool, then its result as a sentence."""

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        last = asked["messages"][-1]
        message = {"role": "assistant", "content": f"The service says: {last['content']}"}
        if last["role"] != "tool":
            call = {"name": "refund", "arguments": '{"customer_id": 7, "amount": 5000}'}
            calls = [{"id": "call-1", "type": "function", "function": call}]
            message = {"role": "assistant", "content": None, "tool_calls": calls}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
        answer = {
            "id": "c",
            "object": "chat.completion",
            "created": 1,
            "model": "m",
            "choices": [choice],
            "usage": usage,
        }
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps(answer).encode())

    def log_message(self, *_):
        pass


@pytest.fixture
def model():
    with ThreadingHTTPServer(("127.0.0.1", 0), Model) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/v1"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("approved", [True, False])
def test_openai_agents_wait_for_a_person(run, site, ascend_authority, person, model, approved):
    ascend_authority.hold()
    person(approved=approved)
    environment = {"OPENAI_API_KEY": "none", "OPENAI_BASE_URL": model, "OPENAI_AGENTS_DISABLE_TRACING": "1"}
    status, told = run("openai_agent.py", site.url, "refund 5000 to customer 7", **environment)
    assert status == 0, told
    assert told.startswith('The service says: {"refunded":true}' if approved else "The service says: not refunded: ")
    assert len(site.ran) == approved


@pytest.mark.parametrize("program", ["node_agent.mjs", "curl_agent.sh"])
@pytest.mark.parametrize("approved", [True, False])
def test_an_agent_without_a_library_waits_for_a_person(run, site, ascend_authority, person, program, approved):
    ascend_authority.hold()
    person(approved=approved)
    status, told = run(program, f"{site.url}/customers/7/refunds", '{"amount": 5000}')
    assert (status, len(site.ran)) == ((0, 1) if approved else (1, 0)), told
    assert "on hold" in told
    assert '{"refunded":true}' in told if approved else "not approved: denied" in told


@pytest.mark.parametrize("program", ["node_agent.mjs", "curl_agent.sh"])
def test_an_agent_without_a_library_takes_other_answers_as_they_are(run, site, ascend_authority, program):
    ascend_authority.deny(reason="too much")
    status, told = run(program, f"{site.url}/customers/7/refunds", '{"amount": 5000}')
    assert (status, "too much" in told) == (1, True)
    ascend_authority.approve()
    assert run(program, f"{site.url}/customers/8/refunds", '{"amount": 5}') == (0, '{"refunded":true}\n')


POLICY = """
[[policy]]
name = "reports leave the house by a person's leave"
action_types = ["mcp.request"]
when = "has(action.action_details.tool) && action.action_details.tool == 'send_report'"
decision = "pending"

[[policy]]
name = "the protocol is fine"
action_types = ["mcp.request"]
decision = "approved"
"""


@pytest.fixture
def reports(serve, tmp_path, monkeypatch):
    """An MCP server over HTTP behind the guard of docs/mcp.md, on the embedded authority; what its tool has done."""
    page = (RECIPES.parents[1] / "docs" / "mcp.md").read_text()
    program, table = (
        re.findall(rf"```{language}\n(.*?)```", page, re.DOTALL)[n] for language, n in (("python", 1), ("toml", 0))
    )
    (tmp_path / "ascend.toml").write_text(table)
    (tmp_path / "policy.toml").write_text(POLICY)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ASCEND_API_URL", "local:policy.toml")
    exec(program, names := {"MCPServer": MCPServer, "AscendMiddleware": AscendMiddleware})
    sent = []

    @names["server"].tool()
    def send_report(name: str, recipient: str) -> str:
        sent.append((name, recipient))
        return f"sent {name} to {recipient}"

    served = serve(names["app"])
    served.sent = sent
    return served


@pytest.mark.parametrize("word", ["approve", "deny"])
def test_an_mcp_client_waits_for_a_person(run, reports, word):
    def decide():
        until = time.monotonic() + 60
        # What is on hold comes after the session's first requests, which are decided already.
        while all(main([word, str(action)]) for action in range(1, 9)) and time.monotonic() < until:
            time.sleep(0.1)

    person = threading.Thread(target=decide)
    person.start()
    status, told = run("mcp_client.py", f"{reports.url}/mcp", "send_report", '{"name": "q1", "recipient": "ada"}')
    person.join()
    assert "on hold:" in told
    if word == "approve":
        assert (status, reports.sent) == (0, [("q1", "ada")]), told
        assert told.endswith("ran: sent q1 to ada\n")
    else:
        assert (status, reports.sent) == (1, []), told
        assert "the action was denied" in told
