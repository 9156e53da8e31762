"""The client for event loops."""

from __future__ import annotations

from .methods.actions import AsyncActionMethods
from .methods.agents import AsyncAgentMethods
from .methods.decisions import AsyncDecisionMethods
from .methods.governance import AsyncGovernanceMethods
from .methods.mcp_servers import AsyncMcpServerMethods
from .methods.webhooks import AsyncWebhookMethods

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
