"""The clients: `AscendClient` blocks, `AsyncAscendClient` awaits; both only drive the flows of `ClientCore`."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, TypeVar

import anyio

from ..config import Settings
from ..exceptions import AscendError, ClientClosedError, ConfigurationError, ValidationError
from ..flow import Sleep, drive, drive_async
from ..models import ActionPage, ActionRecord, AgentAction, AuthorizationDecision, ConnectionStatus, FailMode, Record
from . import masking, operations
from .core import ClientCore, Send
from .engines import open_async_engine, open_engine
from .exchange import AsyncEngine, Engine, ExchangeFailed

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from ..flow import Flow

__all__ = ["AscendClient", "AsyncAscendClient"]

T = TypeVar("T")
_DEFAULT_WAIT: Final = 60.0


class _Base:
    """What both clients share: construction, and each method's checked arguments as a flow."""

    core: ClientCore

    def __init__(
        self,
        api_key: str | None = None,
        *,
        agent_id: str | None = None,
        agent_name: str | None = None,
        api_url: str | None = None,
        base_url: str | None = None,
        fail_mode: FailMode | str | None = None,
        timeout: float | None = None,
        debug: bool | None = None,
        environment: str | None = None,
        max_retries: int | None = None,
        enable_circuit_breaker: bool | None = None,
        circuit_breaker_threshold: int | None = None,
        circuit_breaker_timeout: float | None = None,
        max_connections: int | None = None,
        proxy: str | None = None,
        ca_file: str | None = None,
        trust_env: bool | None = None,
        engine: object = None,
        http_client: object = None,
        settings: Settings | None = None,
    ) -> None:
        arguments: dict[str, object] = {
            "api_key": api_key,
            "agent_id": agent_id,
            "agent_name": agent_name,
            "api_url": _one_url(api_url, base_url),
            "fail_mode": str(fail_mode).lower() if isinstance(fail_mode, str) else fail_mode,
            "timeout": timeout,
            "debug": debug,
            "environment": environment,
            "max_retries": max_retries,
            "enable_circuit_breaker": enable_circuit_breaker,
            "circuit_breaker_threshold": circuit_breaker_threshold,
            "circuit_breaker_timeout": circuit_breaker_timeout,
            "max_connections": max_connections,
            "proxy": proxy,
            "ca_file": ca_file,
            "trust_env": trust_env,
            "engine": engine if isinstance(engine, str) else None,
        }
        if settings is None:
            settings = Settings.load(arguments).checked()
        elif any(value is not None for value in arguments.values()):
            raise ConfigurationError("give either settings or single arguments, not both")
        masking.install()
        if settings.debug:
            logging.getLogger(masking.ROOT).setLevel(logging.DEBUG)
        self.settings: Final = settings
        self.core = ClientCore(settings)
        self._open(None if isinstance(engine, str) else engine, http_client)

    def _open(self, engine: object, http_client: object) -> None:
        raise NotImplementedError

    def __repr__(self) -> str:
        return f"{type(self).__name__}(api_url={self.settings.api_url!r}, agent_id={self.settings.agent_id!r})"

    @property
    def closed(self) -> bool:
        """Whether the client was closed."""
        return self.core.closed

    def _action(self, action: object, fields: Mapping[str, Any]) -> AgentAction:
        if isinstance(action, AgentAction):
            if fields:
                raise ValidationError("give either an AgentAction or single fields, not both")
            return operations.checked_action(action)
        if action is not None:
            if not isinstance(action, Mapping) or fields:
                raise ValidationError("an action is an AgentAction, one mapping, or single fields", field="action")
            fields = dict(action)
        return operations.action_from_fields(
            fields, agent_id=self.settings.agent_id, agent_name=self.settings.agent_name
        )

    def _evaluated(
        self, fields: Mapping[str, Any], *, wait_for_decision: bool, timeout: float | None, raise_on_denied: bool
    ) -> Flow[AuthorizationDecision]:
        for name in ("action_type", "resource"):
            if not isinstance(fields.get(name), str) or not fields[name].strip():
                raise ValidationError(f"{name} is required and must be a non-empty string", field=name)
        wait = _seconds("timeout", timeout, _DEFAULT_WAIT) if wait_for_decision else 0.0
        return self.core.evaluate(self._action(None, fields), wait=wait, raise_on_denied=raise_on_denied)

    def _listed(self, limit: int, offset: int, status: str | None, filters: Mapping[str, object]) -> Flow[ActionPage]:
        return self.core.call(operations.list_actions(limit=limit, offset=offset, status=status, filters=filters))

    def _waited(
        self,
        action_id: str | int,
        timeout: float | None,
        poll_interval: float,
        timeout_ms: float | None,
        timeout_seconds: float | None,
    ) -> Flow[AuthorizationDecision]:
        operations.path("{action_id}", action_id=action_id)
        if sum(value is not None for value in (timeout, timeout_ms, timeout_seconds)) > 1:
            raise ValidationError("give one of timeout, timeout_seconds and timeout_ms", field="timeout")
        if timeout_ms is not None:
            seconds = _seconds("timeout_ms", timeout_ms, 0.0) / 1000
        else:
            seconds = _seconds("timeout", timeout if timeout is not None else timeout_seconds, _DEFAULT_WAIT)
        interval = _seconds("poll_interval", poll_interval, 2.0)
        if interval <= 0:
            raise ValidationError("poll_interval must be more than 0 seconds", field="poll_interval")
        return self.core.wait(action_id, timeout=seconds, poll_interval=interval)


def _one_url(api_url: str | None, base_url: str | None) -> str | None:
    if api_url is not None and base_url is not None and api_url != base_url:
        raise ConfigurationError("api_url and base_url are one setting; give one of them")
    return api_url if api_url is not None else base_url


def _seconds(name: str, value: object, default: float) -> float:
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0 or not math.isfinite(value):
        raise ValidationError(f"{name} must be a number, at least 0", field=name)
    return float(value)


def _foreign(error: Exception) -> AscendError:
    # An engine handed in from outside may raise anything; callers are promised typed errors.
    return ExchangeFailed(f"the engine failed: {type(error).__name__}: {masking.mask_text(str(error))[:200]}")


class AscendClient(_Base):
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
                raise _foreign(error) from None
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
        raise_on_denied: bool = False,
        **fields: Any,
    ) -> AuthorizationDecision:
        """Submit an action and wait up to `timeout` (60) seconds while it is pending.

        When nobody decides in time the pending result is returned; it is never taken for a permission.
        """
        given = {
            **fields,
            "action_type": action_type,
            "resource": resource,
            "parameters": parameters,
            "context": context,
            "resource_id": resource_id,
            "risk_indicators": risk_indicators,
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


class AsyncAscendClient(_Base):
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
                raise _foreign(error) from None
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
        raise_on_denied: bool = False,
        **fields: Any,
    ) -> AuthorizationDecision:
        """Submit an action and wait while it is pending; see `AscendClient.evaluate_action`."""
        given = {
            **fields,
            "action_type": action_type,
            "resource": resource,
            "parameters": parameters,
            "context": context,
            "resource_id": resource_id,
            "risk_indicators": risk_indicators,
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
