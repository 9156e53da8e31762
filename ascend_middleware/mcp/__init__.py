"""The MCP pieces of the contract: tools that ask before they run, and a kill switch fed from a queue (§1.7)."""

from .arguments import Arguments
from .decorators import MCPGovernanceMiddleware, high_risk_action, mcp_governance, require_governance
from .governance import DEFAULT_CONFIG, DeniedResult, MCPGovernanceConfig
from .kill_switch import MCPKillSwitchConsumer, ServerState

__all__ = [
    "DEFAULT_CONFIG",
    "Arguments",
    "DeniedResult",
    "MCPGovernanceConfig",
    "MCPGovernanceMiddleware",
    "MCPKillSwitchConsumer",
    "ServerState",
    "high_risk_action",
    "mcp_governance",
    "require_governance",
]
