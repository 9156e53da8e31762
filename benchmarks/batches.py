"""Takes outcomes many at a time, beside nginx, and tells how many it took: `python -m benchmarks.batches PORT`."""

from __future__ import annotations

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from .load import POLICY_STATE


class Handler(BaseHTTPRequestHandler):
    """Takes whatever it is told."""

    protocol_version = "HTTP/1.1"
    count = 0

    def do_POST(self) -> None:
        """Take a batch."""
        outcomes = json.loads(self.rfile.read(int(self.headers["content-length"])))["outcomes"]
        Handler.count += len(outcomes)
        taken = [{"status": 200}] * len(outcomes)
        self._answer({"success": True, "outcomes": taken, "policy_state": POLICY_STATE})

    def do_GET(self) -> None:
        """Tell how many were taken."""
        self._answer(Handler.count)

    def _answer(self, value: object) -> None:
        content = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
