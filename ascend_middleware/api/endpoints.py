"""The table of endpoints: the client calls them, the authority serves them, the OpenAPI document lists them.

A row names the method, the path, how a client reads the answer, a summary, then what differs from the usual; the order
is that of the document. See `Endpoint` for the columns.
"""

from __future__ import annotations

from typing import Any, Final

from . import answers, batches, bodies
from .decode import decode_decision, decode_governance_refusal, decode_object
from .endpoint import Endpoint

# fmt: off
# A table: a row to a line, or its continuation.

HEALTH: Final = Endpoint("GET", "/health", decode_object, "Tell that the authority is up", open=True)
READY: Final = Endpoint("GET", "/ready", decode_object, "Tell whether requests should come here", open=True)
METRICS: Final = Endpoint("GET", "/metrics", decode_object, "Tell numbers, for Prometheus", open=True)
OPENAPI: Final = Endpoint("GET", "/openapi.json", decode_object, "This document", open=True)

# --- actions, and what people decide about them

SUBMIT: Final = Endpoint(
    "POST", "/api/v1/actions/submit", decode_decision, "Submit an action and have it decided", body=bodies.Submission,
    answer="Decision", allowance="submit", refusal=decode_governance_refusal,
)
ACTION_STATUS: Final = Endpoint(
    "GET", "/api/v1/actions/{id}/status", decode_decision, "Show how an action is decided", query=bodies.Waiting,
    answer="Decision",
)
APPROVE: Final = Endpoint(
    "POST", "/api/v1/actions/{id}/approve", answers.record, "Approve a pending action", body=bodies.Verdict,
    answer="Decision", allowance="admin",
)
REJECT: Final = Endpoint(
    "POST", "/api/v1/actions/{id}/reject", answers.record, "Deny a pending action", body=bodies.Rejection,
    answer="Decision", allowance="admin",
)
ERASE_ACTION: Final = Endpoint(
    "POST", "/api/v1/actions/{id}/erase", answers.record, "Erase the personal data of an action", body=bodies.Erasure,
    admin=True,
)
ERASE_ACTIONS: Final = Endpoint(
    "POST", "/api/v1/actions/erase", answers.record, "Erase the personal data of all actions of somebody",
    body=bodies.ErasureOfMany, admin=True,
)
GET_ACTION: Final = Endpoint(
    "GET", "/api/v1/actions/{id}", answers.action_record, "Show an action", answer="ActionDetails",
)
LIST_ACTIONS: Final = Endpoint(
    "GET", "/api/v1/actions", answers.action_page, "List actions", query=bodies.ActionQuery, answer="Actions",
)
LIST_ACTIVITY: Final = Endpoint(
    "GET", "/api/agent-activity", answers.record, "List actions", query=bodies.ActionQuery, answer="Actions",
)
LIST_PENDING: Final = Endpoint(
    "GET", "/api/governance/pending-actions", answers.record, "List the actions that wait for a person",
    query=bodies.ActionQuery, answer="Actions",
)
DECIDE_WORKFLOW: Final = Endpoint(
    "POST", "/api/governance/workflows/{id}/approve", answers.record, "Approve or deny a pending action",
    body=bodies.Verdict, answer="Decision", allowance="admin",
)
APPROVAL_STATUS: Final = Endpoint(
    "GET", "/api/sdk/approval/{id}", answers.approval, "Show the state of an approval request", query=bodies.Waiting,
    answer="Decision",
)
COMPLETE_ACTION: Final = Endpoint(
    "POST", "/api/agent-action/{id}/complete", answers.acknowledgement, "Report that an approved action was completed",
    body=batches.Outcome,
)
FAIL_ACTION: Final = Endpoint(
    "POST", "/api/agent-action/{id}/fail", answers.acknowledgement, "Report that an approved action has failed",
    body=batches.Outcome,
)

REPORT_OUTCOMES: Final = Endpoint(
    "POST", "/api/agent-action/outcomes", answers.record,
    "Report the outcomes of many approved actions at once; each has a status of its own", body=batches.Outcomes,
    answer="OutcomesTaken",
)

# --- MCP servers

