"""What becomes of a call that failed: the refusal, how long to wait, and in one word why."""

import pytest

from ascend_middleware import exceptions as errors
from ascend_middleware.guard.refusals import cause_of, refusal_for, refusal_of_findings, unjournalled
from ascend_middleware.journal.journal import JournalError


def at(kind, status, **more):
    return kind("no", status_code=status, **more)


@pytest.mark.parametrize(
    ("error", "problem", "retry", "cause"),
    [
        (errors.KillSwitchError("no"), "kill-switch", None, "killed"),
        (errors.AuthorizationDeniedError("no", code="AGENT_SUSPENDED"), "kill-switch", None, "killed"),
        (errors.ServerError("no", code="KILL_SWITCH_ACTIVE", status_code=503), "kill-switch", None, "killed"),
        (errors.AuthorizationDeniedError("no"), "denied", None, "denied"),
        (at(errors.ValidationError, 400), "bad-request", None, "bad-request"),
        (at(errors.ValidationError, 413), "body-too-large", None, "bad-request"),
        (errors.OverloadedError("no"), "overloaded", 1.0, "overloaded"),
        (errors.OverloadedError("no", retry_after=7.5), "overloaded", 7.5, "overloaded"),
        (errors.CircuitBreakerOpen("no"), "unavailable", 5.0, "breaker-open-after-answers"),
        (errors.CircuitBreakerOpen("no", retry_after=3.0), "unavailable", 3.0, "breaker-open-after-answers"),
        (errors.TimeoutError("no"), "unavailable", 5.0, "deadline-after-failures"),
        (errors.NetworkError("no"), "unavailable", 5.0, "broken-off"),
        (errors.RateLimitError("no", retry_after=9.0), "unavailable", 9.0, "rate-limit"),
        (errors.RateLimitError("no"), "unavailable", 5.0, "rate-limit"),
        (errors.ServerError("no"), "unavailable", 5.0, "server-error"),
        (at(errors.ServerError, 500), "unavailable", 5.0, "server-error"),
        (errors.ProtocolError("no"), "unavailable", 5.0, "unreadable"),
        *((at(errors.ProtocolError, status), "unavailable", 5.0, "unreadable") for status in (200, 399, 500, 599)),
        # What a proxy or a server says of itself.
        *((at(errors.ProtocolError, status), "unavailable", 5.0, "unreadable") for status in (408, 421, 425)),
        # This service asks as it should not.
        *(
            (at(errors.ProtocolError, status), "misconfigured", None, "misconfigured")
            for status in (400, 405, 415, 499)
        ),
        (at(errors.ServerError, 405), "misconfigured", None, "misconfigured"),
        (errors.ConfigurationError("no"), "misconfigured", None, "misconfigured"),
        (errors.TLSError("no"), "misconfigured", None, "misconfigured"),
        (at(errors.AuthenticationError, 401), "misconfigured", None, "misconfigured"),
        (at(errors.NotFoundError, 404), "misconfigured", None, "misconfigured"),
        (errors.ClientClosedError("no"), "misconfigured", None, "misconfigured"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else str(value),
)
def test_a_failed_call_has_a_refusal_and_a_cause(error, problem, retry, cause):
    refusal = refusal_for(error)
    assert (refusal.problem, refusal.retry_after, cause_of(error)) == (problem, retry, cause)


@pytest.mark.parametrize(
    ("kind", "silent"),
    [
        (errors.CircuitBreakerOpen, "breaker-open"),
        (errors.TimeoutError, "deadline"),
        (errors.NetworkError, "connect-error"),
    ],
)
def test_where_nothing_answered_that_is_the_cause(kind, silent):
    error = kind("no")
    error.unanswered = True
    assert cause_of(error) == silent


@pytest.mark.parametrize(
    ("status", "field", "detail", "answered"),
    [
        (400, "a.b", "The request holds a value that is not taken: no", None),
        (422, None, "The request holds a value that is not taken: no", 422),
        (None, None, "The request holds a value that is not taken: no", None),
        (413, "a.b", "The request holds too much: no", None),
    ],
)
def test_content_that_is_not_taken_names_its_field(status, field, detail, answered):
    refusal = refusal_for(errors.ValidationError("no", status_code=status, field=field))
    assert (refusal.detail, refusal.status) == (detail, answered)
    assert refusal.extra == ({"field": field} if field else {})


def test_what_was_found_is_told_one_after_the_other():
    refusal = refusal_of_findings(["path-parameter", "dot-segment"])
    assert refusal.problem == "bad-request" and refusal.extra == {"findings": ["path-parameter", "dot-segment"]}
    assert refusal.detail.startswith("Refused: the path has a ; parameter; ") and refusal.detail.endswith(".")


@pytest.mark.parametrize(
    ("full", "detail"), [(True, "Too much waits to be reported."), (False, "What was to run could not be recorded.")]
)
def test_what_cannot_be_journalled_is_unavailable(full, detail):
    refusal = unjournalled(JournalError("no", full=full))
    assert (refusal.problem, refusal.detail, refusal.retry_after) == ("unavailable", detail, 5.0)
