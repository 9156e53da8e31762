"""Both WSGI adapters on real servers: bodies that come late, in part or not at all, threads, greenlets and forks."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from wire import Authority, exchange, read_answer, wait_until_open

HERE = Path(__file__).parent

pytestmark = [pytest.mark.slow, pytest.mark.socket]

PAYLOAD = b'{"amount":1}'
GUNICORN = ["-m", "gunicorn", "--bind", "fd://{fd}", "--graceful-timeout", "2", "--log-level", "warning"]
WERKZEUG = (
    "import sys; from importlib import import_module; from werkzeug.serving import make_server;"
    "module, name = sys.argv[1].split(':'); app = getattr(import_module(module), name);"
    "make_server('127.0.0.1', 0, app, threaded=True, fd=int(sys.argv[2])).serve_forever()"
)
WAITRESS = (
    "import sys, socket, waitress; from importlib import import_module;"
    "module, name = sys.argv[1].split(':');"
    "waitress.serve(getattr(import_module(module), name), sockets=[socket.socket(fileno=int(sys.argv[2]))], threads=8)"
)
SERVERS = {
    "gunicorn-sync": [*GUNICORN, "--workers", "2"],
    "gunicorn-gthread": [*GUNICORN, "--threads", "8", "--keep-alive", "5"],
    "gunicorn-gevent": [*GUNICORN, "--worker-class", "gevent"],
    "waitress": ["-c", WAITRESS],
    "werkzeug": ["-c", WERKZEUG],
}
FORKING = {
    "preload": [*GUNICORN, "--preload", "--workers", "2", "--threads", "8"],
    "preload-gevent": [*GUNICORN, "--preload", "--workers", "2", "--worker-class", "gevent"],
}
# These answer 100 by themselves, before any application is asked: no adapter can tell a client to wait.
CONTINUE_BY_THEMSELVES = {"gunicorn-sync", "gunicorn-gthread", "gunicorn-gevent", "waitress", "werkzeug"}


class Served:
    """One application on one server."""

    def __init__(self, name, command, app, authority, folder, **environment):
        self.name, self.authority, self.folder = name, authority, folder
        listener = socket.socket()
        listener.bind(("127.0.0.1", 0))
        listener.listen(128)
        listener.set_inheritable(True)
        self.port = listener.getsockname()[1]
        arguments = [part.format(fd=listener.fileno()) if "{fd}" in part else part for part in command]
        end = [f"served_app:{app}"] if "gunicorn" in arguments else [f"served_app:{app}", str(listener.fileno())]
        self.log = folder / "log"
        environ = {
            **os.environ,
            "PYTHONPATH": str(HERE),
            "SERVED_FOLDER": str(folder),
            "SERVED_AUTHORITY": authority.url,
            "ASCEND_STATE": str(folder / "state.db"),
            "ASCEND_JOURNAL": str(folder / "journal"),
            "ASCEND_KILL_SWITCH": "off",
            **environment,
        }
        with self.log.open("wb") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-W", "ignore", *arguments, *end],
                env=environ,
                stdout=errors,
                stderr=errors,
                pass_fds=[listener.fileno()],
            )
        listener.close()
        try:
            wait_until_open(self.port)
        except BaseException:
            self.close()
            raise AssertionError(self.log.read_text()) from None

    def exchange(self, *pieces, mode="approved", delay=0.0):
        self.authority.mode, self.authority.delay = mode, delay
        return exchange(self.port, *pieces, timeout=20.0)

    def ask(self, *pieces, **how):
        return read_answer(self.exchange(*pieces, **how))

    def get(self, path, **how):
        return self.ask(b"GET %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n" % path.encode(), **how)

    @property
    def ran(self):
        file = self.folder / "ran"
        return file.read_text().splitlines() if file.exists() else []

    @property
    def asked(self):
        return [action["action_type"] for action, _ in self.authority.actions]

    def close(self):
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


@pytest.fixture(scope="module")
def authority():
    authority = Authority()
    yield authority
    authority.close()


@pytest.fixture(
    scope="module",
    params=[(server, app) for server in SERVERS for app in ("flask_app", "wsgi_app")],
    ids=lambda param: "-".join(param),
)
def served(request, authority, tmp_path_factory):
    server, app = request.param
    served = Served(server, SERVERS[server], app, authority, tmp_path_factory.mktemp(server))
    yield served
    served.close()


def post(target, body=PAYLOAD, *, length=None, extra=b"", close=True):
    end = b"Connection: close\r\n" if close else b""
    head = b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n" % target.encode()
    if b"chunked" not in extra:
        head += b"Content-Length: %d\r\n" % (len(body) if length is None else length)
    return head + extra + end + b"\r\n" + body


@pytest.mark.parametrize("target", ["/pay", "/stream"])
def test_the_handler_sees_the_bytes_that_were_judged(served, target):
    before = len(served.asked)
    status, handler, body = served.ask(post(target))
    assert (status, json.loads(body)) == (200, {"len": len(PAYLOAD)})
    chunked = b"5\r\n%s\r\n7\r\n%s\r\n0\r\n\r\n" % (PAYLOAD[:5], PAYLOAD[5:])
    status, handler, body = served.ask(post(target, chunked, extra=b"Transfer-Encoding: chunked\r\n"))
    assert (status, handler) == (200, target[1:])
    assert str(len(PAYLOAD)).encode() in body
    assert served.asked[before:] == [target[1:]] * 2
    assert [action["action_details"] for action, _ in served.authority.actions[before:]] == [{"amount": 1}] * 2


def test_a_handler_that_streams_its_own_body_still_can(served):
    status, handler, body = served.ask(post("/up", b"x" * 300_000))
    assert (status, handler, json.loads(body)) == (200, "up", {"len": 300_000})


def test_a_streamed_response_is_whole(served):
    status, handler, body = served.get("/ticks")
    assert (status, handler) == (200, "ticks")
    assert [f"tick{tick}".encode() in body for tick in range(3)] == [True] * 3


def test_nothing_runs_that_was_denied(served):
    before = served.ran
    for target in ("/pay", "/stream", "/up", "/export"):
        assert served.ask(post(target), mode="denied")[0] == 403
    assert served.ran == before


BROKEN_CHUNK = post("/pay", b"5\r\n" + PAYLOAD[:5] + b"\r\nzz\r\n", extra=b"Transfer-Encoding: chunked\r\n")


@pytest.mark.parametrize(
    ("sent", "shut"), [(post("/pay", length=40), True), (post("/pay", length=40), False), (BROKEN_CHUNK, True)]
)
def test_a_truncated_body_or_broken_chunk_never_reaches_the_handler(served, sent, shut):
    before, asked = served.ran, len(served.asked)
    with socket.create_connection(("127.0.0.1", served.port), 20) as connection:
        connection.sendall(sent)
        if shut:
            connection.shutdown(socket.SHUT_WR)
            with contextlib.suppress(ConnectionError, TimeoutError):
                connection.settimeout(5)
                while connection.recv(65536):
                    pass
    assert served.get("/ping")[0] == 200
    assert (served.ran, len(served.asked)) == (before, asked)


def test_a_client_that_left_during_the_decision_leaves_no_undecided_run(served):
    before, asked = served.ran, len(served.asked)
    served.authority.mode, served.authority.delay = "denied", 0.3
    with socket.create_connection(("127.0.0.1", served.port), 20) as connection:
        connection.sendall(post("/pay"))
        time.sleep(0.1)
    time.sleep(0.5)
    served.authority.delay = 0.0
    assert served.ran == before
    assert len(served.asked) <= asked + 1


def test_a_denied_request_gets_its_answer_whatever_the_server_says_before(served):
    before = served.ran
    head, body = post("/pay", extra=b"Expect: 100-continue\r\n").split(b"\r\n\r\n")
    data = served.exchange(head + b"\r\n\r\n", body, mode="denied")
    assert data.startswith(b"HTTP/1.1 100") == (served.name in CONTINUE_BY_THEMSELVES)
    while data.startswith(b"HTTP/1.1 100"):  # werkzeug says it twice
        data = data.partition(b"\r\n\r\n")[2]
    assert read_answer(data)[0] == 403
    assert served.ran == before
    data = served.exchange(head + b"\r\n\r\n", body)
    assert b" 200 " in data
    assert served.ran == [*before, f"pay {len(PAYLOAD)}"]


def test_a_request_inside_an_unread_body_never_runs(served):
    before, asked = served.ran, len(served.asked)
    embedded = b"GET /export HTTP/1.1\r\nHost: x\r\n\r\n"
    ping = b"GET /ping HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    data = served.exchange(post("/export", embedded, close=False) + ping, mode="denied")
    assert read_answer(data)[0] == 403
    assert data.count(b" 403 ") == 1
    assert served.ran == before
    assert served.asked[asked:] == ["export"]


def test_many_at_once_are_each_decided(served):
    before, asked = len(served.ran), len(served.asked)
    with ThreadPoolExecutor(16) as threads:
        answers = list(threads.map(lambda _: served.ask(post("/pay"), delay=0.02), range(48)))
    served.authority.delay = 0.0
    assert [answer for answer in answers if answer[0] != 200] == [], served.log.read_text()[-3000:]
    assert (len(served.ran) - before, len(served.asked) - asked) == (48, 48)


@pytest.mark.parametrize("early", ["", "1"], ids=["", "early"])
@pytest.mark.parametrize("app", ["flask_app", "wsgi_app"])
@pytest.mark.parametrize("server", FORKING)
def test_after_a_fork_the_guard_is_in_force(authority, tmp_path, server, app, early):
    authority.mode, authority.delay = "approved", 0.0
    served = Served(server, FORKING[server], app, authority, tmp_path, SERVED_EARLY=early)
    try:
        asked = len(served.asked)
        pids = set()
        until = time.monotonic() + 60
        while len(pids) < 2:
            assert time.monotonic() < until, pids
            with ThreadPoolExecutor(8) as threads:
                pids |= {body for _, _, body in threads.map(lambda _: served.get("/pid"), range(16))}
        with ThreadPoolExecutor(16) as threads:
            answers = list(threads.map(lambda _: served.ask(post("/pay"), delay=0.02), range(64)))
        assert [answer for answer in answers if answer[0] != 200] == [], served.log.read_text()[-3000:]
        assert len(served.ran) == len(served.asked) - asked == 64
        with ThreadPoolExecutor(16) as threads:
            denied = list(threads.map(lambda _: served.ask(post("/pay"), mode="denied")[0], range(64)))
        assert (denied, len(served.ran)) == ([403] * 64, 64)
    finally:
        served.close()
