"""The authority's socket under attack: bytes, headers, times and connections are bounded, whichever parser is there."""

import asyncio
import contextlib
import functools
import socket
import ssl
import time
from pathlib import Path

import pytest
import trustme
import uvicorn
from authority_process import Process
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from ascend_middleware.authority import sample_policy
from ascend_middleware.authority.connections import Connections, Limits

PARSERS = pytest.mark.parametrize("parser", [H11Protocol, HttpToolsProtocol])
HEAD = b"GET / HTTP/1.1\r\nhost: x\r\n"
BODY = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\n"
LIMITS = functools.partial(Limits, connections=4, head_bytes=2000, headers=10, request_bytes=5000, head=10, body=20)


async def echo(scope, receive, send):
    """Answers with the body; `/slow` waits, `/big` answers more than a client takes that does not read."""
    body = b""
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return
        body += message["body"]
        if not message["more_body"]:
            break
    if scope["path"] == "/slow":
        await scope["state"]["go on"].wait()
    if scope["path"] == "/busy-afterwards":
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})
        await scope["state"]["end"].wait()
        return
    if scope["path"] == "/until-it-left":
        scope["state"]["left"].append((await receive())["type"])
        return
    if scope["path"] == "/big":
        body = b"x" * 8_000_000
    if scope["path"] == "/stream":
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"80000000")]})
        for _ in range(800):
            await send({"type": "http.response.body", "body": b"x" * 100_000, "more_body": True})
        await send({"type": "http.response.body", "body": b""})
        return
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


class Server:
    """The connections in front of uvicorn's protocols, on the test's own clock."""

    def __init__(self, parser, limits, tls=None):
        self.time = 1000.0
        self.go_on, self.end = asyncio.Event(), asyncio.Event()
        self.left = []
        self.connections = Connections(limits, tls=tls, now=lambda: self.time)
        self.counted = []
        self.connections.count = self.counted.append
        self.config = uvicorn.Config(
            self.connections.around(echo), http=parser, ws="none", lifespan="off", log_config=None
        )
        self.config.load()
        self.make = functools.partial(
            self.connections.protocol(self.config.http_protocol_class),
            config=self.config, server_state=ServerState(), app_state={"go on": self.go_on, "end": self.end, "left": self.left},
        )  # fmt: skip

    def pass_time(self, seconds):
        self.time += seconds
        self.connections.sweep()

    async def open(self, first=b"", context=None):
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", self.port, ssl=context, server_hostname=None if context is None else "localhost"
        )
        writer.write(first)
        await writer.drain()
        self.writers.append(writer)
        return reader, writer

    async def settle(self):
        """Let the server take what was sent: it answers a request that came later."""
        await asyncio.sleep(0.02)

    async def __aenter__(self):
        self.writers, self.clients = [], []
        self.server = await asyncio.get_running_loop().create_server(self.make, "127.0.0.1", 0)
        self.port = self.server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_):
        self.go_on.set()
        self.end.set()
        for client in self.clients:
            client.close()
        for writer in self.writers:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
        self.connections.release()
        self.server.close()
        await self.server.wait_closed()


async def answer(reader):
    """The status of one answer, its body read."""
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
    length = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
    await asyncio.wait_for(reader.readexactly(length), 5)
    return int(head.split()[1])


async def closed(reader):
    """Whether the server has closed a connection, nothing answered."""
    try:
        return await asyncio.wait_for(reader.read(), 5) == b""
    except ConnectionError:
        return True


def on_loop(test):
    @functools.wraps(test)
    def run(*arguments, **options):
        async def in_time():
            async with asyncio.timeout(120):
                await test(*arguments, **options)

        asyncio.run(in_time())

    return run


@PARSERS
@pytest.mark.parametrize(
    "attack",
    [
        pytest.param(HEAD + b"x: " + b"a" * 2100, id="one endless header"),
        pytest.param(HEAD + b"x: a\r\n" * 400, id="endlessly many headers"),
        pytest.param(b"GET /" + b"a" * 2100, id="an endless target"),
        pytest.param(HEAD + b"x: " + b"a" * 2100 + b"\r\n\r\n", id="a header that ends, too long"),
        pytest.param(b"GET /" + b"a" * 2100 + b" HTTP/1.1\r\nhost: x\r\n\r\n", id="a target that ends, too long"),
        pytest.param(HEAD + b"x: a\r\n" * 10 + b"\r\n", id="one header too many"),
        pytest.param(b"GET /?" + b"a" * 2100 + b" HTTP/1.1\r\nhost: x\r\n\r\n", id="a query too long"),
    ],
)
@on_loop
async def test_headers_beyond_the_limits_are_answered_431_and_the_connection_closed(parser, attack):
    async with Server(parser, LIMITS()) as server:
        reader, _ = await server.open(attack)
        assert await answer(reader) == 431
        assert await closed(reader)
        assert set(server.counted) == {"headers"}
        reader, _ = await server.open(HEAD + b"x: a\r\n" * 9 + b"\r\n")
        assert await answer(reader) == 200


