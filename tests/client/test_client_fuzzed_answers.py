"""Answers that hypothesis makes up: only an exact permission that contradicts itself nowhere permits."""

import json
import socket
import threading

import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st
from kit.clients import ACTION, PARTIES, run
from kit.examples import examples
from kit.misbehaviour import CASES, YES
from kit.scripted import APPROVED, http

from ascend_middleware import exceptions as errors
from ascend_middleware.api.answers import action_page, action_record
from ascend_middleware.api.decode import decode_decision, decode_object, error_from_answer
from ascend_middleware.api.permission import read_permission
from ascend_middleware.client import EngineError

# Shrinking over sockets takes minutes and is not worth it: what fails is short.
PHASES = (Phase.explicit, Phase.generate)
ALLOW = ["approved", "allowed", "auto_approved", "executed"]
OTHERS = [
    "denied",
    "rejected",
    "pending",
    "pending_approval",
    "escalated",
    "timeout",
    "expired",
    "requires_modification",
]
JUNK = (
    st.sampled_from(["", "APPROVED", "approved ", "yes", "ok", "success", "error", "approve"])
    | st.integers()
    | st.booleans()
)
WORD = st.sampled_from(ALLOW) | st.sampled_from(ALLOW + OTHERS) | JUNK | st.none() | st.just(["approved"])
FLAG = st.sampled_from([True, False, None, 0, 1, "true", "false", [], {}])
ID = st.sampled_from(["7", 7, "act_7", "", None, -1, True, "a b", [7], {"x": 7}, 8])
FIELDS = {
    **dict.fromkeys(("decision", "status", "enforcement_decision"), WORD),
    **dict.fromkeys(("execution_allowed", "approved", "success", "requires_approval"), FLAG),
    **dict.fromkeys(("action_id", "id"), ID),
    "risk_score": st.integers() | st.text(max_size=3),
    "reason": st.text(max_size=5),
}
# Pairs and not a dict: a name may stand twice.
PAIRS = st.lists(
    st.sampled_from(sorted(FIELDS)).flatmap(lambda name: st.tuples(st.just(name), FIELDS[name])), max_size=7
)
LIKELY = st.tuples(st.tuples(st.just("action_id"), ID), st.tuples(st.just("decision"), WORD), PAIRS).map(
    lambda parts: [parts[0], parts[1], *parts[2]]
)


def text_of(pairs):
    return "{" + ", ".join(f"{json.dumps(name)}: {value}" for name, value in pairs) + "}"


def plain(pairs):
    return text_of([(name, json.dumps(value)) for name, value in pairs])


FLAT = (PAIRS | LIKELY).map(plain)
ENVELOPE = st.tuples(
    PAIRS | LIKELY, st.lists(st.sampled_from(["decision", "execution_allowed", "success"]), max_size=2)
).flatmap(
    lambda parts: st.tuples(*(FIELDS[name] for name in parts[1])).map(
        lambda values: text_of(
            [("status", '"success"'), ("data", plain(parts[0]))]
            + [(name, json.dumps(value)) for name, value in zip(parts[1], values, strict=True)]
        )
    )
)
BODY = (FLAT | ENVELOPE).map(str.encode)


def unique(pairs):
    if len(dict(pairs)) != len(pairs):
        raise ValueError("twice")
    return dict(pairs)


def unique_where_it_decides(pairs):
    deciding = [name for name, _ in pairs if name not in ("risk_score", "reason")]
    if len(set(deciding)) != len(deciding):
        raise ValueError("twice")
    return dict(pairs)


