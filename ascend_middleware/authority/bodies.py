"""How the authority reads requests: strict JSON, then the types of the API; and how it answers what is wrong."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import parse_qsl

import msgspec

from ascend_middleware.api.bodies import Submission
from ascend_middleware.api.decode import check_values, encode_json, strip_risk_claims
from ascend_middleware.api.types import NAME_PATTERN
from ascend_middleware.exceptions import ValidationError
from ascend_middleware.strict_json import StrictJSON

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "MAX_BODY",
    "Answer",
    "ApiError",
    "missing",
    "query_pairs",
    "read_fields",
    "read_object",
    "read_query_fields",
    "read_submission",
    "wrong",
]

# These bound what a CEL condition can be made to work on.
MAX_BODY: Final = 128 * 1024
# 64 bits: a condition would see a rounded number in place of a larger one.
_json: Final = StrictJSON(constant="{} is no JSON number", out_of_range="a number is out of range", bits=64)
_MISSING = re.compile(r"missing required field `([^`]+)`(?: - at `\$\.?([^`]*)`)?")
_PLACE = re.compile(r" - at `(?:key in )?\$\.?([^`]*)`$")

_Fields = TypeVar("_Fields", bound=msgspec.Struct)


class ApiError(Exception):
    """A request that is answered with an error; what it wrote to the audit log stays."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        details: Mapping[str, Any] | None = None,
        detail: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.details = dict(details or {})
        self.detail = detail
        self.headers = dict(headers or {})


@dataclass(frozen=True, slots=True)
class Answer:
    """One HTTP answer."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


def read_object(body: bytes) -> dict[str, Any]:
    """Decode a request body that must be one JSON object; nothing at all counts as an empty one.

    Duplicate keys, NaN, infinities, numbers beyond 64 bits and lone surrogates are refused: two readers could
    understand them differently.

    Raises:
        ApiError: 400 for what is no JSON object, 413 or 422 for one that is too large or too deep.
    """
    if len(body) > MAX_BODY:
        raise ApiError(413, "PAYLOAD_TOO_LARGE", f"the body has more than {MAX_BODY} bytes")
    if not body.strip():
        return {}
    try:
        value = _json.decode(body.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        reason = str(error) if type(error) is ValueError else "malformed"
        raise ApiError(400, "INVALID_REQUEST", f"the body is not valid JSON: {reason[:200]}") from None
    if not isinstance(value, dict):
        raise ApiError(400, "INVALID_REQUEST", "the body must be a JSON object")
    try:
        check_values(value)
        encode_json(value)
    except ValidationError as error:
        details = {"field": error.field, "issue": error.message[:200]} if error.field else None
        raise ApiError(422, "VALIDATION_ERROR", error.message[:200], details=details) from None
    return value


def query_pairs(query: str) -> dict[str, str]:
    """Return a query's parameters; refuse what is malformed or repeated."""
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query), errors="strict", max_num_fields=50)
    except ValueError:
        raise ApiError(400, "INVALID_REQUEST", "the query is malformed") from None
    given = dict(pairs)
    if len(given) != len(pairs):
        raise ApiError(422, "VALIDATION_ERROR", "a query parameter is repeated")
    return given


def read_query_fields(query: str, kind: type[_Fields]) -> _Fields:
    """Return a query as one of the request types; a parameter that is repeated or unknown is refused."""
    try:
        return msgspec.convert(query_pairs(query), kind, strict=False)
    except msgspec.ValidationError as error:
        raise _refusal(error) from None


def read_fields(body: Mapping[str, Any], kind: type[_Fields]) -> _Fields:
    """Return a body as one of the request types, which also make the OpenAPI document.

    A required text that is empty counts as missing.

    Raises:
        ApiError: 400 for a missing required field, 422 for a wrong value (contract §4, 13).
    """
    for item in msgspec.structs.fields(kind):
        if item.required and body.get(item.encode_name) == "":
            raise missing(item.encode_name)
    try:
        return msgspec.convert(dict(body), kind)
    except msgspec.ValidationError as error:
        raise _refusal(error) from None


def missing(name: str) -> ApiError:
    """Return the refusal of a request that lacks a required field."""
    details = {"field": name, "requirement": "required"}
    return ApiError(400, "INVALID_REQUEST", f"Missing required field: {name}", details=details)


def _refusal(error: msgspec.ValidationError) -> ApiError:
    text = str(error)
    absent = _MISSING.search(text)
    if absent is not None:
        return missing(".".join(part for part in (absent[2], absent[1]) if part))
    place = _PLACE.search(text)
    unknown = re.search(r"unknown field `([^`]+)`", text)
    name = place[1] if place is not None else unknown[1] if unknown is not None else ""
    if "matching regex" in text:
        text = (
            "must hold no control characters, nor blanks at its ends" if NAME_PATTERN in text else "must not be blank"
        )
    return wrong(name[:40] or "body", _PLACE.sub("", text)[:200])


def wrong(name: str, message: str, **details: Any) -> ApiError:
    """Return the refusal of a field's value."""
    return ApiError(422, "VALIDATION_ERROR", f"{name}: {message}", details={"field": name, "issue": message, **details})


def read_submission(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return the known fields of a submitted action; the caller's own risk scores are dropped at any depth.

    Raises:
        ApiError: 400 for a missing required field, 422 for a wrong value.
    """
    fields = msgspec.structs.asdict(read_fields({**body, **_needed(body)}, Submission))
    # An empty parent is a parent that nobody knows.
    action = {
        name: value
        for name, value in fields.items()
        if value not in (None, "") or (name, value) == ("parent_action_id", "")
    }
    details, parameters = fields["action_details"], action.pop("parameters", None)
    if parameters is not None and details is not None and _differs(parameters, details):
        raise wrong("parameters", "and action_details are synonyms and must not differ")
    action["action_details"] = details if details is not None else parameters
    for name in ("action_details", "context", "risk_indicators"):
        action[name] = strip_risk_claims(action.get(name) or {})
    # The three generations of clients require different ones; each stands in for the others.
    action.setdefault("agent_name", action["agent_id"])
    words = action.get("resource") or action.get("description") or action.get("tool_name") or action["action_type"]
    action["resource"] = words
    action.setdefault("description", words)
    return action


def _needed(body: Mapping[str, Any]) -> dict[str, str]:
    """Have null count as missing where something is required."""
    return {name: "" for name in ("agent_id", "action_type") if body.get(name) is None}


def _differs(one: object, other: object) -> bool:
    # Not `==`, to which true is 1 and 1 is 1.0.
    return json.dumps(one, sort_keys=True) != json.dumps(other, sort_keys=True)
