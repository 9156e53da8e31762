"""A TCP proxy that goes wrong on purpose: between a guarded application and a real authority, on loopback only.

It takes one request at a time from a connection, so that a fault can begin at any point of an exchange: before the
connection, before the answer, inside it. With a fault of None everything is forwarded as it is.
"""

import asyncio
import contextlib
import re
import socket
import ssl
import struct

KEY = re.compile(rb"(?i)\r\nidempotency-key: ([^\r]+)")
LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
JSON = b"content-type: application/json\r\n"


def answer(status, body, head=JSON):
    return b"HTTP/1.1 %s\r\n%scontent-length: %d\r\n\r\n%s" % (status, head, len(body), body)


CANNED = {
    "answering 500": answer(b"500 Internal Server Error", b'{"detail": "broken"}'),
    "answering 429": answer(b"429 Too Many Requests", b'{"detail": "slow down"}', JSON + b"retry-after: 1\r\n"),
    "answering HTML": answer(b"200 OK", b"<html>Sign in to the network</html>", b"content-type: text/html\r\n"),
    "answering garbage": answer(b"200 OK", b'{"status": "appro\xff\xfe', JSON),
}
# What concerns connections that stand already: they end with the fault's beginning.
CUTS = {"refused", "black-holed", "TLS broken", "DNS gone"}


class FaultProxy:
    """Serve on an own port; `fault` names what goes wrong now.

    Args:
        upstream: host and port of the authority.
        good: the TLS context that clients trust, or None for plain HTTP.
        bad: one that they do not trust.
    """

    def __init__(self, upstream, *, good=None, bad=None):
        self.upstream = upstream
        self.fault = None
        self.attempts = 0  # submits that arrived, or connections that were turned away
        self.at_once = 0
        self.most_at_once = 0
        self.calls = set()  # idempotency keys: several attempts may be one call
        self._counting = 0
        self._good, self._bad = good, bad
        self._server = None
        self._placeholder = None
        self._writers = set()
        self._tasks = set()
        self._flap = None
        self.port = 0

    async def start(self):
        await self._listen()

    async def _listen(self):
        # Not by the name that a client asks for: who asks for an address names none.
        tls = self._bad if self.fault == "TLS broken" else self._good
        self._server = await asyncio.start_server(
            self._serve, "127.0.0.1", self.port, ssl=tls, reuse_address=True, backlog=256
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def _unlisten(self):
        """Let the port refuse: bound, so that nobody else takes it, and not listening."""
        self._server.close()
        self._placeholder = socket.socket()
        self._placeholder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._placeholder.bind(("127.0.0.1", self.port))

    async def set(self, fault):
        """Begin a fault, or end it with None."""
        if self._flap is not None:
            self._flap.cancel()
            self._flap = None
        await self._set("answering" if fault == "flapping" else fault)
        if fault == "flapping":
            self._flap = asyncio.ensure_future(self._flapping())

    async def _set(self, fault):
        before, self.fault = self.fault, fault
        if before == "refused" and fault != "refused":
            self._placeholder.close()
            await self._listen()
        if "TLS broken" in (fault, before) and fault != before and fault != "refused":
            self._server.close()
            await self._listen()
        if fault in CUTS or before in CUTS:
            self.cut()
        if fault == "refused" and before != "refused":
            await self._unlisten()

    async def _flapping(self):
        while True:
            await self._set("refused")
            await asyncio.sleep(0.3)
            await self._set("answering")
            await asyncio.sleep(0.3)

    def cut(self):
        """End every connection at once."""
        for writer in list(self._writers):
            writer.transport.abort()

    async def stop(self):
        if self._flap is not None:
            self._flap.cancel()
        if self._server is not None:
            self._server.close()
        if self._placeholder is not None:
            self._placeholder.close()
        for task in list(self._tasks):
            task.cancel()
        self.cut()
        await asyncio.sleep(0.05)

    def count_anew(self):
        """Count what begins from now on: an engine may leave the connection of a call that it gave up open for long."""
        self._counting += 1
        self.at_once = self.most_at_once = 0
        self.calls.clear()

    # --- one connection

    async def _serve(self, reader, writer):
        self._writers.add(writer)
        self._tasks.add(asyncio.current_task())
        up = []  # the connection to the authority, once there is one
        try:
            while True:
                request = await _message(reader)
                if request is None:
                    return
                submit = b"/submit HTTP/1.1\r\n" in request[:200]
                self.attempts += submit
                self.at_once += submit
                self.most_at_once = max(self.most_at_once, self.at_once)
                if submit:
                    self.calls.update(KEY.findall(request))
                counted = self._counting
                try:
                    goes_on = await self._exchange(request, reader, writer, up)
                finally:
                    self.at_once -= submit and counted == self._counting
                if not goes_on:
                    return
        except (OSError, asyncio.IncompleteReadError, ValueError):
            pass
        except asyncio.CancelledError:
            pass  # the proxy stops
        finally:
            self._writers.discard(writer)
            self._tasks.discard(asyncio.current_task())
            for one in (writer, *up[1:]):
                one.transport.abort()
                one.close()

    async def _exchange(self, request, reader, writer, up):
        """Answer one request; return whether the connection goes on."""
        fault = self.fault
        if fault in CANNED:
            writer.write(CANNED[fault])
            await writer.drain()
            return True
        if fault == "black-holed":
            while await reader.read(65536):  # until the client has had enough
                pass
            return False
        if fault in ("slow", "pool exhausted"):
            await asyncio.sleep(0.3)
        if not up:
            up += await asyncio.open_connection(*self.upstream)
        up[1].write(request)
        reply = await _message(up[0])
        if reply is None:
            return False
        if fault == "trickling":
            for at in range(0, len(reply), 8):
                writer.write(reply[at : at + 8])
                await writer.drain()
                await asyncio.sleep(0.1)
            return True
        if fault == "half a body":
            writer.write(reply[: len(reply) - 20])
            await writer.drain()
            return False
        if fault == "resetting mid-body":
            writer.write(reply[: len(reply) - 20])
            await writer.drain()
            raw = writer.get_extra_info("socket")
            with contextlib.suppress(OSError):
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return False
        writer.write(reply)
        await writer.drain()
        return True


async def _message(reader):
    """Return one HTTP message whole, or None at the connection's end."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    length = LENGTH.search(head)
    return head + (await reader.readexactly(int(length[1])) if length else b"")


def contexts():
    """Return a TLS context that the returned authority vouches for, one that it does not, and the authority."""
    import trustme

    ours, theirs = trustme.CA(), trustme.CA()
    good, bad = (ssl.create_default_context(ssl.Purpose.CLIENT_AUTH) for _ in range(2))
    ours.issue_cert("authority.test", "127.0.0.1").configure_cert(good)
    theirs.issue_cert("authority.test", "127.0.0.1").configure_cert(bad)
    return good, bad, ours
