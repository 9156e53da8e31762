"""One request on its way through Django: what was decided about it, and how its response ends."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..exceptions import AscendError
from ..guard import Outcome
from ..masking import get_logger
from .request import refusal_of

if TYPE_CHECKING:
    from django.http import HttpRequest
    from django.http.response import HttpResponseBase

    from ..guard import Guard, Verdict

__all__ = ["Passage", "let_out", "trip"]

logger = get_logger("ascend_middleware.django")

_ATTRIBUTE = "_ascend_passage"


class Passage:
    """What is known of one request.

    Attributes:
        verdict: set as soon as there is one.
        outcome: what becomes of it.
        tripped: whether a success without a decision was reported already.
    """

    __slots__ = ("_concluded", "outcome", "tripped", "verdict")

    def __init__(self) -> None:
        self.verdict: Verdict | None = None
        self.outcome = Outcome()
        self.tripped = False
        self._concluded = False

    @classmethod
    def begin(cls, request: HttpRequest) -> Passage:
        """Return a new passage, which stays with the request."""
        passage = cls()
        setattr(request, _ATTRIBUTE, passage)
        request.ascend = None  # type: ignore[attr-defined]  # what views read
        return passage

    @classmethod
    def of(cls, request: HttpRequest) -> Passage | None:
        """Return a request's passage, or None if the guard has not seen it."""
        found = getattr(request, _ATTRIBUTE, None)
        return found if isinstance(found, cls) else None

    @property
    def is_judged(self) -> bool:
        """Whether there is a verdict."""
        return self.verdict is not None

    def take(self) -> Verdict | None:
        """Return the verdict whose outcome is to be told: not a second time, and not where nobody awaits one."""
        if self._concluded or self.verdict is None or not self.verdict.awaits_outcome:
            return None
        self._concluded = True
        return self.verdict


def let_out(request: HttpRequest, response: HttpResponseBase, verdict: Verdict, guard: Guard) -> HttpResponseBase:
    """Let out what was answered without a view (404, redirect), unless its target is refused.

    Raises:
        AscendError: it is a success, and the settings are strict.
    """
    passage = Passage.of(request) or Passage.begin(request)
    passage.verdict = verdict
    if not verdict.passes:
        refusal: Any = refusal_of(request, verdict, guard.render)
        refusal._resource_closers += response._resource_closers  # type: ignore[attr-defined]
        return refusal  # type: ignore[no-any-return]
    if verdict.outcome == "framework" and response.status_code < 300 and request.method != "OPTIONS":
        passage.tripped = True
        trip(request, guard, "no view was run for it")
    return response


def trip(request: HttpRequest, guard: Guard, why: str) -> None:
    """Report a success for which no decision was made.

    Raises:
        AscendError: where the settings are strict.
    """
    logger.error("%r %r succeeded without a decision: %s", request.method, request.path_info[:200], why)
    if guard.settings.strict:
        raise AscendError("a success for which no decision was made; see the log")
