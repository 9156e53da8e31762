# ruff: noqa: ASYNC109 - how long the caller waits is an argument
"""Made of `methods/decisions.py` by tools/make_async.py; not to be edited."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ...api.models import AgentAction, AuthorizationDecision, BulkEvaluationResult
from ..awaiting import Awaiting
from ..methods.decisions import DecisionMethods
from ..twins import twin_of

__all__ = ["AsyncDecisionMethods"]


@twin_of(DecisionMethods)
class AsyncDecisionMethods(Awaiting):
    """The awaitable twin of `DecisionMethods`."""

    async def submit_action(
        self,
        action: AgentAction | Mapping[str, Any] | None = None,
        *,
        raise_on_denied: bool = False,
        idempotency_key: str | None = None,
        **fields: Any,
    ) -> AuthorizationDecision:
        """See `AscendClient.submit_action`."""
        return await self.run(
            self._submitted(action, fields, raise_on_denied=raise_on_denied, idempotency_key=idempotency_key)
        )

    async def evaluate_action(
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
    ) -> AuthorizationDecision:
        """See `AscendClient.evaluate_action`."""
        given = {
            "action_type": action_type,
            "resource": resource,
            "parameters": parameters,
            "context": context,
            "resource_id": resource_id,
            "risk_indicators": risk_indicators,
            "orchestration_session_id": orchestration_session_id,
            "parent_action_id": parent_action_id,
            "orchestration_depth": orchestration_depth,
            "mcp_server_name": mcp_server_name,
            "model_id": model_id,
            "tool_name": tool_name,
            "description": description,
            "business_justification": business_justification,
        }
        return await self.run(
            self._evaluated(
                given, wait_for_decision=wait_for_decision, timeout=timeout, raise_on_denied=raise_on_denied
            )
        )

    async def evaluate_actions(
        self, actions: Sequence[AgentAction | Mapping[str, Any]], max_concurrent: int = 5
    ) -> BulkEvaluationResult:
        """See `AscendClient.evaluate_actions`."""
        built, workers = self._bulk(actions, max_concurrent)
        flows = [self._one_of_many(action) for action in built]
        return BulkEvaluationResult(results=await self._side_by_side(flows, workers))

    async def evaluate_mcp_action(
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
    ) -> AuthorizationDecision:
        """See `AscendClient.evaluate_mcp_action`."""
        given = {
            "resource": resource,
            "action_type": action_type,
            "parameters": parameters,
            "context": context,
            "description": description,
            "tool_name": tool_name,
            "orchestration_session_id": orchestration_session_id,
            "parent_action_id": parent_action_id,
            "orchestration_depth": orchestration_depth,
            "model_id": model_id,
        }
        return await self.run(
            self._mcp(
                given,
                mcp_server=mcp_server,
                namespace=namespace,
                verb=verb,
                environment=environment,
                raise_on_denied=raise_on_denied,
            )
        )

    async def wait_for_decision(
        self,
        action_id: str | int,
        timeout: float | None = None,
        poll_interval: float = 2.0,
        *,
        timeout_ms: float | None = None,
        timeout_seconds: float | None = None,
        on_escalated: Callable[[str, AuthorizationDecision], object] | None = None,
    ) -> AuthorizationDecision:
        """See `AscendClient.wait_for_decision`."""
        return await self.run(
            self._waited(action_id, timeout, poll_interval, timeout_ms, timeout_seconds, on_escalated)
        )
