"""How one call of a tool is decided: from bound arguments to a permission, a denial, or an error. No IO here."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from ..client.core import PASSING
from ..exceptions import (
    AscendError,
    AuthorizationDeniedError,
    ConfigurationError,
    KillSwitchError,
    TimeoutError,  # noqa: A004 - the documented name
)
from ..flow import Hook, Sleep
from ..masking import get_logger
from .arguments import DEFAULT_LIMIT, Arguments
from .kill_switch import MCPKillSwitchConsumer

if TYPE_CHECKING:
    from ..api.models import AgentAction, AuthorizationDecision
    from ..client.base import ClientBase
    from ..client.core import ClientCore
    from ..flow import Flow

__all__ = ["DEFAULT_CONFIG", "DeniedResult", "MCPGovernanceConfig", "Question", "conclude", "decide"]

logger = get_logger("ascend_middleware.mcp")

_SLICE: Final = 0.5
_APPROVER_FIELDS: Final = ("decided_by", "approved_by", "reviewed_by", "approver")
_NO_PERSON: Final = frozenset({"", "auto", "auto_approved", "automatic", "none", "policy", "system"})


@dataclass(frozen=True, slots=True)
class MCPGovernanceConfig:
    """How tools are governed.

    Callbacks get the decision and the tool's name; what one raises, the caller of the tool gets, and it does not run.

    Attributes:
        wait_for_approval: whether a held action is waited for; else it is a denial at once.
        approval_timeout_seconds: for how many seconds; fewer than the client of the server waits for a tool, which is
            often a minute.
        approval_poll_interval_seconds: how many seconds pass between two questions meanwhile.
        include_tool_name: whether the authority is told the tool's name.
        include_arguments: whether it is told the arguments; without them it decides blindly.
        include_caller_info: whether it is told the module and the qualified name of the tool's function.
        raise_on_denial: whether a denial raises; else the call returns a `DeniedResult`. What is no denial (the kill
            switch, an authority that cannot be asked) always raises.
        log_all_decisions: whether each decision is logged at INFO.
        on_approval_required: called when an action is held.
        on_denied: called when it is denied.
        on_allowed: called before the tool runs.
        on_timeout: called when nobody has decided in time.
        mcp_server: the name under which this server is registered at the authority; sent with every action.
        kill_switch: asked before the decision, during it, and before the tool runs.
        redact: names of parameters and keys whose values are secrets, besides the usual ones.
        represent: how values of further types are shown to the authority: type → function to plain JSON.
        by_reference: parameters that the server injects; they are neither copied nor shown in full.
        max_argument_bytes: more JSON than this is refused, never cut.
        outcome_seconds: how many seconds the report of what became of a run may take.
    """

    wait_for_approval: bool = True
    approval_timeout_seconds: float = 50
    approval_poll_interval_seconds: float = 5
    include_tool_name: bool = True
    include_arguments: bool = True
    include_caller_info: bool = True
    raise_on_denial: bool = True
    log_all_decisions: bool = True
    on_approval_required: Callable[..., Any] | None = None
    on_denied: Callable[..., Any] | None = None
    on_allowed: Callable[..., Any] | None = None
    on_timeout: Callable[..., Any] | None = None
    mcp_server: str | None = None
    kill_switch: MCPKillSwitchConsumer | None = None
    redact: tuple[str, ...] = ()
    represent: Mapping[type, Callable[[Any], Any]] = field(default_factory=dict)
    by_reference: tuple[str, ...] = ()
    max_argument_bytes: int = DEFAULT_LIMIT
    outcome_seconds: float = 5.0

    def __post_init__(self) -> None:
        for name, least in (
            ("approval_timeout_seconds", 0),
            ("approval_poll_interval_seconds", 0.001),
            ("max_argument_bytes", 0),
            ("outcome_seconds", 0),
        ):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value < float("inf"):
                raise ConfigurationError(f"{name} must be a number, at least {least}, not {value!r}")
        if self.kill_switch is not None and not self.mcp_server:
            raise ConfigurationError("kill_switch needs mcp_server, the name of the server that may be blocked")


DEFAULT_CONFIG: Final = MCPGovernanceConfig()


@dataclass(frozen=True, slots=True, kw_only=True)
class DeniedResult:
    """What a governed tool returns in place of its result when it was not run, with `raise_on_denial=False`.

    It has no truth value, because `if result:` would take it for an empty result: use `isinstance`.

    Attributes:
        code: `MCP_ACTION_DENIED`, `APPROVAL_TIMEOUT`, `APPROVAL_REQUIRED` or `HUMAN_APPROVAL_MISSING`.
        reason: why, in words.
        action_id: the action at the authority; empty when there is none.
        status: the authority's word.
        executed: always False.
    """

    code: str
    reason: str
    action_id: str
    status: str
    executed: bool = field(default=False, init=False)

    def __bool__(self) -> bool:
        raise TypeError("a denied result has no truth value; ask isinstance(result, DeniedResult)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One call of a tool, ready to be asked about.

    Attributes:
        action: what is submitted.
        tool: the tool's name.
        arguments: what it gets when it runs.
        needs_person: whether only a person's approval counts.
    """

    action: AgentAction
    tool: str
    arguments: Arguments
    needs_person: bool


