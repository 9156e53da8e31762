"""The client for event loops: each method drives one flow of `ClientCore`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import anyio

from ..exceptions import AscendError, ClientClosedError
from ..flow import Sleep, drive_async
from ..models import ActionPage, ActionRecord, AgentAction, AuthorizationDecision, ConnectionStatus, Record
from . import operations
from .base import ClientBase, engine_failure
from .core import Send
from .engines import open_async_engine
from .exchange import AsyncEngine

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from ..flow import Flow

__all__ = ["AsyncAscendClient"]

T = TypeVar("T")


class AsyncAscendClient(ClientBase):
    """The client for event loops; the arguments and the errors are those of `AscendClient`."""

    def _open(self, engine: object, http_client: object) -> None:
        self._engine: AsyncEngine = open_async_engine(self.settings, engine=engine, http_client=http_client)

    async def run(self, flow: Flow[T]) -> T:
        """Run one flow of `core` to its result."""
        return await drive_async(flow, self._perform)

    async def _perform(self, step: object) -> object:
        if isinstance(step, Send):
            if self.core.closed:
                raise ClientClosedError("the client was closed")
            try:
                return await self._engine.send(step.request, step.timeout)
            except AscendError:
                raise
            except Exception as error:
                raise engine_failure(error) from None
        if isinstance(step, Sleep):
            await anyio.sleep(step.seconds)
            return None
        raise TypeError(f"unknown step {type(step).__name__}")

    async def aclose(self) -> None:
        """Close the connections; calls after it raise `ClientClosedError`. Closing twice is harmless."""
        if not self.core.closed:
            self.core.closed = True
            await self._engine.aclose()

    close = aclose

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def test_connection(self) -> ConnectionStatus:
        """Say whether the authority is up and knows the key; never raises."""
        return await self.run(self.core.test_connection())

    async def submit_action(
        self,
        action: AgentAction | Mapping[str, Any] | None = None,
        *,
        raise_on_denied: bool = False,
        idempotency_key: str | None = None,
        **fields: Any,
    ) -> AuthorizationDecision:
        """Submit an action and return at once; see `AscendClient.submit_action`."""
        built = self._action(action, fields)
        return await self.run(
            self.core.submit_or_open(built, raise_on_denied=raise_on_denied, idempotency_key=idempotency_key)
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
        timeout: float | None = None,  # noqa: ASYNC109 - how long to poll
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
        """Submit an action and wait while it is pending; see `AscendClient.evaluate_action`."""
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
        flow = self._evaluated(
            given, wait_for_decision=wait_for_decision, timeout=timeout, raise_on_denied=raise_on_denied
        )
        return await self.run(flow)

    async def get_action_status(self, action_id: str | int) -> AuthorizationDecision:
        """Return what was decided about an action."""
        return await self.run(self.core.status(action_id))

    async def get_action(self, action_id: str | int) -> ActionRecord:
        """Return the full record of an action."""
        return await self.run(self.core.call(operations.get_action(action_id)))

    async def get_action_details(self, action_id: str | int) -> ActionRecord:
        """Return the full record of an action."""
        return await self.get_action(action_id)

    async def list_actions(
        self, limit: int = 50, offset: int = 0, status: str | None = None, **filters: object
    ) -> ActionPage:
        """Return one page of actions."""
        return await self.run(self._listed(limit, offset, status, filters))

    async def wait_for_decision(
        self,
        action_id: str | int,
        timeout: float | None = None,  # noqa: ASYNC109 - how long to poll
        poll_interval: float = 2.0,
        *,
        timeout_ms: float | None = None,
        timeout_seconds: float | None = None,
    ) -> AuthorizationDecision:
        """Poll until the decision is made; see `AscendClient.wait_for_decision`."""
        return await self.run(self._waited(action_id, timeout, poll_interval, timeout_ms, timeout_seconds))

    async def log_action_completed(
        self, action_id: str | int, result: object | None = None, duration_ms: float | None = None
    ) -> Record:
        """Report that an action was carried out; an error means that nothing was recorded."""
        return await self.run(self.core.complete(action_id, result=result, duration_ms=duration_ms))

    async def log_action_failed(self, action_id: str | int, error: object, duration_ms: float | None = None) -> Record:
        """Report that an action failed; an error means that nothing was recorded."""
        return await self.run(self.core.fail(action_id, error=error, duration_ms=duration_ms))
