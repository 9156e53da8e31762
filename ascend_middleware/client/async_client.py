"""The client for event loops."""

from __future__ import annotations

from .async_methods.actions import AsyncActionMethods
from .async_methods.agents import AsyncAgentMethods
from .async_methods.decisions import AsyncDecisionMethods
from .async_methods.governance import AsyncGovernanceMethods
from .async_methods.mcp_servers import AsyncMcpServerMethods
from .async_methods.webhooks import AsyncWebhookMethods

__all__ = ["AsyncAscendClient"]


class AsyncAscendClient(
    AsyncDecisionMethods,
    AsyncActionMethods,
    AsyncAgentMethods,
    AsyncGovernanceMethods,
    AsyncMcpServerMethods,
    AsyncWebhookMethods,
):
    """The client for event loops; the arguments, the methods and the errors are those of `AscendClient`.

    Every method is awaitable. It may be used from several event loops; connections belong to the loop that opened
    them, and `aclose` closes those of the loop that it is called on.
    """
