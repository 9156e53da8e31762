"""Requests that slip past a middleware, as raw bytes to real servers: none may reach a handler undecided.

One table, applications × cases × servers. Whatever happens on a server, two things hold for each case: under an authority
that denies, nothing runs but what is exempt; under one that approves, what runs is what was asked about, once.
"""

import contextlib
import json
import socket
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

import pytest
from wire import Authority, exchange, exchange_h2, read_answer, wait_until_open, wire_form

pytestmark = pytest.mark.socket

HERE = Path(__file__).parent
CASES = json.loads((HERE / "cases.json").read_text())
PUBLIC = {"public", "open"}  # exempt routes

ASGI = ("uvicorn-httptools", "uvicorn-h11", "hypercorn", "gunicorn-asgi")
WSGI = ("gunicorn-sync", "gunicorn-gthread", "waitress")
# Which set of applications runs on which servers; the first is quick enough for every run.
PLACES = [
    *((server, "starlette") for server in ASGI),
    *((server, "quart") for server in ASGI),
    *((server, "litestar") for server in ASGI),
    *((server, "flask") for server in (*WSGI, "werkzeug")),
    *((server, "wsgi") for server in (*WSGI, "wsgiref")),
    ("uvicorn-h11", "flask-asgi"),
    *((server, "django") for server in WSGI),
    *((server, "django-asgi") for server in ASGI),
    ("gunicorn-sync", "django-flat"),
    ("gunicorn-sync", "django-prefixed"),
]
QUICK = 1

# The applications of each set; `serve.py` finds them in `apps/`.
APPS = {
    "starlette": (
        *("starlette", "starlette_inner", "starlette_inner_first", "starlette_below_api", "fastapi", "fastapi_rooted"),
        *("fastapi_sub_rooted", "fastapi_below_api", "body", "body_lax"),
    ),
    "litestar": ("litestar", "litestar_below_api", "litestar_body"),
    "quart": ("quart", "quart_below_api", "quart_body"),
    "flask": (
        *("flask", "flask_hosts", "flask_subdomains", "flask_nomerge", "flask_override", "flask_body"),
        *("flask_wrapped", "flask_body_wrapped"),
    ),
    "flask-asgi": ("flask", "flask_body", "flask_around", "flask_body_around"),
    "wsgi": ("wsgi",),
    "django": ("django",),
    "django-asgi": ("django", "django_below_public"),
    "django-flat": ("django_flat",),
    "django-prefixed": ("django_prefixed",),
}
# An application in another place gets the requests of the one that it is.
CASES_OF = {
    "django_prefixed": "django",
    "flask_wrapped": "flask",
    "flask_around": "flask",
    "flask_body_wrapped": "flask_body",
    "flask_body_around": "flask_body",
}
# What the path alone cannot tell from outside a framework, and what then governs it: the handler may run under the
# action that its path names.
UNITS = {"legacy.pay": "legacy", "legacy.export": "legacy"}
# A case that an adapter cannot meet, with the reason; where a start-up check can tell, its id.
EXCEPTIONS = {
    "django-055": "flatpages answer where no view was found: the system check ascend.E007 forbids them",
}


def items():
    found = []
    for number, place in enumerate(PLACES):
        server, name = place
        for app in APPS[name]:
            below = app.endswith(("_below_api", "_below_public"))
            if below and (server == "gunicorn-asgi"):
                continue
            for case in CASES:
                if case["app"] == CASES_OF.get(app, app) and (not case["request"].get("h2") or server == "hypercorn"):
                    marks = () if number < QUICK else (pytest.mark.slow,)
                    found.append(pytest.param(place, app, case, id=f"{server}-{app}-{case['id']}", marks=marks))
    return found


by_place = pytest.mark.parametrize(("place", "app", "case"), items(), indirect=["place"])


@pytest.fixture(scope="module")
def authority():
    authority = Authority()
    yield authority
    authority.close()


