"""A request that comes again as it came finds the decision that is kept for it at one glance: just where the whole
fingerprint would find it, and for as long."""

import itertools

import anyio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kit.asgi import Handler, ask, get, guard, part, unattended
from kit.engine import plug
from kit.examples import examples
from kit.reuse import READ, SETTINGS, Authority, entries
from kit.states import NOW, order
from starlette.applications import Starlette
from starlette.routing import Mount, Route

import ascend_middleware.asgi.governor
from ascend_middleware.authority import parse_policy
from ascend_middleware.guard.decide import Guard
from ascend_middleware.guard.recall import Recall
from ascend_middleware.routing import Known

pytestmark = pytest.mark.anyio

RULES = [
    READ,
    {
        **READ,
        "match": "GET,HEAD /told/{name}",
        "details": {"shop": "header.x-shop?", "q": "query.q?"},
        "resource_id": "{path.name}",
    },
    {**READ, "match": "GET /m/read/{name}"},
]


def application(rules=RULES, handler=None, **more):
    handler = handler or Handler(reads=False)
    routes = [Route(f"/{name}/{{name}}", handler, methods=["GET", "HEAD"]) for name in ("read", "told")]
    app = Starlette(routes=[*routes, Mount("/m", Starlette(routes=[Route("/read/{name}", handler)]))])
    guarded = unattended(guard(app, rules, **{**SETTINGS, **more}))
    guarded.time = 1000.0
    guarded.guard.core.clock = lambda: guarded.time
    return guarded


@pytest.fixture
def house(monkeypatch):
    return plug(monkeypatch, Authority())


async def warm(app, house, path="/read/a", **more):
    """Let a request come until it is recalled; return how many were asked about."""
    before = len(house.submitted)
    for _ in range(5):
        assert (await get(app, path, **more)).status == 200
    return len(house.submitted) - before


@pytest.fixture
def glances(monkeypatch):
    """Return the verdicts at a glance, as they come."""
    found = []
    recall = Guard.recall

    def noting(self, known, came):
        verdict = recall(self, known, came)
        found.append(verdict)
        return verdict

    monkeypatch.setattr(Guard, "recall", noting)
    return found


async def test_who_comes_again_is_known_at_a_glance_and_journalled(house, glances):
    app = application()
    assert await warm(app, house) == 1
    assert glances[-1] is not None
    assert entries(app.guard) == [("allowed", "1")] + [("cached", "1")] * 4
    assert app.health()["cache"]["cached"] == 4 and app.health()["cache"]["entries"] == 1
    house.tell(app.guard)
    assert len(house.uses) == 4


async def test_what_an_application_writes_into_a_verdict_the_next_does_not_see(house, glances):
    seen = []

    class Writing(Handler):
        async def __call__(self, scope, receive, send):
            verdict = scope["state"]["ascend"]
            seen.append((verdict.action.resource_id, verdict.decision.get("mine"), verdict.action_id))
            verdict.action.resource_id, verdict.decision["mine"] = "b", 1
            assert verdict.action.resource_id == "b" and verdict.reuse == ("cached" if len(seen) > 1 else None)
            await super().__call__(scope, receive, send)

    app = application(handler=Writing(reads=False))
    await warm(app, house)
    assert glances[-1] is not None and seen == [("a", None, "1")] * 5


HEADERS = (("host", "one"), ("host", "other"), ("Host", "one"), ("cookie", "s=1"), ("cookie", "s=2"), ("Cookie", "s=1"))
HEADERS += (("x_api_key", "1"), ("X-Api-Key", "2"), ("authorization", "a"), ("x-shop", "1"), ("X_Shop", "2"))
HEADERS += (("x-forwarded-user", "ann"), ("X-Forwarded_User", "bob"), ("content-length", "0"), ("content-type", "a"))
HEADERS += (("accept", "1"), ("accept", "2"), ("x-trace", "1"), ("x-trace", "2"), ("x-org", "1"), ("X_ORG", "2"))
requests = st.tuples(
    st.sampled_from(("/read/a", "/read/a", "/read/b", "/told/a", "/m/read/a")),
    st.sampled_from(("GET", "GET", "HEAD")),
    st.sampled_from((b"", b"", b"q=1", b"q=2", b"r=1")),
    st.lists(st.sampled_from(HEADERS), max_size=2),
    st.sampled_from(("", "", "", "/in")),
    st.sampled_from(("1.1", "1.1", "1.0", "2")),
    st.sampled_from((True, True, True, False)),
)


