"""Install the guard in a Flask application: between its router and the first of its own functions.

Four of the application's methods are replaced, by a class that is put in front of the application's own. As methods
they hold the application where somebody keeps one (`create_app().wsgi_app`), and it does not hold itself: one that
nobody holds any more is freed at once, as Flask's own are. `preprocess_request` decides, before any `before_request`
function and any URL value preprocessor, whenever and wherever they were registered, or after the one that is named.
`dispatch_request` lets a view run only on what was decided about. `process_response` lets a refusal out, whatever
becomes of `after_request` functions. `wsgi_app` sees how the response ends.
"""

from __future__ import annotations

import functools
import uuid
import weakref
from typing import TYPE_CHECKING, Any, Final

import flask
import msgspec
from werkzeug.middleware.dispatcher import DispatcherMiddleware

from ..adapters.decorator import VERDICT
from ..adapters.outcome import HandledRequest, changed_request, report_undecided
from ..adapters.runner import Sight
from ..exceptions import AscendError
from ..guard import BodyTooLarge, Verdict, announce, answer_of
from ..masking import get_logger
from ..problems import Problem
from ..routing.werkzeug import FlaskResolver, method_of
from ..wsgi.middleware import AscendMiddleware as WSGIMiddleware
from ..wsgi.middleware import Body, EnvironView, decoded_path, is_ordinary, run_reported

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from wsgiref.types import StartResponse, WSGIEnvironment

    from ..adapters.runner import SyncRunner
    from ..guard import Guard
    from ..routing import Resolved

logger = get_logger("ascend_middleware.flask")


