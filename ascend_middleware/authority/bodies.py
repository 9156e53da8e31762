"""How the authority reads requests: strict JSON, then the types of the API; and how it answers what is wrong."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import cache
from typing import Any, Final, NamedTuple, Required, TypedDict, TypeVar
from urllib.parse import parse_qsl

import msgspec

from ascend_middleware.api.bodies import MAX_OFFSET, NAME_PATTERN, Submission
from ascend_middleware.api.decode import check_values, encode_json, strip_risk_claims
from ascend_middleware.api.values import MAX_DEPTH, MAX_VALUES, is_plain
from ascend_middleware.exceptions import ValidationError
from ascend_middleware.strict_json import StrictJSON

from .policy.approvers import EXPIRY, OBSERVED, approved_by, missing_approvers, required_approvers
from .store.store import canonical_json

__all__ = [
    "MAX_BODY",
    "MAX_WAIT",
    "Answer",
    "ApiError",
    "completed",
    "decision_fields",
    "fixed_headers",
    "missing",
    "not_allowed",
    "read_fields",
    "read_object",
    "read_plain",
    "read_query_fields",
    "read_simple",
    "read_submission",
    "read_wait",
    "record_fields",
    "wrong",
]

# These bound what a CEL condition can be made to work on.
MAX_BODY: Final = 128 * 1024
# 64 bits: a condition would see a rounded number in place of a larger one.
_json: Final = StrictJSON(constant="{} is no JSON number", out_of_range="a number is out of range", bits=64)
_decode: Final = msgspec.json.Decoder(dict[str, Any]).decode
_encode: Final = msgspec.json.Encoder().encode
_dumps: Final = json.JSONEncoder().encode
# A number of so many digits may have more than 64 bits; one in a text is only read more slowly.
_LONG: Final = 19
_LONG_NUMBER: Final = re.compile(rb"[0-9]{%d}" % _LONG)
_NO_DIGITS: Final = bytes(set(range(256)) - set(b"0123456789"))
_MISSING = re.compile(r"missing required field `([^`]+)`(?: - at `\$\.?([^`]*)`)?")
# Seconds. Below a minute, after which proxies commonly give up on a silent connection.
MAX_WAIT: Final = 55.0
_PREFERRED = re.compile(r"(?:^|[,;])\s*wait\s*=\s*\"?([0-9]{1,9})\"?\s*(?=$|[,;])", re.ASCII | re.IGNORECASE)
_SECONDS = re.compile(r"[0-9]{1,9}(?:\.[0-9]{1,9})?", re.ASCII)
_PLACE = re.compile(r" - at `(?:key in )?\$\.?([^`]*)`$")

_SUBMITTED: Final = frozenset(Submission.__struct_fields__)
# Those that say all that is to be known of them.
_SIMPLE: Final = frozenset(
    (
        *("agent_id", "agent_name", "action_type", "resource", "resource_id", "tool_name", "description"),
        *("business_justification", "action_details", "context", "risk_indicators"),
    )
)
# Read as a plain object: the class itself would fill in what is left out.
_typed: Final[Any] = TypedDict
_decode_simple: Final = msgspec.json.Decoder(
    _typed(
        "_Simple",
        {
            item.encode_name: Required[item.type] if item.required else item.type
            for item in msgspec.structs.fields(Submission)
            if item.encode_name in _SIMPLE
        },
        total=False,
    )
).decode

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


class Answer(NamedTuple):
    """One HTTP answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def fixed_headers(correlation_id: str) -> dict[str, str]:
    """Return the headers of every answer."""
    return {
        "content-type": "application/json",
        "cache-control": "no-store",
        "x-content-type-options": "nosniff",
        "x-correlation-id": correlation_id,
    }


def read_object(body: bytes) -> dict[str, Any]:
    """Decode a request body that must be one JSON object; nothing at all counts as an empty one.

    Duplicate keys, NaN, infinities, numbers beyond 64 bits and lone surrogates are refused: two readers could
    understand them differently.
    """
    if len(body) > MAX_BODY:
        raise ApiError(413, "PAYLOAD_TOO_LARGE", f"the body has more than {MAX_BODY} bytes")
    if not body.strip():
        return {}
    plain = read_plain(body)
    if plain is not None:
        return plain
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


