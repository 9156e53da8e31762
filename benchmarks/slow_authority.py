"""An authority that takes its time: `python -m benchmarks.slow_authority PORT SECONDS STATUS` answers everything so."""

from __future__ import annotations

import asyncio
import json
import re
import sys

from .load import DECISION, QUIET

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


class Exchange(asyncio.Protocol):
    """One connection, on which one request comes after the other."""

    def __init__(self, content: bytes, seconds: float) -> None:
        self._answer, self._seconds = _answer(content), seconds
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        while True:
            head, blank, rest = self._received.partition(b"\r\n\r\n")
            length = _LENGTH.search(head)
            size = int(length[1]) if length is not None else 0
            if not blank or len(rest) < size:
                return
            self._received = rest[size:]
            target = head.split(b" ", 2)[1].partition(b"?")[0].decode("latin-1")
            quiet = next((body for end, body in QUIET.items() if target.endswith(end)), None)
            if quiet is not None:
                self._write(_answer(json.dumps(quiet).encode()))
            else:
                asyncio.get_running_loop().call_later(self._seconds, self._write, self._answer)

    def _write(self, answer: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(answer)  # type: ignore[attr-defined]  # of a connection


def _answer(content: bytes) -> bytes:
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
    return head.encode() + content


async def main(port: int, seconds: float, status: str) -> None:
    """Serve until the process is ended."""
    decision = {**DECISION, "status": status, "decision": status, "execution_allowed": status == "approved"}
    content = json.dumps(decision, separators=(",", ":")).encode()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Exchange(content, seconds), "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


if __name__ == "__main__":
    import uvloop

    uvloop.run(main(int(sys.argv[1]), float(sys.argv[2]), sys.argv[3]))
