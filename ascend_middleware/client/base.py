"""What the blocking and the awaiting client share: construction, and arguments checked before anything is sent."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, TypeVar

from ..config import Settings
from ..exceptions import AscendError, ConfigurationError, ValidationError
from ..models import ActionPage, AgentAction, AuthorizationDecision, FailMode
from . import masking, operations
from .core import ClientCore
from .exchange import ExchangeFailed

if TYPE_CHECKING:
    from ..flow import Flow

__all__ = ["ClientBase", "engine_failure"]

T = TypeVar("T")
_DEFAULT_WAIT: Final = 60.0


class ClientBase:
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
        action = self._action(None, _described(fields))
        return self.core.evaluate(action, wait=wait, raise_on_denied=raise_on_denied)

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


def _described(fields: Mapping[str, Any]) -> Mapping[str, Any]:
    """Repeat the tool's name and the description in the details, where policies written for the older form look."""
    details = fields.get("parameters")
    if details is not None and not isinstance(details, Mapping):
        return fields
    said = {name: fields[name] for name in ("tool_name", "description") if fields.get(name)}
    return {**fields, "parameters": {**said, **(details or {})}} if said else fields


def _seconds(name: str, value: object, default: float) -> float:
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0 or not math.isfinite(value):
        raise ValidationError(f"{name} must be a number, at least 0", field=name)
    return float(value)


def engine_failure(error: Exception) -> AscendError:
    """Return the typed failure for whatever an engine handed in from outside raised."""
    return ExchangeFailed(f"the engine failed: {type(error).__name__}: {masking.mask_text(str(error))[:200]}")
