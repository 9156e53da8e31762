"""What is told of a handler that ran, or did not: from what its response said, how it ended, and what was raised."""

import asyncio
from types import SimpleNamespace

import pytest

from ascend_middleware.adapters.outcome import HandledRequest, WatchedParts
from ascend_middleware.guard import Verdict
from ascend_middleware.guard.runs import Run


class Told:
    """Takes what is told, in the place of a runner."""

    def __init__(self):
        self.outcomes = []
        self.runs = SimpleNamespace(conclude=self.conclude)

    def conclude(self, run, error, milliseconds, unused):
        run.concluded = True
        assert milliseconds >= 0
        self.outcomes.append((error, unused))


def handled(told, came=None):
    return HandledRequest(told, Verdict(outcome="allowed", passes=True, run=Run(1, None, "", "7")), came)


def became(*steps, came=None, ran=None):
    told = Told()
    one = handled(told, None if came is None else lambda: came)
    one.ran = ran
    for step in steps:
        if isinstance(step, BaseException):
            one.raised(step)
        elif step == "left":
            one.left()
        elif step == "whole":
            one.is_whole = True
        else:
            one.began(*step) if isinstance(step, tuple) else one.began(step, ())
    assert one.is_awaited
    assert one.conclude() is None and one.conclude() is None
    assert not one.is_awaited
    (outcome,) = told.outcomes
    return outcome


BROKE, STOPPED = ValueError("no"), asyncio.CancelledError()


@pytest.mark.parametrize(
    ("steps", "error"),
    [
        ((200, "whole"), None),
        ((302, "whole"), None),
        ((399, "whole"), None),
        ((400, "whole"), "the application answered 400"),
        ((404, "whole"), "the application answered 404"),
        ((500, "whole"), "the application answered 500"),
        ((), "the handler gave no answer"),
        ((200,), "the stream broke"),
        ((399,), "the stream broke"),
        ((500,), "the application answered 500"),
        ((BROKE,), "the handler raised ValueError"),
        ((200, BROKE), "the stream broke: the handler raised ValueError"),
        ((200, "whole", BROKE), None),
        ((404, "whole", BROKE), "the application answered 404"),
        ((499, "whole", BROKE), "the application answered 499"),
        ((500, "whole", BROKE), "the handler raised ValueError"),
        (("whole", BROKE), "the handler raised ValueError"),
        (("left",), "the client left"),
        ((200, "left"), "the client left"),
        ((200, "whole", "left"), None),
        ((500, "whole", "left"), "the application answered 500"),
        ((200, "left", BROKE), "the client left (ValueError)"),
        ((200, "left", BROKE, "left"), "the client left (ValueError)"),
        ((200, BROKE, "left"), "the stream broke: the handler raised ValueError"),
        ((STOPPED,), "the handler was interrupted"),
        ((200, STOPPED), "the handler was interrupted"),
        ((STOPPED, "left"), "the handler was interrupted"),
        ((200, "whole", STOPPED), None),
        ((500, "whole", STOPPED), "the application answered 500"),
    ],
    ids=str,
)
def test_what_is_told_of_a_handler(steps, error):
    assert became(*steps) == (error, False)
    assert became(*steps, came=True)[0] == (error and error.replace("the application answered", "the handler answered"))


@pytest.mark.parametrize(
    ("steps", "error", "unused"),
    [
        ((200, "whole"), "the application answered 200", False),
        ((299, "whole"), "the application answered 299", False),
        ((300, "whole"), "the application answered 300", True),
        ((404, "whole"), "the application answered 404", True),
        ((200,), "the stream broke", True),
        ((), "the handler gave no answer", True),
        ((BROKE,), "the application raised ValueError", True),
        ((200, BROKE), "the stream broke: the application raised ValueError", True),
        ((STOPPED,), "the request was interrupted", True),
        (("left",), "the client left", True),
    ],
    ids=str,
)
def test_what_is_told_where_it_did_not_run(steps, error, unused):
    """What did not happen is given back; where something else answered with success, it may have done it."""
    assert became(*steps, came=False) == (f"the handler did not run: {error}", unused)
    assert became(*steps, ran=False) == (f"the handler did not run: {error}", unused)


@pytest.mark.parametrize(
    ("steps", "unused"),
    [
        (((503, [("Retry-After", "1")]), "whole"), True),
        (((429, [(b"retry-after", b"1")]), "whole"), True),
        (((503, [("retry-after", "1")]),), False),
        (((503, [("x-retry-after", "1")]), "whole"), False),
        (((503, ()), "whole"), False),
        (((500, [("retry-after", "1")]), "whole"), False),
        (((200, [("retry-after", "1")]), "whole"), False),
        (((503, [("retry-after", "1")]), (200, ()), "whole"), False),
        (((200, ()), (503, [("retry-after", "1")]), "whole"), True),
    ],
    ids=str,
)
def test_who_is_told_to_come_again_may(steps, unused):
    assert became(*steps)[1] is unused


def test_nobody_is_told_of_what_nobody_awaits():
    told = Told()
    for verdict in (None, Verdict(outcome="allowed", passes=True)):
        one = HandledRequest(told, verdict)
        assert one.conclude() is None and not one.is_awaited
    assert told.outcomes == []
    assert HandledRequest(told).is_undecided
    assert HandledRequest(told, Verdict(outcome="framework", passes=True)).is_undecided
    assert not HandledRequest(told, Verdict(outcome="allowed", passes=True)).is_undecided


class Parts:
    def __init__(self, *parts):
        self.parts, self.closed = list(parts), 0

    def __iter__(self):
        for one in self.parts:
            if isinstance(one, Exception):
                raise one
            yield one

    def close(self):
        self.closed += 1


@pytest.mark.parametrize(
    ("parts", "takes", "error"),
    [
        ([b"a", b"b"], 3, None),
        ([b"a", b"b"], 1, "the client left"),
        ([b"a", b"b"], 0, "the client left"),
        ([], 1, None),
        ([b"a", BROKE], 2, "the stream broke: the handler raised ValueError"),
        ([BROKE], 1, "the stream broke: the handler raised ValueError"),
    ],
)
def test_the_parts_of_a_response_are_watched_to_their_end(parts, takes, error):
    told, parts = Told(), Parts(*parts)
    one = handled(told)
    one.began(200, ())
    watched = WatchedParts(parts, one)
    for _ in range(takes):
        try:
            next(watched)
        except (StopIteration, ValueError):
            break
    watched.close()
    assert (told.outcomes, parts.closed) == ([(error, False)], 1)


def test_parts_that_cannot_be_closed_need_not_be():
    told = Told()
    one = handled(told)
    one.began(200, ())
    watched = WatchedParts([b"a"], one)
    assert list(watched) == [b"a"]
    watched.close()
    assert told.outcomes == [(None, False)]