def permits(content, unique=unique):
    """Whether an answer permits: written from the rule, not from the code."""
    try:
        body = json.loads(content, object_pairs_hook=unique)
    except ValueError:
        return False
    if not isinstance(body, dict):
        return False
    layers = [body]
    if body.get("status") == "success" and isinstance(body.get("data"), dict):
        layers = [body["data"], {name: value for name, value in body.items() if name != "status"}]
    words = [
        layer[name]
        for layer in layers
        for name in ("decision", "status", "enforcement_decision")
        if layer.get(name) is not None
    ]
    if not words or not all(isinstance(word, str) and word in ALLOW for word in words):
        return False
    for layer in layers:
        for name, good in (
            ("execution_allowed", True),
            ("approved", True),
            ("success", True),
            ("requires_approval", False),
        ):
            if layer.get(name) is not None and layer[name] is not good:
                return False
    ids = [layers[0][name] for name in ("action_id", "id") if layers[0].get(name) not in (None, "")]
    numbers = {str(value).removeprefix("act_") for value in ids}
    return len(numbers) == 1 and all(
        type(value) in (int, str) and str(value).removeprefix("act_").isdigit() for value in ids
    )


@settings(max_examples=examples(500), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(BODY)
@example(json.dumps(YES).encode())
@example(b'{"status": "success", "data": {"action_id": 7, "decision": "allowed"}}')
def test_allowed_means_the_exact_word_everywhere_and_an_action(content):
    try:
        allowed = decode_decision(content).is_approved()
    except errors.ProtocolError:
        allowed = False
    # Stricter than the rule is allowed, and happens: an envelope beside which the same stands again.
    assert not allowed or permits(content), content
    if permits(content) and b'"data"' not in content:
        assert allowed, content


@settings(max_examples=examples(1000), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(BODY, st.sampled_from([" :", "\t:", "\\u0064"]), st.booleans())
@example(json.dumps(YES).encode(), "", False)
@example(b'{"status": "denied", "status": "approved", "id": 7}', "", False)
@example(b'{"status" : "denied", "status": "approved", "id": 7}', "", False)
@example(b'{"st\\u0061tus": "denied", "status": "approved", "id": 7}', "", False)
@example(b'{"approved": false, "approved": true, "status": "approved", "id": 7}', "", False)
@example(b'{"approved" : false, "approved": true, "status": "approved", "id": 7}', "", False)
@example(b'{"requires_approval": true, "requires_approval": null, "status": "approved", "id": 7}', "", False)
@example(b'{"id": 8, "id": 7, "status": "approved"}', "", False)
def test_what_is_a_permission_at_one_glance_is_one(content, spelt, once):
    # Written in another way, each name or the first of them only.
    if spelt.endswith(":"):
        content = content.replace(b":", spelt.encode(), 1 if once else -1)
    elif spelt:
        content = content.replace(b'"d', f'"{spelt}'.encode(), 1 if once else -1)
    found = read_permission(content)
    if found is None:
        return
    assert permits(content, unique_where_it_decides), content
    assert found.decision.is_approved()
    if permits(content):
        decoded = decode_decision(content)
        assert (dict(found.decision), found.action_id) == (dict(decoded), decoded.action_id)


@pytest.mark.parametrize(
    "content",
    [
        json.dumps(YES).encode(),
        b'{"id": 7, "status": "approved"}',
        b'{"id": 1042, "action_id": "1042", "status": "approved", "decision": "approved", "conditions": [], "metadata": {}}',
        b'{"action_id": "7", "decision": "allowed", "execution_allowed": true, "requires_approval": false, "x": false}',
    ],
)
def test_a_plain_permission_is_known_at_one_glance(content):
    assert read_permission(content).decision == decode_decision(content)


@pytest.mark.parametrize("more", ['"conditions":["x"],"conditions":[]', '"x":{"a":1,"a":2}', '"conditions":1e400'])
def test_of_a_permission_that_can_be_read_in_two_ways_nothing_else_is_believed(more):
    """Whatever is decided by it later, its use for another request for one, finds nothing in it."""
    permission = read_permission(b'{"status":"approved","action_id":"7","policy_state":"p",%s}' % more.encode())
    assert permission is not None
    assert permission.decision.action_id == "7" and permission.decision.get("policy_state") is None


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(
            ["status", "error", "detail", "details", "code", "message", "loc", "msg", "field", "data", "actions", "items",
             "pagination", "total", "has_more", "id", "action_id", "decision", "meta", "request_id", "correlation_id"]
        ),
        inner,
        max_size=4,
    ),
    max_leaves=12,
)  # fmt: skip


