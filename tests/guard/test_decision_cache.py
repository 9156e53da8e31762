"""An allow decision that is used again: for whom, how long, what ends it, and that the authority hears of each use."""

import asyncio
import itertools

import pytest
from kit.asgi import Handler, Wire, ask, get, guard, http_scope, inside, part, unattended
from kit.engine import Engine, answer, plug
from kit.reuse import READ, SETTINGS, Authority, entries
from kit.states import NOW, order
from starlette.applications import Starlette
from starlette.responses import Response as Answer
from starlette.routing import Route

from ascend_middleware import Agent, ConfigurationError, NotAnAgent
from ascend_middleware.asgi import governed
from ascend_middleware.authority import parse_policy
from ascend_middleware.client.http import Response

pytestmark = pytest.mark.anyio


@pytest.fixture
def house(monkeypatch):
    return plug(monkeypatch, Authority())


@pytest.fixture
def build(house, handler):
    """Return what makes a guard of rules, on a clock that stands until a test moves it."""

    def make(*rules, **settings):
        app = unattended(guard(handler, rules or [READ], **{**SETTINGS, **settings}))
        app.time = 1000.0
        app.guard.core.clock = lambda: app.time
        return app

    return make


async def test_an_identical_request_passes_without_a_question(build, house, handler):
    app = build()
    for _ in range(3):
        wire = await get(app, "/read/a")
        assert wire.status == 200
    assert len(house.requests) == 1 and handler.ran == 3
    assert entries(app.guard) == [("allowed", "1"), ("cached", "1"), ("cached", "1")]


async def test_what_does_not_say_under_which_policies_is_not_kept(build, monkeypatch):
    engine = plug(monkeypatch, Engine(answer(policy_state="p"), answer()))
    app = build()
    for path in ("/read/a", "/read/b", "/read/a", "/read/b"):
        assert (await get(app, path)).status == 200
    assert len(engine.submitted) == 3


async def test_head_has_a_decision_of_its_own(build, house):
    app = build()
    for method in ("GET", "HEAD", "GET", "HEAD"):
        assert (await ask(app, "/read/a", method, body=b"", headers=())).status == 200
    assert [one["resource"] for one in house.submitted] == ["GET /read/{name}", "HEAD /read/{name}"] or len(
        house.submitted
    ) == 2


async def test_it_ends_with_its_time_which_runs_from_the_question(build, house):
    app = build()

    async def asked():
        before = len(house.requests)
        assert (await get(app, "/read/a")).status == 200
        return len(house.requests) - before

    assert await asked() == 1
    app.time += 29.9
    assert await asked() == 0
    app.time += 0.1
    assert await asked() == 1
    app.time += 29.9
    assert await asked() == 0


async def test_the_time_that_the_answer_takes_counts(build, house, monkeypatch):
    app = build({**READ, "cache": "2s"})
    send = house.send

    def slow(request, timeout):
        app.time += 1.5
        return send(request, timeout)

    monkeypatch.setattr(house, "send", slow)
    await get(app, "/read/a")
    app.time += 0.4
    await get(app, "/read/a")
    assert len(house.requests) == 1
    app.time += 0.1
    await get(app, "/read/a")
    assert len(house.requests) == 2


EXPIRIES = [
    ({"expires_at": "2027-01-15T08:00:10Z"}, 9.9, 0),
    ({"expires_at": "2027-01-15T08:00:00Z"}, 0, 1),
    ({"expires_at": "2027-01-15T08:00:10Z"}, 10, 1),
    ({"expires_at": "2027-01-15T07:59:59Z"}, 0, 1),
    ({"expires_at": "soon"}, 0, 1),
    ({"expires_at": None}, 29.9, 0),
]


@pytest.mark.parametrize(("more", "later", "asked"), EXPIRIES)
async def test_no_decision_outlives_what_it_says_of_its_end(monkeypatch, handler, more, later, asked):
    engine = plug(monkeypatch, Engine(answer(policy_state="p", **more)))
    app = unattended(guard(handler, [READ], **SETTINGS))
    app.time = 0.0
    app.guard.core.clock, app.guard.core.now = lambda: app.time, lambda: NOW + app.time
    await get(app, "/read/a")
    # What is over already takes no place.
    assert app.health()["cache"]["entries"] == (1 if later or not asked else 0)
    app.time += later
    await get(app, "/read/a")
    assert len(engine.requests) == 1 + asked


