"""Scopes, root paths and refusals in ASGI messages, one by one."""

import logging

import pytest
from kit.asgi import Wire, http_scope, ws_scope
from starlette.applications import Starlette

from ascend_middleware.asgi.messages import Body, RootPath, ScopeView, refuse
from ascend_middleware.exceptions import ConfigurationError
from ascend_middleware.guard import Refusal, Verdict
from ascend_middleware.rules import WEBSOCKET

pytestmark = pytest.mark.anyio


async def foreign(scope, receive, send): ...


def read(root_path, path, root):
    return root_path.read({"path": path, "root_path": root})


@pytest.mark.parametrize("strips", [None, True])
@pytest.mark.parametrize(
    ("path", "root", "below", "findings"),
    [
        ("/a", "", "/a", ()),
        ("/a", None, "/a", ()),
        ("/a", "/", "/a", ()),
        ("*", "", "*", ()),
        ("/api/a", "/api", "/a", ()),
        ("/api/a", "/api/", "/a", ()),
        ("/api", "/api", "/", ()),
        ("/api/", "/api", "/", ()),
        ("/a", "/api", "/a", ()),
        ("/apia", "/api", "/apia", ("root-path",)),
        ("/public/api/a", "/api", "/public/api/a", ("root-path",)),
    ],
)
def test_a_root_path_is_taken_off(path, root, below, findings, strips):
    assert read(RootPath(foreign, strips), path, root) == (below, None, findings)


def test_an_application_that_strips_nothing_reads_it_all():
    assert read(RootPath(foreign, False), "/api/a", "/api") == ("/api/a", None, ())


def test_where_the_server_does_not_put_it_before_the_path_what_begins_so_is_doubtful(caplog):
    unknown = RootPath(foreign, None)
    assert read(unknown, "/api/a", "/api") == ("/a", None, ())
    for _ in range(2):
        assert read(unknown, "/a", "/api") == ("/a", None, ())
    assert read(unknown, "/api/a", "/api") == ("/a", "/api/a", ())
    assert read(unknown, "/api/a", "") == ("/api/a", None, ())
    assert caplog.text.count("does not put its root path '/api' before the path") == 1


@pytest.mark.parametrize("known", [RootPath(foreign, True), RootPath(Starlette(), None)])
def test_who_is_known_to_strip_it_leaves_no_doubt(known, caplog):
    for path, below in (("/a", "/a"), ("/api/a", "/a")):
        assert read(known, path, "/api") == (below, None, ())
    assert caplog.text == ""


def test_what_only_looks_like_it_says_nothing_of_the_server(caplog):
    unknown = RootPath(foreign, None)
    read(unknown, "/apia", "/api")
    assert read(unknown, "/api/a", "/api") == ("/a", None, ())
    assert caplog.text == ""


@pytest.mark.parametrize("strips", [0, 1, "yes", [], ()])
def test_whether_it_strips_is_true_or_false(strips):
    with pytest.raises(ConfigurationError, match="strips_root_path is true, false or not given"):
        RootPath(foreign, strips)


def view(scope, **more):
    return ScopeView(scope, None, RootPath(foreign, None), **more)


def test_a_scope_is_decoded_when_somebody_asks():
    scope = http_scope("post", "/a", headers=[("X_A", b"\xe9"), ("Host", "x")], query=b"q=1", root_path="/r ü")
    scope["raw_path"] = b"/a%20?x=1"
    found = view(scope)
    assert (found.method, found.path, found.raw_path, found.query) == ("POST", "/a", "/a%20", b"q=1")
    assert found.headers == [("x_a", "é"), ("host", "x")]
    assert found.header_names == {"x-a", "host"}
    assert found.prefix == "/r%20%C3%BC"
    assert found.request is scope
    assert view(ws_scope("/a")).method is WEBSOCKET


def test_a_server_may_say_less():
    found = view({"type": "http", "method": "GET", "path": "/a"})
    assert (found.raw_path, found.query, found.headers, found.prefix) == (None, b"", [], "")
    assert found.header_names == {""} and not found.may_have_body


@pytest.mark.parametrize(
    ("version", "headers", "may"),
    [
        ("1.1", [], False),
        ("1.0", [], False),
        ("1.1", [("content-length", "0")], False),
        ("1.1", [("content-length", "1")], True),
        ("1.1", [("transfer-encoding", "chunked")], True),
        ("2", [], True),
        ("3", [], True),
        ("2", [("content-length", "0")], False),
        ("2", [("content-length", "1")], True),
    ],
)
def test_from_http_2_on_a_body_need_not_be_announced(version, headers, may):
    assert view(http_scope("POST", "/", headers=headers, http_version=version)).may_have_body is may


@pytest.mark.parametrize(("path", "ordinary"), [("/a", True), ("/x/api", False)])
def test_what_the_root_path_makes_doubtful_is_not_ordinary(path, ordinary):
    assert view(http_scope("GET", path, root_path="/api"), is_ordinary=True).is_ordinary is ordinary
    assert not view(http_scope("GET", path, root_path="/api")).is_ordinary


REFUSED = Verdict(outcome="blocked", passes=False, refusal=Refusal(problem="blocked", detail="closed"))


async def test_a_refusal_over_http():
    wire = Wire()
    await refuse(http_scope("GET", "/"), wire.receive, wire.send, REFUSED)
    assert (wire.status, wire.problem, wire.received) == (403, "blocked", 0)
    wire = Wire()
    await refuse(http_scope("HEAD", "/"), wire.receive, wire.send, REFUSED)
    assert (wire.status, wire.body) == (403, b"")


@pytest.mark.parametrize("extensions", [None, {}, {"websocket.http.response": {}}])
async def test_a_refusal_of_a_handshake(extensions):
    wire = Wire({"type": "websocket.connect"})
    scope = {**ws_scope(), "extensions": extensions}
    await refuse(scope, wire.receive, wire.send, REFUSED)
    if extensions:
        assert [one["type"] for one in wire.sent] == ["websocket.http.response.start", "websocket.http.response.body"]
        assert (wire.status, wire.problem, wire.received) == (403, "blocked", 0)
    else:
        assert wire.sent == [{"type": "websocket.close", "code": 1008, "reason": "blocked"}]


async def test_who_left_is_refused_nothing():
    wire = Wire({"type": "websocket.disconnect", "code": 1006})
    await refuse({**ws_scope(), "extensions": {}}, wire.receive, wire.send, REFUSED)
    await refuse(http_scope(), wire.receive, wire.send, Verdict(outcome="gone", passes=False))
    assert wire.sent == []


async def test_a_handshake_has_no_body():
    wire = Wire()
    body = Body(wire.receive, websocket=True)
    assert await body.read(0, 0.01) == b""
    assert await body.watch(0.01, limit=0) is False
    assert wire.received == 0


@pytest.fixture(autouse=True)
def warnings(caplog):
    caplog.set_level(logging.WARNING)
