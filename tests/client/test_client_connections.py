"""Connections of our own, on asyncio and of threads: used again, given up, bounded, closed; and what one says and reads."""

import asyncio
import contextlib
import re
import signal
import socket
import ssl
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import anyio
import httpx2
import pytest
import trustme
from hypothesis import given, settings
from hypothesis import strategies as st
from kit.examples import examples
from kit.processes import wait_until
from kit.scripted import APPROVED, DROP, HANG, Scripted, Trickle, http

from ascend_middleware import exceptions as errors
from ascend_middleware.client import (
    AscendClient,
    AsyncAscendClient,
    ConnectFailed,
    DeadlinePassed,
    ExchangeFailed,
    Overloaded,
    Request,
    Unsendable,
)
from ascend_middleware.client.http.blocking import BlockingPool
from ascend_middleware.client.http.http1 import Origin, Reader
from ascend_middleware.client.http.pool import LoopPool
from ascend_middleware.client.http.slots import AsyncGate, Gate
from ascend_middleware.client.http.transport import KEEPALIVE_SECONDS, STALL_SECONDS, Head, TLSFailed

pytestmark = pytest.mark.anyio
POST = Request("POST", "http://127.0.0.1/x?y=1", (("X-API-Key", "k"), ("Accept", "*/*")), b"{}")
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"


@pytest.fixture(params=["read here", "h11"], autouse=True)
def read_by(request, monkeypatch):
    """Every test of connections runs with both."""
    if request.param == "h11":
        monkeypatch.setattr("ascend_middleware.client.http.http1._ORDINARY", re.compile(rb"\Znone"))
        monkeypatch.setattr("ascend_middleware.client.http.http1._heads", {})


class InThreads:
    """The pool of threads, each request in one."""

    def __init__(self, origin):
        self.inner = BlockingPool(origin)

    async def send(self, request, timeout):
        return await asyncio.to_thread(self.inner.send, request, timeout)

    async def aclose(self):
        await asyncio.to_thread(self.inner.close)

    @property
    def _idle(self):
        return self.inner._idle


EITHER = pytest.mark.parametrize("kind", [LoopPool, InThreads], ids=["asyncio", "threads"])


def pool_of(server, kind=LoopPool):
    return kind(Origin(server.url))


# --- what is said, by either


def request_of(head, own=(), content=b"", lines=""):
    return Request(head.method, head.url, own, content, "", head, lines)


def test_a_request_is_said_whole_and_once():
    said = Origin("http://authority.example").encode(POST)
    head, _, body = said.partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    assert lines[0] == b"POST /x?y=1 HTTP/1.1" and body == b"{}"
    assert {b"Host: authority.example", b"X-API-Key: k", b"Content-Length: 2"} <= set(lines)
    assert Origin("http://h").encode(Request("GET", "http://h/", ())) == b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"


def test_a_request_of_a_prepared_head_is_said_as_one_without():
    head, varying = Head("POST", POST.url, POST.headers), (("traceparent", "3"),)
    further = (("X-Correlation-ID", "2"), ("Idempotency-Key", "1"), *varying)
    origin = Origin("http://authority.example")
    for content in (b"{}", b"{1}"):
        request = request_of(head, varying, content, "X-Correlation-ID: 2\r\nIdempotency-Key: 1\r\n")
        assert request.headers == POST.headers + further
        assert origin.encode(request) == origin.encode(Request("POST", POST.url, POST.headers + further, content))


@pytest.mark.parametrize("headers", [(("A", "x\r\nB: y"),), (("A b", "x"),), (("A", "x\x00"),)])
@pytest.mark.parametrize(
    "made",
    [
        lambda *request: Request(*request),
        lambda *request: request_of(Head(*request)),
        lambda method, url, headers: request_of(Head(method, url, ()), headers),
    ],
    ids=["alone", "prepared", "varying"],
)
def test_a_header_never_becomes_two(made, headers):
    with pytest.raises(Unsendable):
        Origin("http://h").encode(made("GET", "http://h/", headers))


@settings(deadline=None)
@given(st.lists(st.integers(1, len(ANSWER) - 1)), st.booleans())
def test_an_answer_is_the_same_however_it_is_cut(cuts, chunked):
    whole = ANSWER
    if chunked:
        whole = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{\r\n1\r\n}\r\n0\r\n\r\n"
    protocol = Reader()
    for _ in range(2):  # the second on the same connection
        places = sorted({0, len(whole), *(cut for cut in cuts if cut < len(whole))})
        heard = [protocol.feed(whole[a:b]) for a, b in zip(places, places[1:], strict=False)]
        assert all(each is None for each in heard[:-1])
        assert (heard[-1].status, heard[-1].content) == (200, b"{}")
        assert not protocol.ends


