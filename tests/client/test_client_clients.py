"""Construction, threads, cancellation, closing, borrowed clients, redirects and secrets, on a real socket."""

import contextlib
import gc
import io
import logging
import pickle
import sys
import threading
import time
import traceback
import warnings
import weakref

import anyio
import httpx2
import pytest
from kit.clients import ACTION, CLASSES, KEY, KINDS, opened
from kit.processes import together
from kit.scripted import APPROVED, DENIED, HANG, PENDING, Scripted, Trickle, http

from ascend_middleware import exceptions as errors
from ascend_middleware.api.models import AgentAction
from ascend_middleware.client import AscendClient, AsyncAscendClient, Unsendable
from ascend_middleware.client.http.slots import Slots


def client(server, cls=AscendClient, **options):
    return cls(KEY, **{"api_url": getattr(server, "url", server), "agent_id": "a", "timeout": 5, **options})


@CLASSES
@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"api_key": None}, errors.MissingAPIKeyError, "API key is required"),
        ({"api_key": "short"}, errors.AuthenticationError, "ill-formed"),
        ({"api_url": "http://example.com"}, errors.ConfigurationError, "TLS required for non-localhost URLs"),
        ({"api_url": "https://a", "base_url": "https://b"}, errors.ConfigurationError, "one of them"),
        ({"engine": "curl"}, errors.ConfigurationError, "auto or httpx2"),
        ({"engine": "pyreqwest"}, errors.ConfigurationError, "was removed: leave the setting out, or write 'auto'"),
        ({"engine": object()}, errors.ConfigurationError, "send"),
        ({"http_client": object()}, errors.ConfigurationError, "http_client"),
        ({"ca_file": "/nowhere/ca.pem"}, errors.ConfigurationError, "ca_file"),
        ({"proxy": "nonsense"}, errors.ConfigurationError, "proxy"),
        ({"fail_mode": "ajar"}, errors.ConfigurationError, "fail_mode"),
        ({"timeout": 0}, errors.ConfigurationError, "timeout"),
    ],
)
def test_bad_construction(cls, arguments, error, text, monkeypatch):
    monkeypatch.delenv("ASCEND_API_KEY", raising=False)
    monkeypatch.delenv("OWKAI_API_KEY", raising=False)
    with pytest.raises(error, match=text):
        cls(**{"api_key": KEY, "api_url": "http://localhost:1", **arguments})


def test_construction_from_the_environment_alone(monkeypatch):
    monkeypatch.setenv("ASCEND_API_KEY", f" {KEY}\n")
    with AscendClient(base_url="http://127.0.0.1:1/") as subject:
        assert (subject.settings.api_key, subject.settings.api_url) == (KEY, "http://127.0.0.1:1")
        assert KEY not in repr(subject)


@pytest.mark.parametrize(
    "call",
    [
        lambda c: c.evaluate_action("", "r"),
        lambda c: c.evaluate_action("t", None),
        lambda c: c.evaluate_action("t", "r", orchestration_depth=6),
        lambda c: c.evaluate_action("t", "r", orchestration_depth=True),
        lambda c: c.evaluate_action("t", "r", mcp_server_name=""),
        lambda c: c.evaluate_action("t", "r", model_id=True),
        lambda c: c.evaluate_action("t", "r", parameters=[1]),
        lambda c: c.evaluate_action("t", "r", parameters={"a": object()}),
        lambda c: c.evaluate_action("t", "r", timeout=-1),
        lambda c: c.submit_action(action_type="t", parameters={"a": 1}, action_details={"a": 2}),
        lambda c: c.submit_action(),
        lambda c: c.submit_action(7),
        lambda c: c.submit_action({"action_type": "t", "nonsense": 1}),
        lambda c: c.submit_action(AgentAction("a", "a", "t", "r"), agent_id="b"),
        lambda c: c.wait_for_decision("7", 1, timeout_ms=1),
        lambda c: c.wait_for_decision("7", poll_interval=0),
        lambda c: c.wait_for_decision(""),
        lambda c: c.wait_for_decision("7", float("nan")),
        lambda c: c.list_actions(limit=0),
        lambda c: c.log_action_completed("7", duration_ms=-1),
    ],
)
def test_local_checks_come_before_any_request(call):
    with Scripted() as server, client(server) as subject:
        with pytest.raises(errors.ValidationError):
            call(subject)
        assert not server.connections


