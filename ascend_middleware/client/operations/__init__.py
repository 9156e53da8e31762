"""What can be asked, without IO: each function checks its arguments and returns an `Operation`."""

from .actions import (
    action_from_fields,
    checked_action,
    complete_action,
    fail_action,
    get_action,
    get_status,
    list_actions,
    submit,
)
from .agents import (
    ack_command,
    agent_status,
    deregister,
    heartbeat,
    kill_switch_status,
    link_model,
    list_agents,
    pending_commands,
    register,
)
from .connection import deployment_info, health
from .governance import check_approval, evaluate_policy, query_audit_log, register_component
from .mcp import (
    activate_server,
    deactivate_server,
    delete_server,
    get_server,
    list_servers,
    register_server,
    submit_mcp,
)
from .operation import Operation, path
from .webhooks import (
    configure_webhook,
    create_webhook,
    delete_webhook,
    list_webhooks,
    test_webhook,
    update_webhook,
)

__all__ = [
    "Operation",
    "ack_command",
    "action_from_fields",
    "activate_server",
    "agent_status",
    "check_approval",
    "checked_action",
    "complete_action",
    "configure_webhook",
    "create_webhook",
    "deactivate_server",
    "delete_server",
    "delete_webhook",
    "deployment_info",
    "deregister",
    "evaluate_policy",
    "fail_action",
    "get_action",
    "get_server",
    "get_status",
    "health",
    "heartbeat",
    "kill_switch_status",
    "link_model",
    "list_actions",
    "list_agents",
    "list_servers",
    "list_webhooks",
    "path",
    "pending_commands",
    "query_audit_log",
    "register",
    "register_component",
    "register_server",
    "submit",
    "submit_mcp",
    "test_webhook",
    "update_webhook",
]
