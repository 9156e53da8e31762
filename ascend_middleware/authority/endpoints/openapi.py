"""The OpenAPI document, made of the same table and types that answer the requests."""

from __future__ import annotations

import functools
import re
from typing import Any, Final

import msgspec

from ascend_middleware._version import __version__
from ascend_middleware.api.decode import encode_json
from ascend_middleware.api.endpoints import HEALTH, METRICS, OPENAPI, READY, TABLE

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
# What a field of an answer is.
_KINDS: Final[dict[str, dict[str, Any]]] = {
    "text": {"type": "string"},
    "maybe": {"type": ["string", "null"]},
    "id": {"type": "string", "pattern": "^[0-9]+$"},
    "whole": {"type": "integer"},
    "number": {"type": "number"},
    "flag": {"type": "boolean"},
    "object": {"type": "object"},
    "objects": {"type": "array", "items": {"type": "object"}},
    "texts": {"type": "array", "items": {"type": "string"}},
    "score": {"type": "integer", "minimum": 0, "maximum": 100},
    "status": {"enum": ["approved", "pending", "denied", "pending_approval"]},
    "level": {"enum": ["low", "medium", "high", "critical"]},
    "decision": {"enum": ["approved", "pending", "denied"]},
    "doing": {"enum": ["allow", "require_approval", "deny"]},
}


def _object(fields: str, **more: Any) -> dict[str, Any]:
    """Return the schema of an object whose fields are named with their kinds, unless they are texts."""
    named = (field.partition(":") for field in fields.split())
    properties = {**{name: _KINDS[kind or "text"] for name, _, kind in named}, **more}
    return {"type": "object", "properties": properties, "required": list(properties)}


def _list(name: str) -> dict[str, Any]:
    return _object(f"{name}:objects data:objects total:whole limit:whole offset:whole has_more:flag")


_DECISION: Final = _object(
    "action_id:id status:status decision:status risk_score:score risk_level:level reason policy_matched:maybe "
    "created_at updated_at approval_request_id:maybe required_approvers:texts pending_approvers:texts "
    "policy_violations:texts execution_allowed:flag correlation_id metadata:object"
)
_KEPT: Final = "id:whole name enabled:flag created_at updated_at"
_ANSWERS: Final[dict[str, dict[str, Any]]] = {
    "Object": _KINDS["object"],
    "Error": _object(
        "",
        status={"const": "error"},
        error=_object("code message details:object"),
        meta=_object("request_id timestamp"),
        detail={"type": ["string", "object"]},
    ),
    "Decision": _DECISION,
    "ActionDetails": {"allOf": [_DECISION, _object("agent_id action_type resource uses:whole audit_trail:objects")]},
    "Actions": _list("actions"),
    "OutcomesTaken": _object("success:flag outcomes:objects"),
    "Agent": _object("agent_id status blocked:flag trust_level"),
    "Agents": _list("agents"),
    "AgentChanged": _object("success:flag message agent_id status agent:object"),
    "AgentHealth": _object("agent_id status last_heartbeat:maybe uptime_seconds:whole metadata:object"),
    "Commands": _object("commands:objects"),
    "CommandIssued": _object("success:flag command_id command:object"),
    "KillSwitchStatus": _object(
        "blocked:flag active:flag is_active:flag reason:maybe activated_at:maybe activated_by:maybe"
    ),
    "McpServer": _object("name server_name active:flag status"),
    "McpServers": _list("servers"),
    "McpServerChanged": _object("success:flag message server:object"),
    "SmartRule": _object(f"{_KEPT} condition action:doing"),
    "SmartRuleList": _list("rules"),
    "Policy": _object(f"{_KEPT} when:maybe decision:decision"),
    "PolicyList": _list("policies"),
    "Evaluation": _object(
        "decision:status matched_policies:objects violations:texts risk_score:score evaluation_time_ms:number "
        "explanation:object"
    ),
    "Webhook": _object("webhook_id url events:texts active:flag secret:maybe created_at"),
    "Webhooks": _list("webhooks"),
    "WebhookTest": _object("success:flag"),
    "Components": _list("components"),
    "ComponentChanged": _object("success:flag component:object message"),
    "AuditLog": _list("events"),
    "Classifications": _object("classifications:objects total:whole"),
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
            "x-role": "admin, or `local:`" if endpoint.local else "admin" if endpoint.admin else "user",
            "x-rate-limit": endpoint.counted_as,
        }
        if endpoint.body is not None:
            operation["requestBody"] = {
                "required": any(item.required for item in msgspec.structs.fields(endpoint.body)),
                "content": {"application/json": {"schema": {"$ref": _REF.format(name=endpoint.body.__name__)}}},
            }
        paths.setdefault(endpoint.path, {})[endpoint.method.lower()] = operation
    for endpoint in (HEALTH, READY, METRICS, OPENAPI):
        kind, schema = ("text/plain", "text") if endpoint is METRICS else ("application/json", "object")
        ok = {"description": "OK", "content": {kind: {"schema": _KINDS[schema]}}}
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
                "responses": {str(status): _error(status) for status in _ERRORS},
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
    return {**dict.fromkeys(("200", str(status)), success), **_errors(tuple(_ERRORS))}


def _errors(statuses: tuple[int, ...]) -> dict[str, Any]:
    return {str(status): {"$ref": f"#/components/responses/{status}"} for status in statuses}


def _error(status: int) -> dict[str, Any]:
    content = {"application/json": {"schema": {"$ref": _REF.format(name="Error")}}}
    return {"description": _ERRORS[status], "content": content}
