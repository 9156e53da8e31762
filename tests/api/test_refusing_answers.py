"""What an answer that is no success is read as: every documented form of an error, and what is none."""

import json
import math

import pytest

from ascend_middleware import exceptions
from ascend_middleware.api.decode import (
    action_id_of,
    decode_decision,
    decode_governance_refusal,
    decode_object,
    error_from_answer,
    normalize_action_id,
    submit_body,
)
from ascend_middleware.api.models import AgentAction
from ascend_middleware.exceptions import ProtocolError, RateLimitError, ValidationError


def read(body, status=500, **headers):
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return error_from_answer(status, content, {name.replace("_", "-"): value for name, value in headers.items()})


MISSING = {"loc": ["body", "details", 3, "amount"], "msg": "is missing"}


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({"error": {"message": "a", "detail": "b", "error": "c"}}, "a"),
        ({"error": {"detail": "b", "error": "c"}}, "b"),
        ({"error": {"error": "c"}}, "c"),
        ({"detail": {"message": "a"}, "error": "b"}, "a"),
        ({"error": {"message": "a"}, "detail": {"message": "b"}}, "a"),
        ({"error": {"message": 7}, "detail": "b"}, "b"),
        ({"detail": "a", "error": "b", "message": "c", "title": "d"}, "a"),
        ({"error": "b", "message": "c", "title": "d"}, "b"),
        ({"message": "c", "title": "d"}, "c"),
        ({"title": "d"}, "d"),
        ({"detail": [MISSING, "odd", {"loc": ["query"]}, {"msg": "odd"}, {"loc": "body", "msg": "no list"}]},
         "details.3.amount: is missing; query: invalid; odd; no list"),
        ({"detail": [{"loc": ["body"], "msg": "is empty"}, {"loc": ["body"]}]}, "is empty; invalid"),
        ({"detail": 7, "error": None}, None),
        ({}, None),
        ([{"detail": "a"}], None),
        (b"<html>", None),
        (b"\xff", None),
        (b"[" * 100_000, None),
    ],
)  # fmt: skip
def test_what_is_said(body, text):
    said = "the authority refused the request" if text is None else text
    assert str(read(body)) == f"{said} (HTTP 500)"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"details": {"field": "a"}, "detail": [MISSING]}, "amount"),
        ({"error": {"details": {"field": "a"}}, "detail": [MISSING]}, "a"),
        ({"error": {"details": {"field": 7}}, "detail": [MISSING]}, "amount"),
        ({"detail": [MISSING, {"loc": ["body", "other"]}]}, "amount"),
        ({"detail": [{"loc": ["body", 3]}, MISSING]}, "3"),
        ({"detail": [{"loc": []}, MISSING]}, None),
        ({"detail": [{"loc": "amount"}]}, None),
        ({"detail": [{}]}, None),
        ({"detail": ["amount"]}, None),
        ({"detail": []}, None),
        ({"detail": "amount"}, None),
        ({}, None),
    ],
)
def test_which_field_is_wrong(body, field):
    error = read(body, 422)
    assert (type(error), error.field) == (ValidationError, field)


@pytest.mark.parametrize(
    ("body", "code", "details"),
    [
        ({"error": {"code": "A", "details": {"x": 1}}}, "A", {"x": 1}),
        ({"error": {"code": "A"}}, "A", {"code": "A"}),
        ({"error": {"code": 7, "details": []}}, None, {"code": 7, "details": []}),
        ({"detail": {"code": "B"}}, "B", {"code": "B"}),
        ({"error": {"code": "A"}, "detail": {"code": "B"}}, "A", {"code": "A"}),
        ({"error": {}, "detail": {"code": "B"}}, "B", {"code": "B"}),
        ({"error": "text", "detail": {"code": "B"}}, "B", {"code": "B"}),
        ({"detail": [MISSING]}, None, {"errors": [MISSING]}),
        ({"error": {"details": {"x": 1}}, "detail": [MISSING]}, None, {"x": 1, "errors": [MISSING]}),
        ({}, None, {}),
    ],
)
def test_code_and_details(body, code, details):
    error = read(body)
    assert (error.code, error.details) == (code, details)


