"""Every call of the client as a flow: headers, deadline, retries, breaker, waiting and failure mode, written once."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec

from .. import __version__
from ..exceptions import (
    AscendError,
    AuthenticationError,
    AuthorizationDeniedError,
    CircuitBreakerOpen,
    ClientClosedError,
    ConfigurationError,
    ConflictError,
    KillSwitchError,
    NetworkError,
    OverloadedError,
    ProtocolError,
    RateLimitError,
    ServerError,
    TimeoutError,  # noqa: A004 - the documented name
    ValidationError,
)
from ..flow import Sleep
from ..models import AuthorizationDecision, ConnectionStatus, Decision, DecisionStatus, Record
from ..wire import KILL_CODES, error_from_answer
from . import masking, operations
from .breaker import CircuitBreaker
from .exchange import (
    STALL_SECONDS,
    DeadlinePassed,
    EngineError,
    ExchangeFailed,
    Overloaded,
    Request,
    Response,
    Unsendable,
)
from .identifiers import Identifiers
from .retry import RETRY_STATUSES, backoff, dice, may_repeat, parse_retry_after

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..config import Settings
    from ..flow import Flow
    from ..models import AgentAction
    from .operations import Operation

__all__ = ["ClientCore", "Send", "Tell"]

USER_AGENT: Final = f"ascend-middleware/{__version__} Python/{sys.version_info.major}.{sys.version_info.minor}"
MAX_IDEMPOTENCY_KEY: Final = 255
T = TypeVar("T")
_FAIR_SECONDS: Final = 2.0
# A larger part of the time, used by this process for itself or noticed so late, is why no answer came in time.
_OWN_PART: Final = 0.1
_OWN_SECONDS: Final = 0.1
_OVERLOAD_RETRY: Final = 1.0
# What a poll may run into and still go on: the decision stands at the authority all the same.
_PASSING: Final = (NetworkError, TimeoutError, ServerError, RateLimitError, CircuitBreakerOpen)

_log = masking.get_logger("ascend_middleware.client")


class Send(msgspec.Struct, frozen=True):
    """A step: send the request, have the answer within `timeout` seconds; the result is a `Response`."""

    request: Request
    timeout: float


@dataclass(frozen=True, slots=True)
class Tell:
    """A step: call the caller's own function; what it raises ends the flow."""

    function: Callable[..., object]
    arguments: tuple[object, ...]