def read_plain(body: bytes) -> dict[str, Any] | None:
    """Return the object in a body that is written as our own encoder or Python's writes it, None for any other body.

    What is encoded again as it came has no key twice and no number that would be read as another one. So short a body
    with so few brackets has neither too many values nor too many levels.
    """
    if not _is_small(body):
        return None
    try:
        value = _decode(body)
        return value if _is_written_as(value, body) else None
    except (msgspec.DecodeError, UnicodeError):
        return None


def _is_small(body: bytes) -> bool:
    if len(body) > MAX_VALUES or body.count(b"{") + body.count(b"[") > MAX_DEPTH:
        return False
    # Few have so many digits at all.
    return len(body.translate(None, _NO_DIGITS)) < _LONG or not _LONG_NUMBER.search(body)


def _is_written_as(value: object, body: bytes) -> bool:
    return _encode(value) == body or _dumps(value).encode() == body


def read_query_fields(query: str, kind: type[_Fields]) -> _Fields:
    """Return a query as one of the request types; a parameter that is malformed, repeated or unknown is refused."""
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query), errors="strict", max_num_fields=50)
    except ValueError:
        raise ApiError(400, "INVALID_REQUEST", "the query is malformed") from None
    given = dict(pairs)
    if len(given) != len(pairs):
        raise ApiError(422, "VALIDATION_ERROR", "a query parameter is repeated")
    try:
        return msgspec.convert(given, kind, strict=False)
    except msgspec.ValidationError as error:
        raise _refusal(error) from None


def read_fields(body: Mapping[str, Any], kind: type[_Fields]) -> _Fields:
    """Return a body as one of the request types; a required text that is empty counts as missing (contract §4, 13)."""
    for name in _required(kind):
        if body.get(name) == "":
            raise missing(name)
    try:
        return msgspec.convert(body if type(body) is dict else dict(body), kind)
    except msgspec.ValidationError as error:
        raise _refusal(error) from None


@cache
def _required(kind: type[msgspec.Struct]) -> tuple[str, ...]:
    return tuple(item.encode_name for item in msgspec.structs.fields(kind) if item.required)


def not_allowed(method: str, *allowed: str) -> ApiError:
    """Return the refusal of a method that a path does not have."""
    headers = {"allow": ", ".join(allowed)}
    return ApiError(405, "METHOD_NOT_ALLOWED", f"{method} is not allowed here", headers=headers)


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
    named = place or re.search(r"unknown field `([^`]+)`", text)
    name = named[1] if named is not None else ""
    if "matching regex" in text:
        text = (
            "must hold no control characters, nor blanks at its ends" if NAME_PATTERN in text else "must not be blank"
        )
    if name == "offset" and "<=" in text:
        text = f"at most {MAX_OFFSET}; to reach further, pass `next` of a page as cursor for the one after it"
    return wrong(name[:40] or "body", _PLACE.sub("", text)[:200])


def wrong(name: str, message: str, **details: Any) -> ApiError:
    """Return the refusal of a field's value."""
    return ApiError(422, "VALIDATION_ERROR", f"{name}: {message}", details={"field": name, "issue": message, **details})


