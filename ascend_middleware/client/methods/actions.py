"""What became of actions: asked about, listed, reported on; and whether the authority is there."""

from __future__ import annotations

from ...api import endpoints
from ...api.models import ActionPage, ActionRecord, ApprovalStatus, AuthorizationDecision, ConnectionStatus, Record
from ...flow import Flow
from ..base import ClientBase, get_action, list_actions
from ..drivers import sync_and_async

__all__ = ["ActionMethods"]


class ActionMethods(ClientBase):
    """What is known about actions."""

    @sync_and_async
    def test_connection(self) -> Flow[ConnectionStatus]:
        """Say whether the authority is up and knows the key.

        Returns:
            `status` ("connected" or "error"), `connected`, `api_version`, `server_time` (ISO 8601), `latency_ms`
            (milliseconds for both calls), and on failure `error`; as attributes and as items.

        Raises:
            ClientClosedError: never for the authority's sake: what goes wrong is in the result. Also a closed client.

        Source: contract §1.2, C2, C24.
        """
        return self.core.test_connection()

    @sync_and_async
    def get_action_status(self, action_id: str | int) -> Flow[AuthorizationDecision]:
        """Return what was decided about an action, as it stands now.

        Args:
            action_id: `7`, `"7"` or `"act_7"`.

        Raises:
            NotFoundError: the organisation has no such action.
            ProtocolError: the answer is unreadable, or about another action.

        Source: contract §1.2, C18.
        """
        return self.core.status(action_id)

    @sync_and_async
    def get_action(self, action_id: str | int) -> Flow[ActionRecord]:
        """Return the full record of an action, with its audit trail.

        Args:
            action_id: `7`, `"7"` or `"act_7"`.

        Raises:
            NotFoundError: the organisation has no such action.

        Source: contract §1.2, §3.1.
        """
        return self.core.call(get_action(action_id))

    # The reference client's name for it.
    get_action_details = get_action

    @sync_and_async
    def list_actions(
        self, /, limit: int = 50, offset: int = 0, status: str | None = None, **filters: object
    ) -> Flow[ActionPage]:
        """Return one page of the organisation's actions.

        Args:
            limit: rows of the page, at least 1.
            offset: rows to leave out.
            status: `approved`, `denied`, `pending` (`pending_approval` is the same).
            filters: what else the authority filters and sorts by: `risk_level`, `agent_id`, `sort`, `order`,
                `start_date`, `end_date` (a day, or ISO 8601; the end is inclusive).

        Raises:
            ValidationError: a bound or a filter is of the wrong kind (nothing was sent), or the authority refuses it.

        Source: contract §1.2, §2.6, C4.
        """
        return self.core.call(list_actions(limit=limit, offset=offset, status=status, filters=filters))

    @sync_and_async
    def check_approval(self, approval_request_id: str) -> Flow[ApprovalStatus]:
        """Return what became of an approval request.

        Args:
            approval_request_id: from a pending decision.

        Raises:
            NotFoundError: there is no such request.

        Source: contract §3.2.
        """
        return self.core.call(endpoints.APPROVAL_STATUS.call(approval_request_id=approval_request_id))

    @sync_and_async
    def log_action_completed(
        self, action_id: str | int, result: object | None = None, duration_ms: float | None = None
    ) -> Flow[Record]:
        """Report that an action was carried out.

        Args:
            action_id: the action.
            result: what came out of it, anything JSON can hold.
            duration_ms: how long it took, in milliseconds.

        Raises:
            AscendError: nothing was recorded; the errors of every call, see `AscendClient`.

        Source: contract §3.2.
        """
        return self.core.report(action_id, failed=False, result=result, duration_ms=duration_ms)

    @sync_and_async
    def log_action_failed(self, action_id: str | int, error: object, duration_ms: float | None = None) -> Flow[Record]:
        """Report that an action was tried and failed.

        Args:
            action_id: the action.
            error: what went wrong: an exception, a text, or anything JSON can hold.
            duration_ms: how long it took, in milliseconds.

        Raises:
            AscendError: nothing was recorded; the errors of every call, see `AscendClient`.

        Source: contract §3.2.
        """
        return self.core.report(action_id, failed=True, error=error, duration_ms=duration_ms)
