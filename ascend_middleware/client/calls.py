"""One call of the authority as a flow: headers, deadline, retries, breaker, and whose fault it is that it failed."""

from __future__ import annotations

import math
import random
import sys
import time
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec

from .. import masking
from .._version import __version__
from ..api.decode import KILL_CODES, error_from_answer
from ..api.models import AuthorizationDecision, Decision
from ..exceptions import (
    AscendError,
    AuthenticationError,
    ClientClosedError,
    ConfigurationError,
    KillSwitchError,
    NetworkError,
    OverloadedError,
    ProtocolError,
    TimeoutError,  # noqa: A004 - the documented name
    TLSError,
    ValidationError,
)
from ..flow import Sleep
from ..fork import Identifiers
from .breaker import CircuitBreaker, Token
from .http.transport import (
    STALL_SECONDS,
    ConnectFailed,
    DeadlinePassed,
    EngineError,
    ExchangeFailed,
    Overloaded,
    Request,
    Response,
    TLSFailed,
    Unsendable,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ..api.endpoint import Operation
    from ..config import Settings
    from ..flow import Flow

__all__ = ["Attempt", "Calls", "Send", "backoff", "dice", "identifiers", "may_repeat", "parse_retry_after"]

USER_AGENT: Final = f"ascend-middleware/{__version__} Python/{sys.version_info.major}.{sys.version_info.minor}"
MAX_IDEMPOTENCY_KEY: Final = 255
T = TypeVar("T")
D = TypeVar("D", bound=AuthorizationDecision)
_FAIR_SECONDS: Final = 2.0
# A larger part of the time, used by this process for itself or noticed so late, is why no answer came in time.
_OWN_PART: Final = 0.1
_OWN_SECONDS: Final = 0.1
_OVERLOAD_RETRY: Final = 1.0
_RETRY_STATUSES: Final = frozenset({429, 500, 502, 503, 504})
_FACTOR: Final = 0.5
# From [0, 1). Not of the global generator: that is the application's to seed, and hypothesis watches it in its tests.
dice: Final = random.SystemRandom().random
_SAFE_METHODS: Final = frozenset({"GET", "HEAD", "PUT", "DELETE"})


_log = masking.get_logger("ascend_middleware.client")


class Send(msgspec.Struct, frozen=True):
    """A step: send the request, have the answer within `timeout` seconds; the result is a `Response`."""

    request: Request
    timeout: float


class Attempt(msgspec.Struct):
    """The first attempt of a call, which is sent outside of its flow; `call` goes on with what came of it.

    Attributes:
        request: what to send.
        timeout: within how many seconds.
        answer: the response, or what was raised instead.
    """

    request: Request
    timeout: float
    correlation_id: str
    began: float
    token: Token
    answer: Response | Exception | None = None

    def result(self) -> Response:
        """Return the response, or raise what was raised instead of one."""
        if isinstance(self.answer, Response):
            return self.answer
        assert self.answer is not None  # noqa: S101 - whoever sent it says what came of it
        raise self.answer


class Calls:
    """What every flow of one client is made of; deadlines are times on its `clock`, dates on the wire are `now`."""

    def __init__(
        self,
        settings: Settings,
        *,
        clock: Callable[[], float] = time.monotonic,
        random: Callable[[], float] = dice,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.settings: Final = settings
        self.clock: Final = clock
        self.closed = False
        # Whether the authority's last word to a call with our key was that it does not know it.
        self.key_refused = False
        # How many outcomes it said to take at once; 0 where it takes one at a time, or did not say.
        self.outcomes_at_once = 0
        # A word that changes with its policies, by its last answer that tells it; None before the first. It is empty
        # where it tells none: then it takes no reports that a decision was used again.
        self.policy_state: str | None = None
        self._random: Final = random
        self.now: Final = now
        self.breaker: Final = CircuitBreaker(
            threshold=settings.circuit_breaker_threshold,
            timeout=settings.circuit_breaker_timeout,
            clock=clock,
            enabled=settings.enable_circuit_breaker,
        )
        # For calls that go on while others do not, and count for none of them.
        self.unbroken: Final = CircuitBreaker(threshold=1, timeout=1.0, clock=clock, enabled=False)
        self._base: Final = settings.api_url if settings.is_local else settings.api_url.rstrip("/")
        key = settings.api_key
        self._credentials: tuple[tuple[str, str], ...] = ()
        self.add_credentials(*((("Authorization", f"Bearer {key}"), ("X-API-Key", key)) if key else ()))

    def add_credentials(self, *headers: tuple[str, str]) -> None:
        """Send these headers, too, with every call that needs the key."""
        self._credentials += headers
        # What the calls of a kind have in common: whether they need the key, and whether they have a body.
        self.constants = {
            (needs_key, has_type): (
                ("User-Agent", USER_AGENT),
                ("Accept", "application/json"),
                ("Accept-Encoding", "identity"),
                *(self._credentials if needs_key else ()),
                *((("Content-Type", "application/json"),) if has_type else ()),
            )
            for needs_key in (False, True)
            for has_type in (False, True)
        }

    # --- one call

    def call(
        self,
        operation: Operation[T],
        *,
        deadline: float | None = None,
        idempotency_key: str | None = None,
        breaker: CircuitBreaker | None = None,
        first: Attempt | None = None,
    ) -> Flow[T]:
        """Make one logical call: its attempts share one deadline, one idempotency key and one correlation id.

        The deadline is a time on `clock`; without one, the settings' `timeout` counts. No `EngineError` leaves it.
        `first` is the attempt that was made already.
        """
        if first is None:
            first = self._begin(operation, deadline, idempotency_key, breaker or self.breaker)
        request, correlation_id, began, token = first.request, first.correlation_id, first.began, first.token
        deadline = began + first.timeout
        # The last poll of a wait may have a few milliseconds; that it runs out of them is nobody's failure.
        is_fair = deadline - began >= min(self.settings.timeout, self.settings.deadline, _FAIR_SECONDS) / 2
        place = f"{request.method} {operation.target.partition('?')[0]}"
        attempt, answered = 0, False
        try:
            while True:
                left = deadline - self.clock()
                response: Response | None = None
                failure: AscendError | None = None
                try:
                    # What was sent already is not sent again.
                    if attempt or first.answer is None:
                        response = yield Send(request, max(0.0, left))
                    else:
                        response = first.result()
                except EngineError as cause:
                    # An answer that an earlier attempt got is an answer, and so is one that began.
                    had_begun = isinstance(cause, DeadlinePassed) and cause.answered
                    answered = answered or had_begun or isinstance(cause, ExchangeFailed)
                    is_busy = self._is_own_fault(cause, began, deadline) or (left <= 0 and attempt == 0)
                    failure = _failure(place, cause, correlation_id, answered=answered, is_busy=is_busy)
                    if isinstance(cause, DeadlinePassed | Overloaded | Unsendable):
                        raise failure from cause
                    _log.debug("%s attempt %d failed: %s [%s]", place, attempt + 1, cause, correlation_id)
                else:
                    answered = True
                    _log.debug("%s attempt %d: HTTP %d [%s]", place, attempt + 1, response.status, correlation_id)
                    if response.status not in _RETRY_STATUSES:
                        break
                delay = self._delay(request, response, attempt)
                if delay is None or delay >= deadline - self.clock():
                    if failure is not None:
                        raise failure
                    break
                yield Sleep(delay)
                attempt += 1
            assert response is not None  # noqa: S101 - else a failure was raised
            if response.status >= 500:
                token.fail()
            if 200 <= response.status < 300:
                self.key_refused = self.key_refused and not operation.authenticated
                try:
                    result = operation.decode(response.content)
                except ProtocolError as unreadable:
                    masking.mask_error(unreadable)
                    raise
            else:
                result = self._refusal(operation, response, correlation_id)
            if isinstance(result, AuthorizationDecision):
                self.note_policies(result)
                if result.decision is not Decision.ALLOWED:
                    result = _masked(result)
            token.succeed()
            return result
        except OverloadedError:
            raise
        except (NetworkError, TimeoutError) as error:
            if is_fair or isinstance(error, NetworkError):
                token.fail(unanswered=error.unanswered)
            raise
        finally:
            # Also when the driver is cancelled in the middle: a probe must not be lost.
            if not token.spent:
                token.release()

    def note_policies(self, told: Mapping[str, Any]) -> None:
        """Keep the word for the authority's present policies, where an answer tells it."""
        word = told.get("policy_state")
        if isinstance(word, str) and word:
            self.policy_state = word

    def _begin(
        self,
        operation: Operation[Any],
        deadline: float | None,
        idempotency_key: str | None,
        breaker: CircuitBreaker,
    ) -> Attempt:
        """Return the first attempt of a call, which is yet to be made."""
        if self.closed:
            raise ClientClosedError("the client was closed")
        began = self.clock()
        timeout = self.settings.timeout if deadline is None else deadline - began
        method = operation.method
        drawn = identifiers.draw()
        correlation_id, key = drawn.correlation_id, drawn.key
        has_type = bool(operation.content) or method in ("POST", "PUT", "PATCH")
        constant = self.constants[operation.authenticated, has_type]
        headers = [*constant, ("X-Correlation-ID", correlation_id), *operation.headers]
        if method == "POST":
            key = key if idempotency_key is None else _checked_idempotency_key(idempotency_key)
            headers.append(("Idempotency-Key", key))
        url = f"{self._base}{operation.target}"
        request = Request(method, url, tuple(headers), operation.content, operation.agent)
        return Attempt(request, timeout, correlation_id, began, breaker.acquire())

    def _is_own_fault(self, cause: EngineError, began: float, deadline: float) -> bool:
        """Say whether this process used so much of the time for itself, or noticed the end so late, that it is why."""
        if not isinstance(cause, DeadlinePassed):
            return isinstance(cause, Overloaded)
        part = (deadline - began) * _OWN_PART
        return cause.waited > max(part, _OWN_SECONDS) or self.clock() - deadline > max(part, STALL_SECONDS)

    def _delay(self, request: Request, response: Response | None, attempt: int) -> float | None:
        """Return the seconds until the next attempt; None where there must be none."""
        # Every POST has a key, by which the authority knows it again.
        repeatable = may_repeat(request.method, has_idempotency_key=request.method == "POST")
        if not repeatable or attempt >= self.settings.max_retries:
            return None
        asked = None if response is None else parse_retry_after(response.headers.get("retry-after"), now=self.now())
        return backoff(attempt, self._random) if asked is None else asked

    def _refusal(self, operation: Operation[T], response: Response, correlation_id: str) -> T:
        """Return the result that a refusal is, or raise its error."""
        asked = parse_retry_after(response.headers.get("retry-after"), now=self.now())
        error = error_from_answer(response.status, response.content, response.headers, retry_after=asked)
        self.key_refused = self.key_refused or (operation.authenticated and isinstance(error, AuthenticationError))
        masking.mask_error(error)
        error.correlation_id = error.correlation_id or correlation_id
        if error.code in KILL_CODES:
            raise KillSwitchError(
                error.message,
                status_code=error.status_code,
                code=error.code,
                details=error.details,
                correlation_id=error.correlation_id,
            )
        refusal = operation.refusal(response.status, response.content) if operation.refusal else None
        if refusal is None:
            raise error
        return refusal


class _OfCall(msgspec.Struct, gc=False):
    """The identifiers of one call, and both as headers, as they are sent."""

    correlation_id: str
    key: str
    lines: str


def _of_call(text: str) -> _OfCall:
    correlation_id, key = text[:32], text[32:]
    return _OfCall(correlation_id, key, f"X-Correlation-ID: {correlation_id}\r\nIdempotency-Key: {key}\r\n")


identifiers: Final = Identifiers(64, _of_call)


def _masked(decision: D) -> D:
    """Mask what a refusal says: the guard tells it to whoever asked, and logs show it."""
    fields = masking.mask(decision.to_dict())
    return type(decision)(fields, action_id=decision.action_id, decision=decision.decision, status=decision.status)


def _checked_idempotency_key(key: object) -> str:
    if isinstance(key, str) and 0 < len(key) <= MAX_IDEMPOTENCY_KEY and key.isascii() and key.isprintable():
        return key
    raise ValidationError(
        f"idempotency_key must be 1 to {MAX_IDEMPOTENCY_KEY} printable ASCII characters", field="idempotency_key"
    )


def _failure(place: str, cause: EngineError, correlation_id: str, *, answered: bool, is_busy: bool) -> AscendError:
    """Return the public error that there is no answer."""
    text = f"{place}: {cause.message}"
    if isinstance(cause, TLSFailed):
        return TLSError(text, correlation_id=correlation_id)
    if isinstance(cause, Unsendable):
        return ConfigurationError(text, correlation_id=correlation_id)
    if isinstance(cause, DeadlinePassed | Overloaded) and is_busy:
        text = f"{place}: not decided in time, because this process is busy: {cause.message}"
        return OverloadedError(text, correlation_id=correlation_id, retry_after=_OVERLOAD_RETRY)
    if isinstance(cause, DeadlinePassed):
        text = f"API request timed out: {place}: the deadline passed before there was an answer"
        return TimeoutError(text, correlation_id=correlation_id, unanswered=not answered)
    if isinstance(cause, ConnectFailed):
        text = f"Failed to connect to ASCEND API: {text}"
    error = NetworkError(text, correlation_id=correlation_id, unanswered=not answered)
    error.__cause__ = cause
    return error


def may_repeat(method: str, *, has_idempotency_key: bool) -> bool:
    """Say whether sending the request twice does what sending it once does."""
    return method in _SAFE_METHODS or has_idempotency_key


def backoff(attempt: int, random: Callable[[], float]) -> float:
    """Return the seconds to wait after the failed attempt number `attempt` (0 for the first), with full jitter."""
    delay: float = random() * _FACTOR * 2**attempt
    return delay


def parse_retry_after(value: str | None, *, now: float) -> float | None:
    """Return the seconds a `Retry-After` header (seconds or an HTTP date) asks for; None when it makes no sense."""
    if not value or len(value) > 64 or not value.isascii():
        return None
    value = value.strip()
    try:
        seconds = float(value) if value[:1].isdigit() else parsedate_to_datetime(value).timestamp() - now
    except (TypeError, ValueError, OverflowError, IndexError, OSError):
        return None
    # A date in the past means now.
    return max(0.0, seconds) if math.isfinite(seconds) else None
