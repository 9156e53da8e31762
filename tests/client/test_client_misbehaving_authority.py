"""One table of misbehaving answers, through both clients and both engines."""

import time

import anyio
import pytest
from scripted import APPROVED, DENIED, DROP, HANG, PENDING, Scripted, Trickle, http

from ascend_middleware import exceptions as errors
from ascend_middleware.client import AscendClient, AsyncAscendClient

KEY = "owkai_live_0123456789abcdef"
ACTION = {"agent_id": "a", "action_type": "data_access", "resource": "r"}


def run(engine, kind, url, work, **options):
    """Call `work(client)`; for the async client its methods are awaited."""
    options = {"api_url": url, "agent_id": "a", "engine": engine, "timeout": 5, **options}
    if kind == "sync":
        with AscendClient(KEY, **options) as client:
            return work(client)

    async def main():
        async with AsyncAscendClient(KEY, **options) as client:
            return await work(client)

    return anyio.run(main)


def submit(client):
    return client.submit_action(ACTION)


ENGINES = pytest.mark.parametrize("engine", ["httpx2", "pyreqwest"])
KINDS = pytest.mark.parametrize("kind", ["sync", "async"])

ok = {"action_id": "7", "status": "approved", "decision": "approved"}
TABLE = {
    "empty 200": (http(200), errors.ProtocolError),
    "empty 204": (b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n", errors.ProtocolError),
    "html": (http(200, b"<html>hello</html>"), errors.ProtocolError),
    "array": (http(200, b"[]"), errors.ProtocolError),
    "null": (http(200, b"null"), errors.ProtocolError),
    "truncated json": (http(200, b'{"action_id": "7", "status": "appro'), errors.ProtocolError),
    "no decision": (http(200, {"action_id": "7"}), errors.ProtocolError),
    "approved without id": (http(200, {"status": "approved"}), errors.ProtocolError),
    "unknown word": (http(200, {**ok, "decision": "sure"}), errors.ProtocolError),
    "error with success status": (http(200, {"status": "error", "error": {"message": "x"}}), errors.ProtocolError),
    "says approved and denied": (http(200, {**ok, "status": "denied"}), "denied"),
    "says approved and not executable": (http(200, {**ok, "execution_allowed": False}), "denied"),
    "says approved and pending": (http(200, {**ok, "status": "pending_approval"}), "pending"),
    "too long": (http(200, b" " * (4 * 1024 * 1024 + 1)), errors.ProtocolError),
    "compressed": (http(200, b"x", "Content-Encoding: gzip"), errors.ProtocolError),
    "301": (http(301, b"", "Location: /elsewhere"), errors.ProtocolError),
    "307": (http(307, b"", "Location: http://127.0.0.1:1/"), errors.ProtocolError),
    "400": (
        http(400, {"status": "error", "error": {"code": "INVALID_REQUEST", "message": "m"}}),
        errors.ValidationError,
    ),
    "401": (http(401, {"detail": "who?"}), errors.AuthenticationError),
    "403": (http(403, {"detail": "no"}), errors.AuthorizationDeniedError),
    "403 agent blocked": (http(403, {"detail": {"code": "AGENT_BLOCKED", "message": "b"}}), errors.KillSwitchError),
    "403 governance": (
        http(403, {"detail": {"error": "MCP governance violation", "code": "X", "detail": "unregistered"}}),
        "denied",
    ),
    "404": (http(404, {"detail": "none"}), errors.NotFoundError),
    "409": (http(409, {"detail": "twice"}), errors.ConflictError),
    "418": (http(418, b"teapot"), errors.ProtocolError),
    "501": (http(501, b"?"), errors.ServerError),
    "503": (http(503, b"?"), errors.ServerError),
    "429": (http(429, b"", "Retry-After: 0"), errors.RateLimitError),
    "dropped": (DROP, errors.NetworkError),
    "no http": (b"SSH-2.0-OpenSSH\r\n\r\n", errors.NetworkError),
    "body cut short": (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\nConnection: close\r\n\r\n{}", errors.NetworkError),
}


@ENGINES
@KINDS
@pytest.mark.parametrize("name", TABLE)
def test_each_answer_has_one_meaning_and_none_is_taken_for_permission(engine, kind, name):
    answer, expected = TABLE[name]
    with Scripted(answer) as server:
        if isinstance(expected, str):
            decision = run(engine, kind, server.url, submit, max_retries=0)
            assert str(decision.decision) == expected
            assert decision.execution_allowed is False
        else:
            with pytest.raises(expected) as caught:
                run(engine, kind, server.url, submit, max_retries=0, fail_mode="open")
            assert type(caught.value) is expected
            assert KEY not in f"{caught.value!r} {caught.value} {vars(caught.value)}"
        assert len(server.requests) == 1


SLOW = {
    "hang": HANG,
    "trickled body": Trickle(APPROVED, head=APPROVED.index(b"\r\n\r\n") + 4),
    "trickled header": Trickle(APPROVED),
}


@ENGINES
@KINDS
@pytest.mark.parametrize("name", SLOW)
def test_one_deadline_covers_the_whole_call(engine, kind, name):
    with Scripted(SLOW[name]) as server:
        start = time.monotonic()
        with pytest.raises(errors.TimeoutError):
            run(engine, kind, server.url, submit, timeout=0.3)
        assert time.monotonic() - start < 2.0
        assert len(server.requests) == 1


@ENGINES
@KINDS
def test_refused_connection_is_a_network_error_and_open_mode_marks_what_it_passes(engine, kind):
    with Scripted() as server:
        url = server.url
    with pytest.raises(errors.NetworkError) as caught:
        run(engine, kind, url, submit, max_retries=0)
    assert caught.value.answered is False
    decision = run(engine, kind, url, submit, max_retries=0, fail_mode="open")
    assert decision.is_approved()
    assert decision.metadata["fail_open"] is True
    assert decision.conditions == ["fail_open_mode"]


@ENGINES
@KINDS
def test_open_mode_passes_a_hanging_authority_but_never_a_pending_action(engine, kind):
    with Scripted(HANG) as server:
        assert run(engine, kind, server.url, submit, timeout=0.2, fail_mode="open").metadata["fail_open"] is True
    with Scripted(PENDING, DROP) as server:
        decision = run(
            engine,
            kind,
            server.url,
            lambda client: client.evaluate_action("data_access", "r", timeout=0.2),
            fail_mode="open",
            max_retries=0,
        )
        assert decision.is_pending()
        assert decision.approval_request_id == "7"


@ENGINES
@KINDS
def test_headers_and_body_of_a_submit(engine, kind):
    with Scripted(APPROVED) as server:
        run(
            engine,
            kind,
            server.url,
            lambda client: client.submit_action(
                agent_id="other", action_type="trade", parameters={"n": 1, "risk_score": 3}, model_id=5
            ),
        )
        (request,) = server.requests
    assert (request.method, request.target) == ("POST", "/api/v1/actions/submit")
    assert request.headers["host"] == server.url.removeprefix("http://")
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert request.headers["x-api-key"] == KEY
    assert request.headers["content-type"] == "application/json"
    assert request.headers["idempotency-key"]
    assert request.headers["x-correlation-id"]
    assert request.json() == {
        "agent_id": "other",
        "agent_name": "other",
        "action_type": "trade",
        "action_details": {"n": 1},
        "model_id": 5,
    }


@ENGINES
@KINDS
def test_an_identifier_cannot_change_the_path(engine, kind):
    with Scripted(http(404, {"detail": "none"})) as server:
        with pytest.raises(errors.NotFoundError):
            run(engine, kind, server.url, lambda client: client.get_action_status("../../registry/agents/victim?#"))
        assert server.requests[0].target == "/api/v1/actions/..%2F..%2Fregistry%2Fagents%2Fvictim%3F%23/status"


@ENGINES
@KINDS
def test_connections_are_reused(engine, kind):
    with Scripted(DENIED) as server:
        if kind == "sync":

            def work(client):
                return [submit(client) for _ in range(5)]

        else:

            async def work(client):
                return [await submit(client) for _ in range(5)]

        assert all(decision.is_denied() for decision in run(engine, kind, server.url, work))
        assert server.connections == 1


@ENGINES
@KINDS
def test_test_connection_tells_and_never_raises(engine, kind):
    def check(client):
        return client.test_connection()

    info = http(200, {"version": "9", "server_time": "t"})
    with Scripted(http(200, {"status": "healthy"}), info) as server:
        status = run(engine, kind, server.url, check)
        assert (status.connected, status["status"], status.api_version, status.server_time) == (
            True,
            "connected",
            "9",
            "t",
        )
        assert "x-api-key" not in server.requests[0].headers
        assert status.latency_ms >= 0
    with Scripted(http(200, {"status": "healthy"}), http(401, {"detail": "bad key"})) as server:
        status = run(engine, kind, server.url, check)
        assert not status.connected
        assert "bad key" in status["error"]
    status = run(engine, kind, server.url, check, max_retries=0)
    assert status["status"] == "error"
