"""The clients of the authority: the present one and the reference generation's, blocking and for event loops."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any, Final, TypeVar

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
from ..flow import Flow
from .base import ClientBase, get_action, list_actions
from .drivers import Awaiting, Blocking, sync_and_async
from .methods.agents import AgentMethods
from .methods.decisions import DecisionMethods
from .methods.organization import OrganizationMethods

__all__ = ["AscendClient", "AsyncAscendClient", "AsyncOWKAIClient", "OWKAIClient", "ReferenceDecision", "expired"]

T = TypeVar("T")
_STATUS_SECONDS: Final = 10.0
_SLUG: Final = re.compile("[!-~]+")
_VARIABLES: Final[Mapping[str, tuple[str, ...]]] = {
    "api_key": ("OWKAI_API_KEY", "ASCEND_API_KEY"),
    "api_url": ("OWKAI_API_URL", "ASCEND_API_URL"),
    "timeout": ("OWKAI_TIMEOUT",),
}


class AscendClient(DecisionMethods, AgentMethods, OrganizationMethods, Blocking):
    """The blocking client; safe to share between threads, and to use on both sides of a fork.

    Args:
        api_key: begins `owkai_` or `ask_`, at least 16 characters; `ASCEND_API_KEY` when None.
        agent_id: the agent on whose behalf it asks; `ASCEND_AGENT_ID`.
        agent_name: the same for people; `ASCEND_AGENT_NAME`, else the id.
        api_url: the authority; `ASCEND_API_URL`.
        base_url: an alias of `api_url`.
        fail_mode: what a submit that never got an answer becomes: an error (closed), or ALLOWED and marked so (open).
        timeout: seconds for one call in all: connecting, sending, reading, retrying; 30.
        debug: log at DEBUG in our own loggers; `ASCEND_DEBUG`.
        environment: where the agent runs, told at its registration; "production".
        max_retries: attempts after the first; 3.
        enable_circuit_breaker: whether calls stop for a while when they keep failing.
        circuit_breaker_threshold: so many failed calls in a row open it; 5.
        circuit_breaker_timeout: seconds until it lets one call through again; 30.
        max_connections: to the authority at the same time; 100.
        proxy: the proxy's URL; the environment's is used only with `trust_env`.
        trust_env: whether the environment's proxies and certificates count.
        ca_file: PEM file of the only authorities to trust.
        engine: `auto`, `httpx2`, or an engine object.
        http_client: your own `httpx2.Client` or `httpx.Client`; you close it.
        settings: checked settings, instead of all single ones.

    Raises:
        AuthenticationError: no key, or an ill-formed one.
        ConfigurationError: anything else that cannot work.

    Every call may raise, all of them `AscendError`:
        ValidationError: a value is missing, of the wrong kind or out of range (nothing was sent), or the authority
            refuses it.
        AuthenticationError: the authority does not know the key (HTTP 401).
        RateLimitError: too many requests, also after the last attempt; `retry_after` in seconds, `limit`, `remaining`,
            `reset` (seconds since the epoch).
        ServerError: the authority failed, also after the last attempt (HTTP 5xx).
        ProtocolError: the answer cannot be read; it is never taken as permission.
        TimeoutError: the client's `timeout` passed; what was asked may have been done.
        NetworkError: the authority could not be reached, or the connection broke.
        CircuitBreakerOpen: not sent, because recent calls failed; `retry_after` in seconds.
        ClientClosedError: the client was closed.

    Source: contract §1.1, §1.8, §2.4, §2.5.
    """


class AsyncAscendClient(DecisionMethods, AgentMethods, OrganizationMethods, Awaiting):
    """The client for event loops; the arguments, the methods and the errors are those of `AscendClient`.

    Every method is awaitable. It may be used from several event loops; connections belong to the loop that opened
    them, and `aclose` closes those of the loop that it is called on.
    """


# --- the reference generation: six methods, answers as mappings, builtin errors, `OWKAI_*` variables


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


def expired(fields: Mapping[str, Any], action_id: str, reason: str) -> ReferenceDecision:
    """Return what a wait for a decision results in when nobody decided in time."""
    fields = {**fields, "reason": reason}
    return ReferenceDecision(fields, action_id=action_id, decision=Decision.DENIED, status=DecisionStatus.TIMEOUT)


class _ReferenceMethods(ClientBase):
    """What both reference clients can do."""

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
            # Beside the key, for which organisation it is meant to be.
            self.core.add_credentials(("X-Organization-Slug", slug))

    @sync_and_async
    def test_connection(self) -> Flow[ConnectionStatus]:
        """Say whether the authority is up and knows the key.

        Returns:
            `status` ("connected" or "error"), `api_version`, `server_time` (ISO 8601); on failure `error`.

        Source: contract §1.3, C24.
        """
        return self.core.test_connection()

    @sync_and_async
    def submit_action(
        self, /, action: AgentAction | Mapping[str, Any] | None = None, **fields: Any
    ) -> Flow[ReferenceDecision]:
        """Submit an action and return at once.

        Args:
            action: the action.
            **fields: the fields of `AgentAction` instead: `agent_id`, `action_type`, `description`, `tool_name`, …

        Returns:
            `action_id`, `status`, `decision` (the same word), `risk_score` (0 to 100), `reason`, `created_at`.

        Raises:
            AuthorizationDeniedError: the caller may not submit.

        Source: contract §1.3, C10.
        """
        return _told(_reference(self._governed(self.core.submit_or_open(self._action(action, fields)))))

    @sync_and_async
    def get_action_status(self, action_id: str | int) -> Flow[ReferenceDecision]:
        """Return what was decided about an action, within 10 seconds.

        Args:
            action_id: `7`, `"7"` or `"act_7"`.

        Returns:
            `action_id`, `decision`, `status`, `updated_at`, `risk_score`.

        Raises:
            NotFoundError: the organisation has no such action.

        Source: contract §1.3, C18.
        """
        # A status check is fast, or not worth waiting for.
        deadline = self.core.clock() + min(self.settings.timeout, _STATUS_SECONDS)
        return _told(_reference(self.core.status(action_id, deadline=deadline)))

    @sync_and_async
    def wait_for_decision(
        self, action_id: str | int, timeout: float = 60, poll_interval: float = 2.0
    ) -> Flow[ReferenceDecision]:
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

        Source: contract §1.3, C6.
        """
        try:
            found = yield from _told(_reference(self._waited(action_id, timeout, poll_interval)))
        except TimeoutError:
            return expired({}, str(action_id), f"no decision within {timeout:g} s")
        return found

    @sync_and_async
    def list_actions(
        self, /, limit: int = 50, offset: int = 0, status: str | None = None, **filters: object
    ) -> Flow[ActionPage]:
        """Return one page of the organisation's actions.

        Args:
            limit: rows of the page, at least 1.
            offset: rows to leave out, 10,000 at most.
            status: `approved`, `denied`, `pending`.
            filters: what else the authority filters and sorts by; see `AscendClient.list_actions`.

        Raises:
            ValidationError: a bound or a filter is of the wrong kind.

        Source: contract §1.3, C4.
        """
        question = list_actions(limit=limit, offset=offset, status=status, filters=filters)
        return _told(self.core.call(question))

    @sync_and_async
    def get_action_details(self, action_id: str | int) -> Flow[ActionRecord]:
        """Return the full record of an action, with its audit trail.

        Args:
            action_id: `7`, `"7"` or `"act_7"`.

        Raises:
            NotFoundError: the organisation has no such action.

        Source: contract §1.3, §3.1.
        """
        return _told(self.core.call(get_action(action_id)))


class OWKAIClient(_ReferenceMethods, Blocking):
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


class AsyncOWKAIClient(_ReferenceMethods, Awaiting):
    """The awaitable twin of `OWKAIClient`."""
