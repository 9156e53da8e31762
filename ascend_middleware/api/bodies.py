"""What requests say: the kinds of values, then the body and the query of every endpoint, each written once.

The client checks what it sends by these types, the authority reads by them, and the OpenAPI document lists them.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, TypeAlias, get_args, get_type_hints

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

__all__ = [
    "EVENTS",
    "MAX_CONDITION",
    "MAX_LIMIT",
    "MAX_NUMBER",
    "MAX_OFFSET",
    "MAX_ORCHESTRATION_DEPTH",
    "MAX_TEXT",
    "NAME_PATTERN",
    "ActionQuery",
    "AgentChange",
    "Broadcast",
    "ClassificationQuery",
    "Command",
    "CommandType",
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
    "Page",
    "Parameters",
    "PolicyChange",
    "Rejection",
    "RiskLevelWord",
    "RuleChange",
    "StatusQuery",
    "Submission",
    "Switch",
    "Trial",
    "Verdict",
    "Waiting",
    "WebhookChange",
]

MAX_NAME: Final = 255
MAX_TEXT: Final = 4096
# Rows of a list's page, and how many may be left out before it: each of them is looked at. A cursor reaches further.
MAX_LIMIT: Final = 1000
MAX_OFFSET: Final = 10_000
# Numbers up to here are whole in every reader of JSON.
MAX_NUMBER: Final = 2**53
MAX_ORCHESTRATION_DEPTH: Final = 5
# The CEL library works by recursion, and a stack that overflows in it ends the process; threads may have small stacks.
MAX_CONDITION: Final = 2048
# No control characters, no line separators, nothing that turns the writing direction or cannot be seen, and no blanks
# at the ends: two names that look the same to a person must not be two names. The end is spelt so because Python's `$`
# also stands before a last newline, and other readers of the OpenAPI document know no `\Z`.
_UNSEEN: Final = r"\x00-\x1f\x7f-\x9f\xad\u061c\u180e\u200b-\u200f\u2028-\u202f\u205f-\u206f\u3000\ufeff\ufff9-\uffff"
NAME_PATTERN: Final = rf"^[^\s{_UNSEEN}](?:[^{_UNSEEN}]*[^\s{_UNSEEN}])?$(?!\n)"

Name: TypeAlias = Annotated[str, Meta(min_length=1, max_length=MAX_NAME, pattern=NAME_PATTERN)]
Text: TypeAlias = Annotated[str, Meta(max_length=MAX_TEXT)]
Needed: TypeAlias = Annotated[str, Meta(min_length=1, max_length=MAX_TEXT, pattern=r"\S")]
# What may be left out may also be sent empty.
BlankOrExactName: TypeAlias = Annotated[str, Meta(max_length=MAX_NAME, pattern=f"^$|{NAME_PATTERN}")]
BlankOrName: TypeAlias = Annotated[str, Meta(max_length=MAX_NAME, pattern=r"^$|\S")]
BlankOrText: TypeAlias = Annotated[str, Meta(max_length=MAX_TEXT, pattern=r"^$|\S")]
Depth: TypeAlias = Annotated[int, Meta(ge=0, le=MAX_ORCHESTRATION_DEPTH)]
Count: TypeAlias = Annotated[int, Meta(ge=0, le=MAX_NUMBER)]
Number: TypeAlias = Annotated[int, Meta(ge=1, le=MAX_NUMBER)]
Words: TypeAlias = Annotated[tuple[Name, ...], Meta(max_length=200)]
Moment: TypeAlias = Annotated[str, Meta(extra_json_schema={"anyOf": [{"format": "date"}, {"format": "date-time"}]})]
Reason: TypeAlias = Annotated[str, Meta(min_length=1, max_length=1000, pattern=r"\S")]
RiskScore: TypeAlias = Annotated[int, Meta(ge=0, le=100)]
RiskLevelWord: TypeAlias = Literal["low", "medium", "high", "critical"]
CommandType: TypeAlias = Literal["BLOCK", "UNBLOCK", "SUSPEND", "QUARANTINE", "RATE_LIMIT"]
ComponentType: TypeAlias = Literal["library", "model", "dataset", "framework", "tool", "service"]
RuleAction: TypeAlias = Literal["allow", "require_approval", "deny"]
PolicyDecision: TypeAlias = Literal["approved", "pending", "denied"]
ConditionText: TypeAlias = Annotated[
    str, Meta(min_length=1, max_length=MAX_CONDITION, extra_json_schema={"format": "cel"})
]
Event: TypeAlias = Literal[
    "action.submitted",
    "action.pending",
    "action.approved",
    "action.denied",
    "action.completed",
    "action.failed",
    "policy.violation",
    "agent.trust_changed",
    "agent.blocked",
    "mcp.server.deactivated",
    "audit.head",
]
EVENTS: Final[tuple[str, ...]] = get_args(Event)
Events: TypeAlias = Annotated[tuple[Event, ...], Meta(min_length=1, max_length=len(EVENTS))]
Url: TypeAlias = Annotated[str, Meta(min_length=1, max_length=2048, extra_json_schema={"format": "uri"})]
Secret: TypeAlias = Annotated[str, Meta(min_length=16, max_length=255, pattern=r"^[!-~]+$(?!\n)")]


class Page(Struct, kw_only=True, forbid_unknown_fields=True):
    """The query of a list that is neither filtered nor sorted; `cursor` is the `next` of the page before."""

    limit: Annotated[int, Meta(ge=1, le=MAX_LIMIT)] = 50
    offset: Annotated[int, Meta(ge=0, le=MAX_OFFSET)] = 0
    cursor: Annotated[str, Meta(min_length=1, max_length=1024)] | UnsetType = UNSET


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


class _Described(Struct, kw_only=True):
    agent_id: Name | None = None
    agent_name: Name | None = None
    tool_name: Name | None = None
    description: Text | None = None
    parameters: dict[str, Any] | None = None
    context: dict[str, Any] | None = None
    risk_indicators: dict[str, Any] | None = None
    model_id: Number | Name | None = None


class Verdict(Struct, kw_only=True):
    """A person's decision; without `approved` the endpoint's name says it."""

    approved: bool | UnsetType = UNSET
    comments: Text | None = None
    reason: Text | None = None


class Rejection(Verdict, kw_only=True):
    """A person's denial; what says `approved` beside it is refused."""

    approved: Annotated[bool | UnsetType, Meta(extra_json_schema={"const": False})] = UNSET