# --- who shares


DIFFERENT = {
    "path": ("/read/a", {}, "/read/b", {}),
    "spelling": ("/read/a", {"raw_path": b"/read/a"}, "/read/a", {"raw_path": b"/read/%61"}),
    "query": ("/read/a", {"query": b"x=1"}, "/read/a", {"query": b"x=2"}),
    "order of the query": ("/read/a", {"query": b"x=1&y=1"}, "/read/a", {"query": b"y=1&x=1"}),
    "host": ("/read/a", {"headers": [("host", "one")]}, "/read/a", {"headers": [("host", "other")]}),
    "credentials": ("/read/a", {"headers": [("cookie", "s=1")]}, "/read/a", {"headers": [("cookie", "s=2")]}),
    "no credentials": ("/read/a", {"headers": [("authorization", "x")]}, "/read/a", {}),
    "whom a proxy names": (
        "/read/a",
        {"headers": [("x-forwarded-user", "ann")]},
        "/read/a",
        {"headers": [("x-forwarded-user", "bob")]},
    ),
    "root path": ("/read/a", {}, "/in/read/a", {"root_path": "/in"}),
    "a header that the rule reads": (
        "/read/a",
        {"headers": [("x-shop", "1")]},
        "/read/a",
        {"headers": [("x-shop", "2")]},
    ),
    "body": (
        "/read/a",
        {"body": b"1", "headers": [("content-length", "1")]},
        "/read/a",
        {"body": b"2", "headers": [("content-length", "1")]},
    ),
}


@pytest.mark.parametrize("name", DIFFERENT)
async def test_different_requests_never_share(build, house, name):
    app = build({**READ, "match": "GET /**", "resource_id": "x", "details": {"shop": "header.x-shop?"}})
    one, first, other, second = DIFFERENT[name]
    for _ in range(2):
        assert (await get(app, one, **first)).status == 200
        assert (await get(app, other, **second)).status == 200
    assert len(house.submitted) == 2


async def test_a_body_of_http_2_that_no_header_announces_counts(build, house, handler):
    app = build()
    for body in (b"1", b"2", b"1", b"2"):
        wire = await get(app, "/read/a", body=[part(body)], http_version="2")
        assert wire.status == 200 and handler.body == body
    assert len(house.submitted) == 2


@pytest.mark.parametrize("fields", [{}, {"coalesce": True}])
async def test_a_body_that_is_announced_and_does_not_arrive_is_refused(build, house, handler, fields):
    app = build({**READ, **fields}, body_timeout=0.02)
    wire = await get(app, "/read/a", body=[part(b"1", more=True)], headers=[("content-length", "2")])
    assert (wire.status, handler.ran, house.submitted) == (408, 0, [])


@pytest.mark.parametrize("fields", [{}, {"coalesce": True}])
async def test_nobody_waits_for_a_body_that_no_header_announces(build, house, fields):
    app = build({**READ, **fields}, body_timeout=0.05)
    app.app = Handler(reads=False)
    for _ in range(2):
        assert (await Wire().through(app, http_scope("GET", "/read/a"))).status == 200
    assert len(house.submitted) == 1


async def test_what_a_rule_reads_of_the_body_counts_as_ever(build, house, handler):
    app = build({**READ, "details": {"amount": "body.amount?"}})
    for body in (b'{"amount": 1}', b'{"amount": 2}', b'{"amount": 1}', b'{ "amount": 1}'):
        headers = [("content-type", "application/json"), ("content-length", str(len(body)))]
        assert (await get(app, "/read/a", body=body, headers=headers)).status == 200
        assert handler.body == body
    assert [action["action_details"]["amount"] for action in house.submitted] == [1, 2, 1]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (Agent("bot", principal="ann"), Agent("bot", principal="bob")),
        (Agent("bot", principal="ann"), Agent("bot")),
        (Agent("bot"), Agent("other")),
        (Agent("bot", "Bot"), Agent("bot", "Robot")),
    ],
)
async def test_agents_and_principals_never_share(build, house, one, other):
    agents = itertools.cycle([one, other])
    app = build(identify=lambda _: next(agents))
    for _ in range(4):
        assert (await get(app, "/read/a")).status == 200
    assert len(house.submitted) == 2
    assert [how for how, _ in entries(app.guard)] == ["allowed", "allowed", "cached", "cached"]


