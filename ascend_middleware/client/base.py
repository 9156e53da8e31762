"""What the blocking and the awaiting client share: construction, and arguments checked before anything is sent."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from .. import masking, substitute
from ..api import answers, endpoints
from ..api.decode import check_values, strip_risk_claims, submit_body
from ..api.endpoint import Operation, fill_path, text
from ..api.models import ActionPage, ActionRecord, AgentAction, AuthorizationDecision, FailMode
from ..config import TEST_SCHEME, Settings
from ..exceptions import ClientClosedError, ConfigurationError, ValidationError
from .background import Background
from .core import ClientCore
from .killswitch import KillState

if TYPE_CHECKING:
    from ..flow import Flow
    from .background import AsyncRepeating, Repeating

__all__ = [
    "ClientBase",
    "action_from_fields",
    "arguments",
    "checked_action",
    "get_action",
    "list_actions",
    "positive_seconds",
    "seconds",
]

_DEFAULT_WAIT: Final = 60.0


class ClientBase:
    """What both clients share: construction, and each method's checked arguments as a flow."""

    core: ClientCore
    _repeating: Callable[[str, Callable[[], Any], float], Repeating | AsyncRepeating]

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
        single = arguments(locals(), "base_url", "engine", "http_client", "settings")
        if base_url is not None and single.setdefault("api_url", base_url) != base_url:
            raise ConfigurationError("api_url and base_url are one setting; give one of them")
        if isinstance(fail_mode, str):
            single["fail_mode"] = str(fail_mode).lower()
        if isinstance(engine, str):
            single["engine"], engine = engine, None
        if settings is None:
            settings = Settings.load(single).checked()
        elif single:
            raise ConfigurationError("give either settings or single arguments, not both")
        masking.install()
        if settings.debug:
            logging.getLogger(masking.ROOT).setLevel(logging.DEBUG)
        self.settings: Final = settings
        self.core = ClientCore(settings)
        self._is_fixed: Final = (
            substitute.current is None
            and not settings.api_url.startswith(f"{TEST_SCHEME}:")
            and engine is None
            and http_client is None
        )
        self.kill: Final = KillState(agent_id=settings.agent_id, clock=self.core.clock, now=self.core.now)
        self.background: Final = Background()
        self._open(engine, http_client)

    def _open(self, engine: object, http_client: object) -> None:
        raise NotImplementedError

    def _run(self, flow: Flow[Any]) -> Any:
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
            return checked_action(action)
        if action is not None:
            if not isinstance(action, Mapping) or fields:
                raise ValidationError("an action is an AgentAction, one mapping, or single fields", field="action")
            fields = dict(action)
        return action_from_fields(fields, agent_id=self.settings.agent_id, agent_name=self.settings.agent_name)

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

    def _waited(
        self,
        action_id: str | int,
        timeout: float | None,
        poll_interval: float,
        on_escalated: Callable[[str, AuthorizationDecision], object] | None = None,
    ) -> Flow[AuthorizationDecision]:
        fill_path("{action_id}", action_id=action_id)
        wait = seconds("timeout", timeout)
        interval = positive_seconds("poll_interval", poll_interval, 2.0)
        return self.core.wait(action_id, timeout=wait, poll_interval=interval, on_escalated=on_escalated)

    def _repeat(self, name: str, make: Callable[[], Flow[object]], interval: float) -> None:
        """Run a flow in the background, at once and then at each interval, in place of what has the same name."""
        self.background.start(self._repeating(name, lambda: self._run(make()), interval))


def arguments(scope: Mapping[str, Any], *others: str) -> dict[str, Any]:
    """Return the arguments of a method, its `locals()`, that were given, without itself and `others`."""
    return {name: value for name, value in scope.items() if value is not None and name not in ("self", *others)}


def seconds(name: str, value: object, default: float | None = None) -> float:
    """Return a number of seconds, at least 0; without a default, the usual wait for a person counts."""
    if value is None:
        return _DEFAULT_WAIT if default is None else default
    if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0 or not math.isfinite(value):
        raise ValidationError(f"{name} must be a number, at least 0", field=name)
    return float(value)


