"""Requests that come whole are answered without the server's protocol; all others reach it, and no byte is read twice."""

import contextlib
import json
import re
import socket

import pytest
from authority_process import Process
from test_authority_connections import LIMITS, PARSERS, Server, answer, on_loop

from ascend_middleware.authority.bodies import Answer

POST = b"POST /submit HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello"
GET = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"
POLICY = """
[limits]
failed_sign_ins = 2

[[policy]]
name = "large"
action_types = ["transaction"]
decision = "pending"
"""
SUBMIT = {"agent_id": "a", "action_type": "data_access", "resource": "r"}


class Straight(Server):
    """Answers posts to /submit without the protocol: at once, or when the test says so."""

    def __init__(self, parser, *, at_once=True):
        super().__init__(parser, LIMITS())
        self.asked, self.replies, self.at_once = [], [], at_once
        self.connections.straight = self.take

    async def begin(self):
        """Send a request, and wait until it was read."""
        opened = await self.open(POST)
        await self.settle()
        return opened

    def take(self, asked, client, reply):
        if (asked.method, asked.target) != ("POST", "/submit"):
            return False
        assert client == "127.0.0.1"
        self.asked.append(asked)
        self.replies.append(reply)
        if self.at_once:
            self.reply()
        return True

    def reply(self):
        asked = self.asked[-1]
        self.replies.pop()(Answer(200, {"x-straight": "yes"}, asked.body))


PLAIN = {
    "as it is": POST,
    "other spelling": POST.replace(b"Host", b"hOST").replace(b"Length", b"length"),
    "further headers": POST.replace(b"\r\n\r\n", b'\r\nX-Odd_1: a, b; c="d"\r\nConnection: Keep-Alive\r\n\r\n'),
    "no body": b"POST /submit HTTP/1.1\r\nHost: x\r\n\r\n",
}
ODD = {
    "a header twice": POST.replace(b"\r\n\r\n", b"\r\ncontent-length: 5\r\n\r\n"),
    "another header twice": POST.replace(b"\r\n\r\n", b"\r\nx: 1\r\nX: 2\r\n\r\n"),
    "chunked": b"POST /submit HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "both lengths": POST.replace(b"\r\n\r\n", b"\r\nTransfer-Encoding: chunked\r\n\r\n"),
    "a length with a zero": POST.replace(b"Length: 5", b"Length: 05"),
    "a length with a sign": POST.replace(b"Length: 5", b"Length: +5"),
    "a length of nothing": POST.replace(b"Length: 5", b"Length: "),
    "a blank before the colon": POST.replace(b"Content-Length:", b"Content-Length :"),
    "two blanks": POST.replace(b"Length: 5", b"Length:  5"),
    "a blank behind": POST.replace(b"Length: 5", b"Length: 5 "),
    "a tab": POST.replace(b"Length: 5", b"Length:\t5"),
    "no blank": POST.replace(b"Length: 5", b"Length:5"),
    "a folded line": POST.replace(b"\r\n\r\n", b"\r\nx: 1\r\n 2\r\n\r\n"),
    "a bare line feed": POST.replace(b"\r\n\r\n", b"\r\nx: 1\ny: 2\r\n\r\n"),
    "a bare carriage return": POST.replace(b"\r\n\r\n", b"\r\nx: 1\ry: 2\r\n\r\n"),
    "a zero byte": POST.replace(b"\r\n\r\n", b"\r\nx: \0\r\n\r\n"),
    "another alphabet": POST.replace(b"\r\n\r\n", b"\r\nx: \xe4\r\n\r\n"),
    "no host": POST.replace(b"Host: x\r\n", b""),
    "an older version": POST.replace(b"HTTP/1.1", b"HTTP/1.0"),
    "an absolute target": POST.replace(b"/submit", b"http://x/submit"),
    "another spelling of the target": POST.replace(b"/submit", b"/%73ubmit"),
    "a query": POST.replace(b"/submit", b"/submit?a=1"),
    "a line before": b"\r\n" + POST,
    "to be closed": POST.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"),
    "to be asked first": POST.replace(b"\r\n\r\n", b"\r\nExpect: 100-continue\r\n\r\n"),
    "to be upgraded": POST.replace(b"\r\n\r\n", b"\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n"),
    "too many headers": POST.replace(b"\r\n\r\n", b"".join(b"\r\nx%d: 1" % n for n in range(11)) + b"\r\n\r\n"),
    "two together": POST + POST,
    "more than it says": POST + b"G",
}


@PARSERS
@on_loop
async def test_what_is_written_as_clients_write_it_is_answered_straight(parser):
    async with Straight(parser) as server:
        reader, writer = await server.open()
        for number, sent in enumerate([*PLAIN.values(), GET, *PLAIN.values(), GET, GET, POST]):
            writer.write(sent)
            assert await answer(reader) == 200, number
        assert len(server.asked) == 2 * len(PLAIN) + 1
        assert [one.body for one in server.asked[:4]] == [b"hello", b"hello", b"hello", b""]


