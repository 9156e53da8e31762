"""Made of `methods/mcp_servers.py` by tools/make_async.py; not to be edited."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ...api import endpoints
from ...api.endpoint import given, text
from ...api.models import Record
from ..awaiting import Awaiting
from ..methods.mcp_servers import McpServerMethods
from ..twins import twin_of

__all__ = ["AsyncMcpServerMethods"]


@twin_of(McpServerMethods)
class AsyncMcpServerMethods(Awaiting):
    """The awaitable twin of `McpServerMethods`."""

    async def register_mcp_server(
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
        """See `AscendClient.register_mcp_server`."""
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
        return await self._ask(operation)

    async def list_mcp_servers(self) -> Record:
        """See `AscendClient.list_mcp_servers`."""
        return await self._ask(endpoints.LIST_MCP_SERVERS.call())

    async def get_mcp_server(self, server_name: str) -> Record:
        """See `AscendClient.get_mcp_server`."""
        return await self._ask(endpoints.GET_MCP_SERVER.call(server_name=text("server_name", server_name)))

    async def activate_mcp_server(self, server_name: str) -> Record:
        """See `AscendClient.activate_mcp_server`."""
        return await self._ask(endpoints.ACTIVATE_MCP_SERVER.call(server_name=text("server_name", server_name)))

    async def deactivate_mcp_server(self, server_name: str, reason: str | None = None) -> Record:
        """See `AscendClient.deactivate_mcp_server`."""
        return await self._ask(
            endpoints.DEACTIVATE_MCP_SERVER.call(
                body=given(reason=reason), server_name=text("server_name", server_name)
            )
        )

    async def delete_mcp_server(self, server_name: str) -> Record:
        """See `AscendClient.delete_mcp_server`."""
        return await self._ask(endpoints.DELETE_MCP_SERVER.call(server_name=text("server_name", server_name)))