def read_submission(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return the known fields of a submitted action; the caller's own risk scores are dropped at any depth."""
    # Null counts as missing where something is required.
    needed = {name: "" for name in ("agent_id", "action_type") if body.get(name) is None}
    read = read_fields({**body, **needed} if needed else body, Submission)
    given = ((name, getattr(read, name)) for name in body if name in _SUBMITTED)
    action = {name: value for name, value in given if value is not None and value != ""}
    if read.parent_action_id == "":  # a parent that nobody knows
        action["parent_action_id"] = ""
    details, parameters = read.action_details, action.pop("parameters", None)
    # Not compared by `==`, to which true is 1 and 1 is 1.0.
    if None not in (parameters, details) and canonical_json(parameters) != canonical_json(details):
        raise wrong("parameters", "and action_details are synonyms and must not differ")
    if details is None and parameters is not None:
        action["action_details"] = parameters
    for name in ("action_details", "context", "risk_indicators"):
        value = action.get(name)
        if value and not is_plain(value):
            action[name] = strip_risk_claims(value)
    return completed(action)


def read_simple(body: bytes) -> dict[str, Any] | None:
    """Return a submission that `read_plain` would take, if its fields are as they must be and need no second look.

    Raises:
        msgspec.DecodeError: the body is no such JSON, or a field is not as it must be.
    """
    if not _is_small(body):
        return None
    value: dict[str, Any] = _decode_simple(body)  # without fields that are not simple
    if None in value.values() or "" in value.values() or not _is_written_as(value, body):
        return None
    return value


def completed(action: dict[str, Any]) -> dict[str, Any]:
    """Fill in what an action leaves out: generations of clients require different words; each stands in for others."""
    for name in ("action_details", "context", "risk_indicators"):
        action.setdefault(name, {})
    action.setdefault("agent_name", action["agent_id"])
    words = action.get("resource") or action.get("description") or action.get("tool_name") or action["action_type"]
    action["resource"] = words
    action.setdefault("description", words)
    return action


# --- queries


def read_wait(query: str, headers: Mapping[str, str]) -> float:
    """Return for how many seconds a status request asks to be held, at most `MAX_WAIT`.

    It asks by `?wait=30`, or by `Prefer: wait=30` (RFC 7240), of which what is odd is ignored.
    """
    given = [value for name, value in parse_qsl(query, keep_blank_values=True) if name == "wait"]
    if given:
        if len(given) > 1 or not _SECONDS.fullmatch(given[0]):
            message = "wait must be a number of seconds, given once"
            raise ApiError(422, "VALIDATION_ERROR", message, details={"field": "wait", "issue": message})
        return min(float(given[0]), MAX_WAIT)
    preferred = _PREFERRED.search(headers.get("prefer", ""))
    return min(float(preferred[1]), MAX_WAIT) if preferred else 0.0


# --- actions


def decision_fields(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the documented flat form of a decision for a stored action."""
    judgement, approval, status = row["judgement"], row["approval"], row["status"]
    pending = status == "pending" and not judgement.get(OBSERVED)
    status = "pending" if status == OBSERVED else status
    reason = judgement["reason"]
    expired = bool(approval) and approval.get("via") == EXPIRY
    if expired:
        reason = f"expired: nobody decided before {row['expires_at']}"
    elif approval:
        reason = f"{status} by {approval['by']}" + (f": {approval['comments']}" if approval["comments"] else "")
    fields = {
        "id": row["id"],
        "action_id": str(row["id"]),
        "status": status,
        "decision": status,
        "risk_score": row["risk_score"],
        "risk_level": row["risk_level"],
        "reason": reason,
        "policy_matched": judgement["policy_matched"] or None,
        "timestamp": row["updated_at"],
        "created_at": row["created_at"],
        "updated_at": row["updated_at"],
        "summary": f"{row['submission']['action_type']} on {row['submission']['resource']}: {status}",
        "approval_request_id": str(row["id"]) if pending or approval else None,
        "required_approvers": required_approvers(row) if pending else [],
        "pending_approvers": missing_approvers(row) if pending else [],
        "approved_by": approved_by(row),
        "expires_at": row["expires_at"],
        "policy_violations": _violations(judgement) if status == "denied" and not approval else [],
        "conditions": [],
        "execution_allowed": status == "approved",
        "correlation_id": judgement["correlation_id"],
        "metadata": {
            "risk_factors": judgement["factors"],
            "matched_policies": judgement["matched"],
            # Absent of what an earlier version decided.
            "explanation": judgement.get("explanation"),
        },
    }
    if not approval or expired:  # the words of this field know no person
        words = {"approved": "auto_approved", "pending": "pending_approval", "denied": "denied"}
        fields["enforcement_decision"] = words[status]
    else:
        fields["decided_by"] = approval["by"]
        fields["decided_at"] = approval["at"]
        fields["comments"] = approval["comments"]
    for name in ("mcp_governance", "model_governance", OBSERVED):
        if judgement.get(name):
            fields[name] = judgement[name]
    return fields


def _violations(judgement: Mapping[str, Any]) -> list[str]:
    """Return the policies that deny, by name; none where the score alone denied."""
    explanation = judgement.get("explanation")
    if explanation is None:  # of an earlier version, which kept only the one that decided
        return [judgement["policy_matched"]] if judgement["policy_matched"] else []
    return [policy["name"] for policy in explanation["policies"] if policy["decision"] == "denied"]


def record_fields(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the full record of a stored action: what was submitted, what was decided, what became of it."""
    record = {**row["submission"], **decision_fields(row)}
    if row["outcome"]:
        record["outcome"] = row["outcome"]
    return record
