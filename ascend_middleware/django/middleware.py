"""The middlewares: one decides about the view that Django resolved, the other reports successes without a decision.

And a rule at the view: `@governed(action_type=…)` for functions, classes and their methods, and `GovernedMixin`.

`AscendMiddleware` is last in `MIDDLEWARE`, inside every other one, so that what it decides on is what the view gets. It
sees nothing of what a middleware before it answers by itself; `TripwireMiddleware`, which is first, does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Final, TypeVar, Unpack

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.http import HttpRequest
from django.views import View

from ..adapters.decorator import Framework, attach, caller_place, require_verdict
from ..adapters.outcome import report_undecided
from ..adapters.runner import Sight
from ..exceptions import ConfigurationError
from ..guard import USUAL_METHODS
from ..masking import get_logger
from ..rules import RuleFields, declaration, declare, declared, place_of
from .configuration import RESOLVER, announce_once, async_runner, require_order, sync_runner
from .request import Body, begin, handled_of, is_ordinary, read_body, refusal_of, target_of, unrouted, view_of, watch

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from django.http import HttpResponse
    from django.http.response import HttpResponseBase

    from ..adapters.outcome import HandledRequest
    from ..guard import Guard, Verdict
    from ..rules import Declaration

logger = get_logger("ascend_middleware.django")
Target = TypeVar("Target", bound="Callable[..., Any]")


_SIGHT: Final = Sight(view_of, read_body)


class _Middleware:
    """What both middlewares share: they run in the mode of what Django runs below, without another thread."""

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        self.get_response = get_response
        self._is_async = iscoroutinefunction(get_response)
        self._runner: Any = async_runner() if self._is_async else sync_runner()
        if self._is_async:
            marked: Any = self
            markcoroutinefunction(marked)

    @property
    def guard(self) -> Guard:
        """What decides."""
        guard: Guard = self._runner.guard
        return guard


class AscendMiddleware(_Middleware):
    """Ask the authority before a view runs; the verdict is at `request.ascend`.

    Settings come from `settings.ASCEND`; see `ascend_middleware.django.configuration`.

    Args:
        get_response: what Django runs below.

    Raises:
        ConfigurationError: when the server builds its middlewares, with everything that is wrong.
    """

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        require_order()
        super().__init__(get_response)
        self.process_view = self._decide_async if self._is_async else self._decide
        self._is_announced = False

    def health(self) -> dict[str, Any]:
        """Return how the guard is in this process; asks nobody. docs/operating.md says what it means."""
        found: dict[str, Any] = self._runner.health()
        return found

    def __call__(self, request: HttpRequest) -> Any:
        """Run everything below, unless the target is refused."""
        guard = self._runner.guard
        if not self._is_announced:
            self._is_announced = True
            announce_once(guard)
        handled = begin(request, self._runner)
        screened = None
        if not (is_ordinary(request) and request.method in USUAL_METHODS):
            screened = handled.verdict = guard.screen(target_of(request))
        if self._is_async:
            return self._run_async(request, handled)
        if screened is not None:
            return refusal_of(request, screened, guard.render)
        try:
            response = self.get_response(request)
            if handled.verdict is None:
                found = self._runner.judge(_SIGHT, request, unrouted(request))
                return self._let_out(request, response, handled, found)
        except BaseException as failure:
            # Django makes a response of every exception; here comes a request cancelled, or a server that stops.
            handled.raised(failure)
            handled.conclude()
            raise
        _conclude(request, response, handled)
        return response

    async def _run_async(self, request: HttpRequest, handled: HandledRequest) -> HttpResponseBase:
        if (screened := handled.verdict) is not None:
            return refusal_of(request, screened, self.guard.render)
        try:
            response: HttpResponseBase = await self.get_response(request)
            if handled.verdict is None:
                found = await self._runner.judge(view_of(request, unrouted(request)), Body(request))
                return self._let_out(request, response, handled, found)
        except BaseException as failure:
            handled.raised(failure)
            await handled.conclude_async()
            raise
        if (recording := _conclude(request, response, handled)) is not None:
            await recording
        return response

    def _decide(self, request: HttpRequest, view: Any, args: Any, kwargs: Any) -> HttpResponse | None:
        """Decide about the view that Django is about to call."""
        resolved = RESOLVER.resolve(request, view, args, kwargs)
        method = request.method if is_ordinary(request) else None
        return self._settle(request, self._runner.judge(_SIGHT, request, resolved, method))

    async def _decide_async(self, request: HttpRequest, view: Any, args: Any, kwargs: Any) -> HttpResponse | None:
        seen = view_of(request, RESOLVER.resolve(request, view, args, kwargs))
        return self._settle(request, await self._runner.judge(seen, Body(request)))

    def process_exception(self, request: HttpRequest, exception: Exception) -> None:
        """Remember what the view raised; Django answers it."""
        handled = handled_of(request)
        if handled is not None:
            handled.raised(exception)

    def _settle(self, request: HttpRequest, verdict: Verdict) -> HttpResponse | None:
        handled = handled_of(request) or begin(request, self._runner)
        handled.verdict = verdict
        if not verdict.passes:
            return refusal_of(request, verdict, self.guard.render)
        request.ascend = verdict  # type: ignore[attr-defined]  # what views read
        # This middleware is the last one, so the view comes next.
        handled.ran = True
        return None

    def _let_out(
        self, request: HttpRequest, response: HttpResponseBase, handled: HandledRequest, verdict: Verdict
    ) -> HttpResponseBase:
        """Let out what was answered without a view (404, redirect), unless its target is refused.

        Raises:
            AscendError: it is a success, and the settings are strict.
        """
        handled.verdict = verdict
        if not verdict.passes:
            refusal: Any = refusal_of(request, verdict, self.guard.render)
            refusal._resource_closers += response._resource_closers  # type: ignore[attr-defined]
            return refusal  # type: ignore[no-any-return]
        return _tripped(request, response, self.guard, "no view was run for it")


def _conclude(request: HttpRequest, response: HttpResponseBase, handled: HandledRequest) -> Awaitable[None] | None:
    """Record what became of the view, or see to it that this is done when its response ends."""
    handled.began(response.status_code, response.items())
    if response.streaming:
        watch(request, response, handled)
        return None
    handled.is_whole = True
    return handled.conclude()


def _tripped(request: HttpRequest, response: HttpResponseBase, guard: Guard, why: str) -> HttpResponseBase:
    """Return a response, and report once that it is a success for which no decision was made, if it is.

    Raises:
        AscendError: where the settings are strict.
    """
    if response.status_code >= 300 or request.method == "OPTIONS" or not guard.settings.enabled:
        return response
    handled = handled_of(request)
    if handled is not None:
        if handled.is_reported or not handled.is_undecided:
            return response
        handled.is_reported = True
    report_undecided(guard, logger, f"{request.method!r} {request.path_info[:200]!r}", why)
    return response


class TripwireMiddleware(_Middleware):
    """Report every success for which no decision was made: an error in the log, and with `strict` a 500.

    Optional, first in `MIDDLEWARE`; it decides nothing.

    Args:
        get_response: what Django runs below.
    """

    def __call__(self, request: HttpRequest) -> Any:
        """Run everything below, and look at what it answers."""
        found = self.get_response(request)
        return self._look_async(request, found) if self._is_async else self._look(request, found)

    def _look(self, request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
        return _tripped(request, response, self.guard, "a middleware answered it, or answered in the place of a 404")

    async def _look_async(self, request: HttpRequest, response: Awaitable[HttpResponseBase]) -> HttpResponseBase:
        return self._look(request, await response)


# --- a rule at the view


def governed(**fields: Unpack[RuleFields]) -> Callable[[Target], Target]:
    """Return a decorator that puts a rule at a view: a function, a class with `dispatch`, or one of its methods.

        @governed(action_type="transaction", details={"amount": "body.amount"})
        def refund(request, customer_id): ...

    `method_decorator(governed(…))` works likewise. It ranks like a rule of the table that names the view's endpoint,
    and follows the view to every URL pattern. Above `@api_view`, not below it.

    Args:
        fields: what a `[[rule]]` may say, but `match` and `endpoint`.

    Raises:
        ConfigurationError: at decoration, with everything that is wrong, naming module and function.
    """
    here = caller_place()
    rule: Declaration | None = None

    def decorate(target: Target) -> Target:
        nonlocal rule
        if rule is None:
            place = place_of(target)
            # `method_decorator` asks with a function of its own, and then again for each request.
            rule = declaration(here if place.startswith("django.") else place, fields)
        return attach(target, rule, _FRAMEWORK, place=here)

    return decorate


class GovernedMixin:
    """A rule at a class-based view, as an attribute; the leftmost base class.

        class Refund(GovernedMixin, View):
            governed = {"action_type": "transaction", "details": {"amount": "body.amount"}}

    Raises:
        ConfigurationError: when the class is made, with everything that is wrong.
    """

    governed: ClassVar[RuleFields]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Check and declare the rule of a class that has one of its own."""
        super().__init_subclass__(**kwargs)
        order = cls.__mro__
        if View in order and order.index(View) < order.index(GovernedMixin):
            raise ConfigurationError(f"{place_of(cls)}: GovernedMixin stands before View among the base classes")
        if "governed" in vars(cls):
            declare(cls, vars(cls)["governed"])

    def dispatch(self, request: Any, *args: Any, **kwargs: Any) -> Any:
        """Run the view on the verdict that was made under its rule.

        Raises:
            ConfigurationError: there is none.
        """
        rules = declared(type(self))
        if not rules:
            raise ConfigurationError(f"{place_of(type(self))}: GovernedMixin without a rule; set governed = {{…}}")
        require_verdict(_find_verdict((request,), {}), rules)
        return super().dispatch(request, *args, **kwargs)  # type: ignore[misc]  # a view's


def _find_verdict(args: tuple[Any, ...], kwargs: dict[str, Any]) -> object:
    for one in (*args, *kwargs.values()):
        # Django REST framework wraps the request.
        request = one if isinstance(one, HttpRequest) else getattr(one, "_request", None)
        if isinstance(request, HttpRequest):
            handled = handled_of(request)
            return handled.verdict if handled is not None else None
    return None


_FRAMEWORK: Final = Framework(
    _find_verdict,
    "dispatch",
    "a class-based view, which has dispatch",
    targets="a view",
    is_target=callable,
    is_async=iscoroutinefunction,
)
