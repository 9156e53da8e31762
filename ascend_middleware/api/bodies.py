"""What requests say: the body and the query of every endpoint, each written once.

The client checks what it sends by these types, the authority reads by them, and the OpenAPI document lists them.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from .types import (
    MAX_LIMIT,
    MAX_OFFSET,
    BlankOrExactName,
    BlankOrName,
    BlankOrText,
    CommandType,
    ComponentType,
    ConditionText,
    Count,
    Depth,
    Events,
    Moment,
    Name,
    Needed,
    Number,
    PolicyDecision,
    Reason,
    RiskLevelWord,
    RiskScore,
    RuleAction,
    Secret,
    Text,
    Url,
    Words,
)

__all__ = [
    "ActionQuery",
    "AgentChange",
    "Broadcast",
    "ClassificationQuery",
    "Command",
    "ComponentQuery",
    "ConfiguredWebhook",
    "Days",
    "Deactivation",
    "Heartbeat",
    "McpAction",
    "NewAgent",
    "NewComponent",
    "NewPolicy",
    "NewRule",
    "NewServer",
    "NewWebhook",
    "Nothing",
    "Outcome",
    "Page",
    "Parameters",
    "PolicyChange",
    "Rejection",
    "RuleChange",
    "StatusQuery",
    "Submission",
    "Switch",
    "Trial",
    "Verdict",
    "Waiting",
    "WebhookChange",
]


class Page(Struct, kw_only=True, forbid_unknown_fields=True):
    """The query of a list that is neither filtered nor sorted."""

    limit: Annotated[int, Meta(ge=1, le=MAX_LIMIT)] = 50
    offset: Annotated[int, Meta(ge=0, le=MAX_OFFSET)] = 0


# --- actions, and what people decide about them


class Submission(Struct, kw_only=True):
    """A submitted action; an empty text counts as none. `parameters` is another name of `action_details`."""

    agent_id: Name
    action_type: Name
    agent_name: BlankOrName | None = None
    resource_id: BlankOrExactName | None = None
    tool_name: BlankOrExactName | None = None
    orchestration_session_id: BlankOrExactName | None = None
    mcp_server_name: BlankOrExactName | None = None
    resource: BlankOrText | None = None
    description: BlankOrText | None = None
    business_justification: BlankOrText | None = None
    action_details: dict[str, Any] | None = None
    parameters: dict[str, Any] | None = None
    context: dict[str, Any] | None = None
    risk_indicators: dict[str, Any] | None = None
    orchestration_depth: Depth | None = None
    parent_action_id: int | str | None = None
    model_id: int | Annotated[str, Meta(min_length=1)] | None = None


class Verdict(Struct, kw_only=True):
    """A person's decision; without `approved` the endpoint's name says it."""

    approved: bool | UnsetType = UNSET
    comments: Text | None = None
    reason: Text | None = None


class Rejection(Struct, kw_only=True):
    """A person's denial; what says `approved` beside it is refused."""

    approved: Annotated[bool | UnsetType, Meta(extra_json_schema={"const": False})] = UNSET
    comments: Text | None = None
    reason: Text | None = None


class Outcome(Struct, kw_only=True):
    """What became of an action."""

    action_id: Any = None
    status: Any = None
    result: Any = None
    error: Any = None
    duration_ms: Annotated[float, Meta(ge=0)] | None = None
    completed_at: Any = None
    failed_at: Any = None
    given_back: Annotated[int, Meta(ge=1)] | None = None


class ActionQuery(Struct, kw_only=True, forbid_unknown_fields=True):
    """The query of the lists of actions; read by `read_query`."""

    limit: Annotated[int, Meta(ge=1, le=MAX_LIMIT)] = 50
    offset: Annotated[int, Meta(ge=0, le=MAX_OFFSET)] = 0
    status: Literal["pending", "pending_approval", "approved", "denied", "rejected"] | UnsetType = UNSET
    risk_level: RiskLevelWord | UnsetType = UNSET
    agent_id: str | UnsetType = UNSET
    sort: Literal["created_at", "updated_at", "risk_score", "id"] | UnsetType = UNSET
    order: Literal["asc", "desc"] | UnsetType = UNSET
    start_date: Moment | UnsetType = UNSET
    end_date: Moment | UnsetType = UNSET


