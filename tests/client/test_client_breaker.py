"""The breaker: what counts, one probe, threads, cancellation."""

import threading

import pytest
from kit.processes import together

from ascend_middleware.client.breaker import CircuitBreaker
from ascend_middleware.exceptions import CircuitBreakerOpen


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def breaker(threshold=3, **options):
    clock = Clock()
    return CircuitBreaker(threshold=threshold, timeout=30, clock=clock, **options), clock


def opened(threshold=1):
    subject, clock = breaker(threshold)
    for _ in range(threshold):
        subject.acquire().fail()
    assert subject.state == "open"
    return subject, clock


def test_consecutive_failures_open_it_and_a_success_starts_the_count_again():
    subject, _ = breaker()
    for report in ("fail", "fail", "succeed", "fail", "fail"):
        getattr(subject.acquire(), report)()
    assert subject.state == "closed"
    subject.acquire().fail()
    with pytest.raises(CircuitBreakerOpen) as caught:
        subject.acquire()
    assert caught.value.retry_after == 30


def test_an_open_breaker_knows_whether_anything_answered():
    subject, clock = breaker(threshold=2)

    def unanswered(*facts):
        for fact in facts:
            subject.acquire().fail(unanswered=fact)
        with pytest.raises(CircuitBreakerOpen) as caught:
            subject.acquire()
        clock.now += 31
        return caught.value.unanswered

    assert unanswered(True, True)
    # Every probe says anew why it is open.
    assert not unanswered(False)
    assert unanswered(True)
    subject.acquire().succeed()
    assert unanswered(True, True)
    subject.acquire().succeed()
    assert not unanswered(False, True)
    subject.acquire().succeed()
    assert not unanswered(True, False)
    subject.acquire().succeed()
    subject.acquire().fail()
    subject.acquire().succeed()
    assert unanswered(True, True)


def test_neutral_results_neither_count_nor_reset():
    subject, _ = breaker()
    for report in ("fail", "release", "fail", "release", "fail"):
        getattr(subject.acquire(), report)()
    assert subject.state == "open"


def test_exactly_one_probe_under_threads():
    subject, clock = opened()
    clock.now = 31
    start = threading.Barrier(50)
    tokens, refused = [], []

    def attempt():
        start.wait()
        try:
            tokens.append(subject.acquire())
        except CircuitBreakerOpen:
            refused.append(1)

    together(*[attempt] * 50)
    assert (len(tokens), len(refused)) == (1, 49)
    tokens[0].succeed()
    assert subject.state == "closed"


def test_a_released_probe_decides_nothing_and_frees_its_place():
    subject, clock = opened()
    clock.now = 31
    subject.acquire().release()
    assert subject.state == "half-open"
    probe = subject.acquire()
    probe.fail()
    probe.succeed()
    assert subject.state == "open"
    clock.now = 60
    with pytest.raises(CircuitBreakerOpen):
        subject.acquire()


def test_results_of_calls_from_before_the_change_are_ignored():
    subject, clock = breaker(1)
    late, other = subject.acquire(), subject.acquire()
    subject.acquire().fail()
    late.succeed()
    assert subject.state == "open"
    clock.now = 31
    probe = subject.acquire()
    other.fail()
    probe.succeed()
    assert subject.state == "closed"


def test_disabled():
    subject, _ = breaker(1, enabled=False)
    for _ in range(5):
        subject.acquire().fail()
    assert subject.state == "closed"


@pytest.mark.parametrize("first", ["succeed", "fail", "release"])
@pytest.mark.parametrize("second", ["succeed", "fail", "release"])
def test_of_several_reports_of_one_call_the_first_counts(first, second):
    subject, clock = breaker(threshold=2)
    subject.acquire().fail()
    token = subject.acquire()
    getattr(token, first)()
    before = subject.state, subject.failures
    getattr(token, second)()
    assert (subject.state, subject.failures) == before
    assert before == {"succeed": ("closed", 0), "fail": ("open", 2), "release": ("closed", 1)}[first]


@pytest.mark.parametrize("second", ["succeed", "fail", "release"])
def test_a_probe_that_was_given_back_says_nothing_about_the_next_one(second):
    subject, clock = opened()
    clock.now += 31
    given_back = subject.acquire()
    given_back.release()
    subject.acquire()
    getattr(given_back, second)()
    with pytest.raises(CircuitBreakerOpen):
        subject.acquire()
    assert subject.state == "half-open"


def test_it_lets_a_probe_through_when_its_time_is_over_and_not_before():
    subject, clock = opened(threshold=2)
    assert subject.acquire_closed() is None
    for clock.now, left in ((0.0, 30.0), (29.5, 0.5)):
        with pytest.raises(CircuitBreakerOpen) as caught:
            subject.acquire()
        said = f"not sent: the last 2 calls to the authority failed; the next is tried in {left:.1f} s"
        assert (caught.value.message, caught.value.retry_after, subject.state) == (said, left, "open")
    clock.now = 30.0
    assert subject.state == "half-open"
    assert subject.acquire_closed() is None
    probe = subject.acquire()
    with pytest.raises(CircuitBreakerOpen) as caught:
        subject.acquire()
    said = "not sent: the last 2 calls to the authority failed; a probe is under way"
    assert (caught.value.message, caught.value.retry_after) == (said, 1.0)
    probe.succeed()
    assert (subject.state, subject.failures) == ("closed", 0)
    assert subject.acquire_closed() is not None


def test_a_probe_that_fails_begins_the_time_anew():
    subject, clock = opened()
    clock.now = 31.0
    subject.acquire().fail()
    clock.now = 60.9
    assert subject.state == "open"
    clock.now = 61.0
    assert subject.state == "half-open"


@pytest.mark.parametrize("report", ["succeed", "fail", "release"])
def test_a_call_that_was_reported_is_spent(report):
    subject, _ = breaker()
    token = subject.acquire()
    assert token.spent is False
    getattr(token, report)()
    assert token.spent is True
    assert subject.failures == (1 if report == "fail" else 0)


def test_the_first_process_of_a_container_makes_probes_too(monkeypatch):
    monkeypatch.setattr("ascend_middleware.client.breaker.process_id", lambda: 1)
    subject, clock = opened()
    clock.now = 31
    subject.acquire().release()
    subject.acquire().succeed()
    assert subject.state == "closed"


def test_a_child_of_that_process_takes_the_probe_over_and_hears_nothing_of_the_parents(monkeypatch):
    monkeypatch.setattr("ascend_middleware.client.breaker.process_id", lambda: 1)
    subject, clock = opened()
    clock.now = 31
    parents = subject.acquire()
    monkeypatch.setattr("ascend_middleware.client.breaker.process_id", lambda: 2)
    own = subject.acquire()
    parents.succeed()
    assert subject.state == "half-open"
    own.succeed()
    assert subject.state == "closed"
