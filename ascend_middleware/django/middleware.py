"""The middleware: refuse a malformed target, decide about the view that Django resolved, see how its response ends.

It stands last in `MIDDLEWARE`, inside every other one, so that what it decides on is what the view gets.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.http import HttpRequest

from .body import Body
from .checks import require_order
from .configuration import RESOLVER, announce_once, async_runner, sync_runner
from .handle import begin, handled_of, let_out
from .request import refusal_of, target_of, unrouted, view_of
from .streams import watch

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.http import HttpResponse
    from django.http.response import HttpResponseBase

    from ..adapters.outcome import HandledRequest
    from ..adapters.runner import AsyncRunner, SyncRunner
    from ..guard import Guard, Verdict

__all__ = ["AscendMiddleware"]


class AscendMiddleware:
    """Ask the authority before a view runs; the verdict is at `request.ascend`.

    Settings come from `settings.ASCEND`; see `ascend_middleware.django.configuration`.

    Args:
        get_response: what Django runs below.

    Raises:
        ConfigurationError: when the server builds its middlewares, with everything that is wrong.
    """

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        require_order()
        self.get_response = get_response
        self._is_async = iscoroutinefunction(get_response)
        self._runner: Any = async_runner() if self._is_async else sync_runner()
        # Django calls each in its own mode, without another thread.
        self.process_view = self._decide_async if self._is_async else self._decide
        if self._is_async:
            markcoroutinefunction(self)

    @property
    def guard(self) -> Guard:
        """What decides."""
        guard: Guard = self._runner.guard
        return guard

    def health(self) -> dict[str, Any]:
        """Return how the guard is in this process; asks nobody. docs/operating.md says what it means."""
        found: dict[str, Any] = self._runner.health()
        return found

    def __call__(self, request: HttpRequest) -> Any:
        """Run everything below, unless the target is refused."""
        announce_once(self.guard)
        handled = begin(request, self._runner)
        screened = handled.verdict = self.guard.screen(target_of(request))
        if self._is_async:
            return self._run_async(request, handled)
        if screened is not None:
            return refusal_of(request, screened, self.guard.render)
        runner: SyncRunner = self._runner
        try:
            response = self.get_response(request)
        except BaseException as failure:
            # Django makes a response of every exception; here comes a request cancelled, or a server that stops.
            handled.outcome.raised(failure)
            handled.conclude()
            raise
        handled.outcome.began(response.status_code, response.items())
        if handled.verdict is None:
            found = runner.judge(view_of(request, unrouted(request)), Body(request).read_now)
            return let_out(request, response, handled, found, self.guard)
        if response.streaming:
            watch(request, response, handled, is_async=False)
        else:
            handled.outcome.ended()
            handled.conclude()
        return response

    async def _run_async(self, request: HttpRequest, handled: HandledRequest) -> HttpResponseBase:
        if (screened := handled.verdict) is not None:
            return refusal_of(request, screened, self.guard.render)
        runner: AsyncRunner = self._runner
        try:
            response: HttpResponseBase = await self.get_response(request)
        except BaseException as failure:
            handled.outcome.raised(failure)
            await handled.conclude_async()
            raise
        handled.outcome.began(response.status_code, response.items())
        if handled.verdict is None:
            found = await runner.judge(view_of(request, unrouted(request)), Body(request))
            return let_out(request, response, handled, found, self.guard)
        if response.streaming:
            watch(request, response, handled, is_async=True)
        else:
            handled.outcome.ended()
            await handled.conclude_async()
        return response

    def _decide(self, request: HttpRequest, view: Any, args: Any, kwargs: Any) -> HttpResponse | None:
        """Decide about the view that Django is about to call."""
        seen = view_of(request, RESOLVER.resolve(request, view, args, kwargs))
        runner: SyncRunner = self._runner
        return self._settle(request, runner.judge(seen, Body(request).read_now))

    async def _decide_async(self, request: HttpRequest, view: Any, args: Any, kwargs: Any) -> HttpResponse | None:
        seen = view_of(request, RESOLVER.resolve(request, view, args, kwargs))
        runner: AsyncRunner = self._runner
        return self._settle(request, await runner.judge(seen, Body(request)))

    def process_exception(self, request: HttpRequest, exception: Exception) -> None:
        """Remember what the view raised; Django answers it."""
        handled = handled_of(request)
        if handled is not None:
            handled.outcome.raised(exception)

    def _settle(self, request: HttpRequest, verdict: Verdict) -> HttpResponse | None:
        handled = handled_of(request) or begin(request, self._runner)
        handled.verdict = verdict
        if not verdict.passes:
            return refusal_of(request, verdict, self.guard.render)
        request.ascend = verdict  # type: ignore[attr-defined]  # what views read
        # This middleware is the last one, so the view comes next.
        handled.outcome.ran = True
        return None
