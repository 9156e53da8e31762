"""Made of `methods/actions.py` by tools/make_async.py; not to be edited."""

from __future__ import annotations

from ...api import endpoints
from ...api.models import ActionPage, ActionRecord, ApprovalStatus, AuthorizationDecision, ConnectionStatus, Record
from .. import requests
from ..awaiting import Awaiting
from ..methods.actions import ActionMethods
from ..twins import twin_of

__all__ = ["AsyncActionMethods"]


@twin_of(ActionMethods)
class AsyncActionMethods(Awaiting):
    """The awaitable twin of `ActionMethods`."""

    async def test_connection(self) -> ConnectionStatus:
        """See `AscendClient.test_connection`."""
        return await self.run(self.core.test_connection())

    async def get_action_status(self, action_id: str | int) -> AuthorizationDecision:
        """See `AscendClient.get_action_status`."""
        return await self.run(self.core.status(action_id))

    async def get_action(self, action_id: str | int) -> ActionRecord:
        """See `AscendClient.get_action`."""
        return await self._ask(requests.get_action(action_id))

    async def get_action_details(self, action_id: str | int) -> ActionRecord:
        """See `AscendClient.get_action_details`."""
        return await self._ask(requests.get_action(action_id))

    async def list_actions(
        self, limit: int = 50, offset: int = 0, status: str | None = None, **filters: object
    ) -> ActionPage:
        """See `AscendClient.list_actions`."""
        return await self.run(self._listed(limit, offset, status, filters))

    async def check_approval(self, approval_request_id: str) -> ApprovalStatus:
        """See `AscendClient.check_approval`."""
        return await self._ask(endpoints.APPROVAL_STATUS.call(approval_request_id=approval_request_id))

    async def log_action_completed(
        self, action_id: str | int, result: object | None = None, duration_ms: float | None = None
    ) -> Record:
        """See `AscendClient.log_action_completed`."""
        return await self.run(self.core.complete(action_id, result=result, duration_ms=duration_ms))

    async def log_action_failed(self, action_id: str | int, error: object, duration_ms: float | None = None) -> Record:
        """See `AscendClient.log_action_failed`."""
        return await self.run(self.core.fail(action_id, error=error, duration_ms=duration_ms))