@given(st.binary(min_size=1, max_size=300))
def test_bytes_that_are_no_answer_are_a_typed_failure_or_no_answer_yet(noise):
    protocol = Reader()
    heard = None
    with contextlib.suppress(ExchangeFailed, errors.ProtocolError):
        heard = protocol.feed(noise) or protocol.feed(b"")
    assert heard is None or noise.lstrip(b"\r\n").startswith(b"HTTP/1.")


LINES = [
    *(b"Content-Length: 2", b"content-length:02 ", b"Content-Length: 2, 2", b"Content-Length: 3", b"Content-Length: +2"),
    *(b"Transfer-Encoding: chunked", b"Transfer-Encoding: identity", b"Content-Encoding: gzip", b"Content-Encoding: "),
    *(b"Connection: close", b"Connection: Keep-Alive", b"Connection: upgrade", b"Upgrade: h2c", b"Keep-Alive: timeout=5"),
    *(b"Retry-After: 7", b"retry-after: 8", b"X-A:  a b\t", b"X-B:", b"X-A : 1", b" folded", b"X-A: \xe9", b"X\xe9: 1", b"X-A: \x00"),
]  # fmt: skip
BEGINNINGS = [
    f"HTTP/{version} {rest}".encode() for version in ("1.1", "1.0") for rest in ("200 OK", "503", "204 x", "304 x")
]


@settings(deadline=None, max_examples=examples(300))
@given(
    st.sampled_from([BEGINNINGS[0], *BEGINNINGS]),
    st.lists(st.sampled_from(LINES), max_size=4),
    st.booleans(),
    st.sampled_from([b"{}", b"{", b"{}HTTP/1.1 200 OK\r\n", b""]),
)
def test_what_is_read_here_says_what_h11_says(beginning, lines, has_length, body):
    lines = [b"Content-Length: 2", *lines] if has_length else lines
    answer = b"\r\n".join([beginning, *lines, b"", body])

    def heard(read, reader):
        try:
            found = read(answer)
        except (ExchangeFailed, errors.ProtocolError) as error:
            return type(error)
        return found and (found.status, dict(found.headers), found.content, reader.has_surplus, reader.ends)

    here, by_h11 = Reader(), Reader()
    assert heard(here.feed, here) == heard(by_h11._feed_other, by_h11)


