"""A request that was only described, as the guard of each framework would see it."""

from __future__ import annotations

import dataclasses
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_to_bytes

from ..guard import RequestView
from ..routing import Kind, Resolved
from ..rules import WEBSOCKET

if TYPE_CHECKING:
    from .applications import Application

__all__ = ["Sketch", "view_for"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sketch:
    """A request as somebody would write it down.

    Attributes:
        method: as given; `WEBSOCKET` for a handshake.
        target: path and query as they stand on the request line.
        headers: names and values, as given.
        body: whole.
    """

    method: str
    target: str
    headers: tuple[tuple[str, str], ...]
    body: bytes


def view_for(application: Application, sketch: Sketch) -> RequestView:
    """Return the request as the guard sees it in an application, below no prefix."""
    if application.outside:
        return _plain(sketch)
    if application.framework in ("FastAPI", "Starlette"):
        return _starlette(application, sketch)
    if application.framework == "Flask":
        return _flask(application, sketch)
    if application.framework == "Django":
        return _django(application, sketch)
    return _plain(sketch)


def _plain(sketch: Sketch) -> RequestView:
    raw, _, query = sketch.target.partition("?")
    method = sketch.method.upper()
    return RequestView(
        method=WEBSOCKET if method == str(WEBSOCKET) else method,
        path=unquote_to_bytes(raw).decode("utf-8", "replace"),
        raw_path=raw,
        query=query.encode("latin-1", "replace"),
        headers=_headers(sketch),
    )


def _headers(sketch: Sketch) -> list[tuple[str, str]]:
    headers = [(name.lower(), value) for name, value in sketch.headers]
    if not any(name == "host" for name, _ in headers):
        headers.insert(0, ("host", "localhost"))
    return headers


def _starlette(application: Application, sketch: Sketch) -> RequestView:
    from ..asgi.messages import RootPath, ScopeView
    from ..routing.starlette_classes import root_path_of

    plain = _plain(sketch)
    websocket = plain.method is WEBSOCKET
    scope: dict[str, Any] = {
        "type": "websocket" if websocket else "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "scheme": "ws" if websocket else "http",
        "path": plain.path,
        "raw_path": (plain.raw_path or "").encode("latin-1", "replace"),
        "query_string": plain.query,
        "root_path": root_path_of(application.app),
        "headers": [(name.encode("latin-1"), value.encode("latin-1", "replace")) for name, value in plain.headers],
        "app": application.app,
    }
    if not websocket:
        scope["method"] = plain.method
    resolver: Any = application.routes
    return ScopeView(scope, resolver.resolve(scope), RootPath(application.app, None))


def _flask(application: Application, sketch: Sketch) -> RequestView:
    from ..routing.werkzeug import method_of
    from ..wsgi.middleware import view_of

    app, resolver = application.app, application.routes
    raw, _, query = sketch.target.partition("?")
    plain = _plain(sketch)
    host = next((value for name, value in plain.headers if name == "host"), "localhost")
    options = {"method": sketch.method, "query_string": query, "headers": list(sketch.headers), "data": sketch.body}
    with app.test_request_context(plain.path, base_url=f"http://{host}", **options) as context:
        view = view_of(context.request.environ, request=context.request)
        resolved = resolver.resolve(context.request, view.path)  # type: ignore[union-attr]
    return dataclasses.replace(view, method=method_of(context.request, resolved), raw_path=raw, resolved=resolved)


def _django(application: Application, sketch: Sketch) -> RequestView:
    from django.core.handlers.wsgi import WSGIRequest
    from django.urls import Resolver404, resolve

    from ..django.request import view_of

    plain = _plain(sketch)
    raw, _, query = sketch.target.partition("?")
    environ = {
        "REQUEST_METHOD": sketch.method,
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote_to_bytes(raw).decode("latin-1"),
        "RAW_URI": sketch.target,
        "QUERY_STRING": query,
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "80",
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(sketch.body),
        "CONTENT_LENGTH": str(len(sketch.body)) if sketch.body else "",
    }
    for name, value in plain.headers:
        key = name.upper().replace("-", "_")
        environ[key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{key}"] = value
    request = WSGIRequest(environ)
    resolver: Any = application.routes
    urlconf = getattr(application.app, "urlconf", None)
    if urlconf is not None:
        request.urlconf = urlconf
    try:
        match = request.resolver_match = resolve(request.path_info, urlconf)
    except Resolver404:
        return view_of(request, Resolved(None, Kind.NOT_FOUND, {}, request.path_info))
    return view_of(request, resolver.resolve(request, match.func, match.args, match.kwargs))