async def test_a_known_principal_shares_whatever_credentials_it_shows(build, house):
    app = build(identify=lambda _: Agent("bot", principal="ann"))
    for number in range(3):
        await get(app, "/read/a", headers=[("authorization", f"Bearer {number}")])
    assert len(house.submitted) == 1


async def test_who_is_no_agent_has_no_part_in_it(build, house):
    given = iter([Agent("bot"), NotAnAgent("staff"), Agent("bot")])
    app = build(identify=lambda _: next(given))
    for _ in range(3):
        await get(app, "/read/a")
    assert len(house.submitted) == 1 and len(entries(app.guard)) == 2


async def test_two_rules_and_two_guards_keep_apart(build, house):
    one = build(READ, {**READ, "match": "GET /read/b", "resource_id": "b"})
    other = build({**READ, "cache": "31s"})
    for app in (one, other):
        for path in ("/read/a", "/read/b"):
            await get(app, path)
    assert len(house.submitted) == 4


async def test_what_an_application_writes_into_a_decision_the_next_does_not_see(build):
    seen = []

    async def handler(scope, receive, send):
        decision = scope["state"]["ascend"].decision
        seen.append(decision.get("mine"))
        decision["mine"] = 1
        decision["metadata"]["mine"] = 1
        seen.append(len(decision["metadata"]))
        await Handler(reads=False)(scope, receive, send)

    app = build()
    app.app = handler
    for _ in range(3):
        await get(app, "/read/a")
    assert seen[0] is seen[2] is seen[4] is None and len({seen[1], seen[3], seen[5]}) == 1


# --- what is never kept


@pytest.mark.parametrize(("kind", "status"), [("forbidden", 403), ("held", 403)])
async def test_what_is_denied_or_pending_is_asked_each_time(build, house, kind, status):
    app = build({**READ, "action_type": kind})
    for _ in range(3):
        assert (await get(app, "/read/a")).status == status
    assert len(house.submitted) == 3 and entries(app.guard) == []


async def test_what_a_person_approved_is_not_kept(build, house):
    app = build({**READ, "action_type": "held"}, single_caller=True)
    handle = (await get(app, "/read/a")).json["approval"]["handle"]
    assert house.desk.post("/api/v1/actions/1/approve", {}, key="admin")[0] == 200
    assert (await get(app, "/read/a", headers=[("ascend-approval", handle)])).status == 200
    assert (await get(app, "/read/a")).status == 403
    assert entries(app.guard) == [("approval", "1")]


PERSONAL = [{"approved_by": ["boss"]}, {"approval_request_id": "7"}, {"decided_by": "boss"}, {"conditions": ["x"]}]


@pytest.mark.parametrize("more", PERSONAL, ids=lambda more: next(iter(more)))
async def test_a_permission_of_a_person_or_with_conditions_is_not_kept(monkeypatch, handler, more):
    engine = plug(monkeypatch, Engine(answer(policy_state="p", **more)))
    app = unattended(guard(handler, [READ], **SETTINGS))
    for _ in range(2):
        assert (await get(app, "/read/a")).status == 200
    assert len(engine.requests) == 2


@pytest.mark.parametrize(
    "twice", ['"conditions": ["x"], "conditions": []', '"expires_at": "2001-01-01", "expires_at": null']
)
async def test_an_answer_that_says_two_things_is_not_kept(monkeypatch, handler, twice):
    told = f'{{"status": "approved", "action_id": "7", "policy_state": "p", {twice}}}'
    engine = plug(monkeypatch, Engine(Response(200, {}, told.encode())))
    app = unattended(guard(handler, [READ], **SETTINGS))
    for _ in range(2):
        await get(app, "/read/a")
    assert len(engine.requests) == 2


