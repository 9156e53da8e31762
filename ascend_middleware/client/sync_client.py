"""The blocking client: each method drives one flow of `ClientCore`."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from ..exceptions import AscendError, ClientClosedError
from ..flow import Sleep, drive
from ..models import ActionPage, ActionRecord, AgentAction, AuthorizationDecision, ConnectionStatus, Record
from . import operations
from .base import ClientBase, engine_failure
from .core import Send
from .engines import open_engine
from .exchange import Engine

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from ..flow import Flow

__all__ = ["AscendClient"]

T = TypeVar("T")


class AscendClient(ClientBase):
    """The blocking client; safe to share between threads.

    Args:
        api_key: begins `owkai_` or `ask_`, at least 16 characters; `ASCEND_API_KEY` when None.
        agent_id: the agent on whose behalf it asks; `ASCEND_AGENT_ID`.
        agent_name: the same for people; `ASCEND_AGENT_NAME`, else the id.
        api_url: the authority; `ASCEND_API_URL`. `base_url` is an alias.
        fail_mode: what a submit that never got an answer becomes: an error (closed), or ALLOWED and marked so (open).
        timeout: seconds for one call in all: connecting, sending, reading, retrying; 30.
        debug: log at DEBUG in our own loggers.
        max_retries: attempts after the first; 3.
        proxy: the proxy's URL; the environment's is used only with `trust_env`.
        ca_file: PEM file of the only authorities to trust.
        engine: `httpx2`, `pyreqwest`, or an engine object.
        http_client: your own `httpx2.Client` or `httpx.Client`; you close it.
        settings: checked settings, instead of all single ones.

    Raises:
        AuthenticationError: no key, or an ill-formed one.
        ConfigurationError: anything else that cannot work.
    """

    def _open(self, engine: object, http_client: object) -> None:
        self._engine: Engine = open_engine(self.settings, engine=engine, http_client=http_client)
        self._closing = threading.Lock()

    def run(self, flow: Flow[T]) -> T:
        """Run one flow of `core` to its result."""
        return drive(flow, self._perform)

    def _perform(self, step: object) -> object:
        if isinstance(step, Send):
            if self.core.closed:
                raise ClientClosedError("the client was closed")
            try:
                return self._engine.send(step.request, step.timeout)
            except AscendError:
                raise
            except Exception as error:
                raise engine_failure(error) from None
        if isinstance(step, Sleep):
            time.sleep(step.seconds)
            return None
        raise TypeError(f"unknown step {type(step).__name__}")

    def close(self) -> None:
        """Close the connections; calls after it raise `ClientClosedError`. Closing twice is harmless."""
        with self._closing:
            if self.core.closed:
                return
            self.core.closed = True
        self._engine.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def test_connection(self) -> ConnectionStatus:
        """Say whether the authority is up and knows the key; never raises."""
        return self.run(self.core.test_connection())

    def submit_action(
        self,
        action: AgentAction | Mapping[str, Any] | None = None,
        *,
        raise_on_denied: bool = False,
        idempotency_key: str | None = None,
        **fields: Any,
    ) -> AuthorizationDecision:
        """Submit an `AgentAction`, a mapping or single fields, and return at once; pending stays pending."""
        built = self._action(action, fields)
        return self.run(
            self.core.submit_or_open(built, raise_on_denied=raise_on_denied, idempotency_key=idempotency_key)
        )

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
    ) -> AuthorizationDecision:
        """Submit an action and wait up to `timeout` (60) seconds while it is pending.

        When nobody decides in time the pending result is returned; it is never taken for a permission.
        """
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
        return self.run(flow)

    def get_action_status(self, action_id: str | int) -> AuthorizationDecision:
        """Return what was decided about an action."""
        return self.run(self.core.status(action_id))

    def get_action(self, action_id: str | int) -> ActionRecord:
        """Return the full record of an action."""
        record: ActionRecord = self.run(self.core.call(operations.get_action(action_id)))
        return record

    def get_action_details(self, action_id: str | int) -> ActionRecord:
        """Return the full record of an action."""
        return self.get_action(action_id)

    def list_actions(
        self, limit: int = 50, offset: int = 0, status: str | None = None, **filters: object
    ) -> ActionPage:
        """Return one page of actions."""
        return self.run(self._listed(limit, offset, status, filters))

    def wait_for_decision(
        self,
        action_id: str | int,
        timeout: float | None = None,
        poll_interval: float = 2.0,
        *,
        timeout_ms: float | None = None,
        timeout_seconds: float | None = None,
    ) -> AuthorizationDecision:
        """Poll until the decision is made, 60 seconds at most unless told.

        Raises:
            TimeoutError: nobody has decided in time.
        """
        return self.run(self._waited(action_id, timeout, poll_interval, timeout_ms, timeout_seconds))

    def log_action_completed(
        self, action_id: str | int, result: object | None = None, duration_ms: float | None = None
    ) -> Record:
        """Report that an action was carried out; an error means that nothing was recorded."""
        return self.run(self.core.complete(action_id, result=result, duration_ms=duration_ms))

    def log_action_failed(self, action_id: str | int, error: object, duration_ms: float | None = None) -> Record:
        """Report that an action failed; an error means that nothing was recorded."""
        return self.run(self.core.fail(action_id, error=error, duration_ms=duration_ms))