OK = b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize(
    ("pieces", "error"),
    [
        ([OK + b"Content-Length: 9\r\n\r\n{}", b""], ExchangeFailed),
        ([OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\n{}", b""], ExchangeFailed),
        ([OK + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}"], ExchangeFailed),
        ([OK + b"Content-Length: two\r\n\r\n{}"], ExchangeFailed),
        ([OK + b"A b: c\r\nContent-Length: 2\r\n\r\n{}"], ExchangeFailed),
        ([b""], ExchangeFailed),
        ([OK + b"A: " + b"x" * 60_000, b"x" * 60_000], ExchangeFailed),
        ([OK + b"A: x\r\n" * 10_000 + b"A: ", b"x" * 60_000, b"x" * 60_000], ExchangeFailed),
        ([OK + b"Content-Length: 5000000\r\n\r\n", *[b"x" * 1_000_000] * 5], errors.ProtocolError),
        ([OK + b"Transfer-Encoding: chunked\r\n\r\n", *[b"f4240\r\n" + b"x" * 1_000_000 + b"\r\n"] * 5], errors.ProtocolError),
        ([OK + b"Content-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}"], errors.ProtocolError),
    ],
)  # fmt: skip
def test_what_is_no_whole_answer_is_a_typed_failure(pieces, error):
    protocol = Reader()
    with pytest.raises(error):
        for piece in pieces:
            assert protocol.feed(piece) is None
        raise AssertionError("it was taken for an answer")


LONGEST = 4 * 1024 * 1024


@pytest.mark.parametrize("more", [0, 1])
@pytest.mark.parametrize("framing", ["length", "chunks", "end"])
def test_an_answer_has_so_many_bytes_at_the_most(framing, more):
    body = b"x" * (LONGEST + more)
    protocol = Reader()
    pieces = {
        "length": [OK + b"Content-Length: %d\r\n\r\n" % len(body) + body],
        "chunks": [OK + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % len(body) + body + b"\r\n0\r\n\r\n"],
        "end": [OK + b"\r\n" + body, b""],
    }[framing]
    with pytest.raises(errors.ProtocolError, match="longer than") if more else contextlib.nullcontext():
        (heard,) = filter(None, map(protocol.feed, pieces))
        assert len(heard.content) == LONGEST


def test_a_head_is_waited_for_up_to_so_many_bytes():
    protocol = Reader()
    assert protocol.feed(OK + b"A: " + b"x" * (100 * 1024 - len(OK) - 3)) is None
    with pytest.raises(ExchangeFailed):
        protocol.feed(b"x")


@pytest.mark.parametrize("version", [b"HTTP/1.0", b"HTTP/1.1"])
def test_an_answer_may_end_with_its_connection(version):
    protocol = Reader()
    assert protocol.feed(version + b" 200 OK\r\nX-A: 1\r\n\r\n{") is None
    assert protocol.feed(b"}") is None
    heard = protocol.feed(b"")
    assert (heard.status, heard.content, heard.headers["x-a"]) == (200, b"{}", "1")
    assert protocol.ends


def test_an_answer_without_a_body():
    protocol = Reader()
    for _ in range(2):
        assert protocol.feed(b"HTTP/1.1 204 No Content\r\n\r\n").content == b""
        assert not protocol.ends


@pytest.mark.parametrize(
    "answer",
    [
        ANSWER + b"HTTP/1.1 200 OK\r\n",  # a second answer that nobody asked for
        ANSWER.replace(b"\r\nContent-Type", b"\r\nConnection: close\r\nContent-Type"),
        ANSWER.replace(b"HTTP/1.1", b"HTTP/1.0"),
    ],
)
def test_a_connection_that_is_done_with(answer):
    protocol = Reader()
    assert protocol.feed(answer).content == b"{}"
    assert protocol.has_surplus is answer.startswith(ANSWER)
    assert protocol.ends


@pytest.mark.parametrize("cut", [1, len(ANSWER) - 1, len(ANSWER)])
def test_one_byte_too_many_is_none_of_the_answer(cut):
    protocol, sent = Reader(), ANSWER + b"H"
    (heard,) = filter(None, map(protocol.feed, (sent[:cut], sent[cut:])))
    assert heard.content == b"{}"
    # What comes after an answer is no part of it, and found before the connection is used again.
    assert protocol.has_surplus is protocol.ends is (cut < len(ANSWER))


def test_an_answer_within_an_answer_is_its_body():
    protocol = Reader()
    assert protocol.feed(OK + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % len(ANSWER)) is None
    assert protocol.feed(ANSWER) is None
    assert protocol.feed(b"\r\n0\r\n\r\n").content == ANSWER


@pytest.mark.parametrize(
    ("pieces", "said"),
    [
        ([b""], "closed the connection without an answer"),
        ([b"HTTP/1.1 200 OK\r\nA: ", b""], "closed the connection without an answer"),
        ([b"nonsense\r\n\r\n"], "the exchange with the authority broke"),
        ([OK + b"Transfer-Encoding: chunked\r\n\r\n", b""], "the exchange with the authority broke"),
        (
            [OK + b"Content-Length: 3\r\n\r\n{}", b""],
            "in the middle of its answer|authority broke: .* complete message",
        ),
    ],
)
def test_how_an_exchange_ended_is_told(pieces, said):
    protocol = Reader()
    with pytest.raises(ExchangeFailed, match=said):
        for piece in pieces:
            assert protocol.feed(piece) is None


def test_an_early_word_is_no_answer():
    protocol = Reader()
    for word in (b"100 Continue", b"102 Processing", b"103 Early Hints", b"199 Odd"):
        assert protocol.feed(b"HTTP/1.1 " + word + b"\r\nX-A: 1\r\n\r\n") is None
    heard = protocol.feed(ANSWER)
    assert heard.status == 200 and "x-a" not in heard.headers
    protocol = Reader()
    with pytest.raises(ExchangeFailed):
        protocol.feed(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n")


@pytest.mark.parametrize(
    ("url", "named"),
    [
        ("http://localhost", ("localhost", "localhost", 80, False)),
        ("https://a.example:8443", ("a.example:8443", "a.example", 8443, True)),
        ("https://a.example", ("a.example", "a.example", 443, True)),
        ("http://[::1]:1", ("[::1]:1", "::1", 1, False)),
    ],
)
def test_what_a_url_names(url, named):
    origin = Origin(url, ssl.create_default_context())
    assert (origin.header, origin.host, origin.port, origin.context is not None) == named


# --- connections


@EITHER
async def test_a_connection_is_used_again_and_only_while_it_is_good(kind):
    with Scripted(APPROVED) as server:
        pool = pool_of(server, kind)
        for _ in range(3):
            assert (await pool.send(POST, 5)).status == 200
        assert server.connections == 1
        pool._idle[0].idle_since -= KEEPALIVE_SECONDS + 1
        await pool.send(POST, 5)
        assert server.connections == 2
        await pool.aclose()
        with pytest.raises(Unsendable):
            await pool.send(POST, 5)


@EITHER
async def test_an_answer_with_something_behind_it_is_refused_and_its_connection_given_up(kind):
    with Scripted(APPROVED + http(200, b"{}"), APPROVED) as server:
        pool = pool_of(server, kind)
        with pytest.raises(errors.ProtocolError, match="more than one answer"):
            await pool.send(POST, 5)
        assert (await pool.send(POST, 5)).status == 200
        assert server.connections == 2
        await pool.aclose()


@EITHER
async def test_an_idle_connection_that_the_authority_ends_is_forgotten(kind):
    with Scripted(http(200, b"{}", "Connection: close"), APPROVED) as server:
        pool = pool_of(server, kind)
        await pool.send(POST, 5)
        assert not pool._idle
        await pool.send(POST, 5)
        server.end_connections()
        with anyio.fail_after(5):
            while pool._idle and kind is LoopPool:  # threads look when they use it
                await anyio.sleep(0.001)
        assert (await pool.send(POST, 5)).status == 200
        await pool.aclose()


async def test_the_limit_holds_and_the_first_who_waits_is_the_first_served():
    with Scripted(*[Trickle(APPROVED, pause=0.0005)] * 3, APPROVED) as server:
        gate, served = AsyncGate(pool_of(server), 2), []

        async def ask(number):
            await gate.send(POST, 10)
            served.append(number)

        async with anyio.create_task_group() as group:
            for number in range(8):
                group.start_soon(ask, number)
                await anyio.sleep(0)
        assert server.connections == 2
        assert sorted(served) == list(range(8)) and set(served[:2]) == {0, 1}
        await gate.aclose()


async def test_the_limit_holds_after_each_turn():
    """A slot that is given back counts once."""
    with Scripted(*[APPROVED] * 3, HANG) as server:
        gate = AsyncGate(pool_of(server), 1)
        for _ in range(3):
            await gate.send(POST, 5)
        holder = asyncio.ensure_future(gate.send(POST, 30))
        await asyncio.sleep(0)
        with pytest.raises(Overloaded):
            await gate.send(POST, 0.05)
        holder.cancel()
        await asyncio.wait([holder])
        await gate.aclose()


@pytest.mark.parametrize("timeout", [0, -1])
async def test_without_time_nothing_is_asked(timeout):
    class Asked:
        def send(self, request, timeout):
            raise AssertionError("it was asked")

    with pytest.raises(DeadlinePassed):
        Gate(Asked(), 1).send(POST, timeout)
    with pytest.raises(DeadlinePassed):
        await AsyncGate(Asked(), 1).send(POST, timeout)


async def test_a_thread_that_waits_for_its_turn_in_vain_asks_nothing_and_keeps_no_slot():
    class Slow:
        asked = 0
        free = threading.Event()

        def send(self, request, timeout):
            self.asked += 1
            self.free.wait(30)

    engine = Slow()
    gate = Gate(engine, 1)
    holder = asyncio.create_task(asyncio.to_thread(gate.send, POST, 30))
    while not engine.asked:
        await asyncio.sleep(0.001)
    for _ in range(2):
        with pytest.raises(Overloaded):
            await asyncio.to_thread(gate.send, POST, 0.02)
    assert engine.asked == 1
    engine.free.set()
    await holder
    for _ in range(2):
        gate.send(POST, 0.02)
    assert engine.asked == 3


async def test_waiting_for_a_turn_is_overload_and_harms_nobody():
    with Scripted(HANG, APPROVED) as server:
        gate = AsyncGate(pool_of(server), 1)
        holder = asyncio.ensure_future(gate.send(POST, 30))
        await asyncio.sleep(0)
        with pytest.raises(Overloaded):
            await gate.send(POST, 0.05)
        waiting = asyncio.ensure_future(gate.send(POST, 30))
        await asyncio.sleep(0.01)
        gone = asyncio.ensure_future(gate.send(POST, 30))
        await asyncio.sleep(0.01)
        gone.cancel()
        holder.cancel()
        assert (await waiting).status == 200
        for task in (gone, holder):
            with pytest.raises(asyncio.CancelledError):
                await task
        assert (await gate.send(POST, 5)).status == 200
        await gate.aclose()


async def test_the_time_in_the_queue_is_told_apart_from_the_authoritys():
    free, times = asyncio.Event(), []

    class Late:
        async def send(self, request, timeout):
            times.append(timeout)
            if len(times) == 1:
                await free.wait()
            raise DeadlinePassed("late")

    gate = AsyncGate(Late(), 1)
    first, second = (asyncio.ensure_future(gate.send(POST, 30)) for _ in range(2))
    await asyncio.sleep(0.2)
    free.set()
    failures = await asyncio.gather(first, second, return_exceptions=True)
    # The first one was this loop's to send at once; where the machine itself stood still, that is told of both.
    stalled = failures[0].waited
    assert stalled == 0 or stalled > STALL_SECONDS
    assert 0.19 < failures[1].waited < 15
    assert stalled or times == [30, 30 - failures[1].waited]


async def test_the_time_in_the_queue_of_threads_is_told_apart_too():
    free, times = threading.Event(), []

    class Late:
        def send(self, request, timeout):
            times.append(timeout)
            if len(times) == 1:
                free.wait(30)
            raise DeadlinePassed("late")

    async def failure():
        with pytest.raises(DeadlinePassed) as caught:
            await asyncio.to_thread(gate.send, POST, 30)
        return caught.value

    gate = Gate(Late(), 1)
    first = asyncio.ensure_future(failure())
    while not times:
        await asyncio.sleep(0.001)
    second = asyncio.ensure_future(failure())
    while not len(gate._places.get()[0]):
        await asyncio.sleep(0.001)
    await asyncio.sleep(0.2)
    free.set()
    assert (await first).waited == 0 and 0.19 < (await second).waited < 15
    assert times == [30, 30 - (await second).waited]


async def test_a_loop_that_was_kept_busy_reads_an_answer_that_is_there_and_blames_nobody_else():
    with Scripted(APPROVED, HANG) as server:
        gate = AsyncGate(pool_of(server), 1)
        under_way = asyncio.ensure_future(gate.send(POST, 0.5))
        await asyncio.to_thread(server.arrived.wait, 10)
        time.sleep(0.8)  # noqa: ASYNC251 - what the test is about
        assert (await under_way).status == 200
        under_way = asyncio.ensure_future(gate.send(POST, 1.2))
        while len(server.requests) < 2:
            await asyncio.sleep(0.001)
        time.sleep(0.8)  # noqa: ASYNC251 - likewise
        with pytest.raises(DeadlinePassed) as caught:
            await under_way
        assert caught.value.waited > 0.5
        await gate.aclose()


async def at_once(gate, timeout, request=POST):
    """Ask as the adapter for ASGI does where nothing has to be waited for first."""
    begun = gate.begin(request, timeout)
    assert begun is not None
    try:
        return await begun.answer
    finally:
        begun.done()


async def test_what_is_begun_at_once_keeps_the_limit_and_gives_its_turn_back():
    with Scripted(*[APPROVED] * 3, HANG, APPROVED, APPROVED) as server:
        gate = AsyncGate(lambda: pool_of(server), 1)
        assert gate.begin(POST, 5) is None  # there is no connection yet
        await gate.send(POST, 5)
        assert gate.begin(POST, 0) is None
        with pytest.raises(Unsendable):
            gate.begin(Request("GET", "http://h/", (("A", "x\r\nB: y"),)), 5)
        await gate.send(POST, 5)
        assert (await at_once(gate, 5)).status == 200
        holder = asyncio.ensure_future(at_once(gate, 30))
        await asyncio.sleep(0)
        assert gate.begin(POST, 5) is None
        with pytest.raises(Overloaded):
            await gate.send(POST, 0.05)
        waiting = asyncio.ensure_future(gate.send(POST, 30))
        await asyncio.to_thread(server.arrived.wait, 10)
        holder.cancel()
        assert (await waiting).status == 200
        with pytest.raises(asyncio.CancelledError):
            await holder
        assert (await at_once(gate, 5)).status == 200
        assert server.connections == 3  # after what could not be sent, and what was given up
        await gate.aclose()


async def test_what_is_begun_at_once_fails_as_what_waits_does():
    with Scripted(APPROVED, APPROVED + b"x", APPROVED, b"", APPROVED, HANG) as server:
        gate = AsyncGate(lambda: pool_of(server), 1)
        for failure in (errors.ProtocolError, ExchangeFailed, DeadlinePassed):
            await gate.send(POST, 5)
            with pytest.raises(failure):
                await at_once(gate, 0.3 if failure is DeadlinePassed else 5)
        assert server.connections == 3
        await gate.aclose()


async def test_of_what_is_begun_at_once_a_busy_loop_blames_nobody_else():
    with Scripted(APPROVED, HANG) as server:
        gate = AsyncGate(lambda: pool_of(server), 1)
        await gate.send(POST, 5)
        under_way = asyncio.ensure_future(at_once(gate, 1.2))
        while len(server.requests) < 2:
            await asyncio.sleep(0.001)
        time.sleep(0.8)  # noqa: ASYNC251 - what the test is about
        with pytest.raises(DeadlinePassed) as caught:
            await under_way
        assert caught.value.waited > 0.5
        await gate.aclose()


async def test_each_request_on_a_connection_has_a_deadline_of_its_own():
    """The loop's timer goes from one request to the next."""
    late = Trickle(ANSWER, head=len(ANSWER) - 1, pause=0.4)
    with Scripted(APPROVED, late, APPROVED, HANG) as server:
        pool = pool_of(server)
        for timeout in (0.3, 20, 20):
            assert (await pool.send(POST, timeout)).status == 200
        began = time.monotonic()
        with pytest.raises(DeadlinePassed):
            await pool.send(POST, 0.3)
        assert 0.29 < time.monotonic() - began < 10 and server.connections == 1
        await pool.aclose()


async def test_a_deadline_and_a_cancellation_give_the_connection_up():
    with Scripted(HANG) as server:
        pool = pool_of(server)
        with pytest.raises(DeadlinePassed):
            await pool.send(POST, 0.5)
        with anyio.move_on_after(0.3) as scope:
            await pool.send(POST, 30)
        assert scope.cancelled_caught
        for _ in range(200):
            if not pool._open:
                break
            await anyio.sleep(0.01)
        assert not pool._idle and not pool._open
        await pool.aclose()


@EITHER
async def test_closing_ends_what_is_under_way(kind):
    with Scripted(HANG) as server:
        pool = pool_of(server, kind)
        task = asyncio.ensure_future(pool.send(POST, 30))
        await asyncio.to_thread(server.arrived.wait, 10)
        await pool.aclose()
        with pytest.raises(ExchangeFailed):
            await task


@EITHER
async def test_nobody_listens(kind):
    with Scripted() as server:
        pass
    with pytest.raises(ConnectFailed):
        await pool_of(server, kind).send(POST, 5)


@EITHER
async def test_the_second_address_is_tried_when_the_first_is_silent(kind, monkeypatch):
    def both(host, port, *rest, **more):
        places = ["127.0.0.2", "127.0.0.1"] if host == "localhost" else [host]  # nobody listens at the first
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (place, port)) for place in places]

    with Scripted(APPROVED) as server:
        monkeypatch.setattr(socket, "getaddrinfo", both)
        pool = kind(Origin(server.url.replace("127.0.0.1", "localhost")))
        assert (await pool.send(POST, 5)).status == 200
        await pool.aclose()


REFUSED, FULL, LATE, WRONG = (
    ConnectionRefusedError(111, "no"),
    OSError(24, "full"),
    TimeoutError(),
    ssl.SSLError(1, "x"),
)
WRONG.reason = "WRONG_VERSION_NUMBER"


@pytest.mark.parametrize(
    ("first", "second", "told"),
    [
        *((REFUSED, two, ConnectFailed) for two in (OSError(97, "no such family"), FULL)),
        (FULL, REFUSED, ConnectFailed),
        (FULL, FULL, Overloaded),
        *((one, LATE, DeadlinePassed) for one in (REFUSED, FULL, LATE)),
        *((one, WRONG, TLSFailed) for one in (REFUSED, FULL, LATE, WRONG)),
        *((WRONG, two, TLSFailed) for two in (REFUSED, FULL, LATE)),
    ],
)
def test_of_two_addresses_that_fail_the_failure_that_says_more_is_told(monkeypatch, first, second, told):
    def both(host, port, *rest, **more):
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (place, port)) for place in ("127.0.0.2", "127.0.0.1")]

    def open_(address, **more):
        raise first if address[0] == "127.0.0.2" else second

    monkeypatch.setattr(socket, "getaddrinfo", both)
    monkeypatch.setattr(socket, "create_connection", open_)
    with pytest.raises(told) as caught:
        BlockingPool(Origin("http://localhost:9")).send(POST, 5)
    assert ("Refused" in str(caught.value)) is (told is ConnectFailed)


