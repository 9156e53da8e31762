"""One small application behind every adapter but Django's, and requests spelt byte by byte."""

import asyncio
import json
import warnings

import a2wsgi
import flask
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

from ascend_middleware.asgi import AscendMiddleware
from ascend_middleware.flask import Ascend
from ascend_middleware.wsgi import AscendMiddleware as WSGIMiddleware

from .asgi import Wire, http_scope, part
from .wsgi import Call, environ

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it is deprecated, and still used
    from starlette.middleware.wsgi import WSGIMiddleware as StarletteWSGIMiddleware


def table(rules):
    return {"ascend": {"report_outcomes": False}, "rule": rules}


class _OverASGI:
    """`ran` gets what the handler was given: method, path and body. `template` is that of what stands at /pay."""

    template = "/pay"

    def ask(self, method, path, *, headers=(), body=b"", query=b"", raw_path=None):
        """Return the status and the problem document, or None."""
        length = (("content-length", str(len(body))),) if body else ()
        scope = http_scope(method, path, headers=[("host", "site"), *length, *headers], query=query)
        scope["raw_path"] = path.encode() if raw_path is None else raw_path
        wire = asyncio.run(asyncio.wait_for(Wire(part(body)).through(self.app, scope), 10))
        return wire.status, wire.json


class PlainASGI(_OverASGI):
    def __init__(self, rules, ran, **settings):
        self.app = AscendMiddleware(handler_of(ran), rules=table(rules), **settings)


class OpaqueMount(_OverASGI):
    """One unit: the same rules, for all of it."""

    template = "/**"

    def __init__(self, rules, ran, **settings):
        rules = [{**rule, "match": f"{rule['match'].partition(' ')[0]} /**"} for rule in rules]
        self.app = Starlette(routes=[Mount("/", app=handler_of(ran))])
        self.app.add_middleware(AscendMiddleware, rules=table(rules), **settings)


class StarletteRoute(_OverASGI):
    def __init__(self, rules, ran, **settings):
        class Endpoint:
            """An ASGI application as an endpoint: it takes any method."""

            __call__ = staticmethod(handler_of(ran))

        self.app = Starlette(routes=[Route("/pay", Endpoint()), Route("/items/{name:path}", Endpoint())])
        self.app.add_middleware(AscendMiddleware, rules=table(rules), **settings)


class WSGIBelowASGI(_OverASGI):
    adapter = staticmethod(a2wsgi.WSGIMiddleware)

    def __init__(self, rules, ran, **settings):
        self.app = AscendMiddleware(self.adapter(wsgi_handler_of(ran)), rules=table(rules), **settings)


class OldWSGIBelowASGI(WSGIBelowASGI):
    adapter = StarletteWSGIMiddleware


class GuardBelowASGI(_OverASGI):
    """The WSGI middleware, under an adapter that leaves it the ASGI scope."""

    def __init__(self, rules, ran, **settings):
        self.app = a2wsgi.WSGIMiddleware(WSGIMiddleware(wsgi_handler_of(ran), rules=table(rules), **settings))


class PlainWSGI:
    template = "/pay"

    def __init__(self, rules, ran, **settings):
        self.app = WSGIMiddleware(wsgi_handler_of(ran), rules=table(rules), **settings)

    def ask(self, method, path, *, headers=(), body=b"", query=b"", raw_path=None):
        more = {} if raw_path is None else {"RAW_URI": raw_path.decode("latin-1")}
        given = {"query": query.decode("latin-1"), "headers": [("host", "site"), *headers], "content": body or None}
        call = Call(self.app, environ(method, path, **given, **more))
        return call.status, json.loads(call.body) if call.body.startswith(b"{") else None


class Flask(PlainWSGI):
    def __init__(self, rules, ran, **settings):
        app = flask.Flask("site")
        app.url_map.merge_slashes = False

        def view(**_):
            request = flask.request
            ran.append((request.method, request.path, request.get_data()))
            return "done"

        methods = ["GET", "POST", "PUT", "DELETE", "WEBSOCKET"]
        app.add_url_rule("/pay", "pay", view, methods=methods)
        app.add_url_rule("/items/<path:name>", "items", view, methods=methods)
        Ascend(app, rules=table(rules), **settings)
        self.app = app


ON_ASGI = [PlainASGI, OpaqueMount, StarletteRoute, WSGIBelowASGI, OldWSGIBelowASGI, GuardBelowASGI]
EVERY = [*ON_ASGI, PlainWSGI, Flask]


def handler_of(ran):
    async def handler(scope, receive, send):
        if scope["type"] == "http":
            request = Request(scope, receive)
            ran.append((scope["method"], scope["path"], await request.body()))
            await PlainTextResponse("done")(scope, receive, send)

    return handler


def wsgi_handler_of(ran):
    def handler(environ, start_response):
        length = int(environ.get("CONTENT_LENGTH") or 0)
        body = environ["wsgi.input"].read(length)
        ran.append((environ["REQUEST_METHOD"], environ["PATH_INFO"], body))
        start_response("200 OK", [("content-type", "text/plain")])
        return [b"done"]

    return handler