def test_three_forms_of_submit():
    with Scripted() as server, client(server) as subject:
        subject.submit_action(AgentAction("x", "X", "t", "r", model_id=4, mcp_server_name="m"))
        subject.submit_action({"agent_id": "x", "agent_name": "X", "action_type": "t", "resource": "r"})
        subject.submit_action(action_type="t", parameters={"a": 1})
        sent = [request.json() for request in server.requests]
    assert sent[0] == {
        "agent_id": "x", "agent_name": "X", "action_type": "t", "resource": "r", "model_id": 4, "mcp_server_name": "m",
    }  # fmt: skip
    assert sent[1] == {"agent_id": "x", "agent_name": "X", "action_type": "t", "resource": "r"}
    assert sent[2] == {"agent_id": "a", "agent_name": "a", "action_type": "t", "action_details": {"a": 1}}


def test_evaluate_waits_for_the_decision():
    with Scripted(PENDING, DENIED) as server, client(server) as subject:
        assert subject.evaluate_action("t", "r", timeout=5).is_denied()
        assert [request.method for request in server.requests] == ["POST", "GET"]


def test_no_redirect_is_followed_and_the_environment_proxy_is_not_used(monkeypatch):
    with Scripted() as other, Scripted(http(307, b"", f"Location: {other.url}/x")) as server:
        monkeypatch.setenv("HTTP_PROXY", other.url)
        monkeypatch.setenv("http_proxy", other.url)
        for engine in ("auto", "httpx2"):
            with client(server, engine=engine) as subject, pytest.raises(errors.ProtocolError):
                subject.submit_action(ACTION)
        assert not other.requests
        assert len(server.requests) == 2
        monkeypatch.setenv("no_proxy", "")
        with client(server, trust_env=True) as subject:
            assert subject.submit_action(ACTION).is_approved()
        assert other.requests[0].target == f"{server.url}/api/v1/actions/submit"


@pytest.mark.parametrize("engine", ["auto", "httpx2"])
def test_an_explicit_proxy_is_used(engine):
    with Scripted() as proxy, client("http://127.0.0.1:9", engine=engine, proxy=proxy.url) as subject:
        assert subject.submit_action(ACTION).is_approved()
        assert proxy.requests[0].target == "http://127.0.0.1:9/api/v1/actions/submit"


@pytest.mark.parametrize("engine", ["auto", "httpx2"])
def test_breaker_opens_and_lets_one_probe_of_fifty_threads_through(engine, monkeypatch):
    options = {"max_retries": 0, "circuit_breaker_threshold": 2, "engine": engine, "timeout": 30}
    release, now = threading.Event(), [0.0]

    def slow(_request):
        release.wait(30)
        return APPROVED

    bad = http(503)
    with Scripted(bad, bad, slow) as server, client(server, **options) as subject:
        monkeypatch.setattr(subject.core.breaker, "_clock", lambda: now[0])
        for _ in range(2):
            with pytest.raises(errors.ServerError):
                subject.submit_action(ACTION)
        with pytest.raises(errors.CircuitBreakerOpen):
            subject.submit_action(ACTION)
        assert len(server.requests) == 2
        now[0] = 31.0
        outcomes = []

        def attempt():
            try:
                outcomes.append(str(subject.submit_action(ACTION).decision))
            except errors.CircuitBreakerOpen:
                outcomes.append("refused")
                if outcomes.count("refused") == 49:
                    release.set()

        together(*[attempt] * 50)
        assert sorted(set(outcomes)) == ["approved", "refused"]
        assert outcomes.count("approved") == 1
        assert len(server.requests) == 3
        assert subject.core.breaker.state == "closed"


