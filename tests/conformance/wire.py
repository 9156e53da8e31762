"""One side of the conformance table's wire: a scripted authority, requests as raw bytes, and what an answer says."""

import base64
import contextlib
import json
import re
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Server(ThreadingHTTPServer):
    """Takes what comes at once: a connection that is reset is no case of these tests."""

    request_queue_size = 256
    daemon_threads = True


class Authority:
    """A scripted authority: records what is submitted, answers by its mode."""

    def __init__(self):
        self.mode, self.delay, self.actions = "approved", 0.0, []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers.get("content-length") or 0))
                number = 0
                if self.path == "/api/v1/actions/submit":
                    outer.actions.append((json.loads(body), outer.mode))
                    number = len(outer.actions)
                    time.sleep(outer.delay)
                answer = json.dumps({"action_id": str(number), "status": outer.mode, "decision": outer.mode}).encode()
                self.send_response(200)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(answer)))
                self.end_headers()
                with contextlib.suppress(OSError):
                    self.wfile.write(answer)

            do_GET = do_POST

            def log_message(self, *args): ...

        self.server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()


def wait_until_open(port):
    deadline = time.monotonic() + 30
    while True:
        # The socket listens before the application has started: only an answer tells.
        with contextlib.suppress(OSError):
            if exchange(port, b"GET /nothing-here HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"):
                return
        assert time.monotonic() < deadline, "the server does not answer"
        time.sleep(0.05)


def exchange(port, *pieces, websocket=False, timeout=5.0, until=b""):
    """Send pieces and return what comes; each further piece is sent once `until` has come, or after a moment."""
    with socket.create_connection(("127.0.0.1", port), timeout) as connection:
        data = b""
        for number, piece in enumerate(pieces):
            if number and until:
                with contextlib.suppress(TimeoutError, ConnectionError):
                    while until not in data and (chunk := connection.recv(65536)):
                        data += chunk
            elif number:
                time.sleep(0.05)
            with contextlib.suppress(ConnectionError):
                connection.sendall(piece)
        with contextlib.suppress(TimeoutError, ConnectionError):
            while chunk := connection.recv(65536):
                data += chunk
                if websocket and b"\r\n\r\n" in data and (b" 101 " not in data[:20] or b'"handler"' in data):
                    break
    return data


def generated(name):
    return {
        "split-segments": lambda: b'{"amount":9999,"to":"' + b"x" * 4000 + b'"}',
        "over-cap": lambda: b'{"amount":9999,"to":"' + b"x" * 70_000 + b'"}',
        "huge-int": lambda: b'{"amount":' + b"9" * 5000 + b"}",
        "deep-nesting": lambda: b'{"amount":9999,"to":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    }[name]()


def body_of(spec):
    if isinstance(spec, str):
        return spec.encode()
    if "text" in spec:
        return spec["text"].encode()
    if "base64" in spec:
        return base64.b64decode(spec["base64"])
    return generated(spec["generate"])


def wire_form(request):
    headers = [tuple(header) for header in request["headers"]]
    names = {name.lower() for name, _ in headers}
    body = body_of(request["body"])
    if "host" not in names:
        headers.insert(0, ("Host", "localhost"))
    if request.get("websocket"):
        headers += [("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Version", "13")]
        headers += [("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")]
    elif "upgrade" in names:
        headers += [("Connection", "Upgrade, HTTP2-Settings, close")]
    else:
        headers += [("Connection", "close")]
    if "transfer-encoding" in names:
        body = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
    elif body or request["method"] == "POST":
        headers += [("Content-Length", str(len(body)))]
    version = request.get("version", "HTTP/1.1")
    lines = [f"{request['method']} {request['target']} {version}", *(f"{name}: {value}" for name, value in headers)]
    head = "\r\n".join(lines).encode() + b"\r\n\r\n"
    if request.get("two_segments"):
        return head + body[: len(body) // 2], body[len(body) // 2 :]
    return (head + body,)


def read_answer(data):
    """Return (status, handler or None, body)."""
    head, _, body = data.partition(b"\r\n\r\n")
    status = int(head.split(b" ", 2)[1]) if head.startswith(b"HTTP/") else 0
    found = re.search(rb"(?im)^x-handler: ([\w.]+)", head)
    if found is None and status == 101:
        found = re.search(rb'"handler": ?"([\w.]+)"', body)
    if found is None and status < 300:
        found = re.search(rb"HANDLER:([\w.]+)", body)
    return status, found[1].decode() if found else None, body


def exchange_h2(port, request, *, timeout=5.0):
    """Send a request over HTTP/2 without TLS; return what an HTTP/1 server would have sent."""
    import h2.config
    import h2.connection
    import h2.events

    # Whatever is to be refused has to leave here first.
    config = h2.config.H2Configuration(validate_outbound_headers=False, normalize_outbound_headers=False)
    connection = h2.connection.H2Connection(config)
    head, body = b"", b""
    with socket.create_connection(("127.0.0.1", port), timeout=timeout) as wire:
        connection.initiate_connection()
        headers = [(":method", request["method"]), (":path", request["target"]), (":scheme", "http")]
        connection.send_headers(1, headers + [tuple(header) for header in request["headers"]], end_stream=True)
        wire.sendall(connection.data_to_send())
        with contextlib.suppress(TimeoutError, ConnectionError):
            while data := wire.recv(65536):
                events = connection.receive_data(data)
                wire.sendall(connection.data_to_send())
                for event in events:
                    if isinstance(event, h2.events.ResponseReceived):
                        fields = {name.decode(): value.decode("latin-1") for name, value in event.headers}
                        lines = [f"HTTP/2 {fields.pop(':status')} x", *(f"{k}: {v}" for k, v in fields.items())]
                        head = "\r\n".join(lines).encode() + b"\r\n\r\n"
                    elif isinstance(event, h2.events.DataReceived):
                        body += event.data
                    elif isinstance(
                        event, h2.events.StreamEnded | h2.events.StreamReset | h2.events.ConnectionTerminated
                    ):
                        return head + body
    return head + body
