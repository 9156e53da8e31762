"""An agent that asks before it acts: the reference generation's wrapper around a client."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, TypeVar, overload

from ..api.models import AgentAction, AuthorizationDecision, DecisionStatus
from ..exceptions import AscendError, AuthorizationDeniedError, TimeoutError  # noqa: A004 - the documented name
from ..flow import Flow, Hook
from .clients import AscendClient, AsyncAscendClient, AsyncOWKAIClient, OWKAIClient, expired
from .drivers import Awaits, Blocks, sync_and_async

__all__ = ["AsyncAuthorizedAgent", "AuthorizedAgent"]

T = TypeVar("T")


def _permitted(decision: AuthorizationDecision) -> None:
    """Return if the action may be carried out, else raise what the reference documents."""
    if decision.is_approved():
        return
    action_id = decision.action_id or None
    if decision.status is DecisionStatus.DENIED:
        reason = decision.reason or "No reason provided"
        raise AuthorizationDeniedError(f"Action denied: {reason}", action_id=action_id, details=decision.metadata)
    if decision.status is DecisionStatus.TIMEOUT:
        raise TimeoutError("Authorization decision timed out", action_id=action_id)
    raise AscendError(f"Unexpected authorization status: {decision.status}", action_id=action_id)


class _Agent:
    client: Any

    def __init__(self, agent_id: str, agent_name: str) -> None:
        self.agent_id: Final = agent_id
        self.agent_name: Final = agent_name

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.agent_id!r}, {self.agent_name!r})"

    @sync_and_async
    def request_authorization(
        self,
        /,
        action_type: str,
        resource: str,
        resource_id: str | None = None,
        details: Mapping[str, Any] | None = None,
        context: Mapping[str, Any] | None = None,
        risk_indicators: Mapping[str, Any] | None = None,
        wait_for_decision: bool = True,
        timeout: float = 60,
        **fields: Any,
    ) -> Flow[AuthorizationDecision]:
        """Submit an action of this agent, and wait for a person where one has to decide.

        Args:
            action_type: what kind of action, `data_access`.
            resource: what is acted on, in words.
            resource_id: the identifier of what is acted on.
            details: the action's own parameters; policies read them.
            context: where the action comes from.
            risk_indicators: facts that raise the risk.
            wait_for_decision: wait while the decision is pending.
            timeout: seconds to wait.
            **fields: other fields of `AgentAction`: `tool_name`, `description`, the orchestration fields,
                `mcp_server_name`, `model_id`.

        Returns:
            The decision: `decision.get("decision")` is `approved`, `denied`, `pending`, or `timeout` when nobody
            decided in time.

        Raises:
            ValidationError: a value is missing or of the wrong kind; nothing was sent.

        Source: contract §1.6.
        """
        action = AgentAction(
            agent_id=self.agent_id,
            agent_name=self.agent_name,
            action_type=action_type,
            resource=resource,
            resource_id=resource_id,
            action_details=None if details is None else dict(details),
            context=None if context is None else dict(context),
            risk_indicators=None if risk_indicators is None else dict(risk_indicators),
            **fields,
        )
        decision: AuthorizationDecision = yield Hook(self.client.submit_action, (action,))
        if not (wait_for_decision and decision.is_pending()):
            return decision
        try:
            decision = yield Hook(self.client.wait_for_decision, (decision.action_id, timeout))
        except TimeoutError as error:
            return expired(decision, decision.action_id, str(error))
        return decision


class AuthorizedAgent(_Agent, Blocks):
    """An agent whose functions run only when they are authorized.

    Args:
        agent_id: who acts; a stable identifier.
        agent_name: the same for people.
        client: an `OWKAIClient` or an `AscendClient`; an `OWKAIClient` from the environment when None.

    Raises:
        ValueError: no client was given, and the environment holds no key.

    Source: contract §1.6, C6.
    """

    def __init__(self, agent_id: str, agent_name: str, client: OWKAIClient | AscendClient | None = None) -> None:
        super().__init__(agent_id, agent_name)
        self.client: OWKAIClient | AscendClient = OWKAIClient() if client is None else client

    def execute_if_authorized(
        self,
        action_type: str,
        resource: str,
        execute_fn: Callable[[], T],
        resource_id: str | None = None,
        details: Mapping[str, Any] | None = None,
        context: Mapping[str, Any] | None = None,
        risk_indicators: Mapping[str, Any] | None = None,
        timeout: float = 60,
        **fields: Any,
    ) -> T:
        """Run a function if, and only if, the action is approved.

        Args:
            action_type: what kind of action.
            resource: what is acted on, in words.
            execute_fn: what to run, without arguments; called once or not at all.
            resource_id: the identifier of what is acted on.
            details: the action's own parameters.
            context: where the action comes from.
            risk_indicators: facts that raise the risk.
            timeout: seconds to wait for a pending decision.
            **fields: other fields of `AgentAction`.

        Returns:
            What the function returns.

        Raises:
            PermissionError: denied; the text holds the reason (`AuthorizationDeniedError`).
            TimeoutError: nobody decided in time.
            AscendError: any other state, such as `requires_modification`, or the errors of every call.
            Exception: whatever the function raises, unchanged.

        Source: contract §1.6.
        """
        decision = self.request_authorization(
            action_type, resource, resource_id, details, context, risk_indicators, True, timeout, **fields
        )
        _permitted(decision)
        return execute_fn()


class AsyncAuthorizedAgent(_Agent, Awaits):
    """The twin of `AuthorizedAgent` for event loops, with an `AsyncOWKAIClient` or an `AsyncAscendClient`.

    The function to run may be a coroutine function.
    """

    def __init__(
        self, agent_id: str, agent_name: str, client: AsyncOWKAIClient | AsyncAscendClient | None = None
    ) -> None:
        super().__init__(agent_id, agent_name)
        self.client: AsyncOWKAIClient | AsyncAscendClient = AsyncOWKAIClient() if client is None else client

    @overload
    async def execute_if_authorized(
        self,
        action_type: str,
        resource: str,
        execute_fn: Callable[[], Awaitable[T]],
        resource_id: str | None = None,
        details: Mapping[str, Any] | None = None,
        context: Mapping[str, Any] | None = None,
        risk_indicators: Mapping[str, Any] | None = None,
        timeout: float = 60,  # noqa: ASYNC109 - how long to poll
        **fields: Any,
    ) -> T: ...

    @overload
    async def execute_if_authorized(
        self,
        action_type: str,
        resource: str,
        execute_fn: Callable[[], T],
        resource_id: str | None = None,
        details: Mapping[str, Any] | None = None,
        context: Mapping[str, Any] | None = None,
        risk_indicators: Mapping[str, Any] | None = None,
        timeout: float = 60,  # noqa: ASYNC109 - how long to poll
        **fields: Any,
    ) -> T: ...

    async def execute_if_authorized(
        self,
        action_type: str,
        resource: str,
        execute_fn: Callable[[], Any],
        resource_id: str | None = None,
        details: Mapping[str, Any] | None = None,
        context: Mapping[str, Any] | None = None,
        risk_indicators: Mapping[str, Any] | None = None,
        timeout: float = 60,  # noqa: ASYNC109 - how long to poll
        **fields: Any,
    ) -> Any:
        """See `AuthorizedAgent.execute_if_authorized`."""
        decision = await self.request_authorization(
            action_type, resource, resource_id, details, context, risk_indicators, True, timeout, **fields
        )
        _permitted(decision)
        result = execute_fn()
        return await result if inspect.isawaitable(result) else result

    execute_if_authorized.__doc__ = AuthorizedAgent.execute_if_authorized.__doc__