@settings(max_examples=examples(400), deadline=None)
@given(ANYTHING, st.sampled_from([301, 400, 401, 403, 404, 409, 418, 422, 429, 500, 503]), st.binary(max_size=20))
def test_whatever_is_decoded_ends_in_our_errors(body, status, noise):
    for content in (json.dumps(body).encode(), noise):
        assert isinstance(error_from_answer(status, content, {"x-ratelimit-limit": "x"}), errors.AscendError)
        for decode in (decode_object, decode_decision, action_record, action_page):
            try:
                result = decode(content)
            except errors.ProtocolError:
                continue
            repr(result)


class Line:
    """A server that answers each connection with the next bytes it was given, whatever they are, and closes it."""

    def __init__(self):
        self.answer = b""
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            try:
                with connection:
                    connection.settimeout(10)
                    request = b""
                    while b'"data_access"' not in request:
                        data = connection.recv(65536)
                        if not data:
                            break
                        request += data
                    connection.sendall(self.answer)
                    connection.shutdown(socket.SHUT_WR)
                    while connection.recv(65536):
                        pass
            except OSError:
                pass

    def close(self):
        self._listener.close()


@pytest.fixture(scope="module")
def line():
    server = Line()
    yield server
    server.close()


TEMPLATES = [APPROVED, http(200, {**YES, "status": "denied"}), *(answer for name, (answer, _) in CASES.items() if name.startswith(("status", "line")) and isinstance(answer, bytes) and len(answer) < 2000)]  # fmt: skip


@st.composite
def mangled(draw):
    """Return an answer with a few bytes removed, doubled, exchanged or put in."""
    data = bytearray(draw(st.sampled_from([APPROVED, APPROVED, *TEMPLATES])))
    for _ in range(draw(st.integers(1, 3))):
        if not data:
            break
        start = draw(st.integers(0, len(data) - 1))
        end = min(len(data), start + draw(st.integers(1, 12)))
        match draw(st.integers(0, 3)):
            case 0:
                del data[start:end]
            case 1:
                data[start:start] = data[start:end]
            case 2:
                data[start:start] = draw(
                    st.sampled_from(
                        [
                            b"\r\n",
                            b"\r\n\r\n",
                            b"0\r\n",
                            b"HTTP/1.1 200 OK\r\n",
                            b"Transfer-Encoding: chunked\r\n",
                            b" ",
                            b"\x00",
                        ]
                    )
                )
            case 3:
                data[start] = draw(st.integers(0, 255))
    return bytes(data)


def check_line(party, line, answer):
    line.answer = answer
    try:
        result = run(party, line.url, lambda client: client.submit_action(ACTION), timeout=5)
    except errors.AscendError as error:
        assert not isinstance(error, EngineError)
        return
    if result.is_approved():
        # However an answer was read, no permission is found where the bytes hold none.
        assert b" 2" in answer[:16], answer
        assert any(f'"{word}"'.encode() in answer for word in ALLOW), answer
        assert not any(f'"{word}"'.encode() in answer for word in OTHERS), answer


@pytest.mark.parametrize("party", PARTIES)
@settings(max_examples=10, deadline=None, phases=PHASES, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(mangled())
def test_mangled_answers_permit_nothing_and_raise_our_errors(party, line, answer):
    check_line(party, line, answer)


@pytest.mark.slow
@pytest.mark.parametrize("party", PARTIES)
@settings(
    max_examples=examples(150),
    deadline=None,
    phases=PHASES,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(mangled() | BODY.map(lambda body: http(200, body)) | st.binary(max_size=200))
def test_mangled_answers_at_length(party, line, answer):
    check_line(party, line, answer)


@pytest.mark.parametrize("party", PARTIES)
@settings(max_examples=8, deadline=None, phases=PHASES, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(BODY)
def test_what_the_wire_permits_is_what_every_party_permits(party, line, content):
    line.answer = http(200, content, "Connection: close")
    try:
        result = run(party, line.url, lambda client: client.submit_action(ACTION), timeout=5)
    except errors.ProtocolError:
        return
    assert not result.is_approved() or permits(content)
