"""Permissions at first sight, and what may stand in JSON that is sent."""

import json
import math
from decimal import Decimal

import pytest

from ascend_middleware.api.decode import decode_decision
from ascend_middleware.api.permission import read_permission
from ascend_middleware.api.values import MAX_DEPTH, MAX_VALUES, check_values, encode_json, is_plain, strip_risk_claims
from ascend_middleware.exceptions import AscendError, ValidationError

PLAIN = {"action_id": 7, "status": "approved"}


def written(**fields):
    return json.dumps({**PLAIN, **fields}).encode()


@pytest.mark.parametrize(
    ("content", "action_id"),
    [
        (written(), "7"),
        (written(action_id="7"), "7"),
        (b'{"status": "approved", "id": 8}', "8"),
        (written(action_id=None, id=8), None),
        (written(id=7), "7"),
        (written(id="7"), "7"),
        (written(decision="allowed", enforcement_decision="auto_approved"), "7"),
        (b'{"decision": "executed", "action_id": 7}', "7"),
        (written(status=None, decision="executed"), None),
        (written(success=True, approved=True, execution_allowed=True, requires_approval=False), "7"),
        (written(other=False, more={"status": 1}), None),  # a name that may be the word's
        (written(action_id="9" * 18), "9" * 18),
    ],
)
def test_a_plain_permission_is_read_at_first_sight(content, action_id):
    found = read_permission(content)
    assert (found and found.action_id) == action_id
    whole = decode_decision(content)
    assert whole.is_approved()
    if found is not None:
        assert (found.decision.action_id, found.decision.to_dict()) == (whole.action_id, whole.to_dict())


@pytest.mark.parametrize(
    "content",
    [
        b"", b"[]", b"{}", b"null", b"\xff", b"[" * 100_000,
        b'{"action_id": 7}',
        b'{"status": "approved"}',
        written(status="pending"), written(decision="denied"), written(enforcement_decision="odd"), written(status=1),
        written(execution_allowed=False), written(approved=False), written(success=False), written(requires_approval=True),
        written(execution_allowed="no"), written(id=8), written(action_id="act_7"), written(action_id=-1),
        written(action_id="x"), written(action_id=""), written(action_id="9" * 200), written(action_id=7.5),
        written(reason="é"),  # is told with a backslash
        json.dumps({**PLAIN, "reason": "é"}, ensure_ascii=False).encode(),
        b'{"action_id": 7, "status": "denied", "status": "approved"}',
        b'{"action_id": 7, "decision": "denied", "decision": "approved"}',
        b'{"action_id": 7, "status": "approved", "decision": "denied", "decision": "approved"}',
        b'{"action_id": 7, "status": "approved", "enforcement_decision": "denied", "enforcement_decision": "approved"}',
        b'{"action_id": 7, "status": "approved", "requires_approval": true, "requires_approval": false}',
        b'{"action_id": 7, "status": "approved", "approved": false, "approved": true}',
        b'{"action_id": 7, "status": "approved", "success": false, "success": true}',
        b'{"action_id": 7, "status": "approved", "execution_allowed": false, "execution_allowed": true}',
        b'{"action_id": 7, "status": "approved", "approved": false , "approved": null}',
        b'{"action_id": 8, "action_id": 7, "status": "approved"}',
        b'{"id": 8, "id": 7, "status": "approved"}',
        b'{"st\\u0061tus": "denied", "action_id": 7, "status": "approved"}',
    ],
)  # fmt: skip
def test_what_is_not_plain_is_looked_at_more_closely(content):
    assert read_permission(content) is None


@pytest.mark.parametrize(
    "rest", [b'"conditions": [1], "conditions": []', b'"a": {"b": 1, "b": 2}', b'"a" : 1, "a" : 2']
)
def test_of_a_permission_that_can_be_read_in_two_ways_only_the_permission_is_known(rest):
    found = read_permission(b'{"action_id": 7, "status": "approved", %s}' % rest)
    assert found.decision.is_approved() and found.decision.action_id == "7"
    assert found.decision.to_dict().keys() == {"action_id", "decision", "status", "execution_allowed"}


def test_a_text_that_looks_like_a_name_hides_nothing():
    content = b'{"action_id":7,"status":"approved","reason":"a :b"}'
    assert read_permission(content).decision.reason == "a :b"


def test_what_the_limits_are():
    assert (MAX_DEPTH, MAX_VALUES) == (32, 10_000)


# --- what may be sent


def nested(levels, value=1):
    for _ in range(levels):
        value = {"a": value}
    return value


@pytest.mark.parametrize(
    "body",
    [
        {"a": 2**63 - 1, "b": -(2**63), "c": 1.5, "d": None, "e": True, "f": "x", "g": Decimal("1.5"), 1: 2},
        {"a": [1] * (MAX_VALUES - 2)},
        {"a": {str(number): 1 for number in range(MAX_VALUES - 2)}},
        nested(MAX_DEPTH),
    ],
)
def test_what_every_reader_understands_may_be_sent(body):
    check_values(body)


def test_a_permission_shows_its_action_and_nothing_else_of_the_answer():
    assert repr(read_permission(written(risk_score=3))) == "Permission(action_id='7')"


