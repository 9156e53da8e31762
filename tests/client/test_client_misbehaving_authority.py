"""Every case of the table through both clients, at every engine and with the user's own: typed, in time, no permission."""

import json

import pytest
from kit.clients import ACTION, KEY, PARTIES, opened, run
from kit.misbehaviour import BODIES, CASES, CONTENTS, SLOW
from kit.scripted import APPROVED, DEAF, DENIED, DROP, HANG, PENDING, Scripted, chunked, http

from ascend_middleware import exceptions as errors
from ascend_middleware.api.decode import decode_decision
from ascend_middleware.client import EngineError

AT = pytest.mark.parametrize("party", PARTIES)


def is_quick(party, name):
    """Whether a case belongs to the quick tier; every party reads every case in the other one."""
    # How a body is read does not depend on who carried it, and the user's client stands on the library of httpx2.
    return party == "sync auto" or (not party.endswith("own") and name.startswith(("status", "line")))


EVERY = [
    pytest.param(party, name, marks=[] if is_quick(party, name) else [pytest.mark.slow])
    for name in CASES
    for party in PARTIES
]
EVERY_SLOW = [
    pytest.param(party, name, marks=[pytest.mark.slow] if name not in ("hangs", "trickles the head") else [])
    for name in SLOW
    for party in PARTIES
]


def submit(client):
    return client.submit_action(ACTION)


def outcome(party, url, work, **options):
    """Return what a call came to: a word of a decision, or the error."""
    try:
        result = run(party, url, work, **options)
    except errors.AscendError as error:
        assert not isinstance(error, EngineError), "that one is internal"
        assert KEY not in f"{error!r} {error} {vars(error)}"
        return error
    assert result.execution_allowed is result["execution_allowed"] is result.is_approved()
    return str(result.decision)


@pytest.mark.parametrize(("party", "name"), EVERY)
def test_each_answer_has_one_meaning_and_none_is_taken_for_permission(party, name):
    answer, expected = CASES[name]
    with Scripted(answer) as server:
        found = outcome(party, server.url, submit, fail_mode="open")
        assert len(server.requests) == 1
    if expected is None:
        assert isinstance(found, errors.AscendError) or found in ("denied", "pending")
    elif isinstance(expected, str):
        assert found == expected
    else:
        assert type(found) is expected, found


CALLS = {
    "evaluate": lambda client: client.evaluate_action("t", "r", wait_for_decision=False),
    "evaluate_mcp": lambda client: client.evaluate_mcp_action("s", "files", "read", "r"),
    "status": lambda client: client.get_action_status("7"),
    "wait": lambda client: client.wait_for_decision("7", 0, poll_interval=0.01),
    "waiting evaluate": lambda client: client.evaluate_action("t", "r", timeout=0.02),
}


@pytest.mark.parametrize("kind", ["sync", "async"])
@pytest.mark.parametrize("call", CALLS)
def test_defects_a2_and_a6_every_call_that_decides_reads_an_answer_alike(kind, call):
    """Over one connection, since what an engine makes of a line is tested above."""
    cases = [(name, http(200, body)) for name, (body, _) in BODIES.items()]
    cases += [(name, http(200, content)) for name, (content, _) in CONTENTS.items() if len(content) < 1000]
    for name, answer in cases:
        with Scripted(answer) as server:
            found = outcome(kind, server.url, CALLS[call], fail_mode="open", timeout=2)
        assert isinstance(found, errors.AscendError) or found in ("denied", "pending"), name


@pytest.mark.parametrize("name", [*BODIES, *CONTENTS])
def test_defects_a2_and_a6_the_wire_alone_says_the_same(name):
    body, expected = BODIES.get(name) or CONTENTS[name]
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    if isinstance(expected, str):
        decision = decode_decision(content)
        assert decision.decision == expected and decision.execution_allowed is False
    else:
        with pytest.raises(errors.ProtocolError):
            decode_decision(content)


@pytest.mark.parametrize(("party", "name"), EVERY_SLOW)
def test_one_deadline_covers_the_whole_call(party, name):
    """What is slow comes to an end of its own, long after the deadline, and that end is another result."""
    with Scripted(SLOW[name]) as server:
        found = outcome(party, server.url, submit, timeout=0.2, max_retries=3)
        assert type(found) is errors.TimeoutError, found
        assert len(server.requests) == 1


@pytest.mark.slow
@AT
def test_the_deadline_covers_an_authority_that_does_not_read(party):
    big = {**ACTION, "action_details": {"text": "x" * 8_000_000}}
    with Scripted(DEAF) as server:
        found = outcome(party, server.url, lambda client: client.submit_action(big), timeout=0.2)
        assert type(found) is errors.TimeoutError, found


@AT
@pytest.mark.parametrize("value", ["8", "86400", "Fri, 31 Dec 2099 23:59:59 GMT"])
def test_nobody_waits_longer_than_the_deadline_because_the_authority_says_so(party, value):
    with Scripted(http(429, b"", f"Retry-After: {value}")) as server:
        found = outcome(party, server.url, submit, timeout=5.0, max_retries=3)
        assert type(found) is errors.RateLimitError and found.retry_after >= 7
        assert len(server.requests) == 1


@AT
@pytest.mark.parametrize(
    "whole",
    [DENIED, chunked(b'{"action_id": "7", "status": "denied"}').replace(b"Connection: close\r\n", b"")],
    ids=["length", "chunks"],
)
def test_what_stands_behind_an_answer_does_not_answer_the_next_question(party, whole):
    with Scripted(whole + APPROVED, PENDING) as server, opened(party, server.url) as client:
        with pytest.raises(errors.ProtocolError):
            submit(client)
        assert submit(client).is_pending() and len(server.requests) == 2


@AT
def test_refused_connection_is_a_network_error_and_open_mode_marks_what_it_passes(party):
    with Scripted() as server:
        url = server.url
    with pytest.raises(errors.NetworkError) as caught:
        run(party, url, submit)
    assert caught.value.unanswered
    decision = run(party, url, submit, fail_mode="open")
    assert decision.is_approved()
    assert decision.metadata["fail_open"] is True
    assert decision.conditions == ["fail_open_mode"]


@AT
def test_open_mode_passes_a_hanging_authority_but_never_a_pending_action(party):
    with Scripted(HANG) as server:
        assert run(party, server.url, submit, timeout=0.2, fail_mode="open").metadata["fail_open"] is True
    with Scripted(PENDING, DROP) as server:
        decision = run(
            party, server.url, lambda client: client.evaluate_action("data_access", "r", timeout=0.2), fail_mode="open"
        )
        assert decision.is_pending()
        assert decision.approval_request_id == "7"


@AT
def test_a_lost_answer_is_asked_for_again_under_the_same_key(party):
    with Scripted(http(503, b"", "Retry-After: 0"), DROP, APPROVED) as server:
        assert run(party, server.url, submit, max_retries=3).is_approved()
        assert len({request.headers["idempotency-key"] for request in server.requests}) == 1
        assert len(server.requests) == 3
