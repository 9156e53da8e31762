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
from .connection import deployment_info, health
from .operation import Operation, path

__all__ = [
    "Operation",
    "action_from_fields",
    "checked_action",
    "complete_action",
    "deployment_info",
    "fail_action",
    "get_action",
    "get_status",
    "health",
    "list_actions",
    "path",
    "submit",
]