def come(monkeypatch, sequence, *, thorough):
    """Send requests to a new application, each some times; return what can be seen of each."""
    with monkeypatch.context() as patch:
        house = plug(patch, Authority())
        if thorough:
            patch.setattr(ascend_middleware.asgi.governor, "are_ordinary_headers", lambda *_: False)
        app = application(principal_headers=("x-org",))
        found = []

        async def send():
            for path, method, query, headers, root, version, plain in sequence:
                raw = (root + path).encode() if plain else (root + path).encode().replace(b"a", b"%61")
                how = {"root_path": root, "http_version": version, "raw_path": raw, "query": query, "headers": headers}
                # From HTTP/2 on a body need not be announced.
                wire = await ask(app, root + path, method, body=[part(b"x" if version == "2" else b"")], **how)
                found.append((wire.status, len(house.submitted), len(entries(app.guard))))

        anyio.run(send)
        return found, house.submitted, entries(app.guard)


# Path, method, query, headers, root path, version, and whether the target came without escapes.
AGAIN = ("/read/a", "GET", b"", [("host", "one")], "", "1.1", True)
# What differs from it in one thing.
SHOWN = (*AGAIN[:2], b"q=1", [("cookie", "s=1")], *AGAIN[4:])
PAIRS = [
    (SHOWN, (*SHOWN[:2], b"q=2", *SHOWN[3:])),
    (SHOWN, (*SHOWN[:4], "/in", *SHOWN[5:])),
    (SHOWN, (*SHOWN[:3], [("cookie", "s=2")], *SHOWN[4:])),
    *(
        (AGAIN, other)
        for other in (
            ("/read/b", *AGAIN[1:]),
            (*AGAIN[:1], "HEAD", *AGAIN[2:]),
            (*AGAIN[:2], b"q=1", *AGAIN[3:]),
            *((*AGAIN[:3], [("host", "one"), header], *AGAIN[4:]) for header in HEADERS),
            (*AGAIN[:3], [("host", "other")], *AGAIN[4:]),
            (*AGAIN[:3], [], *AGAIN[4:]),
            (*AGAIN[:4], "/in", *AGAIN[5:]),
            (*AGAIN[:5], "2", *AGAIN[6:]),
            (*AGAIN[:6], False),
        )
    ),
]


@pytest.mark.parametrize("pair", PAIRS, ids=range(len(PAIRS)))
@pytest.mark.parametrize("turn", [1, -1])
def test_whatever_differs_counts_as_much_as_in_the_fingerprint(monkeypatch, pair, turn):
    one, two = pair[::turn]
    sequence = [one] * 4 + [two] * 4 + [one, two]
    assert come(monkeypatch, sequence, thorough=False) == come(monkeypatch, sequence, thorough=True)


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=examples(45), suppress_health_check=list(HealthCheck), deadline=None)
@given(different=st.lists(requests, min_size=1, max_size=3), order=st.lists(st.integers(0, 2), min_size=6, max_size=12))
def test_a_glance_finds_what_the_fingerprint_finds(different, order):
    sequence = [different[number % len(different)] for number in order]
    with pytest.MonkeyPatch.context() as patch:
        assert come(patch, sequence, thorough=False) == come(patch, sequence, thorough=True)


# --- what ends it


def blocked(app, house):
    app.guard.state.apply([order("BLOCK")], command_id="1", now=NOW)
    app.guard.kill.expire()


def lifted(app, house):
    blocked(app, house)
    app.guard.kill.refresh()
    app.guard.state.apply([order("UNBLOCK", NOW + 1)], command_id="2", now=NOW)
    app.guard.kill.expire()


def over(app, house):
    app.time += 30


def another_policy(app, house):
    app.guard.core.policy_state = "another"


def refused_key(app, house):
    app.guard.core.key_refused = True


def full(app, house):
    app.guard.journal.others_bytes = app.guard.journal.limits.size


ENDS = {
    "block": (blocked, {}, 503, 0),
    "lifted block": (lifted, {}, 200, 1),
    "an order about another": (blocked, {"agent_id": "another"}, 200, 1),
    "time": (over, {}, 200, 1),
    "another policy": (another_policy, {}, 200, 1),
    "key": (refused_key, {}, 200, 1),
    "full journal": (full, {}, 503, 0),
    "full journal that lets pass": (full, {"journal_full": "pass"}, 200, 1),
}


