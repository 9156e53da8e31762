"""Ends and edges of the adapters: paths inside parameters, refused HEAD, a broken start, a close that raises."""

import asyncio
import os

import pytest
from fastapi import FastAPI
from kit import wsgi
from kit.apps import EVERY
from kit.asgi import Handler, Wire, http_scope, part
from kit.engine import options
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route
from starlette.testclient import TestClient

from ascend_middleware import Agent
from ascend_middleware.asgi import AscendMiddleware
from ascend_middleware.exceptions import ConfigurationError
from ascend_middleware.wsgi import AscendMiddleware as WSGIMiddleware


def ask(app, path, raw=None, **more):
    scope = {**http_scope("GET", path, **more), "raw_path": path.encode() if raw is None else raw}
    return asyncio.run(Wire(part()).through(app, scope))


def site(ran, *paths, kind=Starlette):
    def run(request):
        ran.append(request.path_params)
        return PlainTextResponse("done")

    app = kind(
        routes=[Mount("/sub", routes=[Route(path, run) for path in paths]), *(Route(path, run) for path in paths)]
    )
    app.add_middleware(AscendMiddleware, rules={"rule": [{"match": "* /**", "action_type": "act"}]})
    return app


@pytest.mark.parametrize(
    ("template", "path", "raw", "root", "found"),
    [
        # An encoded slash inside the rest, and before it.
        ("/files/{rest:path}", "/files/a/b", b"/files/a%2Fb", "", None),
        ("/files/{rest:path}", "/files/a/b", b"/files%2Fa/b", "", "encoded-separator"),
        ("/files/{rest:path}", "/sub/files/a/b", b"/sub/files/a%2fb", "", None),
        ("/files/{rest:path}", "/sub/files/a/b", b"/sub%2ffiles/a/b", "", "encoded-separator"),
        # In one segment no slash can be bound, wherever the router found one.
        ("/one/{name}/two/{other}", "/one/a/two/b", b"/one%2Fa/two/b", "", "encoded-separator"),
        ("/one/{name}", "/one/a%", b"/one/a%25", "", None),
        ("/one%/{name}", "/one%/a", b"/one%25/a", "", "encoded-separator"),
        # Two parameters in a segment: which of them it is in, nobody can say.
        ("/range/{low}-{high}", "/range/1%-2", b"/range/1%25-2", "", "encoded-separator"),
        ("/range/{low}-{high}", "/range/1-2", b"/range/1-2", "", None),
        # Below a prefix that the server puts in front, or not.
        ("/files/{rest:path}", "/api/files/a/b", b"/api/files/a%2Fb", "/api", None),
        ("/files/{rest:path}", "/api/files/a/b", b"/api%2Ffiles/a/b", "/api", "encoded-separator"),
        ("/one/{name}", "/api/one/a%", b"/api/one/a%25", "/api", None),
        # The slash makes one segment less of the raw path; the prefix stands for none of the template's.
        ("/{name}/{rest:path}", "/api/a/b/c", b"/api/a%2fb/c", "/api", "encoded-separator"),
        ("/{name}/{rest:path}", "/api/a/b/c", b"/api/a/b%2fc", "/api", None),
    ],
)
def test_where_an_encoded_slash_or_percent_may_be(ascend_authority, ran, template, path, raw, root, found):
    ascend_authority.approve()
    wire = ask(site(ran, template), path, raw, root_path=root)
    if found is None:
        assert (wire.status, len(ran)) == (200, 1)
    else:
        assert (wire.status, wire.problem, ran) == (400, "bad-request", [])


@pytest.mark.parametrize("path", ["//pay", "/pay//", "/items//a", "/items/a//"])
@pytest.mark.parametrize("party", EVERY)
def test_an_empty_segment_runs_nothing(ascend_authority, ran, party, path):
    ascend_authority.approve()
    guarded = party([{"match": "* /**", "action_type": "act"}], ran)
    assert guarded.ask("POST", path, raw_path=path.encode())[0] in (400, 404)
    # Where the server hides the raw target, too.
    assert guarded.ask("POST", path)[0] in (400, 404)
    assert ran == []