class Place:
    """A server process with the applications of one set."""

    def __init__(self, server, name, authority, folder):
        self.server, self.name, self.authority = server, name, authority
        command = [sys.executable, "-W", "ignore", str(HERE / "serve.py"), server, name, authority.url, str(folder)]
        self.log = folder / "log"
        with self.log.open("wb") as errors:
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors)
        try:
            line = self.process.stdout.readline()
            assert line, self.log.read_text()
            self.ports = json.loads(line)
            for port in self.ports.values():
                wait_until_open(port)
        except BaseException:
            self.close()
            raise

    def send(self, app, request, mode):
        """Send one request; return (status, handler, body, the actions that were submitted for it)."""
        self.authority.mode, self.authority.delay = mode, 0.0
        before = len(self.authority.actions)
        if request.get("h2"):
            data = exchange_h2(self.ports[app], request)
        else:
            data = exchange(self.ports[app], *wire_form(request), websocket=request.get("websocket", False))
        return *read_answer(data), [action for action, _ in self.authority.actions[before:]]

    def close(self):
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()


@pytest.fixture(scope="module")
def places(authority, tmp_path_factory):
    """The servers that run, the one that was wanted last at the end; five at most."""
    running = {}

    def find(server, name):
        place = running.pop((server, name), None)
        if place is None:
            if len(running) == 5:
                running.pop(next(iter(running))).close()
            place = Place(server, name, authority, tmp_path_factory.mktemp(f"{server}-{name}"))
        running[server, name] = place
        return place

    yield find
    for place in running.values():
        place.close()


@pytest.fixture
def place(request, places):
    return places(*request.param)


def expected_handler(case):
    """Return what the case runs in the installed version: an older one may match otherwise, or not know the feature."""
    package, since, before = case.get("runs_before", (None, None, None))
    if package is not None and numbers(metadata.version(package)) < numbers(since):
        return before
    return case["runs"]


def numbers(version):
    return [int(part) for part in version.split(".")[:3]]


@by_place
def test_nothing_runs_undecided(place, app, case):
    # What came before is known by its path: on one server each comes as often as that takes.
    for _ in range(3 if (place.server, place.name) == PLACES[0] else 1):
        status, handler, body, actions = place.send(app, case["request"], "denied")
        if case["id"] not in EXCEPTIONS:
            assert handler is None or handler in PUBLIC, (status, handler, actions, body[:300])
    status, handler, body, actions = place.send(app, case["request"], "approved")
    shown = (status, handler, actions, body[:300])
    if handler is None:
        # A redirect is the framework's own answer; /install is exempt and names no handler.
        assert status == 0 or 300 <= status < 600 or case["request"]["target"] == "/install", shown
    elif handler not in PUBLIC and case["id"] not in EXCEPTIONS:
        assert [action["action_type"] for action in actions] == [UNITS.get(handler, handler)], shown
        if "body" in app or handler == "transfer":
            amount = json.loads(body).get("amount")
            if amount != "None":
                decided = actions[0]["action_details"]["amount"]
                assert str(decided) == amount or float(decided) == float(amount.strip("'")), shown
    if app == case["app"]:
        expected = expected_handler(case)
        if isinstance(expected, dict):
            expected = expected.get(place.server, expected.get("", handler))
        assert handler == expected, (expected, *shown)


# Bodies that come late, in part or not at all


by_server = pytest.mark.parametrize(
    "place",
    [
        pytest.param(place, id=place[0], marks=() if number < QUICK else (pytest.mark.slow,))
        for number, place in enumerate(PLACES)
        if place[1] == "starlette"
    ],
    indirect=True,
)
PAYLOAD = b'{"amount":1}'


def post(target, body=PAYLOAD, *, length=None, extra=b"", close=True):
    end = b"Connection: close\r\n" if close else b""
    head = b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n" % (
        target,
        len(body) if length is None else length,
    )
    return head + extra + end + b"\r\n" + body


def get(place, target):
    return read_answer(
        exchange(place.ports["life"], b"GET %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n" % target)
    )


def ran(place):
    return json.loads(get(place, b"/ran")[2])


