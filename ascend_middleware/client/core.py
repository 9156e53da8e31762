"""What clients, guards and background workers ask, as flows: decisions, waiting, failure mode, reports."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec

from .. import masking
from .._version import __version__
from ..api import answers, endpoints
from ..api.batches import ReportedOutcome, read_errors
from ..api.decode import decode_object, encode_json, submit_body
from ..api.endpoint import given
from ..api.models import AuthorizationDecision, ConnectionStatus, Decision, DecisionStatus, Record
from ..api.permission import Permission, read_permission
from ..api.values import iso_time
from ..exceptions import (
    AscendError,
    AuthorizationDeniedError,
    CircuitBreakerOpen,
    NetworkError,
    RateLimitError,
    ServerError,
    TimeoutError,  # noqa: A004 - the documented name
)
from ..flow import Hook, Sleep
from .calls import Attempt, Calls, Send, identifiers
from .http.transport import Head, Request, Response

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ..api.models import AgentAction
    from ..flow import Flow
    from .breaker import CircuitBreaker

__all__ = ["PASSING", "Attempt", "ClientCore", "Send"]

T = TypeVar("T")
# What a poll may run into and still go on: the decision stands at the authority all the same.
PASSING: Final = (
    NetworkError,
    TimeoutError,
    ServerError,
    RateLimitError,
    CircuitBreakerOpen,
)

_SUBMIT: Final = endpoints.SUBMIT.call(body=b"")

_log = masking.get_logger("ascend_middleware.client")


class ClientCore(Calls):
    """The flows of one client, sync or async; see `Calls` for the arguments."""

    def add_credentials(self, *headers: tuple[str, str]) -> None:
        """Send these headers, too, with every call that needs the key."""
        super().add_credentials(*headers)
        self._submit_head = Head("POST", f"{self._base}{_SUBMIT.target}", self.constants[True, True])

    def submit(
        self,
        action: AgentAction,
        *,
        deadline: float | None = None,
        idempotency_key: str | None = None,
        breaker: CircuitBreaker | None = None,
        first: Attempt | None = None,
    ) -> Flow[AuthorizationDecision]:
        """Submit an action and return the decision as it stands, which may be pending.

        `first` is the attempt that `begin_submit` began, with what came of it.
        """
        content = encode_json(submit_body(action)) if first is None else first.request.content
        operation = msgspec.structs.replace(_SUBMIT, content=content, agent=action.agent_id)
        return self.call(operation, deadline=deadline, idempotency_key=idempotency_key, breaker=breaker, first=first)

    def begin_submit(self, content: bytes, agent: str, *, seconds: float) -> Attempt | None:
        """Return the first attempt of submitting an encoded action, for a guard that has it sent without a flow.

        None where that is not sure to be sent: `submit` tells why.
        """
        token = None if self.closed else self.breaker.acquire_closed()
        if token is None:
            return None
        drawn, head = identifiers.draw(), self._submit_head
        request = Request(head.method, head.url, (), content, agent, head, drawn.lines)
        return Attempt(request, seconds, drawn.correlation_id, self.clock(), token)

    def permitted(self, attempt: Attempt) -> Permission | None:
        """Return the permission if the first attempt was answered with a plain one; `submit` tells of all else."""
        response = attempt.answer
        if type(response) is not Response or response.status != 200:
            return None
        permission = read_permission(response.content)
        if permission is not None:
            self.key_refused = False
            if permission.policy_state:
                self.policy_state = permission.policy_state
            attempt.token.succeed()
        return permission

    def status(
        self, action_id: str | int, *, deadline: float | None = None, hold: float = 0.0, agent: str = ""
    ) -> Flow[AuthorizationDecision]:
        """Ask what was decided; an answer about another action is refused.

        The authority may hold the question for `hold` seconds while the action is pending; one that knows no
        `Prefer: wait` (RFC 7240) answers at once.
        """
        headers = (("Prefer", f"wait={int(hold)}"),) if hold >= 1 else ()
        decode = partial(answers.decision_about, action_id=action_id)
        operation = endpoints.ACTION_STATUS.call(decode=decode, headers=headers, agent=agent, action_id=action_id)
        return self.call(operation, deadline=deadline)

    def report(
        self,
        action_id: str | int,
        *,
        failed: bool,
        error: object = None,
        at: float | None = None,
        deadline: float | None = None,
        idempotency_key: str | None = None,
        breaker: CircuitBreaker | None = None,
        **fields: Any,
    ) -> Flow[Record]:
        """Report what became of a passed action: it was carried out, or tried and `failed`; now, or `at` another time.

        Fields are `result`, `duration_ms`, and `given_back`: it did not happen, and its approval is still good.
        """
        if isinstance(error, BaseException):
            error = f"{type(error).__name__}: {error}"
        word, endpoint = ("failed", endpoints.FAIL_ACTION) if failed else ("completed", endpoints.COMPLETE_ACTION)
        body = _outcome_of(action_id, word, self.now() if at is None else at, error=error, **fields)
        operation = endpoint.call(body=body, action_id=action_id)
        return self.call(operation, deadline=deadline, idempotency_key=idempotency_key, breaker=breaker)

    def report_many(
        self, outcomes: Sequence[ReportedOutcome], *, deadline: float | None = None, breaker: CircuitBreaker
    ) -> Flow[list[AscendError | None]]:
        """Report outcomes; return for each the error that it was refused with, None if it was taken.

        There are at most `outcomes_at_once`, each with an `idempotency_key`, and with nothing in it that is not told.
        """
        content = encode_json({"outcomes": outcomes})
        operation: Any = msgspec.structs.replace(endpoints.REPORT_OUTCOMES.call(body=content), decode=decode_object)
        answer: dict[str, Any] = yield from self.call(operation, deadline=deadline, breaker=breaker)
        self.note_policies(answer)
        errors = read_errors(answer, count=len(outcomes))
        for error in errors:
            if error is not None:
                masking.mask_error(error)
        return errors

    def submit_or_open(
        self, action: AgentAction, *, raise_on_denied: bool = False, idempotency_key: str | None = None
    ) -> Flow[AuthorizationDecision]:
        """Submit under the client's failure mode: open answers ALLOWED, marked so, where there was no answer at all."""
        flow = self.submit(action, idempotency_key=idempotency_key)
        return self.decide(flow, action_type=action.action_type, raise_on_denied=raise_on_denied)

    def decide(
        self, flow: Flow[AuthorizationDecision], *, action_type: str, raise_on_denied: bool = False
    ) -> Flow[AuthorizationDecision]:
        """Make the call that decides about an action, under the client's failure mode."""
        try:
            decision = yield from flow
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
        raise_on_denied: bool = False,
        watch: Callable[[], None] | None = None,
    ) -> Flow[AuthorizationDecision]:
        """Submit, and while the decision is pending wait up to `wait` seconds for it; then return it as it stands."""
        decision = yield from self.submit_or_open(action, raise_on_denied=raise_on_denied)
        if not decision.is_pending() or wait <= 0:
            return decision
        try:
            decision = yield from self.wait(decision.action_id, timeout=wait, watch=watch)
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
        """Poll until the decision is made: at least once, and never past the deadline, which is a `TimeoutError`.

        What `watch` raises before a question ends the wait. `on_escalated` is told once, when the authority says that
        the decision went on to a senior person.
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
            except PASSING as error:
                last = error
            else:
                last = None
                if not decision.is_pending():
                    return decision
                if decision.escalated and on_escalated is not None:
                    told, on_escalated = on_escalated, None
                    yield Hook(told, (str(action_id), decision))
            left = deadline - self.clock()
            if left > 0:
                asked = getattr(last, "retry_after", None) or 0.0
                interval = max(poll_interval - (self.clock() - now), asked, 0.0)
                yield Sleep(min(interval, left))
            if self.clock() >= deadline:
                text = f"no decision on action {action_id} within {timeout:g} s"
                raise TimeoutError(f"{text}: {last}" if last else text, action_id=str(action_id)) from last

    def heartbeat(self, agent_id: str, **metrics: Any) -> Flow[bool]:
        """Say that an agent is alive; the result says whether the authority heard it."""
        body = {"agent_id": agent_id, "sdk_version": __version__, "timestamp": iso_time(self.now())}
        operation = endpoints.HEARTBEAT.call(body={**body, **given(**metrics)})
        try:
            yield from self.call(operation)
        except AscendError as error:
            _log.warning("heartbeat of %s not delivered: %s", agent_id, error)
            return False
        return True

    def try_key(self, *, seconds: float) -> Flow[None]:
        """Ask the authority for something that needs the key, and what it offers; counts for no breaker.

        Raises as `call`.
        """
        deadline = self.clock() + seconds
        info = yield from self.call(endpoints.DEPLOYMENT_INFO.call(), deadline=deadline, breaker=self.unbroken)
        self.note_policies(info)
        most = info.get("max_outcomes")
        self.outcomes_at_once = most if isinstance(most, int) else 0

    def test_connection(self) -> Flow[ConnectionStatus]:
        """Ask whether the authority is up and knows the key; the result says so, no error of ours is raised."""
        began = self.clock()
        fields: dict[str, Any] = {"status": "error", "connected": False, "api_version": None, "server_time": None}
        deadline = began + self.settings.timeout
        try:
            up = yield from self.call(endpoints.HEALTH.call(), deadline=deadline)
            info = yield from self.call(endpoints.DEPLOYMENT_INFO.call(), deadline=deadline)
        except AscendError as error:
            fields["error"] = str(error) or type(error).__name__
        else:
            fields.update(status="connected", connected=True)
            fields["api_version"] = info.get("api_version") or info.get("version")
            fields["server_time"] = info.get("server_time") or up.get("server_time")
            fields["environment"] = info.get("environment")
        fields["latency_ms"] = round((self.clock() - began) * 1000, 3)
        return ConnectionStatus(fields)


def _outcome_of(action_id: str | int, word: str, at: float, **fields: Any) -> dict[str, Any]:
    """Return the body that tells what became of an action."""
    return {"action_id": str(action_id), "status": word, f"{word}_at": iso_time(at), **given(**fields)}


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
