"""The known defects of the vendor's SDK, A1 to D2, that concern the client: what it allows and shows.

Not part of this version yet: evaluating actions of MCP clients (A2 is held here for every answer that decides), the
background polling of the kill switch, bulk evaluation, registration, and the signature of requests.
"""

import json

import pytest
from parties import ACTION, KEY, run
from scripted import APPROVED, DROP, HANG, PENDING, Scripted, http

from ascend_middleware import exceptions as errors
from ascend_middleware.client import (
    AscendClient,
    AsyncAscendClient,
)
from ascend_middleware.wire import decode_decision

KINDS = pytest.mark.parametrize("kind", ["sync", "async"])
ENGINES = pytest.mark.parametrize("engine", ["httpx2", "pyreqwest"])


@KINDS
@pytest.mark.parametrize("poll", [PENDING, DROP, HANG, http(503), http(404, {"detail": "?"}), http(200, b"<html>")])
def test_defect_a1_a_held_action_never_passes_in_open_mode(kind, poll):
    with Scripted(PENDING, poll) as server:
        try:
            result = run(
                kind,
                server.url,
                lambda client: client.evaluate_action("t", "r", timeout=0.1),
                fail_mode="open",
            )
        except errors.AscendError:
            pass
        else:
            assert result.is_pending() and not result.execution_allowed
        assert len(server.requests) >= 2


@KINDS
def test_defect_a1_open_mode_covers_nothing_but_a_submit(kind):
    calls = (
        lambda client: client.get_action_status("7"),
        lambda client: client.wait_for_decision("7", 0.05),
        lambda client: client.get_action("7"),
        lambda client: client.list_actions(),
    )
    for call in calls:
        with Scripted(DROP) as server, pytest.raises(errors.AscendError):
            run(kind, server.url, call, fail_mode="open")


@KINDS
@pytest.mark.parametrize("step", [DROP, http(503), http(429), http(401), http(200, b""), http(200, {"status": "?"})])
def test_defect_a1_open_mode_passes_no_submit_that_was_received(kind, step):
    with Scripted(step) as server, pytest.raises(errors.AscendError):
        run(kind, server.url, lambda client: client.submit_action(ACTION), fail_mode="open")


BODIES = [
    {},
    {"status": "error"},
    {"status": "pending"},
    {"status": "pending_approval"},
    {"status": "escalated"},
    {"status": "blocked"},
    {"status": "rejected"},
    {"status": "timeout"},
    {"decision": "denied"},
    {"status": "DENIED"},
    {"approved": False},
    {"approved": True},
    {"success": True},
    {"execution_allowed": True},
    {"status": "success"},
    {"status": "success", "data": {"decision": "denied", "action_id": "7"}},
    {"status": "success", "data": {}},
    {"status": "requires_modification"},
]


@KINDS
@pytest.mark.parametrize("body", BODIES, ids=json.dumps)
def test_defect_a2_nothing_but_an_approval_allows(kind, body):
    for sent in (body, {"action_id": "7", **body}):
        with Scripted(http(200, sent)) as server:
            for call in (
                lambda client: client.submit_action(ACTION),
                lambda client: client.evaluate_action("t", "r", wait_for_decision=False),
                lambda client: client.get_action_status("7"),
            ):
                try:
                    result = run(kind, server.url, call, fail_mode="open")
                except errors.ProtocolError:
                    continue
                assert not result.is_approved()
                assert result.execution_allowed is result["execution_allowed"] is False


YES = {"action_id": "7", "decision": "approved", "status": "approved"}
CONTRADICTIONS = [
    ({**YES, "status": "denied"}, "denied"),
    ({**YES, "decision": "denied"}, "denied"),
    ({**YES, "decision": "allowed", "status": "pending_approval"}, "pending"),
    ({**YES, "decision": "denied", "execution_allowed": True}, "denied"),
    ({"action_id": "7", "decision": "denied", "execution_allowed": True}, "denied"),
    ({**YES, "execution_allowed": False}, "denied"),
    ({**YES, "enforcement_decision": "denied"}, "denied"),
    ({**YES, "enforcement_decision": "escalated"}, "pending"),
    ({**YES, "approved": False}, "denied"),
    ({**YES, "success": False}, "denied"),
    ({**YES, "requires_approval": True}, "pending"),
    ({"action_id": "7", "status": "pending", "success": False}, "denied"),
    ({"status": "success", "data": YES, "decision": "denied"}, None),
    ({"status": "success", "data": YES, "execution_allowed": False}, "denied"),
    ({"status": "success", "data": YES, "success": False}, "denied"),
    ({"status": "success", "data": YES, "requires_approval": True}, "pending"),
    ({"status": "success", "data": YES, "enforcement_decision": "denied"}, "denied"),
    ({"status": "success", "data": {**YES, "success": False}, "success": True}, "denied"),
    ({"status": "success", "data": {**YES, "success": True}, "success": False}, None),
    ({"status": "success", "data": {**YES, "execution_allowed": True}, "execution_allowed": False}, None),
    ({"status": "success", "data": {"status": "success", "data": YES}}, None),
    ({**YES, "status": "success"}, None),
    ({**YES, "id": 8}, None),
    ({**YES, "execution_allowed": "false"}, None),
    ({**YES, "decision": "approved", "status": None, "approved": 0}, None),
]