@PARSERS
@pytest.mark.parametrize(
    "attack",
    [
        pytest.param(b"5\r\nhello\r\n0\r\n" + b"x: a\r\n" * 1000, id="endless trailers"),
        pytest.param(b"5;" + b"a" * 5100, id="an endless chunk extension"),
        pytest.param(b"1\r\nx\r\n" * 1000, id="an endless body"),
    ],
)
@on_loop
async def test_what_follows_the_headers_is_bounded(parser, attack):
    async with Server(parser, LIMITS()) as server:
        reader, _ = await server.open(b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n")
        await server.settle()
        _, writer = None, server.writers[-1]
        writer.write(attack)
        with contextlib.suppress(ConnectionError):
            assert (await reader.read())[9:12] in (b"431", b"400", b"")


@PARSERS
@on_loop
async def test_the_limits_hold_for_each_request_of_a_connection_and_not_for_all_together(parser):
    async with Server(parser, LIMITS()) as server:
        reader, writer = await server.open()
        for _ in range(5):
            writer.write(HEAD + b"x: " + b"a" * 1000 + b"\r\ncontent-length: 3000\r\n\r\n" + b"b" * 3000)
            assert await answer(reader) == 200


@PARSERS
@on_loop
async def test_what_is_sent_behind_a_request_that_is_being_answered_is_bounded(parser):
    async with Server(parser, LIMITS()) as server:
        reader, writer = await server.open(b"GET /slow HTTP/1.1\r\nhost: x\r\n\r\n")
        await server.settle()
        writer.write(HEAD + b"x: " + b"a" * 300_000)
        assert (await reader.readuntil(b"\r\n"))[9:12] == b"431"


@PARSERS
@on_loop
async def test_headers_that_do_not_end_are_waited_for_so_long_and_no_longer(parser):
    async with Server(parser, LIMITS()) as server:
        silent, _ = await server.open()
        dribbling, writer = await server.open(HEAD)
        await server.settle()
        server.pass_time(9.9)
        writer.write(b"x: a\r\n")
        await server.settle()
        quick, _ = await server.open(HEAD + b"\r\n")
        assert await answer(quick) == 200
        server.pass_time(0.2)
        assert await closed(silent)
        assert await closed(dribbling)
        assert server.counted == ["time"] * 2


@PARSERS
@on_loop
async def test_a_body_that_does_not_end_is_waited_for_so_long_and_no_longer(parser):
    async with Server(parser, LIMITS()) as server:
        reader, writer = await server.open(BODY + b"he")
        await server.settle()
        server.pass_time(19.9)
        writer.write(b"l")
        await server.settle()
        server.pass_time(0.2)
        assert await closed(reader)


@PARSERS
@on_loop
async def test_a_body_has_a_time_and_a_size_of_its_own(parser):
    async with Server(parser, LIMITS()) as server:
        reader, writer = await server.open(BODY.replace(b"length: 5", b"length: 4000") + b"b" * 2500)
        await server.settle()
        server.pass_time(19.9)
        writer.write(b"b" * 1500)
        assert await answer(reader) == 200


@PARSERS
@on_loop
async def test_the_second_request_of_a_connection_has_a_time_of_its_own(parser):
    async with Server(parser, LIMITS()) as server:
        reader, writer = await server.open(HEAD + b"\r\n")
        assert await answer(reader) == 200
        writer.write(HEAD)
        await server.settle()
        server.pass_time(9)
        writer.write(b"\r\n")
        assert await answer(reader) == 200
        server.pass_time(9)
        writer.write(HEAD)
        await server.settle()
        server.pass_time(2)
        assert await closed(reader)


@PARSERS
@on_loop
async def test_an_answer_may_take_its_time(parser):
    async with Server(parser, LIMITS()) as server:
        reader, _ = await server.open(b"GET /slow HTTP/1.1\r\nhost: x\r\n\r\n")
        await server.settle()
        server.pass_time(3600)
        server.go_on.set()
        assert await answer(reader) == 200


@PARSERS
@on_loop
async def test_a_client_that_does_not_take_its_answer_is_closed(parser):
    async with Server(parser, LIMITS(answer=60)) as server:
        _, writer = await server.open()
        writer.transport.pause_reading()
        writer.write(b"GET /big HTTP/1.1\r\nhost: x\r\n\r\n")
        await asyncio.sleep(0.1)
        assert len(server.connections._open) == 1
        server.pass_time(61)
        assert not server.connections._open


async def unread(server, request):
    """A connection whose client takes nothing of its answer, once the server has noticed; and its other side."""
    before = set(server.connections._open)
    client = socket.socket()
    # The system would give who takes much quickly a buffer for all of an answer, and then no server has to wait.
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 200_000)
    client.connect(("127.0.0.1", server.port))
    client.setblocking(False)
    server.clients.append(client)
    await asyncio.get_running_loop().sock_sendall(client, request)
    async with asyncio.timeout(20):
        while not any(one.is_paused for one in server.connections._open - before):
            await asyncio.sleep(0.005)
    (connection,) = server.connections._open - before
    return client, connection


