"""In the process of the server: list what is governed, deny everything, and note each governed handler that runs.

Notes are lines of JSON in a file: `routes` once the application is loaded, `asked` where the authority was asked, `ran`
for each handler that ran and may not have. Handlers are watched by their code (`sys.monitoring`, before Python 3.12
`sys.setprofile`), so that nothing of the application is changed.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import json
import os
import re
import sys
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from ...cli.applications import INNER, import_application, recognise
from ...exceptions import ConfigurationError
from ...inspection.about import Application, Sketch
from ...routing.coverage import ANY, OTHERS, Every, Standing, cover, shown_place
from ...rules import WEBSOCKET
from ..authority import ScriptedAuthority
from .watch import Handler, Watch, handlers_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ...client.http.transport import Request, Response
    from ...routing import Leaf
    from ...rules import Method

__all__ = ["APP", "DIRECTORY", "HANDLERS", "NOTES", "PATHS", "load"]

# How the process is told: the application, where it is, where to write, and paths and handlers that were named.
APP: Final = "ASCEND_BYPASS_APP"
DIRECTORY: Final = "ASCEND_BYPASS_DIRECTORY"
NOTES: Final = "ASCEND_BYPASS_NOTES"
PATHS: Final = "ASCEND_BYPASS_PATHS"
HANDLERS: Final = "ASCEND_BYPASS_HANDLERS"

_PARAMETER: Final = re.compile(r"\{\w+(?::([^{}]*))?\}|\*\*")
_TYPED: Final = {"int": "7", "float": "1.5", "uuid": "6f1a3c52-8d0e-4b7a-9c3f-2e5d7a9b1c04", "path": "a/b"}
# What a parameter may be whose type says nothing: the first with which the route is found.
_WORDS: Final = ("7", "some", _TYPED["uuid"], "a/b", "1.5", "2026", "2026-01-01", "A", "aB3", "en")
# Methods that stand for any other one.
_STAND_IN: Final = {ANY: "POST", OTHERS: "PURGE"}
_standing: Final = ExitStack()


def _note(**fields: object) -> None:
    """Write a line; several processes may do so at once."""
    file = os.open(os.environ[NOTES], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(file, json.dumps(fields).encode() + b"\n")
    finally:
        os.close(file)


class _Authority(ScriptedAuthority):
    """Denies everything, because nothing is scripted, and notes that it was asked."""

    def answer(self, request: Request) -> Response:
        """See `ScriptedAuthority`."""
        answer = super().answer(request)
        if self.asked:
            _note(asked=self.asked[-1].action_type)
            self.asked.clear()
        self.requests.clear()
        return answer


def load() -> Any:
    """Return the application that the environment names, once everything is in place."""
    name, directory = os.environ[APP], os.environ[DIRECTORY]
    try:
        _standing.enter_context(_Authority("bypass").standing_in())
        app = import_application(name, directory)
        application = recognise(app)
        if application.installed is None:
            raise ConfigurationError(f"{name} has no guard: nothing is governed until the middleware is added to it")
        rows = list(_rows(application, app))
        handlers = [one for _, found in rows for one in found]
        for named in json.loads(os.environ[HANDLERS]):
            handlers += handlers_of(import_application(named, directory), "*", route=named)
    except ConfigurationError as error:
        _note(failed=error.message)
        raise
    watch = Watch(handlers, lambda route: _note(ran=route))
    for row, found in rows:
        row["watched"] = not row["exempt"] and bool(found) and watch.sees(found)
    watch.start()
    _note(framework=application.framework, routes=[row for row, _ in rows])
    return app


# --- what is governed


def _rows(application: Application, app: Any) -> Iterator[tuple[dict[str, Any], list[Handler]]]:
    """Yield each method of each route, with the code that answers it."""
    paths = json.loads(os.environ[PATHS])
    if application.routes is None:
        yield from _rules(application, _inside(app))
        return
    table, settings = application.governed(None)
    fastapi = application.framework == "FastAPI"
    for row in cover(application.routes, table, unmapped=settings.unmapped).rows:
        for method in row.methods:
            if method == "HEAD" and "GET" in row.methods:
                continue  # one of the attacks on GET
            template = row.leaf.template if row.part in ("", "elsewhere") else row.part
            made = _row(method, shown_place(row), row.standing, host=row.leaf.host)
            tried = (one for one in (*paths, *_paths(template)) if _leads_to(application, row.leaf, made, one))
            made["path"] = next(tried, None)
            found = _handlers(row.leaf.app, made)
            yield made, found + ([replace(one, **_validating(row.leaf.app)) for one in found[:1]] if fastapi else [])


def _rules(application: Application, inner: Any) -> Iterator[tuple[dict[str, Any], list[Handler]]]:
    """Yield what the rules say, where no router can be asked: all of it is answered by one application."""
    table, _ = application.governed(None)
    for rule in table.rules:
        standing = Standing.BLOCKED if rule.block else Standing.EXEMPT if rule.exempt else Standing.GOVERNED
        for method in sorted(rule.methods, key=str):
            made = _row(ANY if method == "*" else method, rule.template.text, standing, host=None)
            made["path"] = next(_paths(rule.template.text))
            made["exempt"] = standing is Standing.EXEMPT
            yield made, [] if made["exempt"] else _handlers(inner, made, asks=True)


def _row(method: Method | Every, place: str, standing: Standing, *, host: str | None) -> dict[str, Any]:
    return {
        "method": _STAND_IN[method] if isinstance(method, Every) else str(method),
        "route": f"{method} {place}",
        "host": host or "localhost",
        "standing": str(standing),
        "exempt": standing is Standing.EXEMPT,
        "websocket": method is WEBSOCKET,
    }


def _handlers(target: Any, row: dict[str, Any], **more: bool) -> list[Handler]:
    return handlers_of(target, row["method"], route=row["route"], exempt=row["exempt"], **more)


def _validating(endpoint: Any) -> dict[str, Any]:
    """Return what FastAPI runs before a handler: what it refuses by itself (422) shows no hole, but is behind one."""
    return {"code": sys.modules["fastapi.dependencies.utils"].solve_dependencies.__code__, "owner": endpoint}


def _paths(template: str) -> Iterator[str]:
    """Yield paths that a template may match, each once."""
    yield from dict.fromkeys(_PARAMETER.sub(functools.partial(_filled, word=word), template) for word in _WORDS)


def _filled(found: re.Match[str], *, word: str) -> str:
    return _TYPED.get(found[1] or "", word)


def _leads_to(application: Application, leaf: Leaf, row: dict[str, Any], path: str) -> bool:
    """Whether the framework finds the route at a path; where it cannot be asked, any path may be right."""
    sketch = Sketch(method=row["method"], target=path, headers=(("host", row["host"]),), body=b"")
    with contextlib.suppress(Exception):  # whatever a router thinks of a path
        resolved = application.view(sketch).resolved
        return resolved is None or resolved.leaf is leaf
    return False


def _inside(app: Any) -> Any:
    """Return what the guard stands around."""
    found = app
    while not hasattr(found, "guard"):
        found = next(inner for name in INNER if (inner := getattr(found, name, None)) is not None)
    return found.app


# --- the server, where none was named


def main(port: int) -> None:
    """Serve with a usual server: uvicorn for ASGI; waitress, or what comes with Python, for WSGI."""
    app = load()
    if inspect.iscoroutinefunction(app) or inspect.iscoroutinefunction(getattr(app, "__call__", None)):  # noqa: B004
        import uvicorn

        uvicorn.run(app, port=port, log_level="warning")
        return
    try:
        import waitress
    except ImportError:
        from wsgiref.simple_server import make_server

        make_server("127.0.0.1", port, app).serve_forever()
    else:
        waitress.serve(app, listen=f"127.0.0.1:{port}")


if __name__ == "__main__":
    main(int(sys.argv[1]))
