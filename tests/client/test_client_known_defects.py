"""The known defects of the vendor's SDK, A1 to D2, that concern the client: what it allows and shows.

A2 and A6 are the table of misbehaving answers, A3 and A7 to A9 the kill switch's tests, A10 and A12 those of MCP.
"""

import pytest
from parties import ACTION, KEY, run
from scripted import APPROVED, DROP, HANG, PENDING, Scripted, http

from ascend_middleware import exceptions as errors
from ascend_middleware.client import (
    AscendClient,
    AsyncAscendClient,
)

KINDS = pytest.mark.parametrize("kind", ["sync", "async"])
ENGINES = pytest.mark.parametrize("engine", ["auto", "httpx2"])


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
