"""The reference generation's client: six methods, answers as mappings, builtin errors, `OWKAI_*` variables."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, TypeVar

from ..api.decode import TOO_MANY
from ..api.models import (
    ActionPage,
    ActionRecord,
    AgentAction,
    AuthorizationDecision,
    ConnectionStatus,
    Decision,
    DecisionStatus,
)
from ..config import Settings
from ..exceptions import AscendError, ConfigurationError, TimeoutError  # noqa: A004 - the documented name
from . import requests
from .base import ClientBase
from .blocking import Blocking

if TYPE_CHECKING:
    from ..flow import Flow

__all__ = ["OWKAIClient", "ReferenceDecision"]

T = TypeVar("T")
_STATUS_SECONDS: Final = 10.0
_SLUG: Final = re.compile("[!-~]+")
_VARIABLES: Final[Mapping[str, tuple[str, ...]]] = {
    "api_key": ("OWKAI_API_KEY", "ASCEND_API_KEY"),
    "api_url": ("OWKAI_API_URL", "ASCEND_API_URL"),
    "timeout": ("OWKAI_TIMEOUT",),
}


class ReferenceDecision(AuthorizationDecision):
    """A decision whose item `decision` is the word of `status`, as the reference documents it ("timeout" too).

    The attributes are those of every decision: `.decision` is ALLOWED, DENIED or PENDING, never "timeout".
    """

    __slots__ = ()

    def __init__(
        self, fields: Mapping[str, Any], *, action_id: str, decision: Decision, status: DecisionStatus
    ) -> None:
        super().__init__(fields, action_id=action_id, decision=decision, status=status)
        self["decision"] = status


def _reference(flow: Flow[AuthorizationDecision]) -> Flow[ReferenceDecision]:
    found = yield from flow
    return ReferenceDecision(found.to_dict(), action_id=found.action_id, decision=found.decision, status=found.status)


def _told(flow: Flow[T]) -> Flow[T]:
    """Put "API Error" before what the authority said, where it answered at all."""
    try:
        result = yield from flow
    except AscendError as error:
        if error.status_code is not None:
            error.message = f"API Error: {error.message.removeprefix(f'{TOO_MANY}: ')}"
        raise
    return result


class _ReferenceFlows(ClientBase):
    """What both reference clients do, but for the driving."""

    def __init__(
        self,
        api_url: str | None = None,
        api_key: str | None = None,
        organization_slug: str | None = None,
        timeout: float | None = None,
        debug: bool | None = None,
        **options: Any,
    ) -> None:
        engine, http_client = options.pop("engine", None), options.pop("http_client", None)
        single = {"api_url": api_url, "api_key": api_key, "timeout": timeout, "debug": debug}
        if isinstance(engine, str):
            single["engine"] = engine
        settings = Settings.load({**options, **single}, variables=_VARIABLES).checked(key_variable="OWKAI_API_KEY")
        slug = organization_slug or os.environ.get("OWKAI_ORG_SLUG", "").strip() or None
        if slug is not None and not _SLUG.fullmatch(slug):
            raise ConfigurationError("organization_slug must be visible ASCII characters, as the dashboard shows it")
        super().__init__(settings=settings, engine=None if isinstance(engine, str) else engine, http_client=http_client)
        self.organization_slug = slug
        if slug is not None:
            self.core.name_organization(slug)

    def _asked(
        self, action: AgentAction | Mapping[str, Any] | None, fields: Mapping[str, Any]
    ) -> Flow[ReferenceDecision]:
        return _told(_reference(self._submitted(action, fields, raise_on_denied=False, idempotency_key=None)))

    def _status(self, action_id: str | int) -> Flow[ReferenceDecision]:
        # A status check is fast, or not worth waiting for.
        deadline = self.core.clock() + min(self.settings.timeout, _STATUS_SECONDS)
        return _told(_reference(self.core.status(action_id, deadline=deadline)))

    def _awaited(self, action_id: str | int, timeout: float, poll_interval: float) -> Flow[ReferenceDecision]:
        flow = self._waited(action_id, timeout, poll_interval, None, None, None)
        return _told(_or_timeout(flow, action_id, timeout))


def _or_timeout(flow: Flow[AuthorizationDecision], action_id: str | int, timeout: float) -> Flow[ReferenceDecision]:
    try:
        found = yield from _reference(flow)
    except TimeoutError:
        return ReferenceDecision(
            {"reason": f"no decision within {timeout:g} s"},
            action_id=str(action_id),
            decision=Decision.DENIED,
            status=DecisionStatus.TIMEOUT,
        )
    return found


class OWKAIClient(_ReferenceFlows, Blocking):
    """The reference generation's client; blocking, safe to share between threads.

    Every answer is a mapping (`answer["decision"]`, `answer.get("reason")`) whose keys are attributes too.

    Args:
        api_url: the authority; `OWKAI_API_URL`, then `ASCEND_API_URL`.
        api_key: begins `owkai_` or `ask_`, at least 16 characters; `OWKAI_API_KEY`, then `ASCEND_API_KEY`.
        organization_slug: whose key it is meant to be; `OWKAI_ORG_SLUG`. The key alone tells which organisation acts:
            the slug goes along as `X-Organization-Slug`, and the embedded authority refuses another one's key.
        timeout: seconds for one call in all; `OWKAI_TIMEOUT`, 30.
        debug: log at DEBUG in our own loggers.
        options: what else `AscendClient` takes: `proxy`, `ca_file`, `engine`, `http_client`, `max_retries`, …

    Raises:
        ValueError: no key; it is a `MissingAPIKeyError` and names OWKAI_API_KEY.
        AuthenticationError: an ill-formed key.
        ConfigurationError: anything else that cannot work.

    Every call may raise the errors of `AscendClient`. By their bare names, `TimeoutError` and `ConnectionError` are the
    builtins too. What the authority refused begins "API Error: " and holds its own words.

    Source: contract §1.3, C6, C7, C8.
    """

    def test_connection(self) -> ConnectionStatus:
        """Say whether the authority is up and knows the key.

        Returns:
            `status` ("connected" or "error"), `api_version`, `server_time` (ISO 8601); on failure `error`.

        Source: contract §1.3, C24.
        """
        return self.run(self.core.test_connection())

    def submit_action(self, action: AgentAction | Mapping[str, Any] | None = None, **fields: Any) -> ReferenceDecision:
        """Submit an action and return at once.

        Args:
            action: the action.
            **fields: the fields of `AgentAction` instead: `agent_id`, `action_type`, `description`, `tool_name`, …

        Returns:
            `action_id`, `status`, `decision` (the same word), `risk_score` (0 to 100), `reason`, `created_at`.

        Raises:
            ValidationError: a field is missing, unknown or of the wrong kind; nothing was sent.
            AuthorizationDeniedError: the caller may not submit.
            AscendError: the errors of every call.

        Source: contract §1.3, C10.
        """
        return self.run(self._asked(action, fields))

    def get_action_status(self, action_id: str | int) -> ReferenceDecision:
        """Return what was decided about an action, within 10 seconds.

        Args:
            action_id: `7`, `"7"` or `"act_7"`.

        Returns:
            `action_id`, `decision`, `status`, `updated_at`, `risk_score`.

        Raises:
            NotFoundError: the organisation has no such action.
            AscendError: the errors of every call.

        Source: contract §1.3, C18.
        """
        return self.run(self._status(action_id))

    def wait_for_decision(
        self, action_id: str | int, timeout: float = 60, poll_interval: float = 2.0
    ) -> ReferenceDecision:
        """Ask again and again until the action is no longer pending.

        Args:
            action_id: `7`, `"7"` or `"act_7"`.
            timeout: seconds in all.
            poll_interval: seconds between two questions.

        Returns:
            The decision; when nobody decided in time, `decision` and `status` are "timeout", and nothing is raised.

        Raises:
            ValidationError: a value is out of range; nothing was sent.
            NotFoundError: the organisation has no such action.
            AscendError: the errors of every call.

        Source: contract §1.3, C6.
        """
        return self.run(self._awaited(action_id, timeout, poll_interval))

    def list_actions(
        self, limit: int = 50, offset: int = 0, status: str | None = None, **filters: object
    ) -> ActionPage:
        """Return one page of the organisation's actions.

        Args:
            limit: rows of the page, at least 1.
            offset: rows to leave out.
            status: `approved`, `denied`, `pending`.
            **filters: what else the authority filters and sorts by; see `AscendClient.list_actions`.

        Returns:
            `actions`, `total`, `limit`, `offset`, `has_more`.

        Raises:
            ValidationError: a bound or a filter is of the wrong kind.
            AscendError: the errors of every call.

        Source: contract §1.3, C4.
        """
        return self.run(_told(self._listed(limit, offset, status, filters)))

    def get_action_details(self, action_id: str | int) -> ActionRecord:
        """Return the full record of an action, with its audit trail.

        Args:
            action_id: `7`, `"7"` or `"act_7"`.

        Raises:
            NotFoundError: the organisation has no such action.
            AscendError: the errors of every call.

        Source: contract §1.3, §3.1.
        """
        return self.run(_told(self.core.call(requests.get_action(action_id))))
