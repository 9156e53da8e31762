"""What is asked: one action of an agent."""

from __future__ import annotations

from typing import Any

import msgspec

__all__ = ["AgentAction"]


class AgentAction(msgspec.Struct, omit_defaults=True):
    """One action that an agent wants to take.

    Args:
        agent_id: who acts; a stable identifier.
        agent_name: the same for people.
        action_type: what kind of action, `database_read`; free text, `ActionType` names common ones.
        resource: what is acted on, in words.
        resource_id: the identifier of what is acted on.
        action_details: the action's own parameters; policies read them.
        context: where the action comes from: session, request, user.
        risk_indicators: facts that raise the risk; the authority scores, `risk_score` and `risk_level` are never sent.
        tool_name: the tool or service that would carry the action out.
        description: a sentence for the person who approves.
        orchestration_session_id: the run that several agents share.
        parent_action_id: the action that caused this one; must belong to the same session.
        orchestration_depth: 0 for a root action, at most 5.
        mcp_server_name: the MCP server that would carry the action out; must be registered.
        model_id: the number or the name of the model that the agent uses; must be approved.
        business_justification: why, for the person who approves.
    """

    agent_id: str
    agent_name: str
    action_type: str
    resource: str
    resource_id: str | None = None
    action_details: dict[str, Any] | None = None
    context: dict[str, Any] | None = None
    risk_indicators: dict[str, Any] | None = None
    tool_name: str | None = None
    description: str | None = None
    orchestration_session_id: str | None = None
    parent_action_id: int | str | None = None
    orchestration_depth: int | None = None
    mcp_server_name: str | None = None
    model_id: int | str | None = None
    business_justification: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the four required keys and whatever else is set."""
        return {name: value for name in self.__struct_fields__ if (value := getattr(self, name)) is not None}