@pytest.mark.parametrize("party", EVERY)
def test_what_has_a_rule_goes_by_it_where_the_rest_goes_by_its_method(ascend_authority, ran, party):
    ascend_authority.approve()
    guarded = party([{"match": "GET /pay", "block": "closed"}], ran, unmapped="by-method")
    assert guarded.ask("GET", "/pay")[1]["type"].endswith(":blocked")
    assert (ran, ascend_authority.asked) == ([], [])


@pytest.mark.parametrize("details", [None, {}, {"amount": "query.amount?"}, {"amount": "body.amount?"}])
@pytest.mark.parametrize(("agent", "name"), [(Agent("bot-7"), "bot-7"), (Agent("bot-7", "Seven"), "Seven")])
@pytest.mark.parametrize("party", EVERY)
def test_an_agent_without_a_name_goes_by_its_id(ascend_authority, ran, party, agent, name, details):
    ascend_authority.approve()
    rule = {"match": "POST /pay", "action_type": "act"}
    rules = [rule if details is None else {**rule, "details": details}]
    guarded = party(rules, ran, identify=lambda request: agent)
    assert guarded.ask("POST", "/pay", body=b"{}", headers=[("content-type", "application/json")])[0] == 200
    (asked,) = ascend_authority.asked
    assert (asked.body["agent_id"], asked.body["agent_name"]) == ("bot-7", name)


@pytest.mark.parametrize("party", EVERY)
def test_a_refused_head_has_no_body(ascend_authority, ran, party):
    guarded = party([{"match": "GET /pay", "action_type": "act"}], ran)
    status, problem = guarded.ask("HEAD", "/pay")
    assert (status, problem, ran) == (403, None, [])


@pytest.mark.parametrize("kind", [Starlette, FastAPI])
def test_a_broken_configuration_serves_nothing_where_no_lifespan_comes(ran, kind):
    app = site(ran, "/x", kind=kind)
    app.user_middleware[:] = [Middleware(AscendMiddleware, **options([{"match": "GET x"}]))]
    for _ in range(2):
        wire = Wire(part())
        with pytest.raises(ConfigurationError):
            asyncio.run(wire.through(app, http_scope("GET", "/x")))
        assert ran == []
        assert wire.status in (None, 500)


@pytest.mark.parametrize("kind", [Starlette, FastAPI])
def test_a_test_client_hears_of_a_broken_configuration(kind):
    app = site([], "/x", kind=kind)
    app.user_middleware[:] = [Middleware(AscendMiddleware, **options([{"match": "GET x"}]))]
    with pytest.raises(ConfigurationError), TestClient(app):
        raise AssertionError("it started")


def test_the_server_hears_of_the_end_when_closing_raises(ascend_authority):
    async def application(scope, receive, send):
        for kind in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{kind}.complete"})

    class Broken(AscendMiddleware):
        async def aclose(self):
            raise OSError("the disk is gone")

    app = Broken(application, rules={"rule": [{"match": "GET /x", "exempt": True}]})
    wire = Wire({"type": "lifespan.startup"}, {"type": "lifespan.shutdown"})
    with pytest.raises(OSError, match="disk"):
        asyncio.run(wire.through(app, {"type": "lifespan", "asgi": {"version": "3.0"}}))
    assert [message["type"] for message in wire.sent] == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


def files_below(place):
    links = (f"/proc/self/fd/{number}" for number in os.listdir("/proc/self/fd"))
    return [where for where in (os.readlink(link) for link in links if os.path.islink(link)) if where.startswith(place)]


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="shows which files are open as Linux does")
@pytest.mark.parametrize("kind", ["asgi", "wsgi"])
def test_who_closes_a_guard_has_no_file_open(engine, tmp_path, kind):
    given = {"state": str(tmp_path / "state.db"), "journal": str(tmp_path / "journal")}
    rules = [{"match": "GET /pay", "action_type": "pay"}]
    if kind == "wsgi":
        app = WSGIMiddleware(wsgi.Handler(), **options(rules, **given))
        assert wsgi.Call(app, wsgi.environ("GET", "/pay")).status == 200
        assert files_below(str(tmp_path))
        app.close()
    else:

        async def run():
            app = AscendMiddleware(Handler(), **options(rules, **given))
            assert (await Wire(part()).through(app, http_scope("GET", "/pay"))).status == 200
            assert files_below(str(tmp_path))
            await app.aclose()

        asyncio.run(run())
    assert files_below(str(tmp_path)) == []