@pytest.mark.parametrize("engine", ["auto", "httpx2"])
def test_cancelled_calls_leave_pool_and_breaker_whole(engine):
    async def cancelled(subject, server):
        """Call, and cancel that once the server has it."""
        before = len(server.requests)
        async with anyio.create_task_group() as group:
            group.start_soon(subject.submit_action, ACTION)
            while len(server.requests) == before:
                await anyio.sleep(0.001)
            group.cancel_scope.cancel()
        assert group.cancel_scope.cancelled_caught

    async def main(server):
        options = {"max_connections": 2, "circuit_breaker_threshold": 1, "circuit_breaker_timeout": 0.01}
        async with client(server, AsyncAscendClient, engine=engine, timeout=30, max_retries=0, **options) as subject:
            for _ in range(6):
                await cancelled(subject, server)
            assert subject.core.breaker.failures == 0
            server.steps[:] = [http(503), HANG, APPROVED]
            with pytest.raises(errors.ServerError):
                await subject.submit_action(ACTION)
            while subject.core.breaker.state != "half-open":
                await anyio.sleep(0.001)
            await cancelled(subject, server)  # the probe
            assert subject.core.breaker.state == "half-open"
            results = [await subject.submit_action(ACTION) for _ in range(4)]
            assert all(result.is_approved() for result in results)

    with Scripted(HANG) as server:
        anyio.run(main, server)


@pytest.mark.parametrize("engine", ["auto", "httpx2", "own"])
@KINDS
def test_waiting_for_a_connection_of_our_own_is_overload_and_never_opens(engine, kind):
    options = {"engine": engine, "max_connections": 1, "timeout": 2.0}
    if engine == "own":
        # Of a client's own pool nobody can take a turn, so all of the time is waited for it.
        library = httpx2.AsyncClient if kind == "async" else httpx2.Client
        options = {"http_client": library(limits=httpx2.Limits(max_connections=1)), "timeout": 1.0}
    with Scripted(HANG) as server, opened(kind, server.url, fail_mode="open", **options) as subject:

        def hold():
            with contextlib.suppress(errors.AscendError):
                subject.submit_action(ACTION)

        holder = threading.Thread(target=hold)
        holder.start()
        assert server.arrived.wait(10)
        with pytest.raises(errors.OverloadedError) as caught:
            subject.submit_action(ACTION)
        assert caught.value.retry_after and not caught.value.unanswered
        holder.join()
        # At most the one that was sent counts.
        assert subject.core.breaker.failures <= 1


def test_threads_of_one_agent_leave_the_next_turn_to_another_one():
    answered, has_come = [], threading.Event()

    def hold(_):
        if len(answered) >= 2:
            assert has_come.wait(30)
        return DENIED

    def ask(agent):
        subject.submit_action({**ACTION, "agent_id": agent})
        answered.append(agent)

    def waits(thread):
        frame = sys._current_frames().get(thread.ident)
        while frame is not None and frame.f_code is not Slots.wait.__code__:
            frame = frame.f_back
        return frame is not None

    def start(agent):
        thread = threading.Thread(target=ask, args=(agent,))
        thread.start()
        return thread

    with Scripted(hold) as server, client(server, max_connections=1) as subject:
        crowd = [start("many") for _ in range(12)]
        while len(answered) < 2:
            time.sleep(0.001)
        other = start("one")
        while not waits(other):
            time.sleep(0.001)
        has_come.set()
        for thread in (*crowd, other):
            thread.join()
        # The third or fourth had the turn when it came.
        assert answered.index("one") <= 5 and len(answered) == 13


def test_cancelled_in_the_middle_of_a_body_does_not_give_its_rest_to_the_next_call():
    head = DENIED.index(b"\r\n\r\n") + 10

    async def main(server):
        async with client(server, AsyncAscendClient, max_connections=1) as subject:
            async with anyio.create_task_group() as group:
                group.start_soon(subject.submit_action, ACTION)
                await anyio.to_thread.run_sync(server.arrived.wait)
                await anyio.sleep(0.05)
                group.cancel_scope.cancel()
            assert (await subject.submit_action(ACTION)).is_approved()

    with Scripted(Trickle(DENIED, head=head, pause=0.5), APPROVED) as server:
        anyio.run(main, server)