@pytest.mark.parametrize(
    ("body", "headers", "found"),
    [
        ({"meta": {"request_id": "m"}, "correlation_id": "c"}, {"x_correlation_id": "h"}, "m"),
        ({"meta": "m", "correlation_id": "c"}, {"x_correlation_id": "h"}, "c"),
        ({"meta": {"request_id": ""}, "correlation_id": ""}, {"x_correlation_id": "h"}, "h"),
        ({"meta": {"request_id": 7}}, {"x_correlation_id": "h"}, None),
        ({}, {}, None),
    ],
)
def test_the_correlation_id(body, headers, found):
    assert read(body, **headers).correlation_id == found


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, "ValidationError"), (401, "AuthenticationError"), (403, "AuthorizationDeniedError"), (404, "NotFoundError"),
        (409, "ConflictError"), (410, "NotFoundError"), (413, "ValidationError"), (422, "ValidationError"),
        (429, "RateLimitError"), (418, "ProtocolError"), (302, "ProtocolError"), (499, "ProtocolError"),
        (500, "ServerError"), (501, "ServerError"), (599, "ServerError"),
    ],
)  # fmt: skip
def test_each_status_has_its_error(status, kind):
    error = read({"detail": "no"}, status)
    assert (type(error), error.status_code) == (getattr(exceptions, kind), status)
    assert ("unexpected answer: " in str(error)) is (kind == "ProtocolError")


@pytest.mark.parametrize(
    ("text", "number"),
    [("7", 7), (" 7 ", 7), ("0", 0), ("", None), ("-1", None), ("²", None), ("٧", None), ("7.5", None)],
)
def test_the_numbers_of_a_rate_limit_are_whole(text, number):
    error = read({"detail": "slow down"}, 429, x_ratelimit_limit=text, x_ratelimit_remaining="3", x_ratelimit_reset="9")
    assert type(error) is RateLimitError
    assert (error.limit, error.remaining, error.reset) == (number, 3, 9)
    assert str(error).startswith("429 Too Many Requests: slow down")
    assert str(read({}, 429)).startswith("429 Too Many Requests")


# --- a refusal of governance is a denial


@pytest.mark.parametrize(
    ("detail", "reason", "violation"),
    [
        ({"error": "MCP Governance", "detail": "a", "message": "b", "code": "C"}, "a", "C"),
        ({"error": "governance", "message": "b"}, "b", "governance"),
        ({"error": "Policy VIOLATION"}, "Policy VIOLATION", "Policy VIOLATION"),
    ],
)
def test_a_refusal_of_governance_is_a_denial(detail, reason, violation):
    given = json.dumps({"detail": {**detail, "correlation_id": "x"}}).encode()
    found = decode_governance_refusal(403, given)
    assert (found.is_denied(), found.reason, found["policy_violations"]) == (True, reason, [violation])
    assert found["metadata"]["governance_violation"] == {**detail, "correlation_id": "x"}
    assert found["correlation_id"] == "x"
    assert decode_governance_refusal(404, given) is None


@pytest.mark.parametrize(
    "body",
    [{"detail": {"error": "Forbidden"}}, {"detail": {}}, {"detail": "governance"}, {"error": {"error": "governance"}}],
)
def test_another_refusal_is_none_of_governance(body):
    assert decode_governance_refusal(403, json.dumps(body).encode()) is None


# --- the object of an answer


