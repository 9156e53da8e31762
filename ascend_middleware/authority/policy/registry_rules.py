"""MCP servers and models: what the organisation registered, and whether an action or an agent may name them.

Both may stand in the policy file and in the database. Where they speak of the same one, the stricter counts: a server
that either deactivates is deactivated, a tool that either blocks is blocked, a model that either refuses is refused.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from ascend_middleware.exceptions import NotFoundError

from .. import killswitch
from ..context import AuthorityContext
from ..store.registry_store import MCP_SERVER, MODEL
from . import McpServer, Model, listed

__all__ = ["Refusal", "check_server", "find_model", "find_server", "names_tool"]

_APPROVED: Final = ("approved", "partially_approved")


def _models(authority: AuthorityContext, *, tenant: str) -> list[Model]:
    """Return every model of an organisation: those of the policy file and those of the database."""

    def load() -> list[Model]:
        return [
            Model(id=int(row["name"]), name=row["model_name"], compliance_status=row["compliance_status"])
            for row in authority.store.all(MODEL, tenant=tenant)
        ]

    kept = authority.store.cached(("models", tenant), load)
    return [*(model for model in authority.policy.models if model.tenant in ("", tenant)), *kept]


class Refusal(NamedTuple):
    """Why something may not be used: the code and the words."""

    code: str
    message: str


def find_model(authority: AuthorityContext, given: int | str, *, tenant: str) -> Model | Refusal:
    """Return the model of a number or a name, or why it may not be used."""
    known = _models(authority, tenant=tenant)
    numbers = {
        model.id for model in known if given in (model.id, str(model.id)) or (model.name and given == model.name)
    }
    # Also where the other source gives the number and no name: it speaks of the same model.
    found = [model for model in known if model.id in numbers]
    if not found:
        return Refusal("MODEL_UNREGISTERED_DENY", "the model is not registered")
    for model in found:
        if model.compliance_status not in _APPROVED:
            return Refusal("MODEL_NOT_APPROVED_DENY", f"the model is {model.compliance_status}")
    # A number is one model's own, but a name and another one's number may be the same word.
    if len(numbers) > 1:
        return Refusal("MODEL_AMBIGUOUS_DENY", "more than one model has this name; use its number")
    # The stricter of two sources, one that approves it in part, goes first.
    return min(found, key=lambda model: model.compliance_status == "approved")


def names_tool(pattern: str, tools: set[str]) -> bool:
    """Say whether an entry of a server's lists is about one of the tools."""
    return any(listed(tool.strip().casefold(), (pattern.casefold(),)) for tool in tools)


def find_server(authority: AuthorityContext, name: str, *, tenant: str) -> McpServer | None:
    """Return an MCP server as the policy file and the database together have it, or None where neither does."""

    def load() -> McpServer | None:
        try:
            record = authority.store.get(MCP_SERVER, name, tenant=tenant)
        except NotFoundError:
            return None
        blocked, risks = tuple(record["blocked_tools"]), tuple(sorted(record["tool_risk_overrides"].items()))
        return McpServer(name=name, active=record["active"], blocked_tools=blocked, tool_risks=risks)

    kept, declared = authority.store.cached(("server", tenant, name), load), authority.policy.mcp_servers.get(name)
    if kept is None or declared is None:
        return kept or declared
    return McpServer(
        name=name,
        active=kept.active and declared.active,
        blocked_tools=(*declared.blocked_tools, *kept.blocked_tools),
        tool_risks=(*declared.tool_risks, *kept.tool_risks),
    )


def check_server(authority: AuthorityContext, name: str, tools: set[str], *, tenant: str) -> McpServer | Refusal:
    """Return the MCP server of a name, or why an action may not use it."""
    server = find_server(authority, name, tenant=tenant)
    if server is None:
        return Refusal("MCP_SERVER_UNREGISTERED_DENY", f"the MCP server {name!r} is not registered")
    if not server.active:
        return Refusal("MCP_SERVER_DEACTIVATED_DENY", f"the MCP server {name!r} is deactivated")
    blocked = authority.store.cached(
        ("server block", tenant, name), lambda: killswitch.server_block(authority.store, name, tenant=tenant)
    )
    if blocked:
        return Refusal("MCP_SERVER_BLOCKED_DENY", f"the MCP server {name!r} is blocked by the kill switch")
    if any(names_tool(pattern, tools) for pattern in server.blocked_tools):
        return Refusal("MCP_TOOL_BLOCKED_DENY", f"the MCP server {name!r} may not be used for this tool")
    return server