async def take(client, size):
    """Take so many bytes of an answer."""
    while size > 0:
        part = await asyncio.wait_for(asyncio.get_running_loop().sock_recv(client, min(size, 1_000_000)), 5)
        assert part
        size -= len(part)


@PARSERS
@pytest.mark.parametrize("path", [b"/big", b"/stream"])
@pytest.mark.parametrize("times", [1, 3])
@on_loop
async def test_clients_that_take_no_answers_make_room_for_newcomers(parser, path, times):
    async with Server(parser, LIMITS(connections=3)) as server:
        request = b"GET " + path + b" HTTP/1.1\r\nhost: x\r\n\r\n"
        for _ in range(3):
            await unread(server, request * times)
        for _ in range(4):
            reader, _ = await server.open(HEAD + b"\r\n")
            assert await answer(reader) == 200


@PARSERS
@pytest.mark.parametrize("path", [b"/big", b"/stream"])
@on_loop
async def test_answers_that_wait_for_their_client_are_closed_however_many_were_asked_for(parser, path):
    async with Server(parser, LIMITS(answer=60)) as server:
        await unread(server, (b"GET " + path + b" HTTP/1.1\r\nhost: x\r\n\r\n") * 5)
        server.pass_time(59)
        assert len(server.connections._open) == 1
        server.pass_time(2)
        assert not server.connections._open


@PARSERS
@on_loop
async def test_a_client_that_takes_little_by_little_is_waited_for_no_longer_in_all(parser):
    async with Server(parser, LIMITS(answer=60)) as server:
        client, connection = await unread(server, b"GET /stream HTTP/1.1\r\nhost: x\r\n\r\n")
        end = connection.deadline
        for _ in range(5):
            server.pass_time(11)
            await take(client, 12_000_000)  # more than all buffers between the two hold
            while not connection.is_paused:
                await asyncio.sleep(0.005)
            assert connection.deadline == end  # taking something buys nothing
        assert len(server.connections._open) == 1
        server.pass_time(6)
        assert not server.connections._open


@PARSERS
@on_loop
async def test_a_client_that_took_all_has_the_whole_time_for_its_next_answer(parser):
    async with Server(parser, LIMITS(answer=60, connections=1)) as server:
        client, connection = await unread(server, b"GET /big HTTP/1.1\r\nhost: x\r\n\r\n")
        for _ in range(3):
            server.pass_time(50)
            await take(client, 8_000_000)
            while connection._transport.get_write_buffer_size():  # all of it is the client's
                await asyncio.sleep(0.005)
            await asyncio.get_running_loop().sock_sendall(client, b"GET /big HTTP/1.1\r\nhost: x\r\n\r\n")
            while not connection.is_paused:
                await asyncio.sleep(0.005)
        assert len(server.connections._open) == 1


@PARSERS
@on_loop
async def test_a_stop_leaves_the_answers_that_are_being_taken(parser):
    async with Server(parser, LIMITS()) as server:
        idle, _ = await server.open()
        client, _ = await unread(server, b"GET /big HTTP/1.1\r\nhost: x\r\n\r\n")
        server.connections.release()
        assert await closed(idle)
        await take(client, 8_000_000)