def test_an_address_that_does_not_answer_tells_most_only_where_none_comes_after_it(monkeypatch):
    def three(host, port, *rest, **more):
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (f"127.0.0.{last}", port)) for last in (3, 2, 1)]

    def open_(address, **more):
        raise LATE if address[0] == "127.0.0.2" else REFUSED

    monkeypatch.setattr(socket, "getaddrinfo", three)
    monkeypatch.setattr(socket, "create_connection", open_)
    with pytest.raises(ConnectFailed, match="Refused"):
        BlockingPool(Origin("http://localhost:9")).send(POST, 5)


def test_a_name_that_no_resolver_takes_is_a_connection_that_failed():
    with pytest.raises(ConnectFailed):
        BlockingPool(Origin(f"http://{'a' * 64}.example:9")).send(POST, 5)


@EITHER
async def test_what_nobody_asked_for_is_nobodys_answer(kind):
    """It arrives after the answer, on a connection that rests."""
    with Scripted(APPROVED) as server:
        pool = pool_of(server, kind)
        await pool.send(POST, 5)
        for connection in list(server._open):
            connection.sendall(http(200, b"{}"))
        await anyio.sleep(0.05)
        assert b"approved" in (await pool.send(POST, 5)).content
        assert server.connections == 2
        await pool.aclose()