@pytest.mark.parametrize("name", ENDS)
async def test_what_ends_a_decision_ends_it_for_those_who_are_known_too(house, glances, name):
    end, more, status, asked = ENDS[name]
    app = application(**more)
    assert await warm(app, house) == 1 and glances[-1] is not None
    end(app, house)
    before = len(house.submitted)
    assert (await get(app, "/read/a")).status == status
    assert len(house.submitted) == before + asked


async def test_a_decision_that_is_let_go_for_room_counts_for_nobody(house, glances):
    app = application(cache_entries=2)
    assert await warm(app, house) == 1
    for name in ("b", "c"):  # each comes once, so that nothing else is let go
        assert (await get(app, f"/read/{name}")).status == 200
    assert app.health()["cache"]["entries"] == 2 and len(app.guard.reuse._again) == 1
    assert (await get(app, "/read/a")).status == 200
    assert glances[-1] is None and len(house.submitted) == 4


async def test_another_policy_counts_from_the_answer_that_tells_of_it(house, glances):
    app = application()
    await warm(app, house)
    house.desk.authority.use(parse_policy('[[policy]]\nname = "no"\naction_types = ["read"]\ndecision = "denied"\n'))
    house.tell(app.guard)
    assert glances[-1] is not None and (await get(app, "/read/a")).status == 403


async def test_an_order_while_the_entry_is_written_is_seen_by_the_last_look(house, glances):
    app = application()
    await warm(app, house)
    ran, enter = app.guard.journal.entered, app.guard.journal.enter_allowed

    def late(*arguments):
        blocked(app, house)
        return enter(*arguments)

    app.guard.journal.enter_allowed = late
    assert (await get(app, "/read/a")).problem == "kill-switch"
    assert app.guard.journal.entered == ran + 1
    house.tell(app.guard)
    assert [use["outcome"] for use in house.uses][-1] == "failed"


async def test_an_entry_that_would_have_to_wait_is_made_by_the_thorough_way(house, glances):
    app = application()
    await warm(app, house)
    app.guard.journal.enter_allowed = lambda *_: 0
    assert (await get(app, "/read/a")).status == 200
    assert glances[-1] is None and entries(app.guard)[-1] == ("cached", "1") and len(house.submitted) == 1


async def test_who_wants_to_hear_of_each_request_hears_of_those_too(house, glances, caplog):
    app = application()
    await warm(app, house)
    caplog.set_level("INFO", "ascend_middleware.guard")
    assert (await get(app, "/read/a")).status == 200
    assert "allowed, cached" in caplog.text and app.health()["cache"]["cached"] == 5


# --- what is kept


async def test_nothing_that_a_caller_shows_is_in_the_memory(house, glances):
    app = application()
    shown = [("authorization", "Bearer very-secret"), ("cookie", "very-secret"), ("host", "one")]
    assert await warm(app, house, query=b"token=very-secret", headers=shown) == 1
    assert glances[-1] is not None
    kept = app.guard.reuse._again
    assert len(kept) and "very-secret" not in repr([*kept._found])


async def test_headers_that_tell_nothing_may_say_something_else_each_time(house, glances):
    app = application()
    numbers = itertools.count()
    for _ in range(6):
        headers = [("host", "one"), ("x-trace", str(next(numbers))), ("cookie", "s=1")]
        assert (await get(app, "/read/a", headers=headers)).status == 200
    assert len(house.submitted) == 1 and glances[-1] is not None


def test_what_callers_make_up_fills_no_memory():
    recall, known = Recall(3), [Known() for _ in range(5)]
    for number in range(1000):
        came = ("/", "", "1.1"), b"", [(b"x-%d" % number, b"1"), (b"x" * 100 + b"%d" % number, b"1")]
        recall.keep("rule", known[number % 5], came, {"host"}, number)
    assert len(recall) <= 3
    (names,) = recall._silent.values()
    assert len(names) <= 256 and max(map(len, names)) < 100


@pytest.mark.parametrize("odd", [(("/",), "q", [(b"host", ["x"])]), (([],), b"", []), (("/",), b"", [(["a"], b"")])])
def test_what_no_server_sends_is_left_to_the_thorough_way(odd):
    recall, known = Recall(3), Known()
    came = ("/",), b"", [(b"host", b"one")]
    recall.keep("rule", known, came, {"host"}, 1)
    assert recall.find(known, came) == 1 and recall.find(known, odd) is None
    assert Recall(3).find(known, came) is None
