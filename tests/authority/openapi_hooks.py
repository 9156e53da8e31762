"""What the generator of requests must know besides the OpenAPI document; loaded by its command line."""

import re

import schemathesis
from hypothesis import strategies as st

# Texts whose grammar a JSON Schema cannot hold.
schemathesis.openapi.format(
    "cel", st.sampled_from(["true", "action.resource == 'x'", "has(action.context.a) && action.context.a > 1"])
)
schemathesis.openapi.format("uri", st.sampled_from(["https://hooks.example.com/a", "https://hooks.example.org/?b=c"]))


def whole(value):
    """Spell whole numbers as such, and none beyond 64 bits: to a JSON Schema 2.0 is an integer, and so is 10 ** 30."""
    if isinstance(value, dict):
        return {key: whole(item) for key, item in value.items()}
    if isinstance(value, list):
        return [whole(item) for item in value]
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return max(min(value, 2**63 - 1), -(2**63))
    return value


# Lists of patterns, in which the signs of other pattern languages are refused; and what stands beside tools' names.
PATTERNS = {"action_types", "agents", "agent_ids", "auto_approve_tools", "blocked_tools", "tool_risk_overrides"}


def plain(word):
    """Return a word without signs; a list of patterns takes all such words. One that is too long on purpose stays so."""
    if len(word) > 255:
        return word
    return re.sub(r"[^a-z0-9_ -]", "", word.lower()).strip()[:200] or "word"


def plain_patterns(body):
    for key in PATTERNS & body.keys():
        value = body[key]
        if isinstance(value, list):
            body[key] = [plain(item) if isinstance(item, str) else item for item in value]
        elif isinstance(value, dict):
            body[key] = {plain(name): item for name, item in value.items()}


@schemathesis.hook
def map_body(context, body):
    body = whole(body)
    if isinstance(body, dict):
        plain_patterns(body)
    # Two names for one thing, which must not differ.
    if isinstance(body, dict) and body.get("parameters") is not None and "action_details" in body:
        body["parameters"] = body["action_details"]
    return body


KNOWN = {"agent_id": "a", "name": "files-of-the-test", "organization_id": "default"}


@schemathesis.hook
def map_path_parameters(context, path_parameters):
    """Let two of three requests name something that is there."""
    if not path_parameters:
        return path_parameters
    known = {**KNOWN, "id": str(sum(map(len, map(str, path_parameters.values()))) % 6 + 1)}
    return {name: known.get(name, value) if len(str(value)) % 3 else value for name, value in path_parameters.items()}


@schemathesis.hook
def before_load_schema(context, raw_schema):
    """Leave cursors out: only what a list gave is one, and beside it there is no offset."""
    for operations in raw_schema["paths"].values():
        for operation in operations.values():
            parameters = operation.get("parameters", [])
            operation["parameters"] = [each for each in parameters if each["name"] != "cursor"]
