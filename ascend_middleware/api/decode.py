"""How actions, decisions and errors look in JSON. The client and the authority share this file.

Decoding is strict where permission is at stake: an answer allows only if every decision field in it says so with an
exact word and it names an action.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

import msgspec

from ..exceptions import (
    AscendError,
    AuthenticationError,
    AuthorizationDeniedError,
    ConflictError,
    NotFoundError,
    ProtocolError,
    RateLimitError,
    ServerError,
    ValidationError,
)
from ..strict_json import StrictJSON
from .bodies import MAX_ORCHESTRATION_DEPTH
from .models import AgentAction, AuthorizationDecision, Decision, DecisionStatus
from .values import check_values, clean, encode_json, is_plain, strip_risk_claims

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "APPROVALS",
    "KILL_CODES",
    "TOO_MANY",
    "action_id_of",
    "check_values",
    "decode_decision",
    "decode_governance_refusal",
    "decode_object",
    "encode_json",
    "error_from_answer",
    "may_repeat_a_name",
    "normalize_action_id",
    "repeats_a_name",
    "strip_risk_claims",
    "submit_body",
]

# How the documents quote a `RateLimitError`.
TOO_MANY: Final = "429 Too Many Requests"

# The authority's word that the agent itself is blocked, whatever it asked for.
KILL_CODES: Final = frozenset({"AGENT_BLOCKED", "AGENT_SUSPENDED", "AGENT_QUARANTINED", "KILL_SWITCH_ACTIVE"})

# The strictest wins, so the order of the columns is the order of the ranks.
_APPROVED, _PENDING, _MODIFY, _TIMEOUT, _DENIED = range(5)
_WORDS: Final[Mapping[str, int]] = {
    "approved": _APPROVED,
    "allowed": _APPROVED,
    "auto_approved": _APPROVED,
    "executed": _APPROVED,
    "pending": _PENDING,
    "pending_approval": _PENDING,
    "escalated": _PENDING,
    "requires_modification": _MODIFY,
    "timeout": _TIMEOUT,
    "expired": _TIMEOUT,
    "denied": _DENIED,
    "rejected": _DENIED,
}
APPROVALS: Final = frozenset(word for word, rank in _WORDS.items() if rank == _APPROVED)
_OUTCOMES: Final = (
    (Decision.ALLOWED, DecisionStatus.APPROVED),
    (Decision.PENDING, DecisionStatus.PENDING),
    (Decision.DENIED, DecisionStatus.REQUIRES_MODIFICATION),
    (Decision.DENIED, DecisionStatus.TIMEOUT),
    (Decision.DENIED, DecisionStatus.DENIED),
)
_WORD_FIELDS: Final = ("decision", "status", "enforcement_decision")
# Flags of other API generations: the value that contradicts an approval, and what it then is.
_FLAGS: Final = (
    ("execution_allowed", False, _DENIED),
    ("approved", False, _DENIED),
    ("success", False, _DENIED),
    ("requires_approval", True, _PENDING),
)
# What may stand beside the envelope's data and contradict it; the envelope's own status is another word.
_OUTSIDE: Final = ("decision", "enforcement_decision", *(name for name, _, _ in _FLAGS))
_HOLDING: Final = (dict, list)
_FEW_DIGITS: Final = 20
_ACTION_ID = re.compile(r"[A-Za-z0-9_-]{1,128}", re.ASCII)

_decoder = msgspec.json.Decoder()
_strict: Final = StrictJSON()


def submit_body(action: AgentAction) -> dict[str, Any]:
    """Return the body of `POST /api/v1/actions/submit` for an action.

    Raises:
        ValidationError: a required text is empty, the orchestration depth is not a whole number from 0 to 5, or a value
            is none that `check_values` lets through.
    """
    for name in ("agent_id", "action_type"):
        value = getattr(action, name)
        if not isinstance(value, str) or not value.strip():
            raise ValidationError(f"{name} is required and must be a non-empty string", field=name)
    if action.orchestration_depth is not None:
        check_orchestration_depth(action.orchestration_depth)
    body: dict[str, Any] = {}
    known = True
    for name in action.__struct_fields__:
        value = getattr(action, name)
        if value is not None and value != "":
            body[name] = value
            known = known and (type(value) is str or (type(value) is dict and is_plain(value)))
    if not known:  # as nearly all are
        check_values(body)
        for name, value in body.items():
            if isinstance(value, dict):
                body[name] = strip_risk_claims(value)
    parent = body.get("parent_action_id")
    if isinstance(parent, str) and parent.isascii() and parent.isdigit():
        body["parent_action_id"] = int(parent)
    return body


def check_orchestration_depth(depth: object) -> None:
    """Raise `ValidationError` unless the depth is None or a whole number from 0 to 5 (a bool is no number)."""
    if depth is None:
        return
    if isinstance(depth, bool) or not isinstance(depth, int) or not 0 <= depth <= MAX_ORCHESTRATION_DEPTH:
        raise ValidationError(
            f"orchestration_depth must be a whole number from 0 to {MAX_ORCHESTRATION_DEPTH}, not {depth!r}",
            field="orchestration_depth",
        )


def decode_object(content: bytes) -> dict[str, Any]:
    """Decode the body of an answer that must be a JSON object, and take it out of the envelope if it has one.

    Raises:
        ProtocolError: the body is empty, is not JSON, is not an object, or is an error in spite of its status.
    """
    if not content:
        raise ProtocolError("the authority sent an empty answer where a JSON object was expected")
    try:
        value = _decoder.decode(content)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        raise ProtocolError("the authority's answer is not JSON") from None
    if not isinstance(value, dict):
        raise ProtocolError(f"the authority's answer is a JSON {_kind(value)}, an object was expected")
    status = value.get("status")
    if status == "error":
        raise ProtocolError(f"the authority answered an error with a success status: {_error_text(value)}")
    if status == "success" and "data" in value:
        data = value["data"]
        if isinstance(data, dict):
            # A contradiction outside the envelope still counts, so nothing beside the data is forgotten.
            for key in _OUTSIDE:
                item = value.get(key)
                # There, success true means no more than that the request was served.
                if item is None or (key == "success" and item is True):
                    continue
                if data.setdefault(key, item) != item:
                    raise ProtocolError(f"the authority's answer says two things about {key}")
            return data
        if isinstance(data, list):
            return {**{key: item for key, item in value.items() if key != "status"}, "data": data}
        raise ProtocolError("the authority's envelope holds no data")
    return value


def decode_decision(content: bytes) -> AuthorizationDecision:
    """Decode an answer that decides about an action.

    Raises:
        ProtocolError: the answer cannot be read, uses an unknown decision word, or permits without naming an action.
    """
    answer = decode_object(content)
    rank = -1
    for field in _WORD_FIELDS:
        word = answer.get(field)
        if word is None:
            continue
        known = _WORDS.get(word) if isinstance(word, str) else None
        if known is None:
            raise ProtocolError(f"the authority's answer has an unknown word in {field}: {_shown(word)}")
        rank = max(rank, known)
    if rank < 0:
        raise ProtocolError("the authority's answer holds no decision")
    for field, contradiction, meaning in _FLAGS:
        flag = answer.get(field)
        if flag is None:
            continue
        if not isinstance(flag, bool):
            raise ProtocolError(f"the authority's answer has {_shown(flag)} in {field} where a boolean belongs")
        if flag is contradiction and rank < meaning and (rank == _APPROVED or field == "success"):
            rank = meaning
    action_id = action_id_of(answer)
    decision, status = _OUTCOMES[rank]
    if not action_id and decision is not Decision.DENIED:
        raise ProtocolError(f"the authority answered {status} without an action id")
    # The decoder keeps the last of two equal names, which may be the permissive one. Only permissions pay for this.
    if decision is Decision.ALLOWED and may_repeat_a_name(content, answer) and repeats_a_name(content):
        raise ProtocolError("the authority's answer uses a name twice")
    return AuthorizationDecision(answer, action_id=action_id, decision=decision, status=status)


def may_repeat_a_name(content: bytes, answer: dict[str, Any]) -> bool:
    """Say whether a name may stand twice in an answer, so that it has to be read name by name.

    Where no blank stands before a colon, `":` stands behind each name in the bytes, and perhaps in a text, too. So if
    there are no more of these than names were decoded, none was given twice.
    """
    try:
        return (
            content.count(b'":') != _names_in(answer)
            or b" :" in content
            or b"\n" in content
            or b"\t" in content
            or b"\r" in content
        )
    except RecursionError:
        return True


def _names_in(value: Any) -> int:
    count, inner = (len(value), value.values()) if type(value) is dict else (0, value)
    for item in inner:
        if type(item) in _HOLDING:
            count += _names_in(item)
    return count


def repeats_a_name(content: bytes) -> bool:
    """Say whether an answer uses a name twice in an object, or cannot be read strictly."""
    try:
        _strict.decode(content.decode())
    except (ValueError, RecursionError):
        return True
    return False


def action_id_of(answer: Mapping[str, Any]) -> str:
    """Return the id of the action that an answer names, or an empty text."""
    found = ""
    for key in ("action_id", "id"):
        value = answer.get(key)
        if value is None or value == "":
            continue
        is_plain_text = type(value) is str and value.isdecimal() and value.isascii() and len(value) < _FEW_DIGITS
        named = value if is_plain_text else normalize_action_id(value)
        if found and named != found:
            raise ProtocolError("the authority's answer names two different actions")
        found = named
    return found


def normalize_action_id(value: object) -> str:
    """Return an action id as text: `7`, `"7"` and `"act_7"` are the same action.

    Raises:
        ProtocolError: the value cannot be an action id.
    """
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return str(value)
    if isinstance(value, str) and _ACTION_ID.fullmatch(value):
        digits = value.removeprefix("act_")
        return digits if digits.isdigit() else value
    raise ProtocolError(f"not an action id: {_shown(value)}")


def decode_governance_refusal(status_code: int, content: bytes) -> AuthorizationDecision | None:
    """Return the denial that a 403 for an MCP server or a model is, or None if the answer is another refusal."""
    if status_code != 403:
        return None
    body = _lenient_object(content)
    detail = body.get("detail")
    if not isinstance(detail, dict):
        return None
    title = str(detail.get("error", "")).casefold()
    if "governance" not in title and "violation" not in title:
        return None
    reason = str(detail.get("detail") or detail.get("message") or detail.get("error"))
    fields = {
        "reason": reason,
        "metadata": {"governance_violation": detail},
        "policy_violations": [str(detail.get("code") or detail.get("error"))],
        "correlation_id": detail.get("correlation_id"),
    }
    return AuthorizationDecision(fields, action_id="", decision=Decision.DENIED, status=DecisionStatus.DENIED)


_BY_STATUS: Final[Mapping[int, type[AscendError]]] = {
    400: ValidationError,
    401: AuthenticationError,
    403: AuthorizationDeniedError,
    404: NotFoundError,
    409: ConflictError,
    410: NotFoundError,
    413: ValidationError,
    422: ValidationError,
    429: RateLimitError,
}


def error_from_answer(
    status_code: int, content: bytes, headers: Mapping[str, str], *, retry_after: float | None = None
) -> AscendError:
    """Return the typed error for an answer that is not a success.

    Args:
        status_code: the HTTP status.
        content: the body, in any documented error form or none.
        headers: the answer's headers, names in lower case.
        retry_after: seconds, already parsed from the header.
    """
    body = _lenient_object(content)
    error = body.get("error")
    envelope: dict[str, Any] = error if isinstance(error, dict) else {}
    detail = body.get("detail")
    if isinstance(detail, dict) and not envelope:
        envelope = detail
    code = envelope.get("code")
    details: dict[str, Any] = dict(envelope["details"]) if isinstance(envelope.get("details"), dict) else {}
    if isinstance(detail, list):
        details["errors"] = detail
    fields: dict[str, Any] = {
        "status_code": status_code,
        "code": code if isinstance(code, str) else None,
        "details": details or envelope,
        "correlation_id": _correlation_id(body, headers),
    }
    text = _error_text(body)
    message = f"{text or 'the authority refused the request'} (HTTP {status_code})"
    kind = _BY_STATUS.get(status_code)
    if kind is ValidationError:
        return ValidationError(message, field=_field_name(details, detail), **fields)
    if kind is RateLimitError:
        numbers = {name: _header_number(headers, f"x-ratelimit-{name}") for name in ("limit", "remaining", "reset")}
        message = f"{TOO_MANY}: {text}" if text else TOO_MANY
        return RateLimitError(message, retry_after=retry_after, **numbers, **fields)
    if kind is not None:
        return kind(message, **fields)
    if status_code >= 500:
        return ServerError(message, **fields)
    return ProtocolError(f"unexpected answer: {message}", **fields)


def _lenient_object(content: bytes) -> dict[str, Any]:
    try:
        value = _decoder.decode(content)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _error_text(body: Mapping[str, Any]) -> str:
    error, detail = body.get("error"), body.get("detail")
    for source in (error, detail):
        if isinstance(source, dict):
            text = source.get("message") or source.get("detail") or source.get("error")
            if isinstance(text, str):
                return clean(text)
    for source in (detail, error, body.get("message"), body.get("title")):
        if isinstance(source, str):
            return clean(source)
    if isinstance(detail, list):
        texts = [_validation_line(item) for item in detail if isinstance(item, dict)]
        return clean("; ".join(texts))
    return ""


def _validation_line(item: Mapping[str, Any]) -> str:
    place = ".".join(str(part) for part in _location(item) if part != "body")
    return f"{place}: {item.get('msg', 'invalid')}" if place else str(item.get("msg", "invalid"))


def _field_name(details: Mapping[str, Any], detail: object) -> str | None:
    if isinstance(details.get("field"), str):
        return str(details["field"])
    if isinstance(detail, list) and detail and isinstance(detail[0], dict) and _location(detail[0]):
        return clean(str(_location(detail[0])[-1]))
    return None


def _location(item: Mapping[str, Any]) -> list[Any]:
    place = item.get("loc")
    return place if isinstance(place, list) else []


def _correlation_id(body: Mapping[str, Any], headers: Mapping[str, str]) -> str | None:
    meta = body.get("meta")
    found = meta.get("request_id") if isinstance(meta, dict) else None
    found = found or body.get("correlation_id") or headers.get("x-correlation-id")
    return found if isinstance(found, str) else None


def _header_number(headers: Mapping[str, str], name: str) -> int | None:
    text = headers.get(name, "").strip()
    return int(text) if text.isascii() and text.isdigit() else None


def _shown(value: object) -> str:
    return repr(clean(value[:40])) if isinstance(value, str) else f"a {_kind(value)}"


def _kind(value: object) -> str:
    names = {dict: "object", list: "array", str: "string", bool: "boolean", type(None): "null"}
    return names.get(type(value), "number")