class Waiting(Struct, kw_only=True):
    """For how many seconds a request is held until the action is decided; read by `read_wait`."""

    wait: Annotated[str, Meta(pattern=r"^[0-9]{1,9}(\.[0-9]{1,9})?$(?!\n)")] | UnsetType = UNSET


# --- agents


class NewAgent(Struct, kw_only=True):
    """The body of a registration."""

    agent_id: Name
    agent_name: Name | None = None
    display_name: Name | None = None
    agent_type: Name = "supervised"
    environment: Name = "production"
    capabilities: Words = ()
    allowed_resources: Words = ()
    sdk_version: Text | None = None
    metadata: dict[str, Any] = msgspec.field(default_factory=dict)


class AgentChange(Struct, kw_only=True, omit_defaults=True):
    """What an admin may change of an agent."""

    model_id: Number | Name | None = None
    agent_name: Name | None = None
    display_name: Name | None = None
    agent_type: Name | None = None
    environment: Name | None = None
    capabilities: Words | None = None
    allowed_resources: Words | None = None
    metadata: dict[str, Any] | None = None


class Heartbeat(Struct, kw_only=True):
    """The body of a heartbeat."""

    agent_id: Name
    sdk_version: Text | None = None
    timestamp: Text | None = None
    response_time_ms: Annotated[float, Meta(ge=0)] | None = None
    error_rate: Annotated[float, Meta(ge=0, le=1)] | None = None
    requests_count: Count | None = None
    metadata: dict[str, Any] | None = None


# --- queries of analytics


class Nothing(Struct, kw_only=True, forbid_unknown_fields=True):
    """No query."""


class Days(Struct, kw_only=True, forbid_unknown_fields=True):
    """How many days back, today included."""

    days: Annotated[int, Meta(ge=1, le=90)] = 7


# --- the kill switch


class Parameters(Struct, kw_only=True):
    """What a command needs besides its type."""

    max_per_minute: Annotated[int, Meta(ge=1, le=1_000_000)] | None = None


class Command(Struct, kw_only=True):
    """The body of a command to one agent; RATE_LIMIT needs `max_per_minute` among its parameters."""

    command_type: CommandType
    reason: Reason
    parameters: Parameters | None = None


class Broadcast(Struct, kw_only=True):
    """The body of a command to the whole organisation, or to everybody who uses an MCP server."""

    command_type: CommandType
    reason: Reason
    parameters: Parameters | None = None
    mcp_server: Name | None = None


class Switch(Struct, kw_only=True):
    """Why the organisation's kill switch is thrown or released."""

    reason: Annotated[str, Meta(min_length=10, max_length=1000, pattern=r"\S")]


class StatusQuery(Struct, kw_only=True, forbid_unknown_fields=True):
    """Whose standing is asked for; without an agent, the organisation's."""

    agent_id: Name | UnsetType = UNSET


# --- MCP servers


class NewServer(Struct, kw_only=True):
    """The body of a registration of an MCP server."""

    server_name: Name
    transport_type: Name = "stdio"
    governance_enabled: bool = True
    display_name: Name | None = None
    description: Text | None = None
    server_url: Text | None = None
    connection_config: dict[str, Any] = msgspec.field(default_factory=dict)
    auto_approve_tools: Words = ()
    blocked_tools: Words = ()
    tool_risk_overrides: dict[str, RiskScore] = msgspec.field(default_factory=dict)


class Deactivation(Struct, kw_only=True):
    """Why a server is deactivated."""

    reason: Text | None = None