def decide(client: ClientBase, question: Question, config: MCPGovernanceConfig) -> Flow[AuthorizationDecision]:
    """Ask, and return the decision that permits the call.

    Args:
        client: asks; its kill switch is obeyed too.
        question: what is asked.
        config: how.

    Raises:
        AuthorizationDeniedError: denied, or held and not waited for, or approved by nobody where a person has to.
        TimeoutError: held, and nobody has decided in time.
        KillSwitchError: the server or the agent is blocked.
        AscendError: there is no decision.
    """
    _obey(config, client)
    client.background.ensure()
    client.kill.admit()
    decision = yield from client.core.submit_or_open(question.action)
    held = decision.is_pending()
    if held:
        yield from _tell(config.on_approval_required, decision, question)
        if not config.wait_for_approval:
            raise _denial(decision, "APPROVAL_REQUIRED", "a person has to approve this action first")
        decision = yield from _wait(client, decision, config)
    if config.log_all_decisions:
        logger.info("tool %s: %s (action %s)", question.tool, decision.status, decision.action_id or "none")
    if decision.is_pending():
        yield from _tell(config.on_timeout, decision, question)
        seconds = config.approval_timeout_seconds
        raise _expiry(decision, f"nobody has decided on action {decision.action_id} within {seconds:g} s")
    if decision.status == "timeout":
        yield from _tell(config.on_timeout, decision, question)
        raise _expiry(decision, f"action {decision.action_id} has expired undecided")
    if not decision.is_approved():
        yield from _tell(config.on_denied, decision, question)
        raise _denial(decision, "MCP_ACTION_DENIED", decision.reason or "the authority denied it")
    if question.needs_person and not _shows_person(decision, held=held):
        yield from _tell(config.on_denied, decision, question)
        text = "this tool needs a person's approval, and the authority approved it by itself"
        raise _denial(decision, "HUMAN_APPROVAL_MISSING", text)
    yield from _tell(config.on_allowed, decision, question)
    # Last of all, because an order may have come meanwhile; and the only one that counts as a run.
    _obey(config, client, runs=True)
    return decision


def conclude(
    core: ClientCore, decision: AuthorizationDecision, raised: str | None, seconds: float, limit: float
) -> Flow[None]:
    """Report what became of a run; that the report fails is logged and changes nothing else."""
    if not decision.action_id or limit <= 0:
        return
    how: dict[str, Any] = {"duration_ms": round(seconds * 1000, 3), "deadline": core.clock() + limit}
    # The error's name and not its text, which may repeat the arguments.
    error = f"the tool raised {raised}" if raised is not None else None
    try:
        yield from core.report(decision.action_id, failed=raised is not None, error=error, **how)
    except AscendError as failure:
        logger.warning("the outcome of action %s was not reported: %s", decision.action_id, failure)


def _obey(config: MCPGovernanceConfig, client: ClientBase, *, runs: bool = False) -> None:
    client.kill.check()
    if config.kill_switch is None:
        return
    state = config.kill_switch.state(config.mcp_server)
    if state.blocked or (runs and config.kill_switch.is_blocked(config.mcp_server)):
        raise KillSwitchError(
            f"MCP server {config.mcp_server!r} is blocked: {state.reason or 'ordered meanwhile'}",
            code="MCP_SERVER_BLOCKED",
        )


def _wait(
    client: ClientBase, decision: AuthorizationDecision, config: MCPGovernanceConfig
) -> Flow[AuthorizationDecision]:
    """Poll while the action is held, and look at the kill switch at least twice a second."""
    core = client.core
    until = core.clock() + config.approval_timeout_seconds
    while True:
        left = until - core.clock()
        if left <= 0:
            return decision
        pause = min(config.approval_poll_interval_seconds, left)
        while pause > 0:
            _obey(config, client)
            yield Sleep(min(pause, _SLICE))
            pause -= _SLICE
        _obey(config, client)
        try:
            limit = max(until - core.clock(), _SLICE)
            decision = yield from core.status(
                decision.action_id, deadline=core.clock() + min(limit, core.settings.timeout)
            )
        except PASSING as error:
            logger.debug("action %s is still held: %s", decision.action_id, error)
        if not decision.is_pending():
            return decision


def _shows_person(decision: AuthorizationDecision, *, held: bool) -> bool:
    """Whether a person approved: the decision names one, or the action was held and then approved by no automat."""
    facts = {**decision.to_dict(), **decision.metadata}
    if facts.get("enforcement_decision") == "auto_approved" or facts.get("fail_open"):
        return False
    named = [str(facts[name]).strip().lower() for name in _APPROVER_FIELDS if facts.get(name) is not None]
    return any(name not in _NO_PERSON for name in named) if named else held


def _tell(function: Callable[..., Any] | None, decision: AuthorizationDecision, question: Question) -> Flow[None]:
    result = None if function is None else (yield Hook(function, (decision, question.tool)))
    # On an event loop it was awaited.
    if inspect.isawaitable(result):
        if inspect.iscoroutine(result):
            result.close()
        raise ConfigurationError(f"tool {question.tool} is a plain function, so its callbacks must be too")


def _denial(decision: AuthorizationDecision, code: str, text: str) -> AuthorizationDeniedError:
    details = {"status": str(decision.status), "policy_violations": decision.policy_violations}
    return AuthorizationDeniedError(
        f"not executed: {text}", code=code, action_id=decision.action_id or None, details=details
    )


def _expiry(decision: AuthorizationDecision, text: str) -> TimeoutError:
    details = {"status": str(decision.status)}
    return TimeoutError(f"not executed: {text}", code="APPROVAL_TIMEOUT", action_id=decision.action_id, details=details)
