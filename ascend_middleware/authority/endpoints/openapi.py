"""The OpenAPI document, made of the same table and types that answer the requests."""

from __future__ import annotations

import functools
import re
from typing import Any, Final

import msgspec

from ascend_middleware._version import __version__
from ascend_middleware.api.decode import encode_json
from ascend_middleware.api.endpoints import HEALTH, OPENAPI, TABLE

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
    kinds = list(
        dict.fromkeys(kind for endpoint in TABLE for kind in (endpoint.body, endpoint.query) if kind is not None)
    )
    _, components = msgspec.json.schema_components(kinds, ref_template=_REF)
    components = {name: {**schema, **_MORE.get(name, {})} for name, schema in components.items()}
    paths: dict[str, dict[str, Any]] = {}
    for endpoint in TABLE:
        operation: dict[str, Any] = {
            "operationId": re.sub(r"\W+", "_", f"{endpoint.method.lower()}{endpoint.path}").strip("_"),
            "summary": endpoint.summary,
            "tags": [_tag(endpoint.path)],
            "parameters": [
                *(
                    {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
                    for name in re.findall(r"\{(\w+)\}", endpoint.path)
                ),
                *(_query(components[endpoint.query.__name__]) if endpoint.query else ()),
            ],
            "responses": _responses(endpoint.status, endpoint.answer),
        }
        if endpoint.body is not None:
            operation["requestBody"] = {
                "required": any(item.required for item in msgspec.structs.fields(endpoint.body)),
                "content": {"application/json": {"schema": {"$ref": _REF.format(name=endpoint.body.__name__)}}},
            }
        paths.setdefault(endpoint.path, {})[endpoint.method.lower()] = operation
    for endpoint in (HEALTH, OPENAPI):
        ok = {"description": "OK", "content": {"application/json": {"schema": _OBJECT}}}
        described = {"summary": endpoint.summary, "security": [], "responses": {"200": ok, **_errors((400, 405))}}
        paths[endpoint.path] = {"get": described}
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
