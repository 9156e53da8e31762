"""The OpenAPI document, made of the same table and types that answer the requests."""

from __future__ import annotations

import functools
import re
from typing import Any, Final

import msgspec

from ascend_middleware import __version__
from ascend_middleware.wire import encode_json

from .types import MAX_NAME, MAX_TEXT, NAME_PATTERN

__all__ = ["document"]

_REF: Final = "#/components/schemas/{name}"
_ERRORS: Final = {
    400: "The request is malformed, or lacks what is required.",
    401: "No valid credential.",
    403: "The credential, the agent or a rule does not permit it.",
    404: "There is no such thing in this organisation.",
    405: "The endpoint has other methods.",
    409: "It contradicts what is stored.",
    413: "The body is too large.",
    422: "A value is wrong.",
    429: "Too many requests, or too many failed sign-ins.",
    503: "The database failed; nothing was decided.",
}
_TEXT: Final = {"type": "string"}
_MAYBE: Final = {"type": ["string", "null"]}
_WHOLE: Final = {"type": "integer"}
_FLAG: Final = {"type": "boolean"}
_OBJECT: Final = {"type": "object"}
_SCORE: Final = {"type": "integer", "minimum": 0, "maximum": 100}
_WORDS: Final = {"type": "array", "items": _TEXT}
_STATUS: Final = {"enum": ["approved", "pending", "denied", "pending_approval"]}
_LEVEL: Final = {"enum": ["low", "medium", "high", "critical"]}


def _object(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties)}


def _list(name: str) -> dict[str, Any]:
    rows = {"type": "array", "items": _OBJECT}
    return _object(**{name: rows, "data": rows}, total=_WHOLE, limit=_WHOLE, offset=_WHOLE, has_more=_FLAG)


_DECISION: Final = _object(
    action_id={"type": "string", "pattern": "^[0-9]+$"},
    status=_STATUS,
    decision=_STATUS,
    risk_score=_SCORE,
    risk_level=_LEVEL,
    reason=_TEXT,
    policy_matched=_MAYBE,
    created_at=_TEXT,
    updated_at=_TEXT,
    approval_request_id=_MAYBE,
    required_approvers=_WORDS,
    pending_approvers=_WORDS,
    policy_violations=_WORDS,
    execution_allowed=_FLAG,
    correlation_id=_TEXT,
    metadata=_OBJECT,
)
_KEPT: Final = {"id": _WHOLE, "name": _TEXT, "enabled": _FLAG, "created_at": _TEXT, "updated_at": _TEXT}
_ANSWERS: Final[dict[str, dict[str, Any]]] = {
    "Object": _OBJECT,
    "Error": _object(
        status={"const": "error"},
        error=_object(code=_TEXT, message=_TEXT, details=_OBJECT),
        meta=_object(request_id=_TEXT, timestamp=_TEXT),
        detail={"type": ["string", "object"]},
    ),
    "Decision": _DECISION,
    "ActionDetails": {
        "allOf": [
            _DECISION,
            _object(agent_id=_TEXT, action_type=_TEXT, resource=_TEXT, audit_trail={"type": "array", "items": _OBJECT}),
        ]
    },
    "Actions": _list("actions"),
    "Agent": _object(agent_id=_TEXT, status=_TEXT, blocked=_FLAG, trust_level=_TEXT),
    "Agents": _list("agents"),
    "AgentChanged": _object(success=_FLAG, message=_TEXT, agent_id=_TEXT, status=_TEXT, agent=_OBJECT),
    "AgentHealth": _object(
        agent_id=_TEXT, status=_TEXT, last_heartbeat=_MAYBE, uptime_seconds=_WHOLE, metadata=_OBJECT
    ),
    "Commands": _object(commands={"type": "array", "items": _OBJECT}),
    "CommandIssued": _object(success=_FLAG, command_id=_TEXT, command=_OBJECT),
    "KillSwitchStatus": _object(
        blocked=_FLAG, active=_FLAG, is_active=_FLAG, reason=_MAYBE, activated_at=_MAYBE, activated_by=_MAYBE
    ),
    "McpServer": _object(name=_TEXT, server_name=_TEXT, active=_FLAG, status=_TEXT),
    "McpServers": _list("servers"),
    "McpServerChanged": _object(success=_FLAG, message=_TEXT, server=_OBJECT),
    "SmartRule": _object(**_KEPT, condition=_TEXT, action={"enum": ["allow", "require_approval", "deny"]}),
    "SmartRuleList": _list("rules"),
    "Policy": _object(**_KEPT, when=_MAYBE, decision={"enum": ["approved", "pending", "denied"]}),
    "PolicyList": _list("policies"),
    "Evaluation": _object(
        decision=_STATUS,
        matched_policies={"type": "array", "items": _OBJECT},
        violations=_WORDS,
        risk_score=_SCORE,
        evaluation_time_ms={"type": "number"},
        explanation=_OBJECT,
    ),
    "Webhook": _object(webhook_id=_TEXT, url=_TEXT, events=_WORDS, active=_FLAG, secret=_MAYBE, created_at=_TEXT),
    "Webhooks": _list("webhooks"),
    "WebhookTest": _object(success=_FLAG),
    "Components": _list("components"),
    "ComponentChanged": _object(success=_FLAG, component=_OBJECT, message=_TEXT),
    "AuditLog": _list("events"),
    "Classifications": _object(classifications={"type": "array", "items": _OBJECT}, total=_WHOLE),
}


