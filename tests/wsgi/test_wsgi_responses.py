"""Responses: streams, `close()`, `write()`, errors; and what became of an allowed action reaches the authority."""

import json
import sys

import pytest
from kit.desk import local_authority
from kit.engine import options
from kit.wsgi import Call, environ

from ascend_middleware import AscendClient
from ascend_middleware.wsgi import AscendMiddleware

RULES = [{"match": "GET /**", "action_type": "read"}]


class Stream:
    def __init__(self, parts, *, fails=None, close_fails=False):
        self.parts, self.fails, self.close_fails = iter(parts), fails, close_fails
        self.taken, self.closed = 0, 0

    def __iter__(self):
        return self

    def __next__(self):
        try:
            part = next(self.parts)
        except StopIteration:
            if self.fails is not None:
                raise self.fails from None
            raise
        self.taken += 1
        return part

    def close(self):
        self.closed += 1
        if self.close_fails:
            raise RuntimeError("owkai_secret_0123456789 went wrong")


def streaming(stream, status="200 OK"):
    def app(environ, start_response):
        start_response(status, [])
        return stream

    return app


def guard(app):
    return AscendMiddleware(app, **options(RULES))


def test_a_stream_goes_out_part_by_part_and_is_closed_once(engine):
    stream = Stream([b"a", b"b", b"c"])
    given = environ("GET", "/s")
    iterable = guard(streaming(stream))(given, lambda *arguments: None)
    assert (stream.taken, next(iter(iterable)), stream.taken) == (0, b"a", 1)
    assert list(iterable) == [b"b", b"c"]
    iterable.close()
    assert stream.closed == 1


def test_a_client_that_leaves_closes_the_stream(engine):
    stream = Stream([b"a", b"b", b"c"])
    Call(guard(streaming(stream)), environ("GET", "/s"), take=1)
    assert (stream.taken, stream.closed) == (1, 1)


def test_a_list_stays_a_list(engine):
    # Servers take the length of a response in one part from it.
    assert isinstance(guard(streaming([b"done"]))(environ("GET", "/s"), lambda *arguments: None), list)


def test_what_is_written_goes_out(engine):
    def app(environ, start_response):
        write = start_response("200 OK", [])
        write(b"one ")
        write(b"two ")
        return [b"three"]

    assert Call(guard(app), environ("GET", "/s")).body == b"one two three"


def test_an_application_may_start_again_after_an_error(engine):
    def app(environ, start_response):
        start_response("200 OK", [("x", "1")])
        try:
            raise RuntimeError
        except RuntimeError:
            start_response("500 Broken", [("x", "2")], sys.exc_info())
        return [b"sorry"]

    call = Call(guard(app), environ("GET", "/s"))
    assert (call.status, call.headers["x"], call.body) == (500, "2", b"sorry")


def test_an_application_may_start_late(engine):
    def app(environ, start_response):
        yield from ()
        start_response("200 OK", [])
        yield b"late"

    call = Call(guard(app), environ("GET", "/s"))
    assert (call.status, call.body) == (200, b"late")


def outcomes(tmp_path, *apps, take=None, decision="approved", **settings):
    """Run each application once under the embedded authority; return the trail of each action."""
    url = local_authority(tmp_path, decision)
    for app in apps:
        guarded = AscendMiddleware(app, rules={"rule": RULES}, api_url=url, agent_id="a", **settings)
        try:
            Call(guarded, environ("GET", "/s"), take=take)
        except RuntimeError:
            pass
        guarded.close()
    with AscendClient(api_url=url, agent_id="a") as asking:
        records = [asking.get_action(row.action_id) for row in asking.list_actions(limit=50).actions]
    records.sort(key=lambda record: int(record.action_id))
    assert "owkai_secret" not in str([record.to_dict() for record in records])
    return [(record.to_dict().get("outcome") or {}) for record in records]


def raising(environ, start_response):
    raise RuntimeError("owkai_secret_0123456789 went wrong")


def test_completion_and_failure_are_reported(tmp_path):
    found = outcomes(
        tmp_path,
        streaming([b"x"]),
        streaming(Stream([b"a", b"b"])),
        raising,
        streaming(Stream([b"a"], fails=RuntimeError("owkai_secret_0123456789"))),
        streaming([b"x"], "503 Away"),
        streaming(Stream([b"a"], close_fails=True)),
    )
    assert [(outcome["status"], outcome.get("error")) for outcome in found] == [
        ("completed", None),
        ("completed", None),
        ("failed", "the handler raised RuntimeError"),
        ("failed", "the stream broke: the handler raised RuntimeError"),
        ("failed", "the application answered 503"),
        ("completed", None),
    ]


def test_a_stream_that_was_not_taken_to_its_end_has_failed(tmp_path):
    (outcome,) = outcomes(tmp_path, streaming(Stream([b"a", b"b"])), take=1)
    assert (outcome["status"], outcome["error"]) == ("failed", "the client left")


@pytest.mark.parametrize("settings", [{"mode": "observe", "decision": "denied"}, {"report_outcomes": False}])
def test_nothing_is_reported_where_nothing_is_wanted(tmp_path, settings):
    (outcome,) = outcomes(tmp_path, streaming(Stream([b"a"])), **settings)
    assert not outcome


def test_a_later_that_was_replaced_gives_no_approval_back(ascend_authority):
    def app(environ, start_response):
        start_response("429 Later", [("retry-after", "1")])
        try:
            raise RuntimeError
        except RuntimeError:
            start_response("200 OK", [], sys.exc_info())
        return [b"done"]

    guarded = AscendMiddleware(app)
    ascend_authority.hold()
    handle = json.loads(Call(guarded, environ("GET", "/s")).body)["approval"]["handle"]
    ascend_authority.decide()
    calls = [Call(guarded, environ("GET", "/s", headers=[("Ascend-Approval", handle)])) for _ in range(2)]
    assert [call.status for call in calls] == [200, 409]
    guarded.close()