class McpAction(Struct, kw_only=True):
    """The body of an action in the words of MCP."""

    mcp_server: Name
    namespace: Name
    verb: Name
    resource: Needed
    action_type: Name | None = None
    parameters: dict[str, Any] | None = None
    context: dict[str, Any] | None = None
    description: Text | None = None
    environment: Name | None = None
    tool_name: Name | None = None
    agent_id: Name | None = None
    agent_name: Name | None = None
    risk_indicators: dict[str, Any] | None = None
    model_id: Number | Name | None = None
    orchestration_session_id: Name | None = None
    parent_action_id: int | Name | None = None
    orchestration_depth: Depth | None = None


# --- looking at the authority


class ClassificationQuery(Struct, kw_only=True, forbid_unknown_fields=True):
    """Which type of resource."""

    resource_type: Name | UnsetType = UNSET


# --- policies and smart rules


class NewRule(Struct, kw_only=True):
    """A smart rule: what is done with actions for which a condition holds."""

    name: Name
    condition: ConditionText
    action: RuleAction
    action_types: Words = ()
    agents: Words = ()
    risk_score: RiskScore | None = None
    reason: Text | None = None
    description: Text | None = None
    enabled: bool = True


class RuleChange(Struct, kw_only=True):
    """What may be changed of a smart rule."""

    condition: ConditionText | None = None
    action: RuleAction | None = None
    action_types: Words | None = None
    agents: Words | None = None
    risk_score: RiskScore | None = None
    reason: Text | None = None
    description: Text | None = None
    enabled: bool | None = None


class NewPolicy(Struct, kw_only=True):
    """A policy: what is decided about actions of some types, of some agents, where a condition holds."""

    name: Name
    decision: PolicyDecision
    when: ConditionText | None = None
    action_types: Words = ()
    agents: Words = ()
    risk_score: RiskScore | None = None
    reason: Text | None = None
    description: Text | None = None
    enabled: bool = True


class PolicyChange(Struct, kw_only=True):
    """What may be changed of a policy."""

    decision: PolicyDecision | None = None
    when: ConditionText | None = None
    action_types: Words | None = None
    agents: Words | None = None
    risk_score: RiskScore | None = None
    reason: Text | None = None
    description: Text | None = None
    enabled: bool | None = None


class Trial(Struct, kw_only=True):
    """An action that is not meant to be done: what would be decided?"""

    action_type: Name
    resource: Text | None = None
    agent_id: Name | None = None
    agent_name: Name | None = None
    resource_id: Name | None = None
    tool_name: Name | None = None
    description: Text | None = None
    action_details: dict[str, Any] | None = None
    parameters: dict[str, Any] | None = None
    context: dict[str, Any] | None = None
    risk_indicators: dict[str, Any] | None = None
    mcp_server_name: Name | None = None
    model_id: Number | Name | None = None
    risk_score: float | None = None


# --- what agents are made of


class NewComponent(Struct, kw_only=True):
    """The body of a component's registration."""

    component_id: Name
    component_name: Name
    component_type: ComponentType
    provider: Name | None = None
    version: Name | None = None
    latest_version: Name | None = None
    license_type: Name | None = None
    source_url: Text | None = None
    provenance_verified: bool = False
    risk_level: RiskLevelWord = "medium"
    compliance_notes: Text | None = None
    package_name: Name | None = None
    package_ecosystem: Name | None = None


class ComponentQuery(Page, kw_only=True, forbid_unknown_fields=True):
    """The query of the list."""

    active_only: bool | UnsetType = UNSET
    component_type: ComponentType | UnsetType = UNSET
    risk_level: RiskLevelWord | UnsetType = UNSET
    has_vulnerabilities: bool | UnsetType = UNSET


# --- webhooks


class NewWebhook(Struct, kw_only=True):
    """The body of a subscription in the form of the REST overview."""

    target_url: Url
    event_types: Events
    secret: Secret | None = None


class ConfiguredWebhook(Struct, kw_only=True):
    """The body of a subscription in the form of the software development kit."""

    url: Url
    events: Events
    agent_id: Name | None = None
    secret: Secret | None = None


class WebhookChange(Struct, kw_only=True):
    """What may be changed of a subscription."""

    url: Url | None = None
    target_url: Url | None = None
    events: Events | None = None
    event_types: Events | None = None
    secret: Secret | None = None
    active: bool | None = None