def _name(longest: int = MAX_NAME) -> dict[str, Any]:
    return {"type": ["string", "null"], "maxLength": longest, "pattern": f"^$|{NAME_PATTERN}"}


# What a submission may say; read by `read_submission`, which also knows what the types here cannot tell.
_NEEDED: Final = {"type": "string", "minLength": 1, "maxLength": MAX_NAME, "pattern": NAME_PATTERN}
_PROSE: Final = {"type": ["string", "null"], "maxLength": MAX_TEXT, "pattern": r"^$|\S"}
_MAPPING: Final = {"type": ["object", "null"]}
_SUBMISSION: Final = {
    "type": "object",
    "properties": {
        "agent_id": _NEEDED,
        "action_type": _NEEDED,
        **dict.fromkeys(("resource_id", "tool_name", "orchestration_session_id", "mcp_server_name"), _name()),
        "agent_name": {"type": ["string", "null"], "maxLength": MAX_NAME, "pattern": r"^$|\S"},
        **dict.fromkeys(("resource", "description", "business_justification"), _PROSE),
        **dict.fromkeys(("action_details", "parameters", "context", "risk_indicators"), _MAPPING),
        "orchestration_depth": {"type": ["integer", "null"], "minimum": 0, "maximum": 5},
        "parent_action_id": {"type": ["integer", "string", "null"]},
        "model_id": {"type": ["integer", "string", "null"]},
    },
    "required": ["agent_id", "action_type"],
}

# What the types alone cannot say.
_IS_LIMIT: Final = {"properties": {"command_type": {"const": "RATE_LIMIT"}}}
_NEEDS_LIMIT: Final = {
    "required": ["parameters"],
    "properties": {
        "parameters": {
            "type": "object",
            "required": ["max_per_minute"],
            "properties": {"max_per_minute": {"type": "integer"}},
        }
    },
}
_OF_SERVER: Final = {"properties": {"mcp_server": {"type": "string"}}, "required": ["mcp_server"]}
_SERVER_WORDS: Final = {"properties": {"command_type": {"enum": ["BLOCK", "UNBLOCK"]}}}
_TWO_NAMES: Final = [
    {"properties": {one: {"type": kind}, other: {"type": kind}}, "required": [one, other]}
    for one, other, kind in (("url", "target_url", "string"), ("events", "event_types", "array"))
]
_MORE: Final[dict[str, dict[str, Any]]] = {
    "Command": {"if": _IS_LIMIT, "then": _NEEDS_LIMIT},
    "Broadcast": {
        "allOf": [{"if": _IS_LIMIT, "then": _NEEDS_LIMIT}, {"if": _OF_SERVER, "then": _SERVER_WORDS}],
    },
    "WebhookChange": {"not": {"anyOf": _TWO_NAMES}},
}