class Erasure(Struct, kw_only=True):
    """Why an action's personal data is erased; the audit log keeps it."""

    reason: Needed


class ErasureOfMany(Erasure, kw_only=True):
    """Of which actions: of those whose submission has all these values, such as `{"context.principal": "grace"}`."""

    match: Annotated[dict[str, str], Meta(min_length=1, max_length=16)]


class ActionQuery(Page, kw_only=True, forbid_unknown_fields=True):
    """The query of the lists of actions; read by `read_query`."""

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


class Broadcast(Command, kw_only=True):
    """The body of a command to the whole organisation, or to everybody who uses an MCP server."""

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


class McpAction(_Described, kw_only=True):
    """The body of an action in the words of MCP."""

    mcp_server: Name
    namespace: Name
    verb: Name
    resource: Needed
    action_type: Name | None = None
    environment: Name | None = None
    orchestration_session_id: Name | None = None
    parent_action_id: int | Name | None = None
    orchestration_depth: Depth | None = None


# --- looking at the authority


class ClassificationQuery(Struct, kw_only=True, forbid_unknown_fields=True):
    """Which type of resource."""

    resource_type: Name | UnsetType = UNSET


# --- policies and smart rules


class _Kept(Struct, kw_only=True):
    name: Name
    action_types: Words = ()
    agents: Words = ()
    risk_score: RiskScore | None = None
    reason: Text | None = None
    description: Text | None = None
    enabled: bool = True


class NewRule(_Kept, kw_only=True):
    """A smart rule: what is done with actions for which a condition holds."""

    condition: ConditionText
    action: RuleAction


class NewPolicy(_Kept, kw_only=True):
    """A policy: what is decided about actions of some types, of some agents, where a condition holds."""

    decision: PolicyDecision
    when: ConditionText | None = None


def _change(name: str, of: type[Struct], doc: str) -> type[Struct]:
    """Return what may be changed of a thing: all that is said of a new one, but its name."""
    hints = get_type_hints(of, include_extras=True)
    fields = [(one, hint | None, None) for one, hint in hints.items() if one != "name"]
    return msgspec.defstruct(name, fields, kw_only=True, namespace={"__doc__": doc}, module=__name__)


RuleChange: Final = _change("RuleChange", NewRule, "What may be changed of a smart rule.")
PolicyChange: Final = _change("PolicyChange", NewPolicy, "What may be changed of a policy.")


class Trial(_Described, kw_only=True):
    """An action that is not meant to be done: what would be decided?"""

    action_type: Name
    resource: Text | None = None
    resource_id: Name | None = None
    action_details: dict[str, Any] | None = None
    mcp_server_name: Name | None = None
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