async def test_observed_requests_are_seen_each(build, house):
    app = build(READ, {**READ, "match": "GET /seen/{name}", "mode": "observe"})
    for _ in range(2):
        assert (await get(app, "/seen/a")).status == 200
    assert len(house.submitted) == 2 and {how for how, _ in entries(app.guard)} == {"allowed"}


async def test_an_authority_that_takes_no_uses_is_asked_each_time_and_that_is_said_once(monkeypatch, handler, caplog):
    engine = plug(monkeypatch, Engine(answer()))
    app = unattended(guard(handler, [{**READ, "coalesce": True}], **SETTINGS))
    for _ in range(3):
        assert (await get(app, "/read/a")).status == 200
    assert len(engine.requests) == 3
    assert caplog.text.count("the authority takes no reports of uses") == 1


@pytest.mark.parametrize("told", ["", None, 7])
async def test_a_word_about_the_policies_that_says_nothing_is_none(monkeypatch, handler, told):
    engine = plug(monkeypatch, Engine(answer(policy_state=told)))
    app = unattended(guard(handler, [READ], **SETTINGS))
    for _ in range(2):
        assert (await get(app, "/read/a")).status == 200
    assert len(engine.requests) == 2


async def test_a_denial_says_nothing_of_whether_uses_are_taken(monkeypatch, handler, caplog):
    engine = plug(monkeypatch, Engine(answer("denied"), answer(policy_state="p")))
    app = unattended(guard(handler, [READ], **SETTINGS))
    assert [(await get(app, "/read/a")).status for _ in range(3)] == [403, 200, 200]
    assert len(engine.requests) == 2 and "takes no reports of uses" not in caplog.text


@pytest.mark.parametrize("match", ["POST /a", "* /a", "GET,POST /a", "WEBSOCKET /a", ["GET /a", "PUT /b"]])
@pytest.mark.parametrize("said", [{"cache": "30s"}, {"coalesce": True}])
def test_a_table_that_says_it_for_other_methods_is_refused(handler, match, said):
    with pytest.raises(ConfigurationError, match="is for GET and HEAD only, and the rule covers"):
        guard(handler, [{"match": match, "action_type": "t", **said}])


@pytest.mark.parametrize("value", ["30", 30, "0s", "61m", "2h", "1d", "-1s", True, ""])
def test_a_time_that_is_none_is_refused(handler, value):
    with pytest.raises(ConfigurationError, match="cache"):
        guard(handler, [{**READ, "cache": value}])


@pytest.mark.parametrize("settings", [{"journal": "off"}, {"report_outcomes": False}])
def test_without_reports_of_uses_the_start_is_refused(handler, settings):
    with pytest.raises(ConfigurationError, match="cache and coalesce need the journal"):
        guard(handler, [READ], **{**SETTINGS, **settings})


@pytest.mark.parametrize(
    ("method", "settings", "asked"),
    [
        ("GET", {}, 1),
        ("HEAD", {}, 1),
        ("POST", {}, 3),
        ("DELETE", {}, 3),
        ("OPTIONS", {}, 3),
        ("GET", {"journal": "off"}, 3),
        ("GET", {"report_outcomes": False}, 3),
    ],
)
async def test_a_rule_at_a_handler_uses_decisions_again_only_for_what_reads(house, method, settings, asked):
    @governed(action_type="read", cache="30s")
    async def handler(request):
        return Answer()

    app = Starlette(routes=[Route("/a", handler, methods=["GET", "POST", "DELETE", "OPTIONS"])])
    inside(app, [], **{**SETTINGS, **settings})
    for _ in range(3):
        assert (await ask(app, "/a", method, body=b"", headers=())).status == 200
    assert len(house.submitted) == asked


async def test_a_rule_that_says_nothing_of_it_asks_each_time(build, house):
    app = build({key: value for key, value in READ.items() if key != "cache"})
    for _ in range(2):
        await get(app, "/read/a")
    assert len(house.submitted) == 2


# --- what ends it at once


async def test_a_kill_ends_it_and_its_lift_does_not_bring_it_back(build, house, handler):
    app = build()
    await get(app, "/read/a")
    app.guard.state.apply([order("BLOCK")], command_id="1", now=NOW)
    app.guard.kill.expire()
    assert (await get(app, "/read/a")).problem == "kill-switch"
    app.guard.state.apply([order("UNBLOCK", NOW + 1)], command_id="2", now=NOW)
    app.guard.kill.expire()
    assert (await get(app, "/read/a")).status == 200
    assert len(house.submitted) == 2 and handler.ran == 2