@EITHER
async def test_an_answer_that_closing_cuts_off_is_none(kind):
    """Its length is untold, so that the end of its connection would end it."""
    with Scripted(Trickle(b"HTTP/1.1 200 OK\r\n\r\n{}", head=21, pause=30)) as server:
        pool = pool_of(server, kind)
        task = asyncio.ensure_future(pool.send(POST, 30))
        await asyncio.to_thread(server.arrived.wait, 10)
        await anyio.sleep(0.1)
        await pool.aclose()
        with pytest.raises(ExchangeFailed):
            await task


def test_threads_share_connections_and_get_their_own_answers():
    def echo(request):
        return http(200, request.body)

    with Scripted(echo) as server:
        pool = BlockingPool(Origin(server.url))

        def ask(number):
            for turn in range(20):
                said = f"{number}:{turn}".encode()
                assert pool.send(Request("POST", POST.url, (), said), 10).content == said

        with ThreadPoolExecutor(8) as threads:
            assert list(threads.map(ask, range(16))) == [None] * 16
        assert server.connections <= 8
        pool.close()


@pytest.mark.parametrize("answer", [HANG, Trickle(ANSWER, head=20, pause=0.05)], ids=["silent", "trickling"])
def test_one_deadline_is_for_all_reads_of_a_thread(answer):
    with Scripted(answer) as server:
        pool = BlockingPool(Origin(server.url))
        began = time.monotonic()
        with pytest.raises(DeadlinePassed) as caught:
            pool.send(POST, 0.3)
        assert 0.3 <= time.monotonic() - began < 2
        assert caught.value.answered is (answer is not HANG)
        what = "the authority answered" if answer is HANG else "the authority's answer was whole"
        assert str(caught.value) == f"the deadline passed before {what}"
        assert not pool._idle and not pool._connections
        pool.close()