@pytest.mark.parametrize(
    ("body", "found"),
    [
        ({"a": 1}, {"a": 1}),
        ({"status": "success"}, {"status": "success"}),
        ({"status": "other", "data": {"a": 1}}, {"status": "other", "data": {"a": 1}}),
        ({"status": "success", "data": {"a": 1}, "b": 2}, {"a": 1}),
        ({"status": "success", "data": {"a": 1}, "decision": "denied"}, {"a": 1, "decision": "denied"}),
        ({"status": "success", "data": {"decision": "denied"}, "decision": "denied"}, {"decision": "denied"}),
        ({"status": "success", "data": {"a": 1}, "success": True}, {"a": 1}),
        ({"status": "success", "data": {"a": 1}, "success": False}, {"a": 1, "success": False}),
        ({"status": "success", "data": {"a": 1}, "approved": True}, {"a": 1, "approved": True}),
        ({"status": "success", "data": {"a": 1}, "approved": None}, {"a": 1}),
        ({"status": "success", "data": [1], "total": 1}, {"data": [1], "total": 1}),
    ],
)
def test_an_envelope_is_opened(body, found):
    assert decode_object(json.dumps(body).encode()) == found


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "an empty answer"),
        (b"{", "is not JSON"),
        (b'{"a": "\xff"}', "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b"[1]", "is a JSON array"),
        (b'"a"', "is a JSON string"),
        (b"true", "is a JSON boolean"),
        (b"null", "is a JSON null"),
        (b"1.5", "is a JSON number"),
        (b'{"status": "error", "message": "no"}', "an error with a success status: no"),
        (b'{"status": "success", "data": "a"}', "holds no data"),
        (b'{"status": "success", "data": {"decision": "approved"}, "decision": "denied"}', "two things about decision"),
        (b'{"status": "success", "data": {"success": false}, "success": 1}', "two things about success"),
    ],
)
def test_what_is_no_object_is_told(content, said):
    with pytest.raises(ProtocolError, match=said):
        decode_object(content)


# --- permissions, name by name


@pytest.mark.parametrize("blank", [b"", b" ", b"\n", b"\t", b"\r"])
@pytest.mark.parametrize("names", [(b"status", b"status"), (b"st\\u0061tus", b"status")])
def test_a_name_that_is_given_twice_permits_nothing(blank, names):
    pairs = [(b'"%s"%s:%s"%s"' % (name, blank, blank, word)) for name, word in zip(names, (b"denied", b"approved"))]
    with pytest.raises(ProtocolError, match="uses a name twice"):
        decode_decision(b'{"action_id": 7, %s}' % b", ".join(pairs))


@pytest.mark.parametrize("blank", [b" ", b"\n", b"\t", b"\r"])
def test_a_blank_hides_none_of_two_names(blank):
    with pytest.raises(ProtocolError, match="uses a name twice"):
        decode_decision(b'{"action_id":7,"status":"approved","conditions"%s:[1],"conditions":[]}' % blank)


def test_nor_does_an_answer_that_is_nested_deeply():
    nested = b"[" * 5000 + b"]" * 5000
    with pytest.raises(ProtocolError):
        decode_decision(b'{"action_id":7,"a":%s,"status":"denied","status":"approved"}' % nested)


def test_an_unknown_word_is_shown_up_to_a_length():
    with pytest.raises(ProtocolError) as caught:
        decode_decision(json.dumps({"action_id": 7, "status": "x" * 50}).encode())
    assert str(caught.value).endswith(f"status: '{'x' * 40}'")
    assert str(read({"detail": "x" * 600})) == f"{'x' * 500} (HTTP 500)"


@pytest.mark.parametrize("inner", [b'{"a": {"b": 1, "b": 1}}', b'[{"a": 1, "a": 2}]'])
def test_nor_one_deep_inside(inner):
    with pytest.raises(ProtocolError, match="uses a name twice"):
        decode_decision(b'{"action_id": 7, "status": "approved", "metadata": %s}' % inner)


@pytest.mark.parametrize("text", ['a":b', '":":', "plain"])
def test_a_text_may_look_like_a_name(text):
    given = {"action_id": 7, "status": "approved", "metadata": {"a": [{"b": text}, {"b": 2}], "c": {}}}
    assert decode_decision(json.dumps(given, separators=(",", ":")).encode()).is_approved()