def positive_seconds(name: str, value: object, default: float) -> float:
    """Return the seconds between two repetitions, more than 0."""
    found = seconds(name, value, default)
    if found <= 0:
        raise ValidationError(f"{name} must be more than 0 seconds", field=name)
    return found


# --- what is asked in more than one place


def get_action(action_id: str | int) -> Operation[ActionRecord]:
    """Fetch the full record of an action."""
    decode = partial(answers.action_record, action_id=action_id)
    return endpoints.GET_ACTION.call(decode=decode, action_id=action_id)


def list_actions(
    *, limit: int = 50, offset: int = 0, status: str | None = None, filters: Mapping[str, object] | None = None
) -> Operation[ActionPage]:
    """Fetch one page of actions; filters go into the query as they are, those that are None left out."""
    query = {"limit": limit, "offset": offset, "status": status, **(filters or {})}
    return endpoints.LIST_ACTIONS.call(query=query, decode=partial(answers.action_page, limit=limit, offset=offset))


# --- actions

# What clients without an agent's id send: the authority takes the action for one of the key's own agent.
UNNAMED_AGENT: Final = "unknown"


def action_from_fields(fields: Mapping[str, Any], *, agent_id: str, agent_name: str) -> AgentAction:
    """Build an action from the spelled-out fields of a call; the agent's default identity fills in."""
    values = {name: value for name, value in fields.items() if value is not None}
    for claim in ("risk_score", "riskScore", "risk_level", "riskLevel"):
        values.pop(claim, None)
    if "parameters" in values:
        check_values(values)  # what holds itself cannot be compared
        parameters = values.pop("parameters")
        if values.setdefault("action_details", parameters) != parameters:
            raise ValidationError("parameters and action_details are one thing; give one of them", field="parameters")
    unknown = sorted(str(name) for name in values if name not in AgentAction.__struct_fields__)
    if unknown:
        raise ValidationError(
            f"unknown action field {unknown[0]!r}; known: {', '.join(AgentAction.__struct_fields__)}", field=unknown[0]
        )
    given_agent = values.pop("agent_id", None)
    values["agent_id"] = (agent_id or UNNAMED_AGENT) if given_agent is None else given_agent
    own_name = (agent_name or values["agent_id"]) if given_agent in (None, agent_id) else given_agent
    values.setdefault("agent_name", own_name)
    values.setdefault("resource", "")
    values.setdefault("action_type", "")
    return checked_action(AgentAction(**values))


_TEXTS: Final = ("agent_name", "resource", "resource_id", "tool_name", "description", "orchestration_session_id")
_OBJECTS: Final = ("action_details", "context", "risk_indicators")
_NAMES: Final = ("mcp_server_name", "model_id", "parent_action_id")
_NAME: Final = "a non-empty string or a whole number"
_KINDS: Final[Mapping[str, tuple[Any, str]]] = {
    **dict.fromkeys(_TEXTS, (str, "a string")),
    **dict.fromkeys(_OBJECTS, (Mapping, "a mapping")),
    **dict.fromkeys(_NAMES, (str | int, _NAME)),
    "mcp_server_name": (str, "a string"),
}


def checked_action(action: AgentAction) -> AgentAction:
    """Return the action after checking the kinds of its values; `submit_body` checks the rest."""
    for name, (kind, words) in _KINDS.items():
        value = getattr(action, name)
        if value is None:
            continue
        if not isinstance(value, kind) or isinstance(value, bool):
            raise ValidationError(f"{name} must be {words}", field=name)
        if name in _NAMES and not str(value).strip():
            raise ValidationError(f"{name} must be {_NAME}", field=name)
        if isinstance(value, Mapping) and not isinstance(value, dict):
            setattr(action, name, strip_risk_claims(dict(value)))
    submit_body(action)
    return action
