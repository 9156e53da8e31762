"""One request on its way through Django: where it is kept, and what is answered without a view."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..adapters.outcome import HandledRequest, report_undecided
from ..masking import get_logger
from .request import refusal_of

if TYPE_CHECKING:
    from django.http import HttpRequest
    from django.http.response import HttpResponseBase

    from ..adapters.runner import AsyncRunner, SyncRunner
    from ..guard import Guard, Verdict

__all__ = ["begin", "handled_of", "let_out", "trip"]

logger = get_logger("ascend_middleware.django")

_ATTRIBUTE = "_ascend_handled"


def begin(request: HttpRequest, runner: SyncRunner | AsyncRunner) -> HandledRequest:
    """Return what is known of a request from now on, which stays with it."""
    handled = HandledRequest(runner)
    setattr(request, _ATTRIBUTE, handled)
    request.ascend = None  # type: ignore[attr-defined]  # what views read
    return handled


def handled_of(request: HttpRequest) -> HandledRequest | None:
    """Return what is known of a request, or None if the guard has not seen it."""
    found = getattr(request, _ATTRIBUTE, None)
    return found if isinstance(found, HandledRequest) else None


def let_out(
    request: HttpRequest, response: HttpResponseBase, handled: HandledRequest, verdict: Verdict, guard: Guard
) -> HttpResponseBase:
    """Let out what was answered without a view (404, redirect), unless its target is refused.

    Raises:
        AscendError: it is a success, and the settings are strict.
    """
    handled.verdict = verdict
    if not verdict.passes:
        refusal: Any = refusal_of(request, verdict, guard.render)
        refusal._resource_closers += response._resource_closers  # type: ignore[attr-defined]
        return refusal  # type: ignore[no-any-return]
    trip(request, response, guard, "no view was run for it")
    return response


def trip(request: HttpRequest, response: HttpResponseBase, guard: Guard, why: str) -> None:
    """Report a response that is a success for which no decision was made, once.

    Raises:
        AscendError: where the settings are strict.
    """
    handled = handled_of(request)
    if response.status_code >= 300 or request.method == "OPTIONS" or not guard.settings.enabled:
        return
    if handled is not None and (handled.is_reported or not handled.is_undecided):
        return
    if handled is not None:
        handled.is_reported = True
    report_undecided(guard, logger, f"{request.method!r} {request.path_info[:200]!r}", why)
