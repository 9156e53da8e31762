# ruff: noqa: ASYNC109 - how long the caller waits is an argument
"""Made of `owkai.py` by tools/make_async.py; not to be edited."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..api.models import (
    ActionPage,
    ActionRecord,
    AgentAction,
    ConnectionStatus,
)
from . import requests
from .awaiting import Awaiting
from .owkai import OWKAIClient, ReferenceDecision, _ReferenceFlows, _told
from .twins import twin_of

__all__ = ["AsyncOWKAIClient"]


@twin_of(OWKAIClient)
class AsyncOWKAIClient(_ReferenceFlows, Awaiting):
    """The awaitable twin of `OWKAIClient`."""

    async def test_connection(self) -> ConnectionStatus:
        """See `OWKAIClient.test_connection`."""
        return await self.run(self.core.test_connection())

    async def submit_action(
        self, action: AgentAction | Mapping[str, Any] | None = None, **fields: Any
    ) -> ReferenceDecision:
        """See `OWKAIClient.submit_action`."""
        return await self.run(self._asked(action, fields))

    async def get_action_status(self, action_id: str | int) -> ReferenceDecision:
        """See `OWKAIClient.get_action_status`."""
        return await self.run(self._status(action_id))

    async def wait_for_decision(
        self, action_id: str | int, timeout: float = 60, poll_interval: float = 2.0
    ) -> ReferenceDecision:
        """See `OWKAIClient.wait_for_decision`."""
        return await self.run(self._awaited(action_id, timeout, poll_interval))

    async def list_actions(
        self, limit: int = 50, offset: int = 0, status: str | None = None, **filters: object
    ) -> ActionPage:
        """See `OWKAIClient.list_actions`."""
        return await self.run(_told(self._listed(limit, offset, status, filters)))

    async def get_action_details(self, action_id: str | int) -> ActionRecord:
        """See `OWKAIClient.get_action_details`."""
        return await self.run(_told(self.core.call(requests.get_action(action_id))))