def test_a_thread_that_has_no_time_left_sends_nothing():
    with Scripted(APPROVED) as server:
        pool = BlockingPool(Origin(server.url))
        with pytest.raises(DeadlinePassed):
            pool.send(POST, 0.0)
        assert server.connections == 0
        pool.close()


def test_outside_of_the_main_thread_each_request_has_its_deadline():
    """There the kernel keeps it, and it is told of another one only where that is off by more."""
    found = []
    with Scripted(APPROVED, HANG) as server:
        pool = BlockingPool(Origin(server.url))

        def ask():
            found.append(pool.send(POST, 20).status)
            try:
                pool.send(POST, 0.3)
            except DeadlinePassed as error:
                found.append(error.answered)

        thread = threading.Thread(target=ask, daemon=True)
        thread.start()
        thread.join(10)
        pool.close()
    assert found == [200, False]


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs interval timers")
def test_signals_do_not_put_the_deadline_of_a_thread_off():
    def noted(*_):
        pass

    before = signal.signal(signal.SIGALRM, noted)
    signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)
    try:
        with Scripted(HANG) as server:
            pool, began = BlockingPool(Origin(server.url)), time.monotonic()
            with pytest.raises(DeadlinePassed):
                pool.send(POST, 0.3)
            assert time.monotonic() - began < 2
            pool.close()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