async def test_a_kill_of_another_agent_or_of_everybody_ends_it_too(build, house):
    app = build()
    for number, target in enumerate(("other", "*")):
        await get(app, "/read/a")
        app.guard.state.apply([order("BLOCK", NOW + number, target=target)], command_id=target, now=NOW)
        app.guard.state.apply([order("UNBLOCK", NOW + number + 0.5, target=target)], command_id=target + "2", now=NOW)
        app.guard.kill.expire()
    await get(app, "/read/a")
    assert len(house.submitted) == 3


async def test_the_local_switch_ends_it(build, house, tmp_path):
    app = build(kill_file=str(tmp_path / "kill"))
    await get(app, "/read/a")
    (tmp_path / "kill").write_text("")
    app.guard.kill.expire()
    assert (await get(app, "/read/a")).problem == "kill-switch"
    (tmp_path / "kill").unlink()
    app.guard.kill.expire()
    await get(app, "/read/a")
    assert len(house.submitted) == 2


async def test_a_kill_while_it_is_asked_keeps_nothing(build, house, monkeypatch):
    app = build()
    send = house.send

    def killed(request, timeout):
        found = send(request, timeout)
        app.guard.state.apply([order("BLOCK", target="other")], command_id="1", now=NOW)
        app.guard.kill.refresh()
        return found

    monkeypatch.setattr(house, "send", killed)
    assert (await get(app, "/read/a")).status == 200
    monkeypatch.undo()
    plug(monkeypatch, house)
    assert (await get(app, "/read/a")).status == 200
    assert len(house.submitted) == 2


async def test_another_policy_ends_it_as_soon_as_any_answer_tells_of_it(build, house):
    app = build()
    await get(app, "/read/a")
    house.desk.authority.use(parse_policy(POLICY_DENYING))
    assert (await get(app, "/read/a")).status == 200  # nobody has told this process
    assert (await get(app, "/read/b")).status == 403
    assert (await get(app, "/read/a")).status == 403


POLICY_DENYING = '[[policy]]\nname = "no more"\naction_types = ["read"]\ndecision = "denied"\n'


async def test_the_report_of_a_use_tells_of_another_policy(build, house):
    app = build()
    await get(app, "/read/a")
    house.desk.authority.use(parse_policy(POLICY_DENYING))
    assert (await get(app, "/read/a")).status == 200
    house.tell(app.guard)
    assert (await get(app, "/read/a")).status == 403


async def test_a_policy_made_at_the_authority_ends_it_too(build, house):
    app = build()
    await get(app, "/read/a")
    body = {"name": "no", "condition": "action.action_type == 'read'", "action": "deny"}
    assert house.desk.post("/api/smart-rules", body, key="admin")[0] in (200, 201)
    await get(app, "/read/a")
    house.tell(app.guard)
    assert (await get(app, "/read/a")).status == 403


async def test_a_key_that_the_authority_does_not_know_any_more_ends_it(build, house):
    app = build()
    await get(app, "/read/a")
    house.desk.user = "owkai_unknown_0123456789abcdef"
    assert (await get(app, "/read/b")).status == 500
    assert (await get(app, "/read/a")).status == 500


async def test_a_key_that_is_refused_while_the_entry_waits_ends_it_too(build, house):
    app = build()
    await get(app, "/read/a")

    def busy(*arguments):
        app.guard.core.key_refused = True
        return 0

    app.guard.journal.enter_allowed = busy
    assert (await get(app, "/read/a")).status == 200
    assert len(house.submitted) == 2


async def test_what_was_decided_under_other_policies_meanwhile_is_not_kept_though_they_are_back(monkeypatch, handler):
    engine = plug(monkeypatch, Engine(*(answer(policy_state=told) for told in ("old", "new", "old", "old"))))
    app = unattended(guard(handler, [READ], **SETTINGS))
    await get(app, "/read/first")
    await asyncio.gather(get(app, "/read/a"), get(app, "/read/b"))
    assert len(engine.requests) == 3
    await get(app, "/read/a")
    assert len(engine.requests) == 4