@pytest.mark.parametrize(("body", "meaning"), CONTRADICTIONS)
def test_defect_a6_a_contradiction_is_the_stricter_side_or_unreadable(body, meaning):
    content = json.dumps(body).encode()
    if meaning is None:
        with pytest.raises(errors.ProtocolError):
            decode_decision(content)
    else:
        decision = decode_decision(content)
        assert decision.decision == meaning
        assert decision.execution_allowed is decision.to_dict()["execution_allowed"] is False


@pytest.mark.parametrize(
    "content",
    [
        b'{"action_id": "7", "decision": "denied", "decision": "approved"}',
        b'{"action_id": "7", "status": "approved", "execution_allowed": false, "execution_allowed": true}',
        b'{"status": "success", "data": {"decision": "denied"}, "data": {"action_id": "7", "decision": "approved"}}',
    ],
)
def test_defect_a6_a_name_given_twice_permits_nothing(content):
    with pytest.raises(errors.ProtocolError):
        decode_decision(content)


REMOTE = [
    "http://localhost.evil.example",
    "http://localhost@evil.example",
    " http://evil.example",
    "http://127.0.0.1.evil.example",
    "http://127.0.0.1:80@evil.example",
    "http://[::1]@evil.example",
    "\thttp://evil.example",
    "ftp://localhost",
    "localhost:8000",
    "HTTP://evil.example",
    "http://evil.example#localhost",
    "http://evil.example\\@localhost",
    "https://",
    "https://user:pw@evil.example",
    "https://evil.example\r\nX: y",
]


@pytest.mark.parametrize("cls", [AscendClient, AsyncAscendClient])
@pytest.mark.parametrize("url", REMOTE)
def test_defect_c1_plain_http_leaves_the_machine_for_no_spelling(cls, url):
    with pytest.raises(errors.ConfigurationError) as caught:
        cls(KEY, api_url=url)
    assert KEY not in str(caught.value)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:1", "127.0.0.2", "[::1]:8"])
def test_defect_c1_loopback_is_loopback(host):
    assert AscendClient(KEY, api_url=f"http://{host}/").settings.api_url == f"http://{host}"


@ENGINES
@KINDS
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_defect_c2_redirects_are_not_followed(kind, engine, status):
    with Scripted(APPROVED) as other, Scripted(http(status, b"", f"Location: {other.url}/")) as server:
        with pytest.raises(errors.ProtocolError):
            run(kind, server.url, lambda client: client.submit_action(ACTION), engine=engine, fail_mode="open")
        assert not other.connections
        assert len(server.requests) == 1


@pytest.mark.parametrize("cls", [AscendClient, AsyncAscendClient])
@pytest.mark.parametrize(
    "key", ["owkai_live_SECRET\nSECRET123", "owkai_live_SECRET SECRET", "x", "changeme", "   ", "é"]
)
def test_defect_c4_no_ill_formed_key_and_none_in_an_error(cls, key, monkeypatch):
    monkeypatch.delenv("ASCEND_API_KEY", raising=False)
    monkeypatch.delenv("OWKAI_API_KEY", raising=False)
    with pytest.raises(errors.AscendError) as caught:
        cls(key, api_url="http://localhost:1")
    assert "SECRET" not in f"{caught.value!r}{vars(caught.value)}"
    assert caught.value.__cause__ is None


def test_defect_c4_a_key_from_a_file_is_stripped():
    with Scripted() as server, AscendClient(f"{KEY}\r\n", api_url=server.url, agent_id="a") as client:
        client.submit_action(ACTION)
        assert server.requests[0].headers["x-api-key"] == KEY


CLIMBERS = ["../../registry/agents/victim#", "../billing/kill-switch/1/release?x=1", "7/../8", "%2e%2e/8", "7\r\nX: y"]
PATHS = {
    "status": lambda client, name: client.get_action_status(name),
    "action": lambda client, name: client.get_action(name),
    "wait": lambda client, name: client.wait_for_decision(name, 0),
    "completed": lambda client, name: client.log_action_completed(name),
    "failed": lambda client, name: client.log_action_failed(name, "e"),
}


@ENGINES
@KINDS
@pytest.mark.parametrize("call", PATHS)
def test_defect_d2_an_identifier_stays_one_segment(kind, engine, call):
    with Scripted(http(404, {"detail": "none"})) as server:
        for name in CLIMBERS:
            with pytest.raises(errors.NotFoundError):
                run(kind, server.url, lambda client: PATHS[call](client, name), engine=engine)
        for request in server.requests:
            tail = request.target.removeprefix("/api/v1/actions/").removeprefix("/api/agent-action/")
            assert tail != request.target
            assert tail.count("/") == (call != "action")
            assert "#" not in tail and "?" not in tail
        asked = len(server.requests)
        for name in ("", " ", None, ".", "..", True, b"7"):
            with pytest.raises(errors.ValidationError):
                run(kind, server.url, lambda client: PATHS[call](client, name), engine=engine)
        assert len(server.requests) == asked
