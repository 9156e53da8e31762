"""Asking for decisions, about one action or many, an MCP tool's too; waiting for them; what became of actions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from ...api import endpoints
from ...api.batches import BulkActionResult, BulkEvaluationResult
from ...api.decode import submit_body
from ...api.endpoint import is_number, text
from ...api.models import (
    ActionPage,
    ActionRecord,
    AgentAction,
    ApprovalStatus,
    AuthorizationDecision,
    ConnectionStatus,
    Record,
)
from ...exceptions import AscendError, ValidationError
from ...flow import Flow
from ..base import ClientBase, arguments, get_action, list_actions, seconds
from ..drivers import SideBySide, sync_and_async

__all__ = ["MAX_BULK", "DecisionMethods"]

MAX_BULK: Final = 50


class DecisionMethods(ClientBase):
    """How an agent asks whether it may."""

    @sync_and_async
    def submit_action(
        self,
        /,
        action: AgentAction | Mapping[str, Any] | None = None,
        *,
        raise_on_denied: bool = False,
        idempotency_key: str | None = None,
        **fields: Any,
    ) -> Flow[AuthorizationDecision]:
        """Submit an action and return at once; what is pending stays pending.

        The three documented forms: `submit_action(AgentAction(…))`, `submit_action({…})` and
        `submit_action(agent_id=…, action_type=…, parameters={…})`.

        Args:
            action: the action; it keeps its own agent, whatever the client's is.
            raise_on_denied: raise instead of returning a denial.
            idempotency_key: 1 to 255 printable ASCII characters; the same key never creates a second action. A new one
                for each call when None; all attempts of a call share it.
            **fields: the fields of `AgentAction` instead of `action`; `parameters` is `action_details`. Without
                `agent_id`, the client's agent acts.

        Returns:
            The decision: ask `is_approved()`, `is_denied()`, `is_pending()`. An unregistered MCP server or model is a
            denial with `metadata["governance_violation"]` (C19).

        Raises:
            AuthorizationDeniedError: the caller may not submit (HTTP 403), or a denial with `raise_on_denied`.
            KillSwitchError: the agent is blocked.

        Source: contract §1.2, C3, C10, C11, C19.
        """
        built = self._action(action, fields)
        flow = self.core.submit_or_open(built, raise_on_denied=raise_on_denied, idempotency_key=idempotency_key)
        return self._governed(flow)

    @sync_and_async
    def evaluate_action(
        self,
        action_type: str,
        resource: str,
        parameters: Mapping[str, Any] | None = None,
        context: Mapping[str, Any] | None = None,
        resource_id: str | None = None,
        risk_indicators: Mapping[str, Any] | None = None,
        wait_for_decision: bool = True,
        timeout: float | None = None,
        orchestration_session_id: str | None = None,
        parent_action_id: int | str | None = None,
        orchestration_depth: int | None = None,
        mcp_server_name: str | None = None,
        model_id: int | str | None = None,
        tool_name: str | None = None,
        description: str | None = None,
        business_justification: str | None = None,
        *,
        raise_on_denied: bool = False,
    ) -> Flow[AuthorizationDecision]:
        """Submit an action of the client's agent, and wait for a person where one has to decide.

            decision = client.evaluate_action("database.query", "production_db", {"query": "SELECT 1"})
            if decision.is_approved():
                ...

        Args:
            action_type: what kind of action; free text, `database.query`, `file_read`, `transaction`.
            resource: what is acted on, in words.
            parameters: the action's own parameters; policies read them. Risk scores and levels in it are taken out at
                any depth: the authority scores.
            context: where the action comes from: session, request, user.
            resource_id: the identifier of what is acted on.
            risk_indicators: facts that raise the risk, `{"pii_involved": True}`.
            wait_for_decision: wait while the decision is pending; False returns at once.
            timeout: seconds to wait for a pending decision, 60 when None. How long one request to the authority may
                take is the client's `timeout`.
            orchestration_session_id: the run that several agents share.
            parent_action_id: the action that caused this one; must belong to the same session.
            orchestration_depth: 0 for a root action, at most 5.
            mcp_server_name: the MCP server that carries the action out; must be registered.
            model_id: the number or the name of the model that the agent uses; must be approved.
            tool_name: the tool or service that carries the action out.
            description: a sentence for the person who approves.
            business_justification: why, for the same person.
            raise_on_denied: raise instead of returning a denial.

        Returns:
            The decision as it stands at the end of the wait. Nobody having decided in time is no error: the result is
            pending, with `approval_request_id`, and never allowed (C12). With `fail_mode="open"`, an authority that
            gave no answer at all yields ALLOWED, marked by `"fail_open_mode" in result.conditions`.

        Raises:
            AuthorizationDeniedError: the caller may not submit (HTTP 403), or a denial with `raise_on_denied`.
            KillSwitchError: the agent is blocked, also when that happens while it waits.

        Source: contract §1.2, §1.4, C1, C12, C19.
        """
        fields = arguments(locals(), "wait_for_decision", "timeout", "raise_on_denied")
        text("action_type", action_type)
        text("resource", resource)
        wait = seconds("timeout", timeout) if wait_for_decision else 0.0
        action = self._action(None, _described(fields))
        return self._governed(
            self.core.evaluate(action, wait=wait, raise_on_denied=raise_on_denied, watch=self.kill.check)
        )

    @sync_and_async
    def evaluate_actions(
        self, actions: Sequence[AgentAction | Mapping[str, Any]], max_concurrent: int = 5
    ) -> Flow[BulkEvaluationResult]:
        """Submit many actions, a few at a time, and return their decisions in the order asked; nothing is waited for.

        Args:
            actions: at most 50, each in a form of `submit_action`, with every field of it (orchestration, model and
                MCP server included).
            max_concurrent: how many are under way at the same time, 1 to 50.

        Returns:
            `results`, one for each action in the order asked: `decision`, or `exception` and `error` where there was
            none; `total`, `succeeded` (have a decision), `failed`. One failure does not keep the others back.

        Raises:
            ValidationError: an action is not well-formed (the text names which), or there are too many; nothing was
                sent.

        Source: contract §1.2 (bulk evaluation), §3.2.
        """
        if isinstance(actions, str | bytes | Mapping) or not isinstance(actions, Iterable):
            raise ValidationError("actions must be a list of actions", field="actions")
        given: list[object] = list(actions)
        if len(given) > MAX_BULK:
            raise ValidationError(f"at most {MAX_BULK} actions at once, not {len(given)}", field="actions")
        if not is_number(max_concurrent, int) or not 1 <= max_concurrent <= MAX_BULK:
            raise ValidationError(f"max_concurrent must be a whole number from 1 to {MAX_BULK}", field="max_concurrent")
        flows = []
        for number, action in enumerate(given):
            try:
                flows.append(self._one_of_many(self._action(action if action is not None else 0, {})))
            except ValidationError as error:
                raise ValidationError(f"actions[{number}]: {error}", field=f"actions[{number}].{error.field}") from None
        results = yield SideBySide(flows, max_concurrent)
        return BulkEvaluationResult(results=tuple(results))

    def _one_of_many(self, action: AgentAction) -> Flow[BulkActionResult]:
        try:
            decision = yield from self._governed(self.core.submit_or_open(action))
        except AscendError as error:
            return BulkActionResult(action_type=action.action_type, resource=action.resource, exception=error)
        return BulkActionResult(action_type=action.action_type, resource=action.resource, decision=decision)

    @sync_and_async
    def evaluate_mcp_action(
        self,
        mcp_server: str,
        namespace: str,
        verb: str,
        resource: str,
        action_type: str | None = None,
        parameters: Mapping[str, Any] | None = None,
        context: Mapping[str, Any] | None = None,
        description: str | None = None,
        environment: str = "production",
        tool_name: str | None = None,
        *,
        orchestration_session_id: str | None = None,
        parent_action_id: int | str | None = None,
        orchestration_depth: int | None = None,
        model_id: int | str | None = None,
        raise_on_denied: bool = False,
    ) -> Flow[AuthorizationDecision]:
        """Submit what a tool of an MCP server is about to do, and return at once.

        Args:
            mcp_server: the server's registered name.
            namespace: what the tool belongs to, `filesystem`.
            verb: what it does, `read_file`.
            resource: what it acts on, `/data/reports/financial.csv`.
            action_type: `<namespace>.<verb>` when None.
            parameters: the tool's arguments.
            context: where the action comes from.
            description: a sentence for the person who approves.
            environment: where the tool runs.
            tool_name: the tool, where its name says more than the verb.
            orchestration_session_id: the run that several agents share.
            parent_action_id: the action that caused this one; must belong to the same session.
            orchestration_depth: 0 for a root action, at most 5.
            model_id: the number or the name of the model that the agent uses; must be approved.
            raise_on_denied: raise instead of returning a denial.

        Returns:
            The decision. It is allowed only if the answer says so explicitly and names an action.

        Raises:
            ProtocolError: the answer says nothing, or nothing known.
            AuthorizationDeniedError: the caller may not submit (HTTP 403), or a denial with `raise_on_denied`.
            KillSwitchError: the agent is blocked.

        Source: contract §1.2, §3.1.
        """
        fields = arguments(locals(), "mcp_server", "namespace", "verb", "environment", "raise_on_denied")
        action = self._action(None, {**fields, "action_type": action_type or f"{namespace}.{verb}"})
        sent = submit_body(action)
        # Beyond the documented keys: who acts, and what binds the action to a session and a model.
        binding = ("agent_id", "agent_name", "orchestration_session_id", "parent_action_id", "orchestration_depth")
        body = {
            "mcp_server": mcp_server,
            "namespace": namespace,
            "verb": verb,
            "resource": action.resource,
            "action_type": action.action_type,
            "description": action.description,
            "parameters": sent.get("action_details", {}),
            "context": sent.get("context", {}),
            "environment": environment,
            "tool_name": action.tool_name,
            **{name: sent[name] for name in (*binding, "model_id") if name in sent},
        }
        flow = self.core.call(endpoints.SUBMIT_MCP.call(body=body))
        return self._governed(self.core.decide(flow, action_type=action.action_type, raise_on_denied=raise_on_denied))

    @sync_and_async
    def wait_for_decision(
        self,
        action_id: str | int,
        timeout: float | None = None,
        poll_interval: float = 2.0,
        *,
        timeout_ms: float | None = None,
        timeout_seconds: float | None = None,
        on_escalated: Callable[[str, AuthorizationDecision], object] | None = None,
    ) -> Flow[AuthorizationDecision]:
        """Ask again and again until the decision is made: at least once, and never past the limit.

        Args:
            action_id: `7`, `"7"` or `"act_7"`.
            timeout: seconds in all, 60 when none of the three is given.
            poll_interval: seconds between two questions, more than 0; longer where the authority asks for it.
            timeout_ms: the same limit in milliseconds.
            timeout_seconds: the same limit in seconds.
            on_escalated: called once with the action's id and the pending decision, when the decision goes on to a
                senior person. What it raises ends the wait.

        Returns:
            The decision; it may be a denial. An authority that fails for a moment is asked again.

        Raises:
            ValidationError: more than one limit, or a value out of range; nothing was sent.
            TimeoutError: nobody has decided in time; `action_id` names the action.
            NotFoundError: the organisation has no such action.

        Source: contract §1.2, C5, C6.
        """
        if sum(value is not None for value in (timeout, timeout_ms, timeout_seconds)) > 1:
            raise ValidationError("give one of timeout, timeout_seconds and timeout_ms", field="timeout")
        if timeout_ms is not None:
            timeout = seconds("timeout_ms", timeout_ms) / 1000
        if on_escalated is not None and not callable(on_escalated):
            raise ValidationError("on_escalated must be a function", field="on_escalated")
        return self._waited(action_id, timeout_seconds if timeout is None else timeout, poll_interval, on_escalated)

    # --- what became of actions; and whether the authority is there

    @sync_and_async
    def test_connection(self) -> Flow[ConnectionStatus]:
        """Say whether the authority is up and knows the key.

        Returns:
            `status` ("connected" or "error"), `connected`, `api_version`, `server_time` (ISO 8601), `latency_ms`
            (milliseconds for both calls), and on failure `error`; as attributes and as items.

        Raises:
            ClientClosedError: never for the authority's sake: what goes wrong is in the result. Also a closed client.

        Source: contract §1.2, C2, C24.
        """
        return self.core.test_connection()

    @sync_and_async
    def get_action_status(self, action_id: str | int) -> Flow[AuthorizationDecision]:
        """Return what was decided about an action, as it stands now.

        Args:
            action_id: `7`, `"7"` or `"act_7"`.

        Raises:
            NotFoundError: the organisation has no such action.
            ProtocolError: the answer is unreadable, or about another action.

        Source: contract §1.2, C18.
        """
        return self.core.status(action_id)

    @sync_and_async
    def get_action(self, action_id: str | int) -> Flow[ActionRecord]:
        """Return the full record of an action, with its audit trail.

        Args:
            action_id: `7`, `"7"` or `"act_7"`.

        Raises:
            NotFoundError: the organisation has no such action.

        Source: contract §1.2, §3.1.
        """
        return self.core.call(get_action(action_id))

    # The reference client's name for it.
    get_action_details = get_action

    @sync_and_async
    def list_actions(
        self, /, limit: int = 50, offset: int = 0, status: str | None = None, **filters: object
    ) -> Flow[ActionPage]:
        """Return one page of the organisation's actions.

        Args:
            limit: rows of the page, at least 1.
            offset: rows to leave out, 10,000 at most; a `cursor` reaches every depth at the same cost.
            status: `approved`, `denied`, `pending` (`pending_approval` is the same).
            filters: what else the authority filters and sorts by: `risk_level`, `agent_id`, `sort`, `order`,
                `start_date`, `end_date` (a day, or ISO 8601; the end is inclusive); and `cursor`, the `next` of the
                page before, which is None on the last one.

        Raises:
            ValidationError: a bound or a filter is of the wrong kind (nothing was sent), or the authority refuses it.

        Source: contract §1.2, §2.6, C4.
        """
        return self.core.call(list_actions(limit=limit, offset=offset, status=status, filters=filters))

    @sync_and_async
    def check_approval(self, approval_request_id: str) -> Flow[ApprovalStatus]:
        """Return what became of an approval request.

        Args:
            approval_request_id: from a pending decision.

        Raises:
            NotFoundError: there is no such request.

        Source: contract §3.2.
        """
        return self.core.call(endpoints.APPROVAL_STATUS.call(approval_request_id=approval_request_id))

    @sync_and_async
    def log_action_completed(
        self, action_id: str | int, result: object | None = None, duration_ms: float | None = None
    ) -> Flow[Record]:
        """Report that an action was carried out.

        Args:
            action_id: the action.
            result: what came out of it, anything JSON can hold.
            duration_ms: how long it took, in milliseconds.

        Raises:
            AscendError: nothing was recorded; the errors of every call, see `AscendClient`.

        Source: contract §3.2.
        """
        return self.core.report(action_id, failed=False, result=result, duration_ms=duration_ms)

    @sync_and_async
    def log_action_failed(self, action_id: str | int, error: object, duration_ms: float | None = None) -> Flow[Record]:
        """Report that an action was tried and failed.

        Args:
            action_id: the action.
            error: what went wrong: an exception, a text, or anything JSON can hold.
            duration_ms: how long it took, in milliseconds.

        Raises:
            AscendError: nothing was recorded; the errors of every call, see `AscendClient`.

        Source: contract §3.2.
        """
        return self.core.report(action_id, failed=True, error=error, duration_ms=duration_ms)


def _described(fields: Mapping[str, Any]) -> Mapping[str, Any]:
    """Repeat the tool's name and the description in the details, where policies written for the older form look."""
    details = fields.get("parameters")
    if details is not None and not isinstance(details, Mapping):
        return fields
    said = {name: fields[name] for name in ("tool_name", "description") if fields.get(name)}
    return {**fields, "parameters": {**said, **(details or {})}} if said else fields