# --- ids of actions


@pytest.mark.parametrize(
    ("given", "found"),
    [(7, "7"), (0, "0"), ("7", "7"), ("act_7", "7"), ("act_x", "act_x"), ("a-b_C9", "a-b_C9"), ("x" * 128, "x" * 128),
     ("9" * 128, "9" * 128)],
)  # fmt: skip
def test_an_action_has_one_id_however_it_is_spelt(given, found):
    assert normalize_action_id(given) == found
    assert action_id_of({"action_id": given}) == action_id_of({"id": given}) == found
    assert action_id_of({"action_id": given, "id": found}) == found


@pytest.mark.parametrize("given", [-1, True, False, 1.5, [], {}, "a b", "a/b", "٧", "x" * 129, "9" * 129, "7\n", " "])
def test_what_is_no_id_is_refused(given):
    with pytest.raises(ProtocolError, match="not an action id"):
        action_id_of({"action_id": given})


def test_an_answer_about_two_actions_is_about_none():
    assert action_id_of({"action_id": None, "id": ""}) == action_id_of({}) == ""
    assert action_id_of({"action_id": "", "id": 7}) == "7"
    with pytest.raises(ProtocolError, match="two different actions"):
        action_id_of({"action_id": 7, "id": 8})


# --- what is submitted


def action(**fields):
    return AgentAction(**{"agent_id": "a", "agent_name": "A", "action_type": "t", "resource": "r", **fields})


@pytest.mark.parametrize("field", ["agent_id", "action_type"])
@pytest.mark.parametrize("value", ["", "  ", None, 7])
def test_an_action_has_its_texts(field, value):
    with pytest.raises(ValidationError, match=f"{field} is required") as caught:
        submit_body(action(**{field: value}))
    assert caught.value.field == field


@pytest.mark.parametrize("depth", [-1, 6, True, False, 1.0, "1"])
def test_a_depth_is_a_whole_number_up_to_its_bound(depth):
    with pytest.raises(ValidationError, match="from 0 to 5") as caught:
        submit_body(action(orchestration_depth=depth))
    assert caught.value.field == "orchestration_depth"


@pytest.mark.parametrize("depth", [0, 5])
def test_and_its_bounds_are_good(depth):
    assert submit_body(action(orchestration_depth=depth))["orchestration_depth"] == depth


@pytest.mark.parametrize(("given", "sent"), [("7", 7), ("act_7", "act_7"), ("٧", "٧"), ("7x", "7x"), (7, 7)])
def test_a_parent_that_is_a_number_is_sent_as_one(given, sent):
    assert submit_body(action(parent_action_id=given))["parent_action_id"] == sent


def test_what_an_action_does_not_say_is_not_sent():
    said = {"agent_id": "a", "action_type": "t", "tool_name": "", "context": {"a": "b"}, "action_details": {"n": 1}}
    body = submit_body(AgentAction(**{"agent_name": "", "resource": "", **said}))
    assert body == {"agent_id": "a", "action_type": "t", "context": {"a": "b"}, "action_details": {"n": 1}}


@pytest.mark.parametrize("inner", [{"n": math.nan}, {1: math.inf}, {"n": 2**63}])
def test_what_not_every_reader_understands_is_not_sent(inner):
    for more in ({}, {"context": {"a": "b"}}):
        with pytest.raises(ValidationError):
            submit_body(AgentAction("a", "A", "t", "r", action_details=inner, **more))


@pytest.mark.parametrize("claims", [{"risk_score": "1"}, {"risk_score": 1, "n": 2}, {"a": {"riskLevel": "low"}}])
def test_no_action_scores_itself(claims):
    kept = submit_body(AgentAction("a", "A", "t", "r", action_details=claims))["action_details"]
    assert "risk" not in json.dumps(kept)