class ClientCore:
    """The flows of one client, sync or async.

    Args:
        settings: checked settings.
        clock: monotonic seconds; every deadline is an absolute time on it.
        random: from [0, 1), for the jitter.
        now: seconds since the epoch, for dates on the wire.
    """

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
        self._random: Final = random
        self.now: Final = now
        self.breaker: Final = CircuitBreaker(
            threshold=settings.circuit_breaker_threshold,
            timeout=settings.circuit_breaker_timeout,
            clock=clock,
            enabled=settings.enable_circuit_breaker,
        )
        self._base: Final = settings.api_url if settings.is_local else settings.api_url.rstrip("/")
        self._headers: Final = (
            ("User-Agent", USER_AGENT),
            ("Accept", "application/json"),
            ("Accept-Encoding", "identity"),
        )
        key = settings.api_key
        self._credentials: Final = (("Authorization", f"Bearer {key}"), ("X-API-Key", key)) if key else ()
        self._identifiers: Final = Identifiers()
        self._constants: Final[dict[tuple[bool, bool], tuple[tuple[str, str], ...]]] = {}

    # --- one call

    def call(
        self,
        operation: Operation[T],
        *,
        deadline: float | None = None,
        idempotency_key: str | None = None,
        breaker: CircuitBreaker | None = None,
    ) -> Flow[T]:
        """Make one logical call: its attempts share one deadline, one idempotency key and one correlation id.

        Args:
            operation: what to ask.
            deadline: on `clock`; the settings' `timeout` from now when None.
            idempotency_key: for a POST; a new one when None.
            breaker: the client's own when None.

        Raises:
            AscendError: always one of the public errors, never an `EngineError`.
        """
        if self.closed:
            raise ClientClosedError("the client was closed")
        if deadline is None:
            deadline = self.clock() + self.settings.timeout
        # The last poll of a wait may have a few milliseconds; that it runs out of them is nobody's failure.
        usual = min(self.settings.timeout, self.settings.deadline, _FAIR_SECONDS)
        fair = deadline - self.clock() >= usual / 2
        request, correlation_id = self._request(operation, idempotency_key)
        token = (breaker or self.breaker).acquire()
        try:
            try:
                response = yield from self._attempts(request, deadline, correlation_id)
            except NetworkError as error:
                token.fail(unanswered=error.unanswered)
                raise
            except OverloadedError:
                raise
            except TimeoutError as error:
                if fair:
                    token.fail(unanswered=error.unanswered)
                raise
            if response.status >= 500:
                token.fail(unanswered=False)
            result = self._judge(operation, response, correlation_id)
            token.succeed()
            return result
        finally:
            # Also when the driver is cancelled in the middle: a probe must not be lost.
            token.release()

    def _request(self, operation: Operation[Any], idempotency_key: str | None) -> tuple[Request, str]:
        correlation_id = self._identifiers.draw()
        method = operation.method
        headers = [*self._constant(operation), ("X-Correlation-ID", correlation_id), *operation.headers]
        if method == "POST":
            key = self._identifiers.draw() if idempotency_key is None else _checked_idempotency_key(idempotency_key)
            headers.append(("Idempotency-Key", key))
        url = f"{self._base}{operation.target}"
        return Request(method, url, tuple(headers), operation.content, operation.agent), correlation_id

    def _constant(self, operation: Operation[Any]) -> tuple[tuple[str, str], ...]:
        """Return the headers that every call of this kind has."""
        has_type = bool(operation.content) or operation.method in ("POST", "PUT", "PATCH")
        kind = (operation.authenticated, has_type)
        found = self._constants.get(kind)
        if found is None:
            credentials = self._credentials if operation.authenticated else ()
            kinds = (("Content-Type", "application/json"),) if has_type else ()
            found = self._constants[kind] = (*self._headers, *credentials, *kinds)
        return found

    def _attempts(self, request: Request, deadline: float, correlation_id: str) -> Flow[Response]:
        """Send until there is an answer that is not to be retried, or no attempt or time is left."""
        # Every POST has a key, by which the authority knows it again.
        repeatable = may_repeat(request.method, has_idempotency_key=request.method == "POST")
        repeats = self.settings.max_retries if repeatable else 0
        place = f"{request.method} {request.url.removeprefix(self._base).partition('?')[0]}"
        answered = False
        attempt = 0
        began = self.clock()
        while True:
            response: Response | None = None
            failure: AscendError | None = None
            left = deadline - self.clock()
            try:
                response = yield Send(request, max(0.0, left))
            except DeadlinePassed as error:
                own, late = (deadline - began) * _OWN_PART, self.clock() - deadline
                never_asked = left <= 0 and attempt == 0
                if never_asked or error.waited > max(own, _OWN_SECONDS) or late > max(own, STALL_SECONDS):
                    raise _overloaded(place, error, correlation_id) from error
                raise _timed_out(place, answered, correlation_id) from error
            except Overloaded as error:
                raise _overloaded(place, error, correlation_id) from error
            except Unsendable as error:
                text = f"{place}: {error.message}"
                raise ConfigurationError(text, correlation_id=correlation_id) from error
            except EngineError as error:
                answered = answered or isinstance(error, ExchangeFailed)
                failure = _unreachable(place, error, answered, correlation_id)
                _log.debug("%s attempt %d failed: %s [%s]", place, attempt + 1, error, correlation_id)
            else:
                answered = True
                _log.debug("%s attempt %d: HTTP %d [%s]", place, attempt + 1, response.status, correlation_id)
                if response.status not in RETRY_STATUSES:
                    return response
            asked = None if response is None else parse_retry_after(response.headers.get("retry-after"), now=self.now())
            delay = backoff(attempt, self._random) if asked is None else asked
            if attempt >= repeats or delay >= deadline - self.clock():
                if failure is not None:
                    raise failure
                assert response is not None  # noqa: S101 - one of the two is set
                return response
            yield Sleep(delay)
            attempt += 1

    def _judge(self, operation: Operation[T], response: Response, correlation_id: str) -> T:
        if 200 <= response.status < 300:
            self.key_refused = self.key_refused and not operation.authenticated
            try:
                return _shown(operation.decode(response.content))
            except ProtocolError as unreadable:
                masking.mask_error(unreadable)
                raise
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
        if refusal is not None:
            return _shown(refusal)
        raise error

    # --- what the client, the guard and the keepers ask

    def submit(
        self, action: AgentAction, *, deadline: float | None = None, idempotency_key: str | None = None
    ) -> Flow[AuthorizationDecision]:
        """Submit an action and return the decision as it stands, which may be pending."""
        operation = operations.submit(action)
        decision: AuthorizationDecision = yield from self.call(
            operation, deadline=deadline, idempotency_key=idempotency_key
        )
        return decision

    def status(
        self, action_id: str | int, *, deadline: float | None = None, hold: float = 0.0, agent: str = ""
    ) -> Flow[AuthorizationDecision]:
        """Ask what was decided; the authority may hold the question for so many seconds while that is open."""
        decision = yield from self.call(operations.get_status(action_id, hold=hold, agent=agent), deadline=deadline)
        return decision

    def complete(
        self,
        action_id: str | int,
        *,
        result: object | None = None,
        duration_ms: float | None = None,
        deadline: float | None = None,
    ) -> Flow[Record]:
        """Report that an action was carried out."""
        operation = operations.complete_action(action_id, at=self._timestamp(), result=result, duration_ms=duration_ms)
        record: Record = yield from self.call(operation, deadline=deadline)
        return record

    def fail(
        self, action_id: str | int, *, error: object, duration_ms: float | None = None, deadline: float | None = None
    ) -> Flow[Record]:
        """Report that an action failed."""
        operation = operations.fail_action(action_id, at=self._timestamp(), error=error, duration_ms=duration_ms)
        record: Record = yield from self.call(operation, deadline=deadline)
        return record

    def _timestamp(self) -> str:
        return datetime.fromtimestamp(self.now(), UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")

    def submit_or_open(
        self, action: AgentAction, *, raise_on_denied: bool = False, idempotency_key: str | None = None
    ) -> Flow[AuthorizationDecision]:
        """Submit under the client's failure mode: open answers ALLOWED, marked so, where there was no answer at all."""
        return self.decide(
            operations.submit(action),
            action_type=action.action_type,
            raise_on_denied=raise_on_denied,
            idempotency_key=idempotency_key,
        )

    def decide(
        self,
        operation: Operation[AuthorizationDecision],
        *,
        action_type: str,
        raise_on_denied: bool = False,
        idempotency_key: str | None = None,
    ) -> Flow[AuthorizationDecision]:
        """Make the call that decides about an action, under the client's failure mode."""
        try:
            decision = yield from self.call(operation, idempotency_key=idempotency_key)
        except (NetworkError, TimeoutError, CircuitBreakerOpen) as error:
            if self.settings.fail_mode != "open" or not error.unanswered:
                raise
            _log.warning("passing %s without a decision, because fail_mode is open: %s", action_type, error)
            return _open_decision(error)
        if raise_on_denied and decision.is_denied():
            raise _denial(decision)
        return decision

    def evaluate(
        self,
        action: AgentAction,
        *,
        wait: float,
        poll_interval: float = 2.0,
        raise_on_denied: bool = False,
        idempotency_key: str | None = None,
        watch: Callable[[], None] | None = None,
    ) -> Flow[AuthorizationDecision]:
        """Submit, and while the decision is pending wait up to `wait` seconds for it; then return it as it stands."""
        decision = yield from self.submit_or_open(
            action, raise_on_denied=raise_on_denied, idempotency_key=idempotency_key
        )
        if not decision.is_pending() or wait <= 0:
            return decision
        try:
            decision = yield from self.wait(decision.action_id, timeout=wait, poll_interval=poll_interval, watch=watch)
        except TimeoutError:
            return decision
        if raise_on_denied and decision.is_denied():
            raise _denial(decision)
        return decision

    def wait(
        self,
        action_id: str | int,
        *,
        timeout: float,
        poll_interval: float = 2.0,
        on_escalated: Callable[[str, AuthorizationDecision], object] | None = None,
        watch: Callable[[], None] | None = None,
    ) -> Flow[AuthorizationDecision]:
        """Poll until the decision is made: at least once, and never past the deadline.

        Args:
            action_id: what is waited for.
            timeout: seconds in all.
            poll_interval: seconds between two questions.
            on_escalated: told once, when the authority says that the decision went on to a senior person.
            watch: called before each question; what it raises ends the wait.

        Raises:
            TimeoutError: the time is up and nobody has decided.
        """
        deadline = self.clock() + timeout
        last: AscendError | None = None
        first = True
        while True:
            now = self.clock()
            limit = now + self.settings.timeout
            # A wait of no time at all is still one question, asked under the timeout of any call.
            limit = limit if first and timeout <= 0 else min(limit, deadline)
            first = False
            if watch is not None:
                watch()
            try:
                # The answer then comes when the decision falls; half a second is for the way back.
                hold = min(poll_interval, deadline - now - 0.5)
                decision = yield from self.status(action_id, deadline=limit, hold=hold)
            except _PASSING as error:
                last = error
            else:
                last = None
                if not decision.is_pending():
                    return decision
                if decision.escalated and on_escalated is not None:
                    told, on_escalated = on_escalated, None
                    yield Tell(told, (str(action_id), decision))
            left = deadline - self.clock()
            if left > 0:
                asked = getattr(last, "retry_after", None) or 0.0
                interval = max(poll_interval - (self.clock() - now), asked, 0.0)
                yield Sleep(min(interval, left))
            if self.clock() >= deadline:
                text = f"no decision on action {action_id} within {timeout:g} s"
                raise TimeoutError(f"{text}: {last}" if last else text, action_id=str(action_id)) from last

    def register(self, operation: Operation[Record], agent_id: str) -> Flow[Record]:
        """Register an agent; being registered by one's own organisation already is no error, by another one it is."""
        try:
            record = yield from self.call(operation)
        except ConflictError:
            # The refusal does not tell whose agent it is, and the text of an error proves nothing.
            if agent_id not in (yield from self.call(operations.list_agents())):
                raise
            return Record({"success": True, "status": "already_registered", "agent_id": agent_id})
        return record

    def heartbeat(self, agent_id: str, **metrics: Any) -> Flow[bool]:
        """Say that an agent is alive; the result says whether the authority heard it."""
        at = self._timestamp()
        operation = operations.heartbeat(agent_id, at=at, sdk_version=__version__, **metrics)
        try:
            yield from self.call(operation)
        except AscendError as error:
            _log.warning("heartbeat of %s not delivered: %s", agent_id, error)
            return False
        return True

    def try_key(self, *, seconds: float) -> Flow[None]:
        """Ask the authority for something that needs the key; counts for no breaker. Raises as `call`."""
        unbroken = CircuitBreaker(threshold=1, timeout=1.0, clock=self.clock, enabled=False)
        yield from self.call(operations.deployment_info(), deadline=self.clock() + seconds, breaker=unbroken)

    def test_connection(self) -> Flow[ConnectionStatus]:
        """Ask whether the authority is up and knows the key; the result says so, no error of ours is raised."""
        began = self.clock()
        fields: dict[str, Any] = {"status": "error", "connected": False, "api_version": None, "server_time": None}
        deadline = began + self.settings.timeout
        try:
            up = yield from self.call(operations.health(), deadline=deadline)
            info = yield from self.call(operations.deployment_info(), deadline=deadline)
        except AscendError as error:
            fields["error"] = str(error) or type(error).__name__
        else:
            fields.update(status="connected", connected=True)
            fields["api_version"] = info.get("api_version") or info.get("version")
            fields["server_time"] = info.get("server_time") or up.get("server_time")
            fields["environment"] = info.get("environment")
        fields["latency_ms"] = round((self.clock() - began) * 1000, 3)
        return ConnectionStatus(fields)


def _shown(result: T) -> T:
    """Mask what a refusal says: the guard tells it to whoever asked, and logs show it."""
    if not isinstance(result, AuthorizationDecision) or result.is_approved():
        return result
    fields = masking.mask(result.to_dict())
    return type(result)(fields, action_id=result.action_id, decision=result.decision, status=result.status)


def _checked_idempotency_key(key: object) -> str:
    if isinstance(key, str) and 0 < len(key) <= MAX_IDEMPOTENCY_KEY and key.isascii() and key.isprintable():
        return key
    raise ValidationError(
        f"idempotency_key must be 1 to {MAX_IDEMPOTENCY_KEY} printable ASCII characters", field="idempotency_key"
    )


def _timed_out(place: str, answered: bool, correlation_id: str) -> TimeoutError:
    text = f"{place}: the deadline passed before there was an answer"
    # An answer that an earlier attempt got is an answer.
    return TimeoutError(text, correlation_id=correlation_id, unanswered=not answered)


def _overloaded(place: str, cause: EngineError, correlation_id: str) -> OverloadedError:
    text = f"{place}: not decided in time, because this process is busy: {cause.message}"
    return OverloadedError(text, correlation_id=correlation_id, retry_after=_OVERLOAD_RETRY)


def _unreachable(place: str, cause: EngineError, answered: bool, correlation_id: str) -> NetworkError:
    error = NetworkError(f"{place}: {cause.message}", correlation_id=correlation_id, unanswered=not answered)
    error.__cause__ = cause
    return error


def _open_decision(error: AscendError) -> AuthorizationDecision:
    fields = {
        "reason": f"passed without a decision, because fail_mode is open: {error}",
        "conditions": ["fail_open_mode"],
        "metadata": {"fail_open": True, "error": type(error).__name__},
    }
    return AuthorizationDecision(fields, action_id="", decision=Decision.ALLOWED, status=DecisionStatus.APPROVED)


def _denial(decision: AuthorizationDecision) -> AuthorizationDeniedError:
    return AuthorizationDeniedError(
        f"denied: {decision.reason}" if decision.reason else "denied",
        status_code=None,
        details=decision.metadata,
        action_id=decision.action_id or None,
    )