@by_server
def test_the_lifespan_goes_through(place):
    assert json.loads(get(place, b"/state")[2]) == {"started": True}


@by_server
@pytest.mark.parametrize("target", [b"/pay", b"/stream"])
def test_the_handler_sees_the_same_bytes(place, authority, target):
    authority.mode, authority.delay = "approved", 0.0
    status, _, body = read_answer(exchange(place.ports["life"], post(target)))
    assert (status, json.loads(body)) == (200, {"len": len(PAYLOAD)})


@by_server
def test_a_streamed_response_is_whole_and_the_server_lives(place, authority):
    authority.mode, authority.delay = "approved", 0.0
    status, handler, body = read_answer(exchange(place.ports["life"], post(b"/sse")))
    assert (status, handler) == (200, "sse")
    if place.server != "gunicorn-asgi":  # it tells a handler that asks twice that its client has left, guard or not
        assert [f"tick{tick}".encode() in body for tick in range(3)] == [True] * 3
        assert b"gone" not in body
    assert get(place, b"/ping")[0] == 200


@by_server
def test_a_truncated_body_never_reaches_the_handler(place, authority):
    authority.mode, authority.delay = "approved", 0.0
    before, asked = ran(place), len(authority.actions)
    with socket.create_connection(("127.0.0.1", place.ports["life"]), 5) as connection:
        connection.sendall(post(b"/pay", length=40))
        connection.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionError):
            while connection.recv(65536):
                pass
    assert get(place, b"/ping")[0] == 200
    assert (ran(place), len(authority.actions)) == (before, asked)


@by_server
def test_a_client_that_left_during_the_decision_leaves_no_undecided_run(place, authority):
    authority.mode, authority.delay = "approved", 0.3
    before, asked = ran(place), len(authority.actions)
    with socket.create_connection(("127.0.0.1", place.ports["life"]), 5) as connection:
        connection.sendall(post(b"/pay"))
        time.sleep(0.1)
    time.sleep(0.4)
    authority.delay = 0.0
    new = ran(place)[len(before) :]
    approved = [action["action_type"] for action, mode in authority.actions[asked:] if mode == "approved"]
    assert len(new) <= len(approved) <= 1


@by_server
def test_a_body_that_stalls_is_a_timeout(place, authority):
    authority.mode, authority.delay = "approved", 0.0
    before = ran(place)
    assert read_answer(exchange(place.ports["life"], post(b"/pay", length=40)))[0] == 408
    assert ran(place) == before


@by_server
def test_a_denied_request_is_not_told_to_continue(place, authority):
    authority.mode, authority.delay = "denied", 0.0
    head, body = post(b"/admin/export", extra=b"Expect: 100-continue\r\n").split(b"\r\n\r\n")
    data = exchange(place.ports["life"], head + b"\r\n\r\n")
    if place.server == "hypercorn":  # it answers 100 by itself, before any application is asked
        assert data.startswith(b"HTTP/1.1 100")
        data = data.partition(b"\r\n\r\n")[2]
    assert b"100 Continue" not in data
    assert read_answer(data)[0] == 403
    authority.mode = "approved"
    data = exchange(place.ports["life"], head + b"\r\n\r\n", body, until=b"100 Continue\r\n\r\n")
    assert data.startswith(b"HTTP/1.1 100")
    assert read_answer(data.partition(b"\r\n\r\n")[2])[:2] == (200, "pay")


@by_server
def test_a_request_inside_an_unread_body_never_runs(place, authority):
    authority.mode, authority.delay = "denied", 0.0
    before, asked = ran(place), len(authority.actions)
    embedded = b"GET /admin/export HTTP/1.1\r\nHost: x\r\n\r\n"
    ping = b"GET /ping HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    data = exchange(place.ports["life"], post(b"/admin/export", embedded, close=False) + ping)
    assert read_answer(data)[0] == 403
    assert data.count(b"HTTP/1.1 403") == 1
    assert ran(place) == before
    assert [action["action_type"] for action, _ in authority.actions[asked:]] == ["admin.export"]
