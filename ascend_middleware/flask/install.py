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
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import flask

from ..adapters.decorator import VERDICT
from ..adapters.outcome import HandledRequest, changed_request, report_undecided
from ..exceptions import AscendError
from ..guard import BodyTooLarge, Verdict, announce, answer_of
from ..masking import get_logger
from ..routing.werkzeug import FlaskResolver, method_of
from ..wsgi.messages import Body, view_of
from ..wsgi.middleware import run_reported
from .checks import check_application

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from wsgiref.types import StartResponse, WSGIEnvironment

    from ..adapters.runner import SyncRunner
    from ..guard import Guard

__all__ = ["AppGuard"]

logger = get_logger("ascend_middleware.flask")


class _Guarded:
    """What an application's class gets put in front of it."""

    _ascend_guard: AppGuard

    def __init_subclass__(cls, **options: Any) -> None:
        """Tell no base class: some keep a list of their subclasses, or check what those define."""

    def wsgi_app(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Run the application, and see how its response ends."""
        return self._ascend_guard.serve(environ, start_response)

    def preprocess_request(self, *arguments: Any) -> Any:
        """Decide before the application's own functions."""
        return self._ascend_guard.preprocess(*arguments)

    def dispatch_request(self, *arguments: Any) -> Any:
        """Run the view on what was decided about."""
        return self._ascend_guard.dispatch(*arguments)

    def process_response(self, *arguments: Any) -> Any:
        """Let a refusal out."""
        return self._ascend_guard.finish(*arguments)


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
    """The guard of one application."""

    def __init__(self, app: flask.Flask, runner: SyncRunner, *, after: Any = None) -> None:
        self._app = weakref.ref(app)
        self.resolver = FlaskResolver(weakref.proxy(app))  # type: ignore[arg-type]  # it reads as one
        self._runner = runner
        self._after = after
        self._missed: str | None = None
        self._key = f"ascend_middleware.handled.{id(self)}"
        self._announced = False
        attributes: dict[str, Any] = vars(app)
        # What had replaced a method already comes next; a class's methods come after an object's attributes.
        self._replaced: dict[str, Any] = {name: attributes.pop(name) for name in _METHODS if name in attributes}
        attributes["_ascend_guard"] = self
        app.__class__ = _guarded(type(app))

    def _next(self, name: str) -> Any:
        """Return what comes after the guard."""
        replaced = self._replaced.get(name)
        app: Any = self._app()
        return getattr(super(_Guarded, app), name) if replaced is None else replaced

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
        return self._runner.guard

    @property
    def lacking(self) -> AscendError | None:
        """What keeps the application from serving: it was made for a command, without a key."""
        return self._runner.lacking

    def health(self) -> dict[str, Any]:
        """Return how the guard is in this process; asks nobody. docs/operating.md says what it means."""
        return self._runner.health()

    def close(self) -> None:
        """Close this process's connections and deliver the outcomes that wait."""
        self._runner.close()

    def serve(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Run the application, and see how its response ends."""
        if not self._announced:
            self._announce()
        handled = environ[self._key] = HandledRequest(self._runner)
        return run_reported(handled, self._next("wsgi_app"), environ, start_response, on_success=self._watch)

    def preprocess(self, *arguments: Any) -> Any:
        """Decide, then run the application's own functions; what is returned is answered instead of the view."""
        request: flask.Request = flask.request._get_current_object()  # type: ignore[attr-defined]
        # Where somebody calls the application's methods one by one, there is no response to see the end of.
        if self._key not in request.environ:
            request.environ[self._key] = HandledRequest(self._runner)
        handled = request.environ[self._key]
        handled.verdict = None
        refusal = None if self._after is not None and self._decides_after() else self._decide(request, handled)
        if refusal is not None:
            return refusal
        answer = self._next("preprocess_request")(*arguments)
        if handled.verdict is None and answer is None:
            return self._decide(request, handled)  # another blueprint's: the function that is named did not run
        if answer is None or not self.guard.settings.enabled:
            return answer
        if handled.verdict is not None and (not handled.verdict.passes or handled.subject.rule is not None):
            return answer
        # A function of the application answers though nothing was decided, or where the router found nothing.
        response = self.app.make_response(answer)
        if response.status_code >= 300:
            return response
        refusal = self._decide(request, handled, by_path=handled.verdict is not None)
        handled.ran = True  # that function is what was decided about
        return refusal or response

    def finish(self, *arguments: Any) -> Any:
        """Run the application's `after_request` functions; a refusal goes out, also where one of them fails.

        They may need what a `before_request` function did not come to set.
        """
        handled = flask.request.environ.get(self._key)
        try:
            return self._next("process_response")(*arguments)
        except Exception:
            if handled is None or handled.verdict is None or handled.verdict.passes:
                raise
            logger.warning("an after_request function failed at a refusal, which goes out as it is", exc_info=True)
            return arguments[-1]

    def dispatch(self, *arguments: Any) -> Any:
        """Run the view, if a verdict let it pass and it still is what the verdict was about."""
        request: flask.Request = flask.request._get_current_object()  # type: ignore[attr-defined]
        handled = request.environ.get(self._key)
        if handled is None or handled.verdict is None or not handled.verdict.passes:
            raise AscendError("no decision for this request: the application's preprocess_request was replaced")
        if _is_changed(handled.subject, _subject_of(request)):
            logger.error("the application changed %r after the decision; refused", request.path[:200])
            return self._refuse(changed_request())
        # What the application does before the view may wait for the client, too.
        refused = self._runner.look(handled.verdict)
        if refused is not None:
            return self._refuse(refused)
        handled.ran = True
        return self._next("dispatch_request")(*arguments)

    def _decide(
        self, request: flask.Request, handled: HandledRequest, *, by_path: bool = False
    ) -> flask.Response | None:
        view = view_of(request.environ, request=request)
        view.resolved = resolved = self.resolver.resolve(request, view.path)
        view.method = method_of(request, resolved)
        if by_path:
            view.resolved = None
        handled.subject = _subject_of(request)
        verdict = handled.verdict = self._runner.judge(view, _reader_of(request))
        if not verdict.passes:
            return self._refuse(verdict)
        flask.g.ascend = request.environ[VERDICT] = verdict
        handled.ran = False  # until the view is called; what comes before it may answer by itself
        return None

    def _decides_after(self) -> bool:
        """Say whether the decision comes after a function of the application; put it there, if that is new."""
        places = [
            (functions, at, function)
            for functions in self.app.before_request_funcs.values()
            for at, function in enumerate(functions)
        ]
        if any(getattr(function, self._key, False) for *_, function in places):
            return True
        # A function within an application factory goes by its own name, too, where there is one such.
        short = [place for place in places if _short_name(place[2]) == self._after]
        exact = [place for place in places if self._after in (place[2], _name(place[2]))]
        for functions, at, function in exact or (short if len(short) == 1 else []):
            functions[at] = self._followed(function)
            return True
        text = "after = %r names no before_request function of %r, or several (of: %s); the guard decides before all"
        known = ", ".join(_name(function) for *_, function in places) or "none"
        if known != self._missed:  # said once, not at each request
            self._missed = known
            logger.error(text, self._after, self.app.name, known)
        return False

    def _followed(self, function: Any) -> Any:
        """Return the function with the decision behind it."""

        @functools.wraps(function)
        def followed() -> Any:
            answer = flask.current_app.ensure_sync(function)()
            request: flask.Request = flask.request._get_current_object()  # type: ignore[attr-defined]
            handled = request.environ[self._key]
            if answer is not None or handled.verdict is not None:
                return answer
            return self._decide(request, handled)

        setattr(followed, self._key, True)
        return followed

    def _refuse(self, verdict: Verdict) -> flask.Response:
        status, headers, content = answer_of(verdict, self.guard.render)
        return self.app.response_class(content, status, headers)

    def _announce(self) -> None:
        """Say once, at the first request, which routes nothing covers and what the guard cannot see."""
        self._runner.start()  # of an application that was made to be looked at, every request ends here
        self._announced = True
        if not self.guard.settings.enabled:
            return
        announce(self.resolver, self.guard.table, self.guard.settings)
        for problem in check_application(self.app, self.is_reached_by):
            logger.warning("%s: %s", problem.code, problem)

    def _watch(self, handled: HandledRequest) -> None:
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


def _reader_of(request: flask.Request) -> Callable[[int, float], bytes]:
    """Return what reads the whole body and leaves the view the same; see the step `ReadBody`."""
    if "stream" not in vars(request):
        return Body(request.environ).read

    def read(limit: int, seconds: float) -> bytes:
        # Something has begun to read already; what it kept is what the view will get.
        content = request.get_data()
        if len(content) > limit:
            raise BodyTooLarge
        if not content and request.content_length != 0:
            raise ValueError("The body was read before it could be judged.")
        return content

    return read


class _Subject(NamedTuple):
    """What a decision is about: what Flask found, and the function that it calls for it."""

    method: str
    rule: Any
    params: dict[str, Any]
    view: Any


def _subject_of(request: flask.Request) -> _Subject:
    """Return what a decision is about."""
    rule = request.url_rule
    view = None if rule is None else flask.current_app.view_functions.get(rule.endpoint)
    return _Subject(request.method, rule, dict(request.view_args or {}), view)


def _is_changed(before: _Subject, now: _Subject) -> bool:
    """Say whether the application changed what was decided about.

    It may take parameters away, add some, and put an object in the place of what names it.
    """
    plain = (str, int, float, uuid.UUID)
    return (
        before.method != now.method
        or before.rule is not now.rule
        or before.view is not now.view
        or any(
            isinstance(now.params.get(name), plain) and str(now.params[name]) != str(value)
            for name, value in before.params.items()
        )
    )
