"""What the client sends is what the authority reads, endpoint by endpoint, and both read answers in one way."""

import json

import msgspec
import pytest

from ascend_middleware.api import answers, endpoints
from ascend_middleware.api.endpoint import fill_path
from ascend_middleware.authority.bodies import ApiError, read_fields, read_object, read_query_fields
from ascend_middleware.authority.context import HANDLERS
from ascend_middleware.authority.endpoints import find_endpoint
from ascend_middleware.exceptions import AscendError, ProtocolError, ValidationError

WITH_BODY = [endpoint for endpoint in endpoints.TABLE if endpoint.body is not None]


def name_of(endpoint):
    return f"{endpoint.method} {endpoint.path}"


@pytest.mark.parametrize("endpoint", endpoints.TABLE, ids=name_of)
def test_what_the_client_calls_is_what_the_authority_finds(endpoint):
    names = [part[1:-1] for part in endpoint.path.split("/") if part.startswith("{")]
    target = fill_path(endpoint.path, **dict.fromkeys(names, "7"))
    found, parameters = find_endpoint(endpoint.method, target)
    assert found is endpoint and found in HANDLERS
    assert parameters == dict.fromkeys(names, "7")


def sample(kind):
    """Return a body with each field that has to be there, made by what the type's schema says."""
    _, components = msgspec.json.schema_components([kind])
    schema = components[kind.__name__]
    return {name: value_for(schema["properties"][name], components) for name in schema.get("required", ())}


def value_for(schema, components):
    if "$ref" in schema:
        return sample_of(components[schema["$ref"].rsplit("/", 1)[1]], components)
    if "anyOf" in schema:
        return value_for(schema["anyOf"][0], components)
    if "enum" in schema:
        return schema["enum"][0]
    kind = schema["type"]
    if kind == "string":
        return "https://x.example/".ljust(schema.get("minLength", 1), "x")
    if kind == "array":
        return [value_for(schema["items"], components)]
    if schema.get("minProperties"):
        return {"name": value_for(schema["additionalProperties"], components)}
    return {"integer": schema.get("minimum", 1), "number": 1.5, "boolean": True, "object": {}}[kind]


def sample_of(schema, components):
    return {name: value_for(schema["properties"][name], components) for name in schema.get("required", ())}


@pytest.mark.parametrize("endpoint", WITH_BODY, ids=name_of)
def test_a_body_that_the_client_sends_is_read_by_the_authority(endpoint):
    body = sample(endpoint.body)
    names = [part[1:-1] for part in endpoint.path.split("/") if part.startswith("{")]
    sent = endpoint.call(body=body, **dict.fromkeys(names, "7"))
    read = read_fields(read_object(sent.content), endpoint.body)
    assert {name: json.loads(msgspec.json.encode(getattr(read, name))) for name in body} == body


REQUIRED = [
    (endpoint, item.name)
    for endpoint in WITH_BODY
    for item in msgspec.structs.fields(endpoint.body)
    if item.required
]  # fmt: skip


@pytest.mark.parametrize(
    ("endpoint", "field"), REQUIRED, ids=lambda part: part if isinstance(part, str) else name_of(part)
)
def test_what_the_authority_requires_the_client_asks_for_first(endpoint, field):
    body = {name: value for name, value in sample(endpoint.body).items() if name != field}
    names = [part[1:-1] for part in endpoint.path.split("/") if part.startswith("{")]
    with pytest.raises(ValidationError, match=f"^{field} is required") as caught:
        endpoint.call(body=body, **dict.fromkeys(names, "7"))
    assert caught.value.field == field
    with pytest.raises(ApiError) as refused:
        read_fields(body, endpoint.body)
    assert (refused.value.status, refused.value.details["field"]) == (400, field)