async def test_while_the_authority_is_away_it_holds(build, house):
    from ascend_middleware.client.http import ConnectFailed

    app = build()
    await get(app, "/read/a")
    house.down = ConnectFailed("away")
    assert (await get(app, "/read/b")).status == 503
    assert (await get(app, "/read/a")).status == 200
    app.time += 30
    assert (await get(app, "/read/a")).status == 503
    assert app.health()["cache"]["entries"] == 0


# --- how much is kept


async def test_so_many_are_kept_and_the_oldest_goes_first(build, house):
    app = build(cache_entries=3)
    for name in "abcd":
        await get(app, f"/read/{name}")
    assert app.health()["cache"] == {"entries": 3, "most": 3, "cached": 0, "coalesced": 0}
    for name in "bcda":
        await get(app, f"/read/{name}")
    assert len(house.submitted) == 5


async def test_what_is_large_is_not_kept(build, house):
    """Or callers would fill the memory with what their requests hold."""
    app = build({**READ, "details": {"q": "query.q"}})
    for size, entries_then in ((9_000, 0), (100, 1)):
        assert (await get(app, "/read/a", query=b"q=" + b"x" * size)).status == 200
        assert app.health()["cache"]["entries"] == entries_then


# --- what the authority hears


async def test_each_use_is_told_with_its_outcome(build, house, handler):
    app = build()
    for _ in range(2):
        await get(app, "/read/a")

    async def fails(scope, receive, send):
        raise ValueError("no")

    app.app, well = fails, app.app
    with pytest.raises(ValueError):
        await get(app, "/read/a")
    app.app = well
    house.tell(app.guard)
    process = app.guard.journal.process
    uses = house.uses
    assert [(use["how"], use["outcome"], use["use"]) for use in uses] == [
        ("cached", "completed", f"{process}-2"),
        ("cached", "failed", f"{process}-3"),
    ]
    assert uses[1]["error"] == "the handler raised ValueError" and uses[0]["used_at"] and "duration_ms" in uses[0]
    details = house.desk.get("/api/v1/actions/1")[1]
    assert details["uses"] == 2 and details["outcome"]["status"] == "completed"
    assert [one["event"] for one in details["audit_trail"]].count("ACTION_USED") == 2
    assert house.desk.store.verify_audit() is None


async def test_a_use_that_is_told_twice_counts_once(build, house):
    app = build()
    for _ in range(3):
        await get(app, "/read/a")
    lines = list(app.guard.journal.log._lines)
    house.tell(app.guard)
    for line in lines:
        app.guard.journal.log.append(line)
    house.tell(app.guard)
    assert len(house.uses) == 2


async def test_the_journal_refuses_a_use_that_it_cannot_keep(build, house, handler):
    app = build(journal_max_bytes=65_536)
    await get(app, "/read/a")
    app.guard.journal.others_bytes = 65_536
    assert (await get(app, "/read/a")).status == 503
    assert handler.ran == 1 and len(house.submitted) == 1


async def test_without_an_entry_nothing_is_used_again(build, house, handler):
    app = build(journal_max_bytes=65_536, journal_full="pass")
    for _ in range(2):
        await get(app, "/read/a")
    assert len(house.submitted) == 1
    app.guard.journal.others_bytes = 65_536
    for _ in range(2):
        assert (await get(app, "/read/a")).status == 200
    assert len(house.submitted) == 3 and app.guard.journal.unjournalled == 2
    assert handler.ran == 4


async def test_a_look_at_the_kill_switch_comes_last_here_too(build, house, handler):
    app = build()
    await get(app, "/read/a")
    log = app.guard.journal.log
    keep = log.keep

    def slow(line):
        found = keep(line)
        app.guard.state.apply([order("BLOCK")], command_id="1", now=NOW)
        app.guard.kill.expire()
        return found

    log.keep = slow
    assert (await get(app, "/read/a")).problem == "kill-switch"
    assert handler.ran == 1
    house.tell(app.guard)
    assert house.uses[0]["outcome"] == "failed" and "did not run" in house.uses[0]["error"]