SUBMIT_MCP: Final = Endpoint(
    "POST", "/api/v1/mcp/actions/submit", decode_decision, "Submit an action in the words of MCP",
    body=bodies.McpAction, answer="Decision", allowance="submit", refusal=decode_governance_refusal,
)
LIST_MCP_SERVERS: Final = Endpoint(
    "GET", "/api/registry/mcp-servers", answers.servers, "List MCP servers", query=bodies.Page, answer="McpServers",
)
REGISTER_MCP_SERVER: Final = Endpoint(
    "POST", "/api/registry/mcp-servers", answers.record,
    "Register an MCP server; one that a user registers waits for an admin", body=bodies.NewServer,
    answer="McpServerChanged", status=201,
)
GET_MCP_SERVER: Final = Endpoint(
    "GET", "/api/registry/mcp-servers/{name}", answers.record, "Show an MCP server", answer="McpServer",
)
DELETE_MCP_SERVER: Final = Endpoint(
    "DELETE", "/api/registry/mcp-servers/{name}", answers.acknowledgement, "Remove an MCP server", admin=True,
)
ACTIVATE_MCP_SERVER: Final = Endpoint(
    "POST", "/api/registry/mcp-servers/{name}/activate", answers.acknowledgement, "Activate an MCP server",
    answer="McpServerChanged", admin=True,
)
DEACTIVATE_MCP_SERVER: Final = Endpoint(
    "POST", "/api/registry/mcp-servers/{name}/deactivate", answers.acknowledgement, "Deactivate an MCP server",
    body=bodies.Deactivation, answer="McpServerChanged", admin=True,
)

# --- agents

LIST_AGENTS: Final = Endpoint(
    "GET", "/api/registry/agents", answers.agent_ids, "List agents", query=bodies.Page, answer="Agents",
)
REGISTER_AGENT: Final = Endpoint(
    "POST", "/api/registry/agents", answers.record, "Register an agent; 200 where the organisation has it already",
    body=bodies.NewAgent, answer="AgentChanged", status=201,
)
GET_AGENT: Final = Endpoint("GET", "/api/registry/agents/{agent_id}", answers.record, "Show an agent", answer="Agent")
UPDATE_AGENT: Final = Endpoint(
    "PUT", "/api/registry/agents/{agent_id}", answers.record, "Change an agent, or link a model to it",
    body=bodies.AgentChange, answer="AgentChanged", admin=True, local=True,
)
DEREGISTER_AGENT: Final = Endpoint(
    "DELETE", "/api/registry/agents/{agent_id}", answers.acknowledgement, "Remove an agent",
)
HEARTBEAT: Final = Endpoint(
    "POST", "/api/agents/health/heartbeat", answers.acknowledgement, "Tell that an agent is alive",
    body=bodies.Heartbeat,
)
AGENT_HEALTH: Final = Endpoint(
    "GET", "/api/agents/health/{agent_id}", answers.agent_health, "Show an agent's health", answer="AgentHealth",
)

# --- the kill switch

COMMAND_AGENT: Final = Endpoint(
    "POST", "/api/registry/agents/{agent_id}/commands", answers.record, "Issue a command to an agent",
    body=bodies.Command, answer="CommandIssued", status=201, admin=True,
)
COMMAND_ALL: Final = Endpoint(
    "POST", "/api/registry/commands", answers.record,
    "Issue a command to the whole organisation, or about an MCP server", body=bodies.Broadcast, answer="CommandIssued",
    status=201, admin=True,
)
PENDING_COMMANDS: Final = Endpoint(
    "GET", "/api/registry/agents/{agent_id}/commands", answers.commands,
    "List the commands that an agent has not acknowledged", answer="Commands",
)
ACK_COMMAND: Final = Endpoint(
    "POST", "/api/registry/agents/{agent_id}/commands/{command_id}/ack", answers.acknowledged, "Acknowledge a command",
)
KILL_SWITCH_STATUS: Final = Endpoint(
    "GET", "/api/sdk/kill-switch/status", answers.kill_switch, "Show whether an agent, or the organisation, is blocked",
    query=bodies.StatusQuery, answer="KillSwitchStatus",
)
TRIGGER_KILL_SWITCH: Final = Endpoint(
    "POST", "/api/billing/kill-switch/{organization_id}/trigger", answers.record,
    "Block every agent of the organisation", body=bodies.Switch, answer="KillSwitchStatus", admin=True,
)
RELEASE_KILL_SWITCH: Final = Endpoint(
    "POST", "/api/billing/kill-switch/{organization_id}/release", answers.record,
    "Lift the block of the whole organisation", body=bodies.Switch, answer="KillSwitchStatus", admin=True,
)

# --- policies and smart rules

