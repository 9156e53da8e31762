"""The two clients of the authority: blocking, and for event loops."""

from __future__ import annotations

from .drivers import Awaiting, Blocking
from .methods.actions import ActionMethods
from .methods.agents import AgentMethods
from .methods.decisions import DecisionMethods
from .methods.organization import OrganizationMethods

__all__ = ["AscendClient", "AsyncAscendClient"]


class AscendClient(DecisionMethods, ActionMethods, AgentMethods, OrganizationMethods, Blocking):
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


class AsyncAscendClient(DecisionMethods, ActionMethods, AgentMethods, OrganizationMethods, Awaiting):
    """The client for event loops; the arguments, the methods and the errors are those of `AscendClient`.

    Every method is awaitable. It may be used from several event loops; connections belong to the loop that opened
    them, and `aclose` closes those of the loop that it is called on.
    """
