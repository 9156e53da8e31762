"""What became of actions: asked about, listed, reported on; and whether the authority is there."""

from __future__ import annotations

from ...api import endpoints
from ...api.models import (
    ActionPage,
    ActionRecord,
    ApprovalStatus,
    AuthorizationDecision,
    ConnectionStatus,
    Record,
)
from .. import requests
from ..blocking import Blocking

__all__ = ["ActionMethods"]


class ActionMethods(Blocking):
    """What is known about actions."""

    def test_connection(self) -> ConnectionStatus:
        """Say whether the authority is up and knows the key.

        Returns:
            `status` ("connected" or "error"), `connected`, `api_version`, `server_time` (ISO 8601), `latency_ms`
            (milliseconds for both calls), and on failure `error`; as attributes and as items.

        Raises:
            ClientClosedError: never for the authority's sake: what goes wrong is in the result. Also a closed client.

        Source: contract §1.2, C2, C24.
        """
        return self.run(self.core.test_connection())

    def get_action_status(self, action_id: str | int) -> AuthorizationDecision:
        """Return what was decided about an action, as it stands now.

        Args:
            action_id: `7`, `"7"` or `"act_7"`.

        Raises:
            NotFoundError: the organisation has no such action.
            ProtocolError: the answer is unreadable, or about another action.
            AscendError: the errors of every call, see `AscendClient`.

        Source: contract §1.2, C18.
        """
        return self.run(self.core.status(action_id))

    def get_action(self, action_id: str | int) -> ActionRecord:
        """Return the full record of an action, with its audit trail.

        Args:
            action_id: `7`, `"7"` or `"act_7"`.

        Returns:
            The record: `action_id`, `status`, `agent_id`, `resource`, `risk_score`, `created_at`, `audit_trail`, … as
            attributes and as items; `metadata` holds what is not named. It informs and permits nothing.

        Raises:
            NotFoundError: the organisation has no such action.
            AscendError: the errors of every call, see `AscendClient`.

        Source: contract §1.2, §3.1.
        """
        return self._ask(requests.get_action(action_id))

    def get_action_details(self, action_id: str | int) -> ActionRecord:
        """Return the full record of an action; the reference client's name for `get_action`.

        Args:
            action_id: `7`, `"7"` or `"act_7"`.

        Raises:
            NotFoundError: the organisation has no such action.
            AscendError: the errors of every call, see `AscendClient`.

        Source: contract §1.2.
        """
        return self._ask(requests.get_action(action_id))

    def list_actions(
        self, limit: int = 50, offset: int = 0, status: str | None = None, **filters: object
    ) -> ActionPage:
        """Return one page of the organisation's actions.

        Args:
            limit: rows of the page, at least 1.
            offset: rows to leave out.
            status: `approved`, `denied`, `pending` (`pending_approval` is the same).
            **filters: what else the authority filters and sorts by: `risk_level`, `agent_id`, `sort`, `order`,
                `start_date`, `end_date` (a day, or ISO 8601; the end is inclusive).

        Returns:
            The page: `actions`, `total`, `limit`, `offset`, `has_more`, as attributes and as items.

        Raises:
            ValidationError: a bound or a filter is of the wrong kind (nothing was sent), or the authority refuses it.
            AscendError: the errors of every call, see `AscendClient`.

        Source: contract §1.2, §2.6, C4.
        """
        return self.run(self._listed(limit, offset, status, filters))

    def check_approval(self, approval_request_id: str) -> ApprovalStatus:
        """Return what became of an approval request.

        Args:
            approval_request_id: from a pending decision.

        Returns:
            `approved`, `denied`, `pending` (exactly one is true), `approver`, `timestamp` (ISO 8601), `comments`. It
            informs: what may run is said by `get_action_status`.

        Raises:
            NotFoundError: there is no such request.
            AscendError: the errors of every call, see `AscendClient`.

        Source: contract §3.2.
        """
        return self._ask(endpoints.APPROVAL_STATUS.call(approval_request_id=approval_request_id))

    def log_action_completed(
        self, action_id: str | int, result: object | None = None, duration_ms: float | None = None
    ) -> Record:
        """Report that an action was carried out.

        Args:
            action_id: the action.
            result: what came out of it, anything JSON can hold.
            duration_ms: how long it took, in milliseconds.

        Raises:
            AscendError: nothing was recorded; the errors of every call, see `AscendClient`.

        Source: contract §3.2.
        """
        return self.run(self.core.complete(action_id, result=result, duration_ms=duration_ms))

    def log_action_failed(self, action_id: str | int, error: object, duration_ms: float | None = None) -> Record:
        """Report that an action was tried and failed.

        Args:
            action_id: the action.
            error: what went wrong: an exception, a text, or anything JSON can hold.
            duration_ms: how long it took, in milliseconds.

        Raises:
            AscendError: nothing was recorded; the errors of every call, see `AscendClient`.

        Source: contract §3.2.
        """
        return self.run(self.core.fail(action_id, error=error, duration_ms=duration_ms))