@pytest.mark.parametrize(
    ("endpoint", "field", "value", "text"),
    [
        (endpoints.REGISTER_AGENT, "capabilities", "database.query", "must be a list of strings"),
        (endpoints.REGISTER_AGENT, "capabilities", ["a", " "], "must hold non-empty strings only"),
        (endpoints.REGISTER_AGENT, "metadata", [], "must be a mapping"),
        (endpoints.REGISTER_AGENT, "agent_type", "", "is required and must be a non-empty string"),
        (endpoints.HEARTBEAT, "error_rate", 1.5, "must be a number, from 0 to 1"),
        (endpoints.HEARTBEAT, "requests_count", -1, "must be a number, at least 0"),
        (endpoints.HEARTBEAT, "response_time_ms", True, "must be a number, at least 0"),
        (endpoints.REGISTER_COMPONENT, "component_type", "gadget", "must be one of library, model, "),
        (endpoints.REGISTER_COMPONENT, "provenance_verified", "yes", "must be True or False"),
        (
            endpoints.REGISTER_MCP_SERVER,
            "tool_risk_overrides",
            {"x": 101},
            "is wrong at 'x': must be a number, from 0 ",
        ),
        (endpoints.CREATE_WEBHOOK, "event_types", [], "must name at least one event"),
        (endpoints.DEACTIVATE_MCP_SERVER, "reason", 7, "must be a string"),
    ],
)
def test_a_wrong_value_is_told_before_it_is_sent_and_refused_where_it_arrives(endpoint, field, value, text):
    body = {**sample(endpoint.body), field: value}
    names = [part[1:-1] for part in endpoint.path.split("/") if part.startswith("{")]
    with pytest.raises(ValidationError) as caught:
        endpoint.call(body=body, **dict.fromkeys(names, "7"))
    assert caught.value.message.startswith(f"{field} {text}") and caught.value.field == field
    with pytest.raises(ApiError) as refused:
        read_fields(body, endpoint.body)
    assert refused.value.status in (400, 422)


def test_what_only_the_authority_bounds_is_left_to_it():
    operation = endpoints.CONFIGURE_WEBHOOK.call(
        body={"url": "https://x.example", "events": ["of.tomorrow"], "secret": "s"}
    )
    assert json.loads(operation.content)["events"] == ["of.tomorrow"]
    with pytest.raises(ApiError, match="events"):
        read_fields(read_object(operation.content), endpoints.CONFIGURE_WEBHOOK.body)


def test_a_query_is_read_as_it_was_sent():
    target = endpoints.LIST_AGENTS.call(query={"limit": 7, "offset": 3}).target
    page = read_query_fields(target.partition("?")[2], endpoints.LIST_AGENTS.query)
    assert (page.limit, page.offset) == (7, 3)


@pytest.mark.parametrize(
    ("answer", "blocked"),
    [
        ({"blocked": False, "status": "suspended"}, True),
        ({"blocked": False, "active": True}, True),
        ({"status": "success", "data": {"blocked": False, "is_blocked": True}}, True),
        ({"blocked": False, "status": "ok"}, False),
        ({"blocked": None}, None),
        ({"status": "ok"}, None),
    ],
)
def test_the_kill_switch_is_read_the_strictest_way(answer, blocked):
    content = json.dumps(answer).encode()
    if blocked is None:
        with pytest.raises(ProtocolError, match="does not say"):
            answers.kill_switch(content)
    else:
        assert answers.kill_switch(content).blocked is blocked
        assert endpoints.KILL_SWITCH_STATUS.call().decode(content).blocked is blocked


@pytest.mark.parametrize("content", [b"", b"[]", b"null", b"<html>", b'{"status": "error"}'])
@pytest.mark.parametrize(
    "endpoint", [endpoints.PENDING_COMMANDS, endpoints.LIST_AGENTS, endpoints.AUDIT_LOG], ids=name_of
)
def test_an_answer_that_is_none_is_an_error(endpoint, content):
    with pytest.raises(AscendError):
        endpoint.decode(content)


def test_a_page_of_the_audit_log_is_plain_to_the_last_entry():
    page = answers.audit_page(b'{"events": [{"event_id": "1", "event_type": "ACTION_SUBMITTED"}], "total": 1}')
    plain = page.to_dict()
    assert type(plain) is dict and [type(event) for event in plain["events"]] == [dict]
    assert plain["events"] == [{"event_id": "1", "event_type": "ACTION_SUBMITTED"}]