async def test_a_request_that_fits_no_buffer_arrives_whole_and_its_connection_is_used_again():
    content = b"{" + b" " * 8_000_000 + b"}"
    with Scripted(APPROVED) as server:
        pool = InThreads(Origin(server.url))
        for body in (b"{}", content, b"{}"):
            assert (await pool.send(Request("POST", f"{server.url}/x", (), body), 20.0)).status == 200
        assert [len(request.body) for request in server.requests] == [2, len(content), 2]
        assert server.connections == 1
        await pool.aclose()


# --- TLS


@pytest.fixture(scope="module")
def authority_certificates(tmp_path_factory):
    ca, folder = trustme.CA(), tmp_path_factory.mktemp("tls")
    ca.cert_pem.write_to_path(folder / "ca.pem")
    trustme.CA().cert_pem.write_to_path(folder / "other.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("localhost").configure_cert(context)
    return context, folder


@contextlib.contextmanager
def tls_server(context, each=1, silent=()):
    """A server that approves `each` requests a connection, over TLS; `connections` counts them by its URL.

    The `silent` requests of each connection, by number, are not answered.
    """
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve():
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with contextlib.suppress(OSError), context.wrap_socket(connection, server_side=True) as stream:
                    accepted.append(stream)
                    for number in range(each):
                        said = b""
                        while not said.endswith(b"}"):
                            said += stream.recv(65_536) or b"}"
                        if number in silent or not said.startswith(b"POST "):
                            stream.recv(1)
                        close = b"\r\nConnection: close\r\n\r\n"
                        stream.sendall(APPROVED.replace(b"\r\n\r\n", close, 1) if each == 1 else APPROVED)

        accepted = []
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield f"https://localhost:{listener.getsockname()[1]}", accepted
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(10)


@pytest.mark.parametrize("backend", ["asyncio", "trio", "threads"])
def test_tls_is_checked_against_the_given_authorities(authority_certificates, backend):
    context, folder = authority_certificates
    action = {"action_type": "t", "resource": "r"}

    def ask(url, ca):
        options = {"api_url": url, "agent_id": "a", "ca_file": str(folder / ca), "max_retries": 0}
        if backend == "threads":
            with AscendClient("owkai_live_0123456789", **options) as client:
                return client.submit_action(**action)

        async def main():
            async with AsyncAscendClient("owkai_live_0123456789", **options) as client:
                return await client.submit_action(**action)

        return anyio.run(main, backend=backend)

    with tls_server(context) as (url, _):
        assert ask(url, "ca.pem").is_approved()
        with pytest.raises(errors.TLSError):
            ask(url, "other.pem")
        with pytest.raises(errors.TLSError):  # the name is checked too
            ask(url.replace("localhost", "127.0.0.1"), "ca.pem")


def trusting(url, folder):
    context = ssl.create_default_context(cafile=folder / "ca.pem")
    return BlockingPool(Origin(url, context))


def test_over_tls_a_thread_uses_a_connection_again_until_its_end(authority_certificates):
    context, folder = authority_certificates
    with tls_server(context, each=3) as (url, accepted):
        pool = trusting(url, folder)
        for number in range(7):
            assert pool.send(POST, 10).status == 200
            assert len(accepted) == 1 + number // 3
            if number % 3 == 2:
                wait_until(lambda: accepted[-1].fileno() == -1, "the server did not close")
        pool.close()


def test_over_tls_a_request_that_fits_no_buffer_arrives_whole(authority_certificates):
    context, folder = authority_certificates
    with tls_server(context, each=3) as (url, accepted):
        pool = trusting(url, folder)
        for body in (b"{}", b"{" + b" " * 8_000_000 + b"}", b"{}"):
            assert pool.send(Request("POST", f"{url}/x", (), body), 20.0).status == 200
        assert len(accepted) == 1
        pool.close()


def test_over_tls_each_request_of_a_thread_has_its_deadline(authority_certificates):
    context, folder = authority_certificates
    with tls_server(context, each=2, silent={1}) as (url, _):
        pool = trusting(url, folder)
        assert pool.send(POST, 10).status == 200
        began = time.monotonic()
        with pytest.raises(DeadlinePassed):
            pool.send(POST, 0.2)
        assert 0.2 <= time.monotonic() - began < 5
        pool.close()


@EITHER
async def test_a_connection_that_ends_without_an_answer_is_said_to_have_ended(kind):
    with Scripted(DROP) as server:
        pool = pool_of(server, kind)
        with pytest.raises(ExchangeFailed, match="closed the connection without an answer"):
            await pool.send(POST, 5)
        await pool.aclose()


@EITHER
async def test_a_closed_pool_keeps_no_connection(kind):
    with Scripted(APPROVED) as server:
        pool = pool_of(server, kind)
        await pool.send(POST, 5)
        await pool.aclose()
        await pool.aclose()
        await asyncio.to_thread(wait_until, lambda: not server._open, "the connection stays open")


def test_the_pool_speaks_to_an_ordinary_server_as_an_ordinary_client_does():
    """What h11 says here and what httpx2 says are the same request."""
    with Scripted(http(200, b"{}")) as server:

        async def main():
            pool = pool_of(server)
            await pool.send(POST, 5)
            await pool.aclose()

        anyio.run(main)
        with httpx2.Client() as client:
            client.post(f"{server.url}/x?y=1", content=b"{}", headers={"X-API-Key": "k"})
        ours, theirs = server.requests
        assert (ours.method, ours.target, ours.body) == (theirs.method, theirs.target, theirs.body)
        assert ours.headers["host"] == theirs.headers["host"]


@pytest.mark.parametrize("engine", ["auto", "httpx2"])
def test_what_cancels_a_call_goes_up_as_it_came(engine):
    """A cancel scope and a task recognise their own cancellation, whatever the library makes of it."""

    async def main(url):
        options = {"api_url": url, "agent_id": "a", "engine": engine, "max_retries": 0}
        async with AsyncAscendClient("owkai_live_0123456789", **options) as client:
            with anyio.move_on_after(0.1) as scope:
                await client.get_action_status(7)
            assert scope.cancelled_caught
            task = asyncio.ensure_future(client.get_action_status(7))
            await asyncio.sleep(0.05)
            task.cancel("of my own")
            with pytest.raises(asyncio.CancelledError, match="of my own"):
                await task

    with Scripted(HANG) as server:
        anyio.run(main, server.url)


@pytest.mark.parametrize("engine", ["auto", "httpx2"])
@pytest.mark.parametrize("chunked", [False, True])
def test_answers_of_a_told_and_of_an_untold_length(engine, chunked):
    body = b'{"action_id": 7, "status": "approved"}'
    if chunked:
        step = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length2: 0\r\n\r\n"
        step += f"{len(body):x}\r\n".encode() + body + b"\r\n0\r\n\r\n"
    else:
        step = http(200, body)

    async def main(url):
        options = {"api_url": url, "agent_id": "a", "engine": engine, "max_retries": 0}
        async with AsyncAscendClient("owkai_live_0123456789", **options) as client:
            return await client.get_action_status(7)

    with Scripted(step) as server:
        assert anyio.run(main, server.url).is_approved()
