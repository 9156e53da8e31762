"""Ask an ASCEND authority "may this agent do this?" before a handler runs.

Names load at first use; importing the package imports no framework.
"""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any

if sys.version_info < (3, 11):  # noqa: UP036 - from source, nothing else says so
    # Else it would be some module or name of the standard library that is not there.
    raise ImportError(f"ascend-middleware needs Python 3.11 or newer, and this is {sys.version.split()[0]}")

if TYPE_CHECKING:
    from .api.batches import BulkActionResult as BulkActionResult
    from .api.batches import BulkEvaluationResult as BulkEvaluationResult
    from .api.models import *  # noqa: F403
    from .client import AscendClient as AscendClient
    from .client import AsyncAscendClient as AsyncAscendClient
    from .client import AsyncAuthorizedAgent as AsyncAuthorizedAgent
    from .client import AsyncOWKAIClient as AsyncOWKAIClient
    from .client import AuthorizedAgent as AuthorizedAgent
    from .client import CircuitBreaker as CircuitBreaker
    from .client import OWKAIClient as OWKAIClient
    from .exceptions import *  # noqa: F403
    from .guard import Agent as Agent
    from .guard import NotAnAgent as NotAnAgent
    from .mcp import DeniedResult as DeniedResult
    from .mcp import MCPGovernanceConfig as MCPGovernanceConfig
    from .mcp import MCPGovernanceMiddleware as MCPGovernanceMiddleware
    from .mcp import MCPKillSwitchConsumer as MCPKillSwitchConsumer
    from .mcp import high_risk_action as high_risk_action
    from .mcp import mcp_governance as mcp_governance
    from .mcp import require_governance as require_governance
    from .rules import Rule as Rule

from ._version import __version__

_ROOMS = {
    "client": (
        "AscendClient",
        "AsyncAscendClient",
        "AsyncAuthorizedAgent",
        "AsyncOWKAIClient",
        "AuthorizedAgent",
        "CircuitBreaker",
        "OWKAIClient",
    ),
    "guard": ("Agent", "NotAnAgent"),
    "mcp": (
        "DeniedResult",
        "MCPGovernanceConfig",
        "MCPGovernanceMiddleware",
        "MCPKillSwitchConsumer",
        "high_risk_action",
        "mcp_governance",
        "require_governance",
    ),
    "rules": ("Rule",),
    "api.batches": ("BulkActionResult", "BulkEvaluationResult"),
    "api.models": (
        "ActionPage",
        "ActionRecord",
        "ActionResult",
        "ActionType",
        "AgentAction",
        "AgentHealthStatus",
        "ApprovalStatus",
        "AuditEvent",
        "AuditLogResponse",
        "AuthorizationDecision",
        "ConnectionStatus",
        "Decision",
        "DecisionStatus",
        "FailMode",
        "KillSwitchStatus",
        "PolicyEvaluationResult",
        "Record",
        "RiskLevel",
        "Webhook",
        "WebhookTestResult",
    ),
    "exceptions": (
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
    ),
}
_HOME = {name: room for room, names in _ROOMS.items() for name in names}

__all__ = ["__version__", *_HOME]


def __getattr__(name: str) -> Any:
    room = _HOME.get(name)
    if room is None and name == "AscendMiddleware":
        rooms = ", ".join(f"{__name__}.{one}" for one in ("fastapi", "asgi", "wsgi", "django"))
        raise ImportError(f"AscendMiddleware depends on the framework: import it from one of {rooms}")
    if room is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{room}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
