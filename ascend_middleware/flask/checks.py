"""Checks of what is around or beside a guarded Flask application, where its guard cannot see the answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from flask import Flask
from werkzeug.middleware.dispatcher import DispatcherMiddleware

from ..problems import Problem
from ..wsgi import AscendMiddleware

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["check_application"]

# They change what the application sees or watch it, and answer nothing: the guard sees what comes out of them.
_HARMLESS: Final = frozenset({"ProxyFix", "LintMiddleware", "ProfilerMiddleware"})
# Where middlewares keep what they wrap.
_INNER: Final = ("app", "wsgi_app", "application", "_app")
_MAX_DEPTH: Final = 32


def check_application(app: Flask, is_reached_by: Callable[[Any, str], bool]) -> tuple[Problem, ...]:
    """Return what the guard of an application cannot see.

    `is_reached_by` tells whether a method, of which name, is the application's own and leads to its guard.

    The codes: `flask.unguarded-mount`, another application that is mounted beside this one and has no guard;
    `flask.around`, a middleware that may answer by itself; `flask.displaced`, another extension in the guard's place.
    """
    return tuple(_find(app, is_reached_by))


def _find(app: Flask, is_reached_by: Callable[[Any, str], bool]) -> Iterator[Problem]:
    layer: Any = app.wsgi_app
    for _ in range(_MAX_DEPTH):
        if is_reached_by(layer, "wsgi_app"):
            break
        # A method of the application itself, or of one that is mounted in it.
        layer = getattr(layer, "__self__", layer)
        if isinstance(layer, DispatcherMiddleware):
            for prefix, mounted in layer.mounts.items():
                if not _is_guarded(mounted):
                    hint = "give it an Ascend of its own, or wrap it: AscendMiddleware(…, rules=…)"
                    yield Problem("flask.unguarded-mount", f"mount {prefix}", "this application has no guard", hint)
        elif type(layer).__name__ not in _HARMLESS and not isinstance(layer, AscendMiddleware):
            name = getattr(layer, "__qualname__", None) or type(layer).__qualname__
            hint = "wrap the whole in ascend_middleware.wsgi.AscendMiddleware, if it does"
            yield Problem("flask.around", name, "what it answers by itself is not governed", hint)
        layer = _inner(layer)
        if layer is None:
            break
    for name in ("preprocess_request", "dispatch_request"):
        if not is_reached_by(getattr(app, name), name):
            hint = "initialise Ascend after the extension that wraps it"
            yield Problem("flask.displaced", f"{app.name}.{name}", "something stands in front of the guard", hint)


def _inner(layer: Any) -> Any:
    return next((inner for name in _INNER if (inner := getattr(layer, name, None)) is not None), None)


def _is_guarded(layer: Any) -> bool:
    for _ in range(_MAX_DEPTH):
        layer = getattr(layer, "__self__", layer)
        if layer is None:
            return False
        if isinstance(layer, Flask):
            return "ascend" in layer.extensions
        if isinstance(layer, AscendMiddleware):
            return True
        layer = _inner(layer)
    return False
