"""Refusals of what needs no question, and of what could not be asked: which failure is whose, and what opens a rule."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ..api.decode import KILL_CODES
from ..exceptions import (
    AscendError,
    AuthorizationDeniedError,
    CircuitBreakerOpen,
    ConfigurationError,
    KillSwitchError,
    NetworkError,
    OverloadedError,
    ProtocolError,
    RateLimitError,
    ServerError,
    TimeoutError,  # noqa: A004 - the documented name
    ValidationError,
)
from ..setting_values import FINDINGS
from ..verdict import Refusal

if TYPE_CHECKING:
    from ..journal.journal import JournalError

__all__ = ["cause_of", "refusal_for", "refusal_of_findings", "unjournalled"]

_UNAVAILABLE_RETRY: Final = 5.0
_UNUSABLE: Final = "The authority's answer could not be used."
# Failures to have an answer: the cause where nothing answered at all, the cause where something did, and what the
# client is told. An open rule passes by the first column of the first three only.
_OUTAGES: Final[tuple[tuple[type[AscendError], str, str, str], ...]] = (
    (
        CircuitBreakerOpen,
        "breaker-open",
        "breaker-open-after-answers",
        "The authority failed recently; asking again shortly.",
    ),
    (TimeoutError, "deadline", "deadline-after-failures", "The authority did not answer in time."),
    (NetworkError, "connect-error", "broken-off", "The authority could not be reached."),
    (RateLimitError, "rate-limit", "rate-limit", "The authority takes no more requests for now."),
    (ServerError, "server-error", "server-error", _UNUSABLE),
    (ProtocolError, "unreadable", "unreadable", _UNUSABLE),
)
_BUSY: Final = frozenset({408, 421, 425})


def refusal_for(error: AscendError) -> Refusal:
    """Return the refusal for a failed call; `error.unanswered` says whether an open rule passes all the same."""
    return _judged(error)[0]


def cause_of(error: AscendError) -> str:
    """Return in one word why there is no decision: of `_OUTAGES`, or whose word or fault it is."""
    return _judged(error)[1]


def _judged(error: AscendError) -> tuple[Refusal, str]:
    if isinstance(error, KillSwitchError) or error.code in KILL_CODES:
        return Refusal(problem="kill-switch", detail="The agent is blocked until the block is lifted."), "killed"
    if isinstance(error, AuthorizationDeniedError):
        return Refusal(problem="denied", detail=f"The authority refused: {error.message}"), "denied"
    if isinstance(error, ValidationError):
        return _unacceptable(error), "bad-request"
    retry = getattr(error, "retry_after", None)
    if isinstance(error, OverloadedError):
        detail = "This service has too much to decide."
        return Refusal(problem="overloaded", detail=detail, retry_after=retry or 1.0), "overloaded"
    if not _is_ours(error):
        for kind, silent, answered, detail in _OUTAGES:
            if isinstance(error, kind):
                refusal = Refusal(problem="unavailable", detail=detail, retry_after=retry or _UNAVAILABLE_RETRY)
                return refusal, silent if error.unanswered else answered
    detail = "This service cannot ask for decisions as it is set up."
    return Refusal(problem="misconfigured", detail=detail), "misconfigured"


def _is_ours(error: AscendError) -> bool:
    """Say whether the fault is this service's: settings, or a status such as 405 or 415."""
    if isinstance(error, ServerError | ProtocolError):
        return 400 <= (error.status_code or 0) < 500 and error.status_code not in _BUSY
    return isinstance(error, ConfigurationError)


def _unacceptable(error: ValidationError) -> Refusal:
    """Return the refusal for content that is not taken."""
    extra = {"field": error.field} if error.field else {}
    if error.status_code == 413:
        return Refusal(problem="body-too-large", detail=f"The request holds too much: {error.message}", extra=extra)
    status = 422 if error.status_code == 422 else None
    detail = f"The request holds a value that is not taken: {error.message}"
    return Refusal(problem="bad-request", detail=detail, extra=extra, status=status)


def refusal_of_findings(findings: list[str]) -> Refusal:
    """Return the refusal of a request that servers, frameworks and handlers may read differently."""
    text = "; ".join(FINDINGS[finding] for finding in findings)
    return Refusal(problem="bad-request", detail=f"Refused: {text}.", extra={"findings": findings})


def unjournalled(error: JournalError) -> Refusal:
    """Return the refusal of an action that could not be journalled."""
    detail = "Too much waits to be reported." if error.full else "What was to run could not be recorded."
    return Refusal(problem="unavailable", detail=detail, retry_after=5.0)
