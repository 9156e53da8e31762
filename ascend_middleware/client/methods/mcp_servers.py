"""The register of MCP servers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ...api import endpoints
from ...api.endpoint import given, text
from ...api.models import Record
from ..blocking import Blocking

__all__ = ["McpServerMethods"]


class McpServerMethods(Blocking):
    """Which MCP servers actions may name."""

    def register_mcp_server(
        self,
        server_name: str,
        display_name: str | None = None,
        description: str | None = None,
        server_url: str | None = None,
        transport_type: str = "stdio",
        connection_config: Mapping[str, Any] | None = None,
        governance_enabled: bool = True,
        auto_approve_tools: Sequence[str] | None = None,
        blocked_tools: Sequence[str] | None = None,
        tool_risk_overrides: Mapping[str, int] | None = None,
    ) -> Record:
        """Register an MCP server, so that actions may name it.

        Args:
            server_name: the name that actions give as `mcp_server_name`.
            display_name: the same for people.
            description: what it is for.
            server_url: where it listens, for transports that do.
            transport_type: `stdio`, `http`, `sse`.
            connection_config: how it is connected; holds no secrets, since the authority shows it to people.
            governance_enabled: whether its actions are judged.
            auto_approve_tools: tools that need no person.
            blocked_tools: tools that are always denied.
            tool_risk_overrides: a risk score of its own for a tool, 0 to 100.

        Returns:
            The authority's answer: `success`, `message`, `server`.

        Raises:
            ValidationError: a value is missing or of the wrong kind; nothing was sent.
            ConflictError: the name is taken.
            AscendError: the errors of every call, see `AscendClient`.

        Source: contract §3.2.
        """
        body = given(
            server_name=server_name,
            transport_type=transport_type,
            governance_enabled=governance_enabled,
            display_name=display_name,
            description=description,
            server_url=server_url,
            auto_approve_tools=auto_approve_tools,
            blocked_tools=blocked_tools,
            connection_config=connection_config,
            tool_risk_overrides=tool_risk_overrides,
        )
        operation = endpoints.REGISTER_MCP_SERVER.call(body=body)
        return self._ask(operation)

    def list_mcp_servers(self) -> Record:
        """Return the organisation's MCP servers: `servers`, a list of mappings, and what else the authority tells.

        Raises:
            AscendError: the errors of every call, see `AscendClient`.

        Source: contract §3.2.
        """
        return self._ask(endpoints.LIST_MCP_SERVERS.call())

    def get_mcp_server(self, server_name: str) -> Record:
        """Return one MCP server.

        Args:
            server_name: its registered name.

        Raises:
            NotFoundError: there is no such server.
            AscendError: the errors of every call, see `AscendClient`.

        Source: contract §3.2.
        """
        return self._ask(endpoints.GET_MCP_SERVER.call(server_name=text("server_name", server_name)))

    def activate_mcp_server(self, server_name: str) -> Record:
        """Let actions name an MCP server again; the key needs the admin role.

        Args:
            server_name: its registered name.

        Raises:
            NotFoundError: there is no such server.
            AuthorizationDeniedError: the key has not the admin role.
            AscendError: the errors of every call, see `AscendClient`.

        Source: contract §3.2.
        """
        return self._ask(endpoints.ACTIVATE_MCP_SERVER.call(server_name=text("server_name", server_name)))

    def deactivate_mcp_server(self, server_name: str, reason: str | None = None) -> Record:
        """Have every action denied that names an MCP server; the key needs the admin role.

        Args:
            server_name: its registered name.
            reason: why, for the audit.

        Raises:
            NotFoundError: there is no such server.
            AuthorizationDeniedError: the key has not the admin role.
            AscendError: the errors of every call, see `AscendClient`.

        Source: contract §3.2.
        """
        return self._ask(
            endpoints.DEACTIVATE_MCP_SERVER.call(
                body=given(reason=reason), server_name=text("server_name", server_name)
            )
        )

    def delete_mcp_server(self, server_name: str) -> Record:
        """Remove an MCP server from the register; the key needs the admin role.

        Args:
            server_name: its registered name.

        Raises:
            NotFoundError: there is no such server.
            AuthorizationDeniedError: the key has not the admin role.
            AscendError: the errors of every call, see `AscendClient`.

        Source: contract §3.2.
        """
        return self._ask(endpoints.DELETE_MCP_SERVER.call(server_name=text("server_name", server_name)))