@pytest.mark.parametrize(
    ("body", "said", "field"),
    [
        ({"a": {"b": math.nan}}, "a.b must be a finite number", "a.b"),
        ({"a": [1, math.inf]}, "a.1 must be a finite number", "a.1"),
        ({"a": Decimal("nan")}, "a must be a finite number", "a"),
        ({"a": {math.nan: 1}}, "a must have no key that is NaN or infinite", "a"),
        ({math.inf: 1}, "the body must have no key that is NaN or infinite", None),
        ({"a": 2**63}, "a must be a number of at most 64 bits", "a"),
        ({"a": -(2**63) - 1}, "a must be a number of at most 64 bits", "a"),
        ({"a": [1] * (MAX_VALUES - 1)}, f"a has too many values, more than {MAX_VALUES}", "a"),
        (
            {"a": {str(number): 1 for number in range(MAX_VALUES)}},
            f"a has too many values, more than {MAX_VALUES}",
            "a",
        ),
        (nested(MAX_DEPTH + 1), f"a.a.a.a is nested more than {MAX_DEPTH} levels deep", "a.a.a.a"),
        (
            {**nested(MAX_DEPTH + 1), "b": nested(MAX_DEPTH)},
            f"a.a.a.a is nested more than {MAX_DEPTH} levels deep",
            "a.a.a.a",
        ),
    ],
)
def test_what_not_every_reader_understands_is_refused_with_its_place(body, said, field):
    with pytest.raises(ValidationError) as caught:
        check_values(body)
    assert (caught.value.message, caught.value.field) == (said, field)


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        ({}, True),
        ({"a": "b", "c": True, "d": None}, True),
        ({str(number): None for number in range(99)}, True),
        ({str(number): None for number in range(100)}, False),
        ({1: "a"}, False),
        ({"a": 1}, False),
        ({"a": 1.5}, False),
        ({"a": []}, False),
        ({"risk_score": "1"}, False),
        ({"riskLevel": None}, False),
    ],
)
def test_what_is_plain(value, plain):
    assert is_plain(value) is plain


def test_risk_claims_are_left_out_at_every_depth():
    claims = {"risk_score": 1, "riskScore": 1, "risk_level": 1, "riskLevel": 1}
    given = {"a": [{"b": 1, **claims}, ({"c": claims},)], "risk": 2, **claims}
    assert strip_risk_claims(given) == {"a": [{"b": 1}, [{"c": {}}]], "risk": 2}
    loop = []
    loop.append(loop)
    with pytest.raises(ValidationError, match="nested too deeply"):
        strip_risk_claims(loop)


@pytest.mark.parametrize(
    "value",
    [math.nan, [math.inf], {"a": -math.inf}, {math.nan: 1}, Decimal("nan"), [Decimal("-Infinity")], {"a": Decimal("sNaN")}, {1, math.inf}],
    ids=repr,
)  # fmt: skip
def test_what_is_no_number_is_not_written(value):
    with pytest.raises(ValidationError, match="NaN and infinity are no JSON numbers"):
        encode_json(value)


@pytest.mark.parametrize(
    ("value", "content"),
    [
        ({"a": None, "nan": "nan", "b": "infinity"}, b'{"a":null,"nan":"nan","b":"infinity"}'),
        ([None, "null"], b'[null,"null"]'),
        (Decimal("1.50"), b'"1.50"'),
        ("é", '"é"'.encode()),
        ({1: [True]}, b'{"1":[true]}'),
    ],
)
def test_what_only_looks_so_is(value, content):
    assert encode_json(value) == content


def test_what_json_cannot_hold_is_told():
    for value in (object(), "\ud800", {(1, 2): 3}, 1j):
        with pytest.raises(ValidationError, match="not representable as JSON"):
            encode_json(value)


def test_no_permission_is_read_where_the_decision_is_another():
    for word in ("pending", "denied", "timeout", "requires_modification", "odd"):
        content = written(decision=word)
        assert read_permission(content) is None
        try:
            assert not decode_decision(content).is_approved()
        except AscendError:
            assert word == "odd"


HOSTED = {
    "id": 1042,
    "action_id": "1042",
    "status": "approved",
    "decision": "approved",
    "execution_allowed": True,
    "requires_approval": False,
    "risk_score": 12.5,
    "correlation_id": "asc_0123456789abcdef",
    "reason": "why not",
}


@pytest.mark.parametrize(
    "other",
    [
        {"status": "denied"}, {"decision": "denied"}, {"execution_allowed": False}, {"requires_approval": True},
        {"id": 1043}, {"action_id": "1043"}, {"status": "bpproved"}, {"id": None}, {"action_id": None, "id": None},
    ],
)  # fmt: skip
def test_an_answer_like_one_before_is_judged_by_what_it_says_itself(other):
    assert read_permission(json.dumps(HOSTED).encode()).action_id == "1042"
    assert read_permission(json.dumps({**HOSTED, "id": 2047, "action_id": "2047"}).encode()).action_id == "2047"
    assert read_permission(json.dumps({**HOSTED, **other}).encode()) is None


@pytest.mark.parametrize(
    ("name", "like"), [("status", "stbtus"), ("decision", "beaision"), ("id", "ia"), ("action_id", "action_ib")]
)
def test_of_an_answer_like_one_before_a_name_that_stands_twice_is_found(name, like):
    more = json.dumps(HOSTED)[:-1]
    before, after = (f'{more}, "{each}": "denied"}}'.encode() for each in (like, name))
    assert read_permission(before).action_id == "1042"
    twice = b'{"%s": "denied", ' % name.encode() + json.dumps(HOSTED)[1:].encode()
    once = b'{"%s": "denied", ' % like.encode() + json.dumps(HOSTED)[1:].encode()
    assert read_permission(once).action_id == "1042"
    assert read_permission(after) is None
    assert read_permission(twice) is None


def test_an_answer_of_the_shape_of_one_before_is_json():
    content = json.dumps(HOSTED).encode()
    assert read_permission(content) is not None
    assert read_permission(content.replace(b"12.5", b"02.5")) is None
    assert read_permission(content.replace(b"12.5", b"a2.5")) is None
