"""What a client sends and how it uses its connections, at every engine and with the user's own client."""

import json
import logging
import threading

import anyio
import httpx
import httpx2
import pytest
from kit.clients import ACTION, CLASSES, KEY, KINDS, PARTIES, opened, run
from kit.scripted import APPROVED, DENIED, DROP, HANG, Reset, Scripted, Trickle, chunked, http

from ascend_middleware import exceptions as errors
from ascend_middleware.client.http import engines as http_engines
from ascend_middleware.masking import ENGINE_LOGGERS

AT = pytest.mark.parametrize("party", PARTIES)


def submit(client):
    return client.submit_action(ACTION)


@AT
def test_headers_and_body_of_a_submit(party):
    with Scripted(APPROVED) as server:
        run(
            party,
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


@AT
def test_connections_are_reused(party):
    with Scripted(DENIED) as server, opened(party, server.url) as client:
        assert all(submit(client).is_denied() for _ in range(5))
        assert server.connections == 1


@AT
def test_test_connection_tells_and_never_raises(party):
    def check(client):
        return client.test_connection()

    info = http(200, {"version": "9", "server_time": "t"})
    with Scripted(http(200, {"status": "healthy"}), info) as server:
        status = run(party, server.url, check)
        assert status.connected
        assert (status["status"], status.api_version, status.server_time) == ("connected", "9", "t")
        assert "x-api-key" not in server.requests[0].headers
        assert status.latency_ms >= 0
    with Scripted(http(200, {"status": "healthy"}), http(401, {"detail": "bad key"})) as server:
        status = run(party, server.url, check)
        assert not status.connected
        assert "bad key" in status["error"]
    status = run(party, server.url, check)
    assert status["status"] == "error"


@AT
def test_an_answer_that_began_is_an_answer(party):
    """Open passes for silence; here the authority says no, slowly."""
    for status in (200, 403, 500):
        whole = http(status, b" " * 400)
        slow = Trickle(whole, head=len(whole) - 400, pause=0.05)
        with Scripted(slow) as server, pytest.raises(errors.TimeoutError) as caught:
            run(party, server.url, submit, fail_mode="open", timeout=0.6)
        assert caught.value.unanswered is False
    with Scripted(HANG) as server:
        assert run(party, server.url, submit, fail_mode="open", timeout=0.6).conditions == ["fail_open_mode"]


@AT
@pytest.mark.parametrize("framed", ["length", "chunks"])
def test_the_largest_answer_is_read_and_one_byte_more_is_refused(party, framed):
    body = json.dumps({"action_id": "7", "status": "approved"}).encode().ljust(4 * 1024 * 1024)
    for content in (body, body + b" "):
        answer = http(200, content) if framed == "length" else chunked(content[:1000], content[1000:])
        with Scripted(answer) as server:
            if content is body:
                assert run(party, server.url, submit).is_approved()
            else:
                with pytest.raises(errors.ProtocolError, match="longer than 4194304 bytes"):
                    run(party, server.url, submit)


@pytest.mark.parametrize("party", [party for party in PARTIES if not party.endswith("own")])
@pytest.mark.parametrize("way", [DROP, Reset(), b"SSH-2.0-OpenSSH\r\n\r\n"], ids=["dropped", "reset", "ssh"])
def test_a_proxy_that_breaks_off_is_the_way_to_the_authority_broken(party, way):
    """Nothing left for the authority, which may be away for all that anybody knows."""
    with Scripted(way) as proxy, pytest.raises(errors.NetworkError, match="Failed to connect") as caught:
        run(party, "https://127.0.0.1:9", submit, proxy=proxy.url)
    assert caught.value.unanswered


@KINDS
@pytest.mark.parametrize(
    ("defect", "error"),
    [
        (RuntimeError("can't start new thread"), errors.OverloadedError),
        (MemoryError(), errors.OverloadedError),
        (RuntimeError("of another kind"), errors.ConfigurationError),
    ],
)
def test_a_lack_of_threads_or_memory_is_overload_and_other_defects_are_ours_to_mend(kind, defect, error):
    class Broken:
        def send(self, request, timeout):
            raise defect

        async def aclose(self):
            pass

        close = aclose if kind == "async" else lambda self: None

    with pytest.raises(error) as caught:
        run(kind, "http://localhost:1", submit, engine=Broken(), fail_mode="open")
    assert not caught.value.unanswered


@CLASSES
@pytest.mark.parametrize("engine", ["auto", "httpx2"])
@pytest.mark.parametrize(
    "proxy",
    ["http://", "http://:3128", "http://h:0", "http://h:99999", "http://h:x", "ftp://h", "socks4://h", "h:3128", "//h"],
)
def test_what_is_no_proxy_is_told_from_the_start(cls, engine, proxy):
    with pytest.raises(errors.ConfigurationError, match="proxy"):
        cls(KEY, api_url="http://localhost:1", engine=engine, proxy=proxy)


@AT
def test_the_librarys_own_loggers_are_masked_with_each_client(party, caplog):
    loggers = [logging.getLogger(name) for name in ENGINE_LOGGERS["httpx2"]]
    for logger in loggers:
        for each in list(logger.filters):
            logger.removeFilter(each)
    with Scripted(APPROVED) as server:
        run(party, server.url, submit)
    with caplog.at_level("DEBUG"):
        for logger in loggers:
            logger.warning("X-API-Key: %s", KEY)
    assert KEY not in caplog.text and caplog.text.count("X-API-Key: owkai_****") == len(loggers)


@pytest.fixture
def looked_for_anew():
    http_engines._entry_point.cache_clear()
    yield
    http_engines._entry_point.cache_clear()


class Unloadable:
    def load(self):
        raise ImportError("no such module")


@CLASSES
@pytest.mark.parametrize(("found", "says"), [([], "no installed engine serves"), ([Unloadable()], "no such module")])
def test_the_embedded_authority_without_its_installed_engine_is_told(cls, found, says, monkeypatch, looked_for_anew):
    monkeypatch.setattr("importlib.metadata.entry_points", lambda **_: found)
    with pytest.raises(errors.ConfigurationError, match=says):
        cls(KEY, api_url="local:")


@CLASSES
def test_a_socks_proxy_needs_its_library_from_the_start(cls, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    options = {"api_url": "http://localhost:1", "proxy": "socks5://127.0.0.1:1"}
    with pytest.raises(errors.ConfigurationError, match="socksio"):
        cls(KEY, **options)
    cls(KEY, **{**options, "proxy": "http://127.0.0.1:1"})
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name == "socksio" or None)
    cls(KEY, **options)


@pytest.mark.parametrize("party", [*(party for party in PARTIES if not party.endswith("own")), "trio"])
def test_half_a_status_line_is_the_beginning_of_an_answer(party):
    kind, more = ("async", {"backend": "trio"}) if party == "trio" else (party, {})
    with Scripted(Trickle(DENIED, head=15, pause=30)) as server, pytest.raises(errors.TimeoutError) as caught:
        run(kind, server.url, submit, fail_mode="open", timeout=0.6, **more)
    assert caught.value.unanswered is False


@KINDS
@pytest.mark.parametrize("library", [httpx, httpx2])
def test_the_time_of_a_hook_for_answers_is_not_the_authoritys(kind, library):
    ended = threading.Event()

    def hook(answer):
        ended.wait(30)

    async def hook_async(answer):
        await anyio.sleep(30)

    if kind == "sync":
        own = library.Client(event_hooks={"response": [hook]}, trust_env=False)
    else:
        own = library.AsyncClient(event_hooks={"response": [hook_async]}, trust_env=False)
    with Scripted(DENIED) as server, pytest.raises(errors.OverloadedError) as caught:
        run(kind, server.url, submit, http_client=own, fail_mode="open", timeout=0.6)
    ended.set()
    assert caught.value.unanswered is False


@AT
@pytest.mark.parametrize(
    "value", ["caf\u00e9".encode(), "caf\u00e9".encode("latin-1"), "東京".encode(), b"\xff\xfe\x80"]
)
def test_bytes_beyond_ascii_in_an_answers_headers_break_nothing(party, value):
    told = b"\r\nX-Powered-By: " + value + b"\r\nX-Correlation-ID: " + value + b"\r\nRetry-After: " + value + b"\r\n"
    approved, refused = (step.replace(b"\r\n", told, 1) for step in (APPROVED, http(422, {"detail": "odd"})))
    with Scripted(approved, refused) as server:
        assert run(party, server.url, submit).is_approved()
        with pytest.raises(errors.ValidationError, match="odd") as caught:
            run(party, server.url, submit)
    assert caught.value.correlation_id.isascii() and caught.value.correlation_id.isprintable()