LIST_RULES: Final = Endpoint(
    "GET", "/api/smart-rules", answers.record, "List every rule", query=bodies.Page, answer="SmartRuleList",
)
CREATE_RULE: Final = Endpoint(
    "POST", "/api/smart-rules", answers.record, "Create a rule", body=bodies.NewRule, answer="SmartRule", status=201,
    admin=True,
)
GET_RULE: Final = Endpoint("GET", "/api/smart-rules/{id}", answers.record, "Show a rule", answer="SmartRule")
UPDATE_RULE: Final = Endpoint(
    "PUT", "/api/smart-rules/{id}", answers.record, "Change a rule", body=bodies.RuleChange, answer="SmartRule",
    admin=True,
)
DELETE_RULE: Final = Endpoint("DELETE", "/api/smart-rules/{id}", answers.record, "Remove a rule", admin=True)
EVALUATE_POLICY: Final = Endpoint(
    "POST", "/api/governance/policies/evaluate-realtime", answers.evaluation,
    "Tell what would be decided about an action, without submitting it", body=bodies.Trial, answer="Evaluation",
    pure=True,
)
LIST_POLICIES: Final = Endpoint(
    "GET", "/api/governance/policies", answers.record, "List every policy", query=bodies.Page, answer="PolicyList",
)
CREATE_POLICY: Final = Endpoint(
    "POST", "/api/governance/policies", answers.record, "Create a policy", body=bodies.NewPolicy, answer="Policy",
    status=201, admin=True,
)
GET_POLICY: Final = Endpoint("GET", "/api/governance/policies/{id}", answers.record, "Show a policy", answer="Policy")
UPDATE_POLICY: Final = Endpoint(
    "PUT", "/api/governance/policies/{id}", answers.record, "Change a policy", body=bodies.PolicyChange,
    answer="Policy", admin=True,
)
DELETE_POLICY: Final = Endpoint(
    "DELETE", "/api/governance/policies/{id}", answers.record, "Remove a policy", admin=True,
)

# --- webhooks

LIST_WEBHOOKS: Final = Endpoint(
    "GET", "/api/webhooks", answers.webhooks, "List webhooks", query=bodies.Page, answer="Webhooks",
)
CREATE_WEBHOOK: Final = Endpoint(
    "POST", "/api/webhooks", answers.webhook, "Subscribe a webhook", body=bodies.NewWebhook, answer="Webhook",
    status=201,
)
CONFIGURE_WEBHOOK: Final = Endpoint(
    "POST", "/api/webhooks/configure", answers.webhook,
    "Subscribe a webhook, in the form of the software development kit", body=bodies.ConfiguredWebhook, answer="Webhook",
    status=201,
)
GET_WEBHOOK: Final = Endpoint("GET", "/api/webhooks/{id}", answers.webhook, "Show a webhook", answer="Webhook")
UPDATE_WEBHOOK: Final = Endpoint(
    "PUT", "/api/webhooks/{id}", answers.webhook, "Change a webhook", body=bodies.WebhookChange, answer="Webhook",
)
DELETE_WEBHOOK: Final = Endpoint("DELETE", "/api/webhooks/{id}", answers.acknowledgement, "Remove a webhook")
TEST_WEBHOOK: Final = Endpoint(
    "POST", "/api/webhooks/{id}/test", answers.webhook_test, "Send a test event to a webhook", answer="WebhookTest",
    pure=True,
)

# --- what agents are made of

REGISTER_COMPONENT: Final = Endpoint(
    "POST", "/api/v1/supply-chain/components", answers.record,
    "Register a component; 200 where it was known and is now updated", body=bodies.NewComponent,
    answer="ComponentChanged", status=201, admin=True, local=True,
)
LIST_COMPONENTS: Final = Endpoint(
    "GET", "/api/v1/supply-chain/components", answers.record, "List components", query=bodies.ComponentQuery,
    answer="Components",
)
COMPONENT_STATS: Final = Endpoint("GET", "/api/v1/supply-chain/stats", answers.record, "Count components")

# --- analytics

ANALYTICS_NOW: Final = Endpoint(
    "GET", "/api/analytics/realtime/metrics", answers.record, "Show what happens now", query=bodies.Nothing,
    allowance="analytics",
)
ANALYTICS_PERIOD: Final = Endpoint(
    "GET", "/api/analytics/executive/dashboard", answers.record, "Show a period as a whole", query=bodies.Days,
    allowance="analytics",
)
ANALYTICS_TRENDS: Final = Endpoint(
    "GET", "/api/analytics/trends", answers.record, "Show a period day by day", query=bodies.Days,
    allowance="analytics",
)

# --- looking at the authority

DEPLOYMENT_INFO: Final = Endpoint("GET", "/api/deployment-info", decode_object, "Show version and time")
AUDIT_LOG: Final = Endpoint(
    "GET", "/audit/logs", answers.audit_page, "List audit events", query=bodies.Page, answer="AuditLog",
)
CLASSIFICATIONS: Final = Endpoint(
    "GET", "/api/v1/resource-classifications", answers.record, "Show how sensitive resources are",
    query=bodies.ClassificationQuery, answer="Classifications",
)

# fmt: on

# What a credential is needed for.
TABLE: Final[tuple[Endpoint[Any], ...]] = tuple(
    row for row in list(globals().values()) if isinstance(row, Endpoint) and not row.open
)
