"""The decorators of the contract: which tool asks, as what, and how."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, TypeVar, cast

from ..client import AscendClient, AsyncAscendClient
from ..exceptions import ConfigurationError
from ..secret_names import redact, secret_names
from .governance import DEFAULT_CONFIG, MCPGovernanceConfig
from .kill_switch import MCPKillSwitchConsumer
from .tools import GovernedTool, tool_name, wrapped

__all__ = ["MCPGovernanceMiddleware", "high_risk_action", "mcp_governance", "require_governance"]

F = TypeVar("F", bound=Callable[..., Any])


def mcp_governance(
    client: AscendClient | AsyncAscendClient,
    action_type: str,
    resource: str,
    config: MCPGovernanceConfig | None = None,
    risk_level: str | None = None,
    metadata: Mapping[str, Any] | None = None,
    require_human_approval: bool = False,
    *,
    mcp_server: str | None = None,
    kill_switch: MCPKillSwitchConsumer | None = None,
) -> Callable[[F], F]:
    """Make a tool ask before each run.

    It stands below the server's own decorator, next to the function.

        @server.tool()
        @mcp_governance(client, "database.query", "production database")
        async def query(sql: str) -> list[str]: ...

    What is decided on is what the tool gets: its arguments are bound, defaults included, and copied; the authority is
    shown the copy in full, secrets replaced, and the tool runs with the copy. It works for functions, coroutine
    functions, generators and async generators; an async tool never holds up its event loop, with either client.

    Args:
        client: asks; must know its `agent_id`. An `AsyncAscendClient` is for async tools only.
        action_type: of the action, `database.query`.
        resource: what the tool acts on, in words.
        config: how; `DEFAULT_CONFIG` when None.
        risk_level: how risky the author holds the tool (low, medium, high, critical). It can only raise the score.
        metadata: further facts for the authority, in the action's context.
        require_human_approval: whether only a person's approval counts.
        mcp_server: instead of the config's.
        kill_switch: instead of the config's.

    Raises (when the tool is called):
        AuthorizationDeniedError: denied; `code` says how (`DeniedResult`).
        TimeoutError: held, and nobody decided in time; code `APPROVAL_TIMEOUT`.
        KillSwitchError: the agent or the server is blocked.
        ValidationError: an argument cannot be shown to the authority in full.
        AscendError: no decision could be had.
        Whatever the tool itself raises, unchanged; it is reported as failed.

    Raises (at once):
        ConfigurationError: an argument cannot work.
    """
    config = config or DEFAULT_CONFIG
    if mcp_server is not None or kill_switch is not None:
        config = replace(
            config,
            mcp_server=config.mcp_server if mcp_server is None else mcp_server,
            kill_switch=config.kill_switch if kill_switch is None else kill_switch,
        )
    if not isinstance(client, AscendClient | AsyncAscendClient):
        raise ConfigurationError("the first argument must be an AscendClient or an AsyncAscendClient")
    if not client.settings.agent_id:
        raise ConfigurationError("the client must know its agent_id: governed tools act on the agent's behalf")
    texts: dict[str, object] = {"action_type": action_type, "resource": resource}
    for name, value in texts.items():
        if not isinstance(value, str) or not value.strip():
            raise ConfigurationError(f"{name} must be a non-empty text")
    facts: dict[str, Any] = {"source": "mcp"}
    if metadata:
        facts["metadata"] = redact(dict(metadata), secret_names(config.redact))
    if require_human_approval:
        facts["require_human_approval"] = True

    def decorate(function: F) -> F:
        if isinstance(function, staticmethod | classmethod):
            return cast("F", type(function)(decorate(function.__func__)))
        tool = GovernedTool(
            function,
            client,
            config,
            fields={
                "action_type": action_type,
                "resource": resource,
                "context": facts,
                "risk_indicators": {"declared_risk": risk_level} if risk_level else None,
            },
            needs_person=require_human_approval,
        )
        return cast("F", wrapped(function, tool))

    return decorate


def require_governance(
    client: AscendClient | AsyncAscendClient,
    action_type: str,
    resource: str,
    config: MCPGovernanceConfig | None = None,
    **options: Any,
) -> Callable[[F], F]:
    """Make a tool ask before each run; the same as `mcp_governance`."""
    return mcp_governance(client, action_type, resource, config, **options)


def high_risk_action(
    client: AscendClient | AsyncAscendClient,
    action_type: str,
    resource: str,
    config: MCPGovernanceConfig | None = None,
    **options: Any,
) -> Callable[[F], F]:
    """Make a tool run only after a person has approved; the options are those of `mcp_governance`.

    The action is declared as high risk. An approval that the authority gave by itself does not suffice: it raises
    `AuthorizationDeniedError` with the code `HUMAN_APPROVAL_MISSING`, as does a client that is open to failure.
    Have a policy that holds this action type.
    """
    options.setdefault("risk_level", "high")
    if options.setdefault("require_human_approval", True) is not True:
        raise ConfigurationError("a high_risk_action needs a person's approval; use mcp_governance for what does not")
    return mcp_governance(client, action_type, resource, config, **options)


class MCPGovernanceMiddleware:
    """One client and one configuration for all the tools of a server.

    Args:
        client: asks for every tool.
        default_config: for tools that name none.
    """

    def __init__(
        self, client: AscendClient | AsyncAscendClient, default_config: MCPGovernanceConfig | None = None
    ) -> None:
        self.client = client
        self.default_config = default_config or DEFAULT_CONFIG
        self._tools: list[str] = []

    def govern(
        self, action_type: str, resource: str, config: MCPGovernanceConfig | None = None, **options: Any
    ) -> Callable[[F], F]:
        """Make a tool ask before each run; the options are those of `mcp_governance`."""
        decorate = mcp_governance(self.client, action_type, resource, config or self.default_config, **options)

        def listed(function: F) -> F:
            governed = decorate(function)
            self._tools.append(tool_name(function))
            return governed

        return listed

    def wrap(
        self,
        action_type: str,
        resource: str,
        func: Callable[..., Any] | None = None,
        config: MCPGovernanceConfig | None = None,
        **options: Any,
    ) -> Callable[..., Any]:
        """Return the governed form of `func`, or the decorator when there is none; the same as `govern`."""
        decorate: Callable[..., Any] = self.govern(action_type, resource, config, **options)
        return decorate if func is None else cast("Callable[..., Any]", decorate(func))

    @property
    def governed_tools(self) -> list[str]:
        """The names of the tools that ask, in the order they were declared."""
        return list(self._tools)