@PARSERS
@on_loop
async def test_when_all_are_taken_the_one_waited_for_longest_makes_room(parser):
    async with Server(parser, LIMITS(connections=3)) as server:
        first, _ = await server.open(HEAD)
        await server.settle()
        slow, _ = await server.open(b"GET /slow HTTP/1.1\r\nhost: x\r\n\r\n")
        third, _ = await server.open(BODY)
        await server.settle()
        for _ in range(3):
            reader, _ = await server.open(HEAD + b"\r\n")
            assert await answer(reader) == 200
        assert await closed(first)
        assert await closed(third)
        assert server.counted == ["connections"] * 3
        server.go_on.set()
        assert await answer(slow) == 200


@PARSERS
@on_loop
async def test_who_sent_headers_and_not_yet_a_body_is_waited_for_anew(parser):
    async with Server(parser, LIMITS(connections=2)) as server:
        first, writer = await server.open()
        await server.settle()
        second, _ = await server.open()
        await server.settle()
        writer.write(BODY)
        await server.settle()
        third, _ = await server.open(HEAD + b"\r\n")
        assert await answer(third) == 200
        assert await closed(second)
        writer.write(b"hello")
        assert await answer(first) == 200


@PARSERS
@on_loop
async def test_a_handler_that_ends_late_is_not_taken_for_the_next_requests(parser):
    async with Server(parser, LIMITS()) as server:
        reader, writer = await server.open(b"GET /busy-afterwards HTTP/1.1\r\nhost: x\r\n\r\n")
        assert await answer(reader) == 200
        writer.write(b"GET /slow HTTP/1.1\r\nhost: x\r\n\r\n")
        await server.settle()
        server.end.set()
        await server.settle()
        server.pass_time(3600)
        server.go_on.set()
        assert await answer(reader) == 200


@PARSERS
@pytest.mark.parametrize("more", [0, 1])
@on_loop
async def test_headers_have_so_many_bytes_at_the_most(parser, more):
    async with Server(parser, LIMITS(head_bytes=2000)) as server:
        whole, _ = await server.open(b"GET /" + b"a" * (1994 + more) + b" HTTP/1.1\r\nhost: x\r\n\r\n")
        assert await answer(whole) == (431 if more else 200)
        half, writer = await server.open(HEAD + b"x: " + b"a" * (2000 + more - len(HEAD) - 3))
        if more:
            assert await answer(half) == 431
        else:
            await server.settle()
            server.pass_time(9)
            assert len(server.connections._open) == 2


@PARSERS
@on_loop
async def test_a_handler_hears_that_its_client_left(parser):
    async with Server(parser, LIMITS()) as server:
        _, writer = await server.open(b"GET /until-it-left HTTP/1.1\r\nhost: x\r\n\r\n")
        await server.settle()
        writer.close()
        async with asyncio.timeout(10):
            while not server.left:
                await asyncio.sleep(0.01)
        assert server.left == ["http.disconnect"]


@on_loop
async def test_why_connections_are_closed_is_logged_once_a_minute_for_each_reason(caplog):
    async with Server(H11Protocol, LIMITS(connections=1)) as server:
        said = []
        for seconds in (0, 0, 59, 1, 1):
            server.time += seconds
            first, _ = await server.open(HEAD)
            await server.settle()
            second, _ = await server.open(HEAD + b"x: " + b"a" * 2100)
            assert await answer(second) == 431
            assert await closed(first) and await closed(second)
            said.append(sorted(line.getMessage().split(" (")[0] for line in caplog.records))
            caplog.clear()
        full, long = (
            f"connections are closed: {why}"
            for why in ("1 are open, which is as many as may be", "request headers are too long or too many")
        )
        assert said == [[full, long], [], [], [full, long], []]


@PARSERS
@on_loop
async def test_when_all_are_being_answered_a_newcomer_is_told_to_come_later(parser):
    async with Server(parser, LIMITS(connections=2)) as server:
        held = [(await server.open(b"GET /slow HTTP/1.1\r\nhost: x\r\n\r\n"))[0] for _ in range(2)]
        await server.settle()
        reader, _ = await server.open()
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 503 ")
        assert b"retry-after: 1" in head
        server.go_on.set()
        assert [await answer(reader) for reader in held] == [200, 200]


