"""A TCP server that answers by a script, badly where asked: a list of steps, the last one for all further requests."""

import contextlib
import json
import socket
import struct
import threading


def http(status, body=b"", *headers, length=True):
    if isinstance(body, dict | list):
        body = json.dumps(body).encode()
    lines = [f"HTTP/1.1 {status} X", *headers]
    if length:
        lines.append(f"Content-Length: {len(body)}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + body


APPROVED = http(200, {"action_id": "7", "status": "approved", "decision": "approved"}, "Content-Type: application/json")
PENDING = http(200, {"action_id": "7", "status": "pending", "decision": "pending"})
DENIED = http(200, {"action_id": "7", "status": "denied", "decision": "denied", "reason": "no"})


class Trickle:
    """Sends `data` up to `head` at once, then a byte per `pause`."""

    def __init__(self, data, head=0, pause=0.05):
        self.data, self.head, self.pause = data, head, pause


HANG = object()
DROP = object()
DEAF = object()  # reads nothing of the request any more


class Reset:
    """Sends `data`, then resets the connection."""

    def __init__(self, data=b""):
        self.data = data


class Repeat:
    """Sends `data` again and again, with a pause, after `head`; a thousand times, then it ends: a call that goes on until then fails otherwise."""

    def __init__(self, data, head=b"", pause=0.02):
        self.data, self.head, self.pause = data, head, pause


def chunked(*chunks, end=b"0\r\n\r\n", status=200):
    body = b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks) + end
    return http(status, b"", "Transfer-Encoding: chunked", "Connection: close", length=False) + body


class Received:
    def __init__(self, head, body):
        first, *lines = head.decode("latin-1").split("\r\n")
        self.method, self.target, _ = first.split(" ")
        self.headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        self.body = body

    def json(self):
        return json.loads(self.body)


class Scripted:
    def __init__(self, *steps):
        self.steps = list(steps) or [APPROVED]
        self.requests = []
        self.connections = 0
        self.stopped = threading.Event()
        self.arrived = threading.Event()
        self._lock = threading.Lock()
        self._open = set()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stopped.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.end_connections()
        for thread in self._threads:
            thread.join(5)

    def end_connections(self):
        """End those that are open, whoever is about to close one of them."""
        for connection in list(self._open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def _accept(self):
        while not self.stopped.is_set():
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._open.add(connection)
            thread = threading.Thread(target=self._serve, args=(connection,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection):
        try:
            with connection, contextlib.suppress(OSError):
                buffer = b""
                while True:
                    while b"\r\n\r\n" not in buffer:
                        data = connection.recv(65536)
                        if not data:
                            return
                        buffer += data
                    head, _, buffer = buffer.partition(b"\r\n\r\n")
                    request = Received(head, b"")
                    if self.steps[0] is DEAF:
                        self.requests.append(request)
                        self.stopped.wait(30)
                        return
                    wanted = int(request.headers.get("content-length", 0))
                    while len(buffer) < wanted:
                        buffer += connection.recv(65536)
                    request.body, buffer = buffer[:wanted], buffer[wanted:]
                    with self._lock:
                        self.requests.append(request)
                        step = self.steps.pop(0) if len(self.steps) > 1 else self.steps[0]
                    self.arrived.set()
                    if callable(step):
                        step = step(request)
                    if not self._answer(connection, step):
                        return
        finally:
            self._open.discard(connection)

    def _answer(self, connection, step):
        if step is HANG:
            self.stopped.wait(30)
            return False
        if step is DROP:
            return False
        if isinstance(step, Reset):
            connection.sendall(step.data)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return False
        if isinstance(step, Repeat):
            connection.sendall(step.head)
            for _ in range(1000):
                if self.stopped.wait(step.pause):
                    break
                connection.sendall(step.data)
            return False
        if isinstance(step, Trickle):
            connection.sendall(step.data[: step.head])
            for index in range(step.head, len(step.data)):
                if self.stopped.wait(step.pause):
                    return False
                connection.sendall(step.data[index : index + 1])
            return True
        connection.sendall(step)
        return b"Content-Length" in step.partition(b"\r\n\r\n")[0] and b"Connection: close" not in step