@PARSERS
@pytest.mark.parametrize("sent", ODD.values(), ids=ODD)
@on_loop
async def test_whatever_else_is_the_protocols_to_read(parser, sent):
    async with Straight(parser) as server, Server(parser, LIMITS()) as other:
        given = []
        for one in (server, other):
            reader, writer = await one.open(sent)
            writer.write_eof()
            with contextlib.suppress(ConnectionError):
                given.append(re.sub(rb"(?i)\r\ndate: [^\r]+", b"", await reader.read()))
        assert not server.asked
        assert len(given) < 2 or given[0] == given[1]


@PARSERS
@on_loop
async def test_a_request_is_answered_the_same_wherever_its_bytes_are_parted(parser):
    async with Straight(parser) as server:
        for at in range(1, len(POST), 5):
            reader, writer = await server.open(POST[:at])
            await server.settle()
            writer.write(POST[at:])
            assert await answer(reader) == 200
            # It may hold a part of the next one already.
            writer.write(POST)
            assert await answer(reader) == 200
            writer.close()
        assert not server.asked


@PARSERS
@on_loop
async def test_what_comes_while_a_request_is_answered_straight_waits_its_turn(parser):
    async with Straight(parser, at_once=False) as server:
        reader, writer = await server.begin()
        writer.write(GET + POST[:20])
        await server.settle()
        writer.write(POST[20:])
        await server.settle()
        assert len(server.asked) == 1
        server.reply()
        head = await reader.readuntil(b"\r\n\r\n")
        assert b"x-straight: yes" in head and await reader.readexactly(5) == b"hello"
        assert [await answer(reader) for _ in range(2)] == [200, 200]
        assert len(server.asked) == 1


@PARSERS
@on_loop
async def test_a_request_that_is_answered_straight_has_the_same_limits(parser):
    async with Straight(parser, at_once=False) as server:
        reader, writer = await server.begin()
        server.pass_time(1000)
        writer.write(GET[:-2] + b"x: " + b"a" * 1000)
        await server.settle()
        server.reply()
        assert await answer(reader) == 200
        writer.write(b"a" * 1500)
        assert b" 431 " in await reader.read()
        reader, writer = await server.begin()
        server.reply()
        assert await answer(reader) == 200
        server.pass_time(10.5)
        assert await reader.read() == b""


@PARSERS
@on_loop
async def test_a_client_that_left_is_answered_nothing(parser):
    async with Straight(parser, at_once=False) as server:
        _, writer = await server.begin()
        writer.transport.abort()
        await server.settle()
        server.reply()
        assert server.connections.answering == 0


@PARSERS
@on_loop
async def test_a_stop_waits_for_what_is_answered_straight(parser):
    async with Straight(parser, at_once=False) as server:
        reader, _ = await server.begin()
        await server.connections.settle(-1)
        server.connections.release()
        server.reply()
        await server.connections.settle(1)
        assert await answer(reader) == 200
        await server.begin()
        assert len(server.asked) == 1, "then the protocol has everything"


def exchange(process, *parts):
    """Send a request in parts and return status, headers and body of the answer."""
    host, port = process.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as client, client.makefile("rb") as file:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for number, part in enumerate(parts):
            if number:
                process.call("/health", None)  # until then the first part was read
            client.sendall(part)
        status = int(file.readline().split()[1])
        headers = {}
        while line := file.readline().strip():
            name, _, value = line.decode().partition(": ")
            headers[name] = value
        return status, headers, json.loads(file.read(int(headers["content-length"])))


@pytest.mark.slow
@pytest.mark.socket
def test_a_served_submission_is_answered_the_same_straight_and_by_the_protocol(tmp_path):
    policy, log = tmp_path / "policy.toml", tmp_path / "log"
    policy.write_text(POLICY)
    with Process(policy, log=log) as process:
        cases = [
            (SUBMIT, process.keys["user"], 200),
            ({**SUBMIT, "action_type": "transaction"}, process.keys["user"], 200),
            ({**SUBMIT, "agent_id": ""}, process.keys["user"], 400),
            *[(SUBMIT, "owkai_user_0", status) for status in (401, 429)],
        ]
        for body, key, status in cases:
            content = json.dumps(body, separators=(",", ":")).encode()
            head = (
                b"POST /api/v1/actions/submit HTTP/1.1\r\nHost: x\r\nX-API-Key: %s\r\nX-Correlation-ID: c\r\n"
                % key.encode()
            )
            head += b"Content-Length: %d\r\n\r\n" % len(content)
            one, other = exchange(process, head + content), exchange(process, head, content)
            assert one[0] == other[0] == status
            assert list(one[1]) == list(other[1])
            changing = {"date", "content-length", "x-ratelimit-remaining", "x-ratelimit-reset"}
            assert [one[1][name] for name in one[1] if name not in changing] == [
                other[1][name] for name in other[1] if name not in changing
            ]
            assert one[2].keys() == other[2].keys()
        assert process.end() == 0
    assert log.read_text().count("POST /api/v1/actions/submit 200") == 4