@PARSERS
@on_loop
async def test_over_tls_a_handshake_that_does_not_end_counts_like_headers_that_do_not(parser):
    authority = trustme.CA()
    mine, theirs = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert("localhost").configure_cert(mine)
    authority.configure_trust(theirs)
    async with Server(parser, LIMITS(connections=2), tls=mine) as server:
        half = [(await server.open(b"\x16\x03"))[0] for _ in range(2)]
        await server.settle()
        reader, writer = await server.open(HEAD + b"\r\n", context=theirs)
        assert await answer(reader) == 200
        assert await closed(half[0])
        writer.write(BODY + b"hello")
        assert await answer(reader) == 200
        server.pass_time(11)
        assert await closed(half[1])
        garbage, _ = await server.open(b"GET / HTTP/1.1\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            await asyncio.wait_for(garbage.read(), 5)
        assert not server.connections._open - {None}


@PARSERS
@on_loop
async def test_who_leaves_within_the_handshake_is_forgotten(parser):
    mine = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("localhost").configure_cert(mine)
    async with Server(parser, LIMITS(), tls=mine) as server:
        _, writer = await server.open(b"\x16\x03")
        await server.settle()
        assert len(server.connections._open) == 1
        writer.close()
        async with asyncio.timeout(10):
            while server.connections._open:
                await asyncio.sleep(0.005)


def test_the_limits_are_those_of_the_page():
    page = " ".join((Path(__file__).parents[2] / "docs" / "authority.md").read_text().split())
    limits = Limits(connections=1)
    assert (
        f"{limits.head_bytes / 1024:.10g} KiB and {limits.headers} headers for each request (431 beyond that), "
        f"{limits.head:g} s until the headers and {limits.body:g} s until the body are complete, "
        f"{limits.request_bytes / 1024**2:.10g} MiB for a body with its framing"
    ) in page
    assert f"and {limits.answer:g} s in all for a client to take an answer" in page


# --- the server as people run it


@pytest.fixture(params=["h11", "httptools"])
def authority(request, tmp_path):
    """A served authority of 1,024 files with either parser."""
    policy = tmp_path / "policy.toml"
    policy.write_text(sample_policy())
    prefix = ["prlimit", "--nofile=1024:1024"]
    if request.param == "h11":
        (tmp_path / "without").mkdir()
        (tmp_path / "without" / "httptools.py").write_text("raise ImportError('not installed')")
        prefix += ["env", f"PYTHONPATH={tmp_path / 'without'}"]
    with Process(policy, log=tmp_path / "log", prefix=prefix) as process:
        yield process


def memory(process):
    with open(f"/proc/{process.process.pid}/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmRSS")) / 1024


def connect(process):
    host, port = process.url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=10)


@pytest.mark.slow
@pytest.mark.socket
def test_endless_headers_cost_next_to_nothing(authority):
    assert authority.call("/health", None)[1]["status"] == "healthy"
    before, sent = memory(authority), 0
    with connect(authority) as client, contextlib.suppress(OSError):
        client.sendall(b"GET /health HTTP/1.1\r\nhost: x\r\nx: ")
        while sent < 200 * 2**20:
            sent += client.send(b"a" * 65_536)
    assert sent < 20 * 2**20  # what the sockets' own buffers take
    assert memory(authority) - before < 30
    assert authority.call("/health", None)[1]["status"] == "healthy"


@pytest.mark.slow
@pytest.mark.socket
def test_more_half_open_connections_than_files_leave_the_authority_at_work(authority, tmp_path):
    clients = []
    for number in range(1100):
        client = connect(authority)
        client.sendall(
            b"POST /api/v1/actions/submit HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n" + b"\r\n" * (number % 2)
        )
        clients.append(client)
    taken = []
    for _ in range(5):
        started = time.monotonic()
        assert authority.call("/health", None, timeout=20)[1]["status"] == "healthy"
        action = {"agent_id": "a", "action_type": "data_access", "resource": "r"}
        assert authority.call("/api/v1/actions/submit", authority.keys["user"], action, timeout=20)[0] == 200
        taken.append(time.monotonic() - started)
    assert max(taken) < 9  # nobody waits until the half-open ones are given up after 10 s
    for client in clients:
        client.close()
    assert (tmp_path / "log").stat().st_size < 20_000


@pytest.mark.slow
@pytest.mark.socket
def test_clients_that_take_no_answers_leave_the_authority_at_work(authority):
    host, port = authority.url.removeprefix("http://").split(":")
    with contextlib.ExitStack() as clients:
        for _ in range(520):  # more than are open at once
            client = clients.enter_context(socket.socket())
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.connect((host, int(port)))
            client.setblocking(False)
            with contextlib.suppress(OSError):
                client.send(b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * 200)
        end = time.monotonic() + 6
        while time.monotonic() < end:
            status, answer = authority.call("/health", None, timeout=20)
            assert (status, answer["status"]) == (200, "healthy")
            time.sleep(0.2)
