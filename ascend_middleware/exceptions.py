"""Every error this package raises.

    AscendError
    ├── ConfigurationError            something the user wrote is wrong; carries every problem found
    ├── AuthenticationError           HTTP 401, or a key that cannot be one
    │   └── MissingAPIKeyError        no key anywhere; also a ValueError
    ├── AuthorizationDeniedError      HTTP 403; also the builtin PermissionError
    ├── NotFoundError                 HTTP 404
    ├── ConflictError                 HTTP 409
    ├── ValidationError               HTTP 400, 413 or 422, or a local check; also a ValueError
    ├── RateLimitError                HTTP 429 after the last attempt
    ├── ServerError                   HTTP 5xx after the last attempt
    ├── ProtocolError                 an answer that cannot be read, never taken as allowed
    ├── TimeoutError                  a deadline passed; also the builtin TimeoutError
    │   └── OverloadedError           this process had no free connection, or no time, for the call
    ├── NetworkError                  no connection, or DNS failure; also the builtin ConnectionError
    │   └── TLSError                  something answered without TLS that is trusted here; also a ConfigurationError
    ├── CircuitBreakerOpen            not sent, because recent calls failed
    ├── KillSwitchError               the agent is blocked
    └── ClientClosedError             the client was used after close()

`StorageError` is none of them: it stays within the embedded authority and its command line.

Several derive from a builtin as well, because the documented programs catch the builtin by its bare name.
"""

from __future__ import annotations

import builtins
from typing import TYPE_CHECKING, Any

from .problems import Problem

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = [
    "AscendError",
    "AuthenticationError",
    "AuthorizationDeniedError",
    "AuthorizationError",
    "CircuitBreakerOpen",
    "ClientClosedError",
    "ConfigurationError",
    "ConflictError",
    "ConnectionError",
    "KillSwitchError",
    "MissingAPIKeyError",
    "NetworkError",
    "NotFoundError",
    "OWKAIError",
    "OverloadedError",
    "Problem",
    "ProtocolError",
    "RateLimitError",
    "ServerError",
    "TLSError",
    "TimeoutError",
    "ValidationError",
]


class AscendError(Exception):
    """The base of every error of this package.

    Attributes:
        message: what happened, safe to show and to log.
        status_code: the HTTP status of the authority's answer, or None when there was none.
        code: the authority's error code (`INVALID_REQUEST`), or None.
        details: whatever the authority added, as it sent it.
        action_id: the action the error is about, when one is known.
        correlation_id: the id under which the authority logged the call.
        unanswered: whether the call was sent, or a connection was tried, and nothing answered at all. Only such a
            failure may pass a request whose rule, or a client whose `fail_mode`, is open.
    """

    def __init__(
        self,
        message: str = "",
        *,
        status_code: int | None = None,
        code: str | None = None,
        details: Mapping[str, Any] | None = None,
        action_id: str | None = None,
        correlation_id: str | None = None,
        unanswered: bool = False,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status_code = status_code
        self.code = code
        self.details: Mapping[str, Any] = details if details is not None else {}
        self.action_id = action_id
        self.correlation_id = correlation_id
        self.unanswered = unanswered

    def __str__(self) -> str:
        return self.message

    def __reduce__(self) -> tuple[Any, ...]:
        # Exceptions that take keywords do not survive pickling by themselves; test runners and process pools pickle.
        return type(self), (self.message,), self.__dict__


class ConfigurationError(AscendError, ValueError):
    """Something the user wrote cannot work; `problems` holds all that was found, not only the first."""

    def __init__(self, message: str = "", *, problems: Sequence[Problem] = (), **fields: Any) -> None:
        if not message:
            message = "\n".join(str(problem) for problem in problems)
        super().__init__(message, **fields)
        self.problems = tuple(problems)


class AuthenticationError(AscendError):
    """The authority does not know the key, or the key cannot be one (HTTP 401)."""


class MissingAPIKeyError(AuthenticationError, ValueError):
    """No key was given and no environment variable holds one."""


class AuthorizationDeniedError(AscendError, builtins.PermissionError):
    """The authority refused the action or the caller (HTTP 403)."""


class NotFoundError(AscendError):
    """The authority knows no such thing (HTTP 404)."""


class ConflictError(AscendError):
    """The thing exists already or is in another state (HTTP 409)."""


class ValidationError(AscendError, ValueError):
    """A value is missing or not allowed (HTTP 400, 413 or 422, or checked before anything was sent).

    Attributes:
        field: the name of the first bad field, when it is known.
    """

    def __init__(self, message: str = "", *, field: str | None = None, **fields: Any) -> None:
        super().__init__(message, **fields)
        self.field = field


class RateLimitError(AscendError):
    """Too many requests, also after the last attempt (HTTP 429).

    Attributes:
        retry_after: seconds to wait, or None when the authority named none.
        limit: requests allowed in the window.
        remaining: requests left in the window.
        reset: when the window ends, in seconds since the epoch.
    """

    def __init__(
        self,
        message: str = "",
        *,
        retry_after: float | None = None,
        limit: int | None = None,
        remaining: int | None = None,
        reset: int | None = None,
        **fields: Any,
    ) -> None:
        super().__init__(message, **fields)
        self.retry_after = retry_after
        self.limit = limit
        self.remaining = remaining
        self.reset = reset


class ServerError(AscendError):
    """The authority failed, also after the last attempt (HTTP 5xx)."""


class ProtocolError(AscendError):
    """The answer cannot be read as what was asked for; it is never taken as permission."""


class TimeoutError(AscendError, builtins.TimeoutError):  # noqa: A001 - the documented name
    """The deadline passed before there was an answer or a decision."""


class OverloadedError(TimeoutError):
    """This process could not send the call: no connection or file was free, or its event loop was busy with other work.

    Attributes:
        retry_after: seconds after which it is worth another try.
    """

    def __init__(self, message: str = "", *, retry_after: float | None = None, **fields: Any) -> None:
        super().__init__(message, **fields)
        self.retry_after = retry_after


class NetworkError(AscendError, builtins.ConnectionError):
    """The authority could not be reached, or the connection broke."""


class TLSError(ConfigurationError, NetworkError):
    """Something answered, but not with TLS that is trusted here: a wrong address, port, `ca_file` or certificate.

    That is no outage: it is not tried again, and passes nothing open, nor does a breaker that it opened.
    """


class CircuitBreakerOpen(AscendError):  # noqa: N818 - the documented name
    """The call was not sent, because recent calls failed.

    Attributes:
        retry_after: seconds until the breaker lets a probe through.
    """

    def __init__(self, message: str = "", *, retry_after: float | None = None, **fields: Any) -> None:
        super().__init__(message, **fields)
        self.retry_after = retry_after


class KillSwitchError(AscendError):
    """The agent, or the whole organisation, is blocked by the kill switch."""


class ClientClosedError(AscendError, RuntimeError):
    """The client was used after it was closed."""


OWKAIError = AscendError
AuthorizationError = AuthorizationDeniedError
ConnectionError = NetworkError  # noqa: A001 - the documented alias


class StorageError(Exception):
    """The embedded authority's database cannot be used, or did not keep what it was given."""
