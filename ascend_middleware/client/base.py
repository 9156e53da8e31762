"""What the blocking and the awaiting client share: construction, and arguments checked before anything is sent."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar

from .. import masking, substitute
from .._version import __version__
from ..api import endpoints
from ..api.endpoint import fill_path, text
from ..api.models import (
    ActionPage,
    AgentAction,
    AuthorizationDecision,
    BulkActionResult,
    FailMode,
    KillSwitchStatus,
    Record,
)
from ..config import TEST_SCHEME, Settings
from ..exceptions import (
    AscendError,
    ClientClosedError,
    ConfigurationError,
    KillSwitchError,
    ProtocolError,
    ValidationError,
)
from . import requests
from .background import Background
from .breaker import CircuitBreaker
from .core import ClientCore
from .killswitch import KillState

if TYPE_CHECKING:
    from ..flow import Flow
    from .background import AsyncRepeating, Repeating

__all__ = ["BEATING", "MAX_BULK", "POLLING", "ClientBase", "positive_seconds"]

MAX_BULK: Final = 50

T = TypeVar("T")
_DEFAULT_WAIT: Final = 60.0
# The threads, or tasks, that run in the background.
POLLING: Final = "ascend-kill-switch"
BEATING: Final = "ascend-heartbeat"


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
        self._is_fixed: Final = (
            substitute.current is None
            and not settings.api_url.startswith(f"{TEST_SCHEME}:")
            and (engine is None or isinstance(engine, str))
            and http_client is None
        )
        self.kill: Final = KillState(agent_id=settings.agent_id, clock=self.core.clock, now=self.core.now)
        # Asking for the kill switch goes on while calls do not: it has to notice when the authority is back.
        self._unbroken: Final = CircuitBreaker(threshold=1, timeout=1.0, clock=self.core.clock, enabled=False)
        self.background: Final = Background()
        self._open(None if isinstance(engine, str) else engine, http_client)

    def _open(self, engine: object, http_client: object) -> None:
        raise NotImplementedError

    def _check_sending(self) -> None:
        if self.core.closed:
            raise ClientClosedError("the client was closed")
        if self._is_fixed and substitute.current is not None:
            raise ConfigurationError(
                f"{self!r} was made before this test and asks an authority of its own; make it in the test, or set "
                "no ASCEND_API_URL and no ASCEND_API_KEY: then it asks the test's ascend_authority"
            )

    def __repr__(self) -> str:
        return f"{type(self).__name__}(api_url={self.settings.api_url!r}, agent_id={self.settings.agent_id!r})"

    @property
    def closed(self) -> bool:
        """Whether the client was closed."""
        return self.core.closed

    # --- arguments, checked, as flows

    def _action(self, action: object, fields: Mapping[str, Any]) -> AgentAction:
        if isinstance(action, AgentAction):
            if fields:
                raise ValidationError("give either an AgentAction or single fields, not both")
            return requests.checked_action(action)
        if action is not None:
            if not isinstance(action, Mapping) or fields:
                raise ValidationError("an action is an AgentAction, one mapping, or single fields", field="action")
            fields = dict(action)
        return requests.action_from_fields(fields, agent_id=self.settings.agent_id, agent_name=self.settings.agent_name)

    def _agent(self, agent_id: str | None) -> str:
        if agent_id is None and not self.settings.agent_id:
            raise ValidationError(
                "agent_id is required: give it here, to the client, or as ASCEND_AGENT_ID", field="agent_id"
            )
        return text("agent_id", self.settings.agent_id if agent_id is None else agent_id)

    def _governed(self, flow: Flow[AuthorizationDecision]) -> Flow[AuthorizationDecision]:
        """Run the flow of a decision between two looks at the kill switch: it beats every answer."""
        self.background.ensure()
        self.kill.admit()
        decision = yield from flow
        if decision.is_approved():
            self.kill.check()
        return decision

    def _submitted(
        self, action: object, fields: Mapping[str, Any], *, raise_on_denied: bool, idempotency_key: str | None
    ) -> Flow[AuthorizationDecision]:
        built = self._action(action, fields)
        return self._governed(
            self.core.submit_or_open(built, raise_on_denied=raise_on_denied, idempotency_key=idempotency_key)
        )

    def _evaluated(
        self, fields: Mapping[str, Any], *, wait_for_decision: bool, timeout: float | None, raise_on_denied: bool
    ) -> Flow[AuthorizationDecision]:
        for name in ("action_type", "resource"):
            if not isinstance(fields.get(name), str) or not fields[name].strip():
                raise ValidationError(f"{name} is required and must be a non-empty string", field=name)
        wait = _seconds("timeout", timeout, _DEFAULT_WAIT) if wait_for_decision else 0.0
        action = self._action(None, _described(fields))
        return self._governed(
            self.core.evaluate(action, wait=wait, raise_on_denied=raise_on_denied, watch=self.kill.check)
        )

    def _bulk(self, actions: object, max_concurrent: object) -> tuple[list[AgentAction], int]:
        if isinstance(actions, str | bytes | Mapping) or not isinstance(actions, Iterable):
            raise ValidationError("actions must be a list of actions", field="actions")
        given = list(actions)
        if len(given) > MAX_BULK:
            raise ValidationError(f"at most {MAX_BULK} actions at once, not {len(given)}", field="actions")
        if (
            isinstance(max_concurrent, bool)
            or not isinstance(max_concurrent, int)
            or not 1 <= max_concurrent <= MAX_BULK
        ):
            raise ValidationError(f"max_concurrent must be a whole number from 1 to {MAX_BULK}", field="max_concurrent")
        built = []
        for number, action in enumerate(given):
            try:
                built.append(self._action(action if action is not None else 0, {}))
            except ValidationError as error:
                raise ValidationError(f"actions[{number}]: {error}", field=f"actions[{number}].{error.field}") from None
        return built, max_concurrent

    def _one_of_many(self, action: AgentAction) -> Flow[BulkActionResult]:
        try:
            decision = yield from self._governed(self.core.submit_or_open(action))
        except AscendError as error:
            return BulkActionResult(action_type=action.action_type, resource=action.resource, exception=error)
        return BulkActionResult(action_type=action.action_type, resource=action.resource, decision=decision)

    def _mcp(
        self,
        fields: Mapping[str, Any],
        *,
        mcp_server: str,
        namespace: str,
        verb: str,
        environment: str,
        raise_on_denied: bool,
    ) -> Flow[AuthorizationDecision]:
        given = {**fields, "action_type": fields.get("action_type") or f"{namespace}.{verb}"}
        action = self._action(None, given)
        operation = requests.submit_mcp(
            action, mcp_server=mcp_server, namespace=namespace, verb=verb, environment=environment
        )
        flow = self.core.call(operation)
        return self._governed(self.core.decide(flow, action_type=action.action_type, raise_on_denied=raise_on_denied))

    def _listed(self, limit: int, offset: int, status: str | None, filters: Mapping[str, object]) -> Flow[ActionPage]:
        return self.core.call(requests.list_actions(limit=limit, offset=offset, status=status, filters=filters))

    def _waited(
        self,
        action_id: str | int,
        timeout: float | None,
        poll_interval: float,
        timeout_ms: float | None,
        timeout_seconds: float | None,
        on_escalated: Callable[[str, AuthorizationDecision], object] | None,
    ) -> Flow[AuthorizationDecision]:
        fill_path("{action_id}", action_id=action_id)
        if sum(value is not None for value in (timeout, timeout_ms, timeout_seconds)) > 1:
            raise ValidationError("give one of timeout, timeout_seconds and timeout_ms", field="timeout")
        if timeout_ms is not None:
            seconds = _seconds("timeout_ms", timeout_ms, 0.0) / 1000
        else:
            seconds = _seconds("timeout", timeout if timeout is not None else timeout_seconds, _DEFAULT_WAIT)
        if on_escalated is not None and not callable(on_escalated):
            raise ValidationError("on_escalated must be a function", field="on_escalated")
        interval = positive_seconds("poll_interval", poll_interval, 2.0)
        return self.core.wait(action_id, timeout=seconds, poll_interval=interval, on_escalated=on_escalated)

    def _registered(
        self,
        agent_type: str,
        capabilities: Sequence[str] | None,
        allowed_resources: Sequence[str] | None,
        metadata: Mapping[str, Any] | None,
    ) -> Flow[Record]:
        agent_id = self._agent(None)
        body = {
            "agent_id": agent_id,
            "display_name": self.settings.agent_name,
            "agent_type": agent_type,
            "environment": self.settings.environment,
            "capabilities": capabilities or (),
            "allowed_resources": allowed_resources or (),
            "sdk_version": __version__,
            "metadata": metadata or {},
        }
        operation = endpoints.REGISTER_AGENT.call(body=body)
        return self.core.register(operation, agent_id)

    # --- the kill switch and what runs in the background

    def _beat(self, metrics: Mapping[str, Any] | None, single: Mapping[str, Any]) -> Flow[bool]:
        given = {**(metrics or {}), **{name: value for name, value in single.items() if value is not None}}
        unknown = sorted(given.keys() - single.keys())
        if unknown:
            raise ValidationError(f"unknown metric {unknown[0]!r}; known: {', '.join(single)}", field="metrics")
        return self.core.heartbeat(self._agent(None), **given)

    def _commands(self, agent_id: str | None) -> Flow[list[dict[str, Any]]]:
        wanted = self._agent(agent_id)
        rows = yield from self.core.call(endpoints.PENDING_COMMANDS.call(agent_id=wanted))
        commands = [{"reason": "", **row, "command_id": str(row["command_id"])} for row in rows if _is_command(row)]
        if wanted == self.settings.agent_id:
            for command in commands:
                self.kill.learn_command(command)
        # A stop that cannot be read must not pass for none; those that can be read count all the same.
        if len(commands) < len(rows):
            raise ProtocolError("the authority sent a command without a type or an id")
        return commands

    def _polled(self, interval: float) -> Flow[None]:
        """Ask for the kill switch once, within one interval, so that three silent ones are noticed in three."""
        deadline = self.core.clock() + min(interval, self.settings.timeout)
        try:
            operation = requests.kill_switch_status(self.settings.agent_id)
            status = yield from self.core.call(operation, deadline=deadline, breaker=self._unbroken)
        except KillSwitchError as error:
            # Also an answer, and a clear one.
            self.kill.learn_status(KillSwitchStatus({"blocked": True, "reason": str(error)}))
        except ClientClosedError:
            return
        except AscendError as error:
            self.kill.poll_failed(error)
        else:
            self.kill.learn_status(status)

    def _poll_with(self, polling: Repeating | AsyncRepeating) -> None:
        self._stop_polling()
        self.kill.expect(polling.interval)
        self.background.start(polling)

    def _stop_polling(self) -> None:
        if self.background.stop(POLLING):
            self.kill.expect(None)


def _is_command(row: Any) -> bool:
    if not isinstance(row, dict) or not isinstance(row.get("command_type"), str):
        return False
    return isinstance(row.get("command_id"), str | int)


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


def positive_seconds(name: str, value: object, default: float) -> float:
    """Return the seconds between two repetitions, more than 0."""
    seconds = _seconds(name, value, default)
    if seconds <= 0:
        raise ValidationError(f"{name} must be more than 0 seconds", field=name)
    return seconds
