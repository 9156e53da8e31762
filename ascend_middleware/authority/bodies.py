"""The JSON that the authority takes and gives: strict reading of bodies, and the documented forms of answers."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from ascend_middleware.exceptions import ValidationError
from ascend_middleware.wire import check_orchestration_depth, check_values, encode_json, strip_risk_claims

from .policy.approvers import EXPIRY, OBSERVED, approved_by, missing_approvers, required_approvers

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["MAX_BODY", "Answer", "ApiError", "decision_fields", "read_object", "read_submission", "record_fields"]

# These bound what a CEL condition can be made to work on.
MAX_BODY: Final = 128 * 1024
_MAX_TEXT: Final = 4096
_MAX_NAME: Final = 255

_REQUIRED: Final = ("agent_id", "action_type")
_NAMES: Final = (
    *_REQUIRED,
    "agent_name",
    "resource_id",
    "tool_name",
    "orchestration_session_id",
    "mcp_server_name",
)
_TEXTS: Final = ("resource", "description", "business_justification")
_OBJECTS: Final = ("action_details", "context", "risk_indicators")


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


def _wrong(name: str, message: str) -> ApiError:
    return ApiError(422, "VALIDATION_ERROR", f"{name} {message}", details={"field": name, "issue": message})


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
        value = _strict.decode(body.decode("utf-8"))
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


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("an object has the same key twice")
    return value


def _refuse_constant(word: str) -> None:
    raise ValueError(f"{word} is no JSON number")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("a number is out of range")
    return number


def _in_range(text: str) -> int:
    # A condition would see a rounded number in its place.
    if len(text) > 20 or not -(2**63) <= int(text) < 2**63:
        raise ValueError("a number is out of range")
    return int(text)


_strict: Final = json.JSONDecoder(
    object_pairs_hook=_unique, parse_constant=_refuse_constant, parse_float=_finite, parse_int=_in_range
)


def read_submission(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return the known fields of a submitted action; the caller's own risk scores are dropped at any depth.

    Raises:
        ApiError: 400 for a missing required field, 422 for a wrong value.
    """
    for name in _REQUIRED:
        if body.get(name) in (None, ""):
            message = f"Missing required field: {name}"
            raise ApiError(400, "INVALID_REQUEST", message, details={"field": name, "requirement": "required"})
    action: dict[str, Any] = {}
    for names, longest in ((_NAMES, _MAX_NAME), (_TEXTS, _MAX_TEXT)):
        for name in names:
            value = body.get(name)
            if value is None or value == "":
                continue
            if not isinstance(value, str) or not value.strip():
                raise _wrong(name, "must be a text")
            if len(value) > longest:
                raise _wrong(name, f"must have at most {longest} characters")
            if longest == _MAX_NAME and name != "agent_name" and (value != value.strip() or not value.isprintable()):
                raise _wrong(name, "must not hold control characters, nor blanks at its ends")
            action[name] = value
    details = body.get("action_details")
    parameters = body.get("parameters")
    if parameters is not None and details is not None and _differs(parameters, details):
        raise _wrong("parameters", "and action_details are synonyms and must not differ")
    given = {**body, "action_details": details if details is not None else parameters}
    for name in _OBJECTS:
        value = given.get(name)
        if value is None:
            value = {}
        if not isinstance(value, dict):
            raise _wrong(name, "must be an object")
        action[name] = strip_risk_claims(value)
    _read_orchestration(body, action)
    model = body.get("model_id")
    if model is not None:
        if isinstance(model, bool) or not isinstance(model, int | str) or model == "":
            raise _wrong("model_id", "must be a whole number or a name")
        action["model_id"] = model
    # The three generations of clients require different ones; each stands in for the others.
    action.setdefault("agent_name", action["agent_id"])
    words = action.get("resource") or action.get("description") or action.get("tool_name") or action["action_type"]
    action["resource"] = words
    action.setdefault("description", words)
    return action


def _differs(one: object, other: object) -> bool:
    # Not `==`, to which true is 1 and 1 is 1.0.
    return json.dumps(one, sort_keys=True) != json.dumps(other, sort_keys=True)


def _read_orchestration(body: Mapping[str, Any], action: dict[str, Any]) -> None:
    depth, parent = body.get("orchestration_depth"), body.get("parent_action_id")
    try:
        check_orchestration_depth(depth)
    except ValidationError:
        raise _wrong("orchestration_depth", "must be a whole number from 0 to 5") from None
    if depth is not None:
        action["orchestration_depth"] = depth
    if parent is not None:
        if isinstance(parent, bool) or not isinstance(parent, int | str):
            raise _wrong("parent_action_id", "must be an action id")
        action["parent_action_id"] = parent


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