class _Guarded:
    """What an application's class gets put in front of it."""

    _ascend_guard: AppGuard

    def __init_subclass__(cls, **options: Any) -> None:
        """Tell no base class: some keep a list of their subclasses, or check what those define."""

    def wsgi_app(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Run the application, and see how its response ends."""
        guard = self._ascend_guard
        own: Any = super()
        if not guard.is_announced:
            guard.announce()
        handled = environ[guard.key] = HandledRequest(guard.runner)
        inner = guard.replaced.get("wsgi_app") or own.wsgi_app
        return run_reported(handled, inner, environ, start_response, on_success=guard.watch)

    def preprocess_request(self, *arguments: Any) -> Any:
        """Decide, then run the application's own functions; what is returned is answered instead of the view."""
        guard = self._ascend_guard
        own: Any = super()
        request: flask.Request = flask.request._get_current_object()  # type: ignore[attr-defined]
        handled: Any = request.environ.get(guard.key)
        if handled is None:
            # Where somebody calls the application's methods one by one, there is no response to see the end of.
            handled = request.environ[guard.key] = HandledRequest(guard.runner)
        handled.verdict = None
        refusal = None if guard.after is not None and guard.decides_after() else guard.decide(request, handled)
        if refusal is not None:
            return refusal
        answer = (guard.replaced.get("preprocess_request") or own.preprocess_request)(*arguments)
        if answer is None:
            # Another blueprint's, where the function that is named did not run, is decided about now.
            return guard.decide(request, handled) if handled.verdict is None else None
        if handled.verdict is not None and (not handled.verdict.passes or handled.subject.rule is not None):
            return answer
        # A function of the application answers though nothing was decided, or where the router found nothing.
        response = guard.app.make_response(answer)
        if response.status_code >= 300:
            return response
        refusal = guard.decide(request, handled, by_path=handled.verdict is not None)
        handled.ran = True  # that function is what was decided about
        return refusal or response

    def dispatch_request(self, *arguments: Any) -> Any:
        """Run the view, if a verdict let it pass and it still is what the verdict was about."""
        guard = self._ascend_guard
        own: Any = super()
        request: flask.Request = flask.request._get_current_object()  # type: ignore[attr-defined]
        handled = request.environ.get(guard.key)
        if handled is None or handled.verdict is None or not handled.verdict.passes:
            raise AscendError("no decision for this request: the application's preprocess_request was replaced")
        if _is_changed(handled.subject, request, self):
            logger.error("the application changed %r after the decision; refused", request.path[:200])
            return guard.refuse(changed_request())
        # What the application does before the view may wait for the client, too.
        refused = guard.runner.look(handled.verdict)
        if refused is not None:
            return guard.refuse(refused)
        handled.ran = True
        return (guard.replaced.get("dispatch_request") or own.dispatch_request)(*arguments)

    def process_response(self, *arguments: Any) -> Any:
        """Run the application's `after_request` functions; a refusal goes out, also where one of them fails.

        They may need what a `before_request` function did not come to set.
        """
        guard = self._ascend_guard
        own: Any = super()
        try:
            return (guard.replaced.get("process_response") or own.process_response)(*arguments)
        except Exception:
            handled = flask.request.environ.get(guard.key)
            if handled is None or handled.verdict is None or handled.verdict.passes:
                raise
            logger.warning("an after_request function failed at a refusal, which goes out as it is", exc_info=True)
            return arguments[-1]


_METHODS: Final = ("wsgi_app", "preprocess_request", "dispatch_request", "process_response")


def _guarded(own: Any) -> type[Any]:
    """Return the class that is put in front of an application's own; no table holds it."""
    known: type[Any]
    for known in own.__subclasses__():
        if known.__bases__ == (_Guarded, own):
            return known
    names = {name: getattr(own, name) for name in ("__module__", "__qualname__", "__doc__")}
    kind: Any = type(own)
    guarded: type[Any] = kind(own.__name__, (_Guarded, own), names)
    return guarded


class AppGuard:
    """The guard of one application.

    `replaced` is what had replaced methods of the application before, by name: it comes next. `key` is where a
    request's environ has what is known of it; `after` is the function after which to decide, or its dotted path.
    """

    def __init__(self, app: flask.Flask, runner: SyncRunner, *, after: Any = None) -> None:
        self._app = weakref.ref(app)
        self.resolver = FlaskResolver(weakref.proxy(app))  # type: ignore[arg-type]  # it reads as one
        self.runner = runner
        self.after = after
        self._missed: str | None = None
        self.key = f"ascend_middleware.handled.{id(self)}"
        self.is_announced = False
        attributes: dict[str, Any] = vars(app)
        # A class's methods come after an object's attributes.
        self.replaced: dict[str, Any] = {name: attributes.pop(name) for name in _METHODS if name in attributes}
        attributes["_ascend_guard"] = self
        app.__class__ = _guarded(type(app))

    def close(self) -> None:
        """Close this process's connections and deliver the outcomes that wait."""
        self.runner.close()

    @property
    def app(self) -> flask.Flask:
        """The application."""
        app = self._app()
        assert app is not None  # noqa: S101 - it is what calls
        return app

    def is_reached_by(self, method: Any, name: str) -> bool:
        """Whether this is the application's method of that name, and leads here."""
        function = getattr(method, "__func__", None)
        return function is getattr(_Guarded, name) and method.__self__ is self.app

    @property
    def guard(self) -> Guard:
        """What decides."""
        return self.runner.guard

    def decide(
        self, request: flask.Request, handled: HandledRequest, *, by_path: bool = False
    ) -> flask.Response | None:
        """Decide about a request, and return the refusal of one that does not pass."""
        environ, rule = request.environ, request.url_rule
        resolved = self.resolver.resolve(request, decoded_path(environ))
        handled.subject = _Subject(request.method, rule, resolved.params, _view_of(rule, self.app))
        is_plain = is_ordinary(environ) and not (by_path or (rule is not None and rule.websocket))
        method = request.method if is_plain else None
        verdict = handled.verdict = self.runner.judge(_SIGHT, request, None if by_path else resolved, method)
        if not verdict.passes:
            return self.refuse(verdict)
        environ[VERDICT] = verdict
        flask.g._get_current_object().ascend = verdict  # a proxy takes twice the time
        handled.ran = False  # until the view is called; what comes before it may answer by itself
        return None

    def decides_after(self) -> bool:
        """Say whether the decision comes after a function of the application; put it there, if that is new."""
        places = [
            (functions, at, function)
            for functions in self.app.before_request_funcs.values()
            for at, function in enumerate(functions)
        ]
        if any(getattr(function, self.key, False) for *_, function in places):
            return True
        # A function within an application factory goes by its own name, too, where there is one such.
        short = [place for place in places if _short_name(place[2]) == self.after]
        exact = [place for place in places if self.after in (place[2], _name(place[2]))]
        for functions, at, function in exact or (short if len(short) == 1 else []):
            functions[at] = self._followed(function)
            return True
        text = "after = %r names no before_request function of %r, or several (of: %s); the guard decides before all"
        known = ", ".join(_name(function) for *_, function in places) or "none"
        if known != self._missed:  # said once, not at each request
            self._missed = known
            logger.error(text, self.after, self.app.name, known)
        return False

    def _followed(self, function: Any) -> Any:
        """Return the function with the decision behind it."""

        @functools.wraps(function)
        def followed() -> Any:
            answer = flask.current_app.ensure_sync(function)()
            request: flask.Request = flask.request._get_current_object()  # type: ignore[attr-defined]
            handled = request.environ[self.key]
            if answer is not None or handled.verdict is not None:
                return answer
            return self.decide(request, handled)

        setattr(followed, self.key, True)
        return followed

    def refuse(self, verdict: Verdict) -> flask.Response:
        """Return the answer to a request that does not pass."""
        status, headers, content = answer_of(verdict, self.guard.render)
        return self.app.response_class(content, status, headers)

    def announce(self) -> None:
        """Say once, at the first request, which routes nothing covers and what the guard cannot see."""
        self.runner.start()  # of an application that was made to be looked at, every request ends here
        self.is_announced = True
        if not self.guard.settings.enabled:
            return
        announce(self.resolver, self.guard.table, self.guard.settings)
        for problem in check_application(self.app, self.is_reached_by):
            logger.warning("%s: %s", problem.code, problem)

    def watch(self, handled: HandledRequest) -> None:
        """Report a success without a decision."""
        is_routed = handled.verdict is not None and handled.subject.rule is not None
        # With a route at hand, what the framework answered is a question for the methods of that route.
        if is_routed or not handled.is_undecided:
            return
        why = "no route was found for it" if handled.verdict else "it was answered before the guard saw it"
        report_undecided(self.guard, logger, f"a request to {self.app.name!r}", why)


def _name(function: Any) -> str:
    return f"{function.__module__}.{getattr(function, '__qualname__', '')}"


def _short_name(function: Any) -> str:
    return f"{function.__module__}.{getattr(function, '__name__', '')}"


def _read_body(request: flask.Request, limit: int, seconds: float) -> bytes:
    """Read the whole body and leave the view the same; see the step `ReadBody`."""
    if "stream" not in vars(request):
        return Body(request.environ).read(limit, seconds)
    # Something has begun to read already; what it kept is what the view will get.
    content = request.get_data()
    if len(content) > limit:
        raise BodyTooLarge
    if not content and request.content_length != 0:
        raise ValueError("The body was read before it could be judged.")
    return content


def _view(request: flask.Request, resolved: Resolved | None) -> EnvironView:
    view = EnvironView(request.environ, resolved=resolved, request=request)
    view.method = request.method if resolved is None else method_of(request, resolved)
    return view


_SIGHT: Final = Sight(_view, _read_body)


class _Subject(msgspec.Struct, frozen=True, eq=False):
    """What a decision is about: what Flask found, and the function that it calls for it."""

    method: str
    rule: Any
    params: Mapping[str, Any]
    view: Any


def _view_of(rule: Any, app: Any) -> Any:
    return None if rule is None else app.view_functions.get(rule.endpoint)


def _is_changed(before: _Subject, request: flask.Request, app: Any) -> bool:
    """Say whether the application changed what was decided about.

    It may take parameters away, add some, and put an object in the place of what names it.
    """
    rule = before.rule
    if before.method != request.method or rule is not request.url_rule or before.view is not _view_of(rule, app):
        return True
    given = request.view_args or {}
    for name, value in before.params.items():
        now = given.get(name)
        if now is not value and isinstance(now, str | int | float | uuid.UUID) and str(now) != str(value):
            return True
    return False


# --- what the guard cannot see

# They change what the application sees or watch it, and answer nothing: the guard sees what comes out of them.
_HARMLESS: Final = frozenset({"ProxyFix", "LintMiddleware", "ProfilerMiddleware"})
# Where middlewares keep what they wrap.
_INNER: Final = ("app", "wsgi_app", "application", "_app")
_MAX_DEPTH: Final = 32


def check_application(app: flask.Flask, is_reached_by: Callable[[Any, str], bool]) -> tuple[Problem, ...]:
    """Return what the guard of an application cannot see.

    `is_reached_by` tells whether a method, of which name, is the application's own and leads to its guard.

    The codes: `flask.unguarded-mount`, another application that is mounted beside this one and has no guard;
    `flask.around`, a middleware that may answer by itself; `flask.displaced`, another extension in the guard's place.
    """
    return tuple(_find(app, is_reached_by))


def _find(app: flask.Flask, is_reached_by: Callable[[Any, str], bool]) -> Iterator[Problem]:
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
        elif type(layer).__name__ not in _HARMLESS and not isinstance(layer, WSGIMiddleware):
            name = getattr(layer, "__qualname__", None) or type(layer).__qualname__
            hint = "wrap the whole in ascend_middleware.wsgi.AscendMiddleware, if it does"
            yield Problem("flask.around", name, "what it answers by itself is not governed", hint)
        # Another application is named once: what it leads to is itself.
        layer = None if isinstance(layer, flask.Flask) else _inner(layer)
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
        if isinstance(layer, flask.Flask):
            return "ascend" in layer.extensions
        if isinstance(layer, WSGIMiddleware):
            return True
        layer = _inner(layer)
    return False