@pytest.mark.parametrize("engine", ["auto", "httpx2"])
@KINDS
def test_use_after_close(engine, kind):
    with Scripted() as server, opened(f"{kind} {engine}", server.url) as subject:
        subject.submit_action(ACTION)
        (subject.close if kind == "sync" else subject.aclose)()
        assert subject.closed
        with pytest.raises(errors.ClientClosedError):
            subject.submit_action(ACTION)
        assert subject.test_connection().error


@KINDS
def test_borrowed_clients_keep_our_rules_and_stay_open(kind):
    library = httpx2.Client if kind == "sync" else httpx2.AsyncClient
    own = library(follow_redirects=True, auth=("u", "p"), trust_env=False)
    with Scripted(APPROVED, http(302, b"", "Location: /x"), HANG) as server:
        with opened(kind, server.url, http_client=own, timeout=1) as subject:
            assert subject.submit_action(ACTION).is_approved()
            assert server.requests[0].headers["authorization"] == f"Bearer {KEY}"
            with pytest.raises(errors.ProtocolError):
                subject.submit_action(ACTION)
            with pytest.raises(errors.TimeoutError):
                subject.submit_action(ACTION)
        assert not own.is_closed
        other = AscendClient if kind == "async" else AsyncAscendClient
        with pytest.raises(errors.ConfigurationError):
            client(server, other, http_client=own)
    own.close() if kind == "sync" else anyio.run(own.aclose)


def test_a_raising_engine_becomes_a_typed_error():
    class Broken:
        def send(self, request, timeout):
            raise ValueError(f"header {dict(request.headers)['X-API-Key']}")

        def close(self):
            pass

    with client("http://localhost:1", engine=Broken(), max_retries=0) as subject:
        with pytest.raises(errors.ConfigurationError, match="cannot be sent: ValueError") as caught:
            subject.submit_action(ACTION)
    assert isinstance(caught.value.__cause__, Unsendable)
    assert KEY not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("engine", ["auto", "httpx2"])
def test_the_key_is_in_no_log_and_no_error(engine):
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    root = logging.getLogger()
    before = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    echo = http(401, {"detail": f"unknown key {KEY}"}, f"X-Echo: {KEY}")
    try:
        with Scripted(echo, http(503), APPROVED) as server, client(server, engine=engine) as subject:
            with pytest.raises(errors.AuthenticationError):
                subject.submit_action(ACTION)
            subject.submit_action(ACTION)
        with client("http://127.0.0.1:1", engine=engine, max_retries=0) as subject:
            with pytest.raises(errors.NetworkError) as caught:
                subject.submit_action(ACTION)
            assert KEY not in f"{caught.value!r}{vars(caught.value)}{caught.value.__cause__!r}"
            pickle.loads(pickle.dumps(caught.value))
    finally:
        root.removeHandler(handler)
        root.setLevel(before)
    assert "submit" in stream.getvalue()
    assert KEY not in stream.getvalue()


def test_a_client_that_is_dropped_frees_its_connections_at_once():
    """The documented programs never close theirs; nothing may wait for the garbage collector."""
    with Scripted(APPROVED) as server:
        gc.disable()
        try:
            subject = client(server)
            subject.submit_action(ACTION)
            dropped = weakref.ref(subject)
            del subject
            assert dropped() is None
        finally:
            gc.enable()


@pytest.mark.parametrize("engine", ["auto", "httpx2"])
def test_a_client_that_is_dropped_in_a_circle_warns_of_nothing(engine):
    """Of a circle, the collector ends what is oldest first: the socket, before whoever would close it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        gc.collect()  # what other tests left
    with Scripted(APPROVED) as server, warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        circle = [client(server, engine=engine)]
        circle[0].submit_action(ACTION)
        circle.append(circle)
        del circle
        gc.collect()
    assert [str(one.message) for one in warned] == []