@functools.cache
def document() -> bytes:
    """Return the document as JSON."""
    from .table import HEALTH, OPENAPI, ROUTES

    kinds = list(dict.fromkeys(kind for route in ROUTES for kind in (route.body, route.query) if kind is not None))
    _, components = msgspec.json.schema_components(kinds, ref_template=_REF)
    components = {name: {**schema, **_MORE.get(name, {})} for name, schema in components.items()}
    paths: dict[str, dict[str, Any]] = {}
    for route in ROUTES:
        operation: dict[str, Any] = {
            "operationId": re.sub(r"\W+", "_", f"{route.method.lower()}{route.path}").strip("_"),
            "summary": route.summary,
            "tags": [_tag(route.path)],
            "parameters": [
                *(
                    {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
                    for name in re.findall(r"\{(\w+)\}", route.path)
                ),
                *(_query(components[route.query.__name__]) if route.query else ()),
            ],
            "responses": _responses(route.status, route.answer),
        }
        body = _SUBMISSION if route.path == "/api/v1/actions/submit" else None
        if route.body is not None:
            body = {"$ref": _REF.format(name=route.body.__name__)}
        if body is not None:
            needed = route.body is not None and any(item.required for item in msgspec.structs.fields(route.body))
            operation["requestBody"] = {
                "required": needed or body is _SUBMISSION,
                "content": {"application/json": {"schema": body}},
            }
        paths.setdefault(route.path, {})[route.method.lower()] = operation
    for path in (HEALTH, OPENAPI):
        ok = {"description": "OK", "content": {"application/json": {"schema": _OBJECT}}}
        summary = "Tell that the authority is up" if path == HEALTH else "This document"
        paths[path] = {"get": {"summary": summary, "security": [], "responses": {"200": ok, **_errors((400, 405))}}}
    return encode_json(
        {
            "openapi": "3.1.0",
            "info": {"title": "ASCEND authority (embedded)", "version": __version__},
            "security": [{"apiKey": []}, {"bearer": []}],
            "paths": paths,
            "components": {
                "schemas": {**components, **_ANSWERS},
                "securitySchemes": {
                    "apiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
                    "bearer": {"type": "http", "scheme": "bearer"},
                },
            },
        }
    )


def _tag(path: str) -> str:
    parts = [part for part in path.split("/") if part not in ("", "api", "v1", "sdk")]
    return parts[0]


def _query(schema: dict[str, Any]) -> list[dict[str, Any]]:
    required = schema.get("required", ())
    found = []
    for name, kind in schema["properties"].items():
        # A query has no null: the parameter is absent then.
        options = [one for one in kind.get("anyOf", ()) if one.get("type") != "null"]
        plain = options[0] if len(options) == 1 else {key: value for key, value in kind.items() if key != "default"}
        if "enum" in plain:
            plain = {**plain, "enum": [word for word in plain["enum"] if word is not None]}
        found.append({"name": name, "in": "query", "required": name in required, "schema": plain})
    return found


def _responses(status: int, answer: str) -> dict[str, Any]:
    schema = {"$ref": _REF.format(name=answer)}
    success = {"description": "OK", "content": {"application/json": {"schema": schema}}}
    return {**dict.fromkeys({"200", str(status)}, success), **_errors(tuple(_ERRORS))}


def _errors(statuses: tuple[int, ...]) -> dict[str, Any]:
    schema = {"$ref": _REF.format(name="Error")}
    return {
        str(status): {"description": _ERRORS[status], "content": {"application/json": {"schema": schema}}}
        for status in statuses
    }
