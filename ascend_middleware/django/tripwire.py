"""A tripwire for the whole of `MIDDLEWARE`: successes for which no decision was made.

`AscendMiddleware` stands last and sees nothing of what a middleware before it answers by itself. This one stands first,
decides nothing, and reports: an error in the log, and with `strict` a 500.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from asgiref.sync import iscoroutinefunction, markcoroutinefunction

from .configuration import async_runner, sync_runner
from .handle import trip

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.http import HttpRequest
    from django.http.response import HttpResponseBase

__all__ = ["TripwireMiddleware"]


class TripwireMiddleware:
    """Report every success that no decision stands behind; optional, first in `MIDDLEWARE`.

    Args:
        get_response: what Django runs below.
    """

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        self.get_response = get_response
        self._is_async = iscoroutinefunction(get_response)
        self._runner: Any = async_runner() if self._is_async else sync_runner()
        if self._is_async:
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> Any:
        """Run everything below, and look at what it answers."""
        if self._is_async:
            return self._run_async(request)
        return self._look(request, self.get_response(request))

    async def _run_async(self, request: HttpRequest) -> HttpResponseBase:
        return self._look(request, await self.get_response(request))

    def _look(self, request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
        trip(request, response, self._runner.guard, "a middleware answered it, or answered in the place of a 404")
        return response
