"""The page without a browser: who gets in, whose forms count, what is shown of hostile text, and how a session ends."""

import asyncio
import html.parser
import json
import re

import httpx2
import pytest
from kit.databases import change, contents, refusing
from kit.desk import Desk

from ascend_middleware.authority import Role
from ascend_middleware.authority.page.live import Feed
from ascend_middleware.authority.page.views_base import facts, shown
from ascend_middleware.authority.server import create_app
from ascend_middleware.authority.store.audit import entries

pytestmark = pytest.mark.anyio

POLICY = """
[approvals.critical]
count = 2
approvers = ["boss", "second"]

[[policy]]
name = "refunds need a person"
action_types = ["refund"]
decision = "pending"
risk_score = 75

[[policy]]
name = "very large ones need two"
action_types = ["huge"]
decision = "pending"
risk_score = 95
"""
HOSTILE = "<script>alert(1)</script>\u202egnp.exe\x1b[2J\"'><img src=x onerror=alert(2)>\u200b"


class House(Desk):
    """A served authority with a clock, keys, and browsers."""

    KEYS = (
        ("agent", "agent", Role.USER, "default"),
        ("boss", "boss", Role.ADMIN, "default"),
        ("second", "second", Role.SUPER_ADMIN, "default"),
        ("third", "third", Role.ADMIN, "default"),
        ("stranger", "stranger", Role.ADMIN, "other"),
    )
    KEY = "agent"

    def __init__(self, policy, path):
        super().__init__(policy, path)
        self.path = path
        self.app = create_app(self.authority)

    def submit(self, kind="refund", key="agent", **more):
        status, answer = super().submit(kind, key=key, **{"agent_id": "bot", "agent_name": "Bot", **more})
        assert status == 200, answer
        return answer["id"]

    def status(self, number):
        return self.store.action(number, tenant="default")["status"]

    def browser(self, scheme="http", client="203.0.113.7"):
        return Browser(self, scheme, client)

    async def signed_in(self, name="boss", **more):
        browser = self.browser(**more)
        answer = await browser.sign_in(getattr(self, name))
        assert answer.status_code == 303, answer.text
        return browser


class Browser:
    def __init__(self, house, scheme, client):
        self.home = f"{scheme}://authority.example"
        transport = httpx2.ASGITransport(house.app, client=(client, 1234))
        self.http = httpx2.AsyncClient(transport=transport, base_url=self.home)

    async def get(self, path, **headers):
        return await self.http.get(path, headers={name.replace("_", "-"): text for name, text in headers.items()})

    async def post(self, path, fields, *, origin="", headers=()):
        given = {"Origin": origin or self.home, **dict(headers)}
        return await self.http.post(path, data=fields, headers=given)

    async def sign_in(self, key):
        return await self.post("/sign-in", {"key": key})

    async def csrf(self, path="/"):
        return re.search(r'name="csrf" value="([0-9a-f]{64})"', (await self.get(path)).text)[1]

    async def send(self, path, fields, **more):
        return await self.post(path, {"csrf": await self.csrf(), **fields}, **more)


@pytest.fixture
def house(desk_of, database):
    return desk_of(POLICY, database, House)


# --- signing in


async def test_nobody_sees_anything_without_signing_in(house):
    browser = house.browser()
    for path in ("/", "/history", "/agents", "/audit", "/account", "/actions/1", "/live"):
        answer = await browser.get(path)
        assert (answer.status_code, answer.headers["location"]) == (303, "/sign-in"), path
    assert (await browser.get("/", accept="application/json")).status_code == 401
    for path in ("/actions/1/decide", "/agents/command", "/audit/verify", "/sign-out", "/account"):
        assert (await browser.post(path, {})).headers["location"] == "/sign-in"


async def test_no_key_of_a_program_signs_in(house):
    browser = house.browser()
    for key, words in (
        (house.agent, "the key of a person"),
        ("owkai_wrong_wrong_wrong", "no valid key"),
        ("", "no valid key"),
    ):
        answer = await browser.sign_in(key)
        assert answer.status_code == 401 and words in answer.text
        assert not key or key not in answer.text
        assert "set-cookie" not in answer.headers
    assert (await browser.sign_in(f" {house.boss}\n")).status_code == 303
    assert "SIGNED_IN" in house.events()
    assert (await browser.get("/sign-in")).headers["location"] == "/"


async def test_guessing_is_slowed_down_and_hinders_nobody_with_a_key(house):
    browser = house.browser()
    for _ in range(5):
        assert "no valid key" in (await browser.sign_in("owkai_guess_guess_guess")).text
    assert "Wait a minute" in (await browser.sign_in("owkai_guess_guess_guess")).text
    assert (await browser.sign_in(house.boss)).status_code == 303


async def test_the_cookie_is_for_the_server_alone(house):
    answer = await house.browser().sign_in(house.boss)
    plain = answer.headers["set-cookie"].lower()
    assert plain.startswith("ascend-session=") and "httponly" in plain and "samesite=strict" in plain
    assert "path=/" in plain and "max-age=28800" in plain and "secure" not in plain and "domain" not in plain
    answer = await house.browser("https").sign_in(house.boss)
    assert answer.headers["set-cookie"].startswith("__Host-ascend-session=")
    assert "secure" in answer.headers["set-cookie"].lower()
    assert answer.headers["strict-transport-security"]
    # Behind a proxy that ends TLS the server sees plain http, but the browser says https.
    proxied = await house.browser().post("/sign-in", {"key": house.boss}, origin="https://authority.example")
    assert "secure" in proxied.headers["set-cookie"].lower()
    cookie = plain.split("=", 1)[1].split(";")[0]
    assert cookie not in contents(house.store).lower()


async def test_a_session_ends(house):
    boss = await house.signed_in()
    house.time += 3599
    assert (await boss.get("/")).status_code == 200
    house.time += 3599
    assert (await boss.get("/")).status_code == 200  # an hour since the last click
    house.time += 3601
    assert (await boss.get("/")).status_code == 303
    boss = await house.signed_in()
    for _ in range(7):  # clicked all the time
        house.time += 3500
        assert (await boss.get("/")).status_code == 200
    house.time += 8 * 3600 - 7 * 3500
    assert (await boss.get("/")).status_code == 303


async def test_what_the_script_fetches_is_no_click(house):
    boss = await house.signed_in()
    for _ in range(3):
        house.time += 1300
        last = await boss.get("/", x_live="1")
    assert last.status_code == 303


async def test_a_session_ends_with_its_key_and_by_signing_out(house):
    one, other, second = await house.signed_in(), await house.signed_in(), await house.signed_in("second")
    assert (await one.send("/sign-out", {})).headers["location"].startswith("/sign-in")
    assert (await one.get("/")).status_code == 303 and (await other.get("/")).status_code == 200
    third = await house.signed_in()
    await third.send("/sign-out", {"everywhere": "yes"})
    assert (await other.get("/")).status_code == 303
    house.store.revoke_key(next(key["id"] for key in house.store.list_keys() if key["name"] == "second"))
    assert (await second.get("/")).status_code == 303
    assert house.events().count("SIGNED_OUT") == 1 and "SIGNED_OUT_EVERYWHERE" in house.events()


# --- whose forms count


async def test_a_form_of_another_site_does_nothing(house):
    boss = await house.signed_in()
    number = house.submit()
    path, fields = f"/actions/{number}/decide", {"decision": "approve", "csrf": await boss.csrf()}
    for headers in (
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://authority.example.evil.example"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ):
        answer = await boss.post(path, fields, headers=headers)
        assert answer.status_code == 403 and "did not come from this page" in answer.text
    answer = await boss.http.post(path, data=fields)  # no Origin at all
    assert answer.status_code == 403
    answer = await boss.post("/sign-in", {"key": house.boss}, origin="https://evil.example")
    assert answer.status_code == 403 and "set-cookie" not in answer.headers
    assert house.status(number) == "pending"


async def test_a_form_without_its_own_token_does_nothing(house):
    boss, second = await house.signed_in(), await house.signed_in("second")
    number = house.submit()
    for token in ("", "0" * 64, await second.csrf()):
        answer = await boss.post(f"/actions/{number}/decide", {"decision": "approve", "csrf": token})
        assert answer.status_code == 403 and "out of date" in answer.text
    for path in ("/agents/command", "/audit/verify", "/sign-out", "/account"):
        assert (await boss.post(path, {"command_type": "BLOCK", "agent_id": "a", "reason": "x"})).status_code == 403
    assert house.status(number) == "pending"
    assert (await boss.get("/")).status_code == 200


async def test_forms_are_read_strictly(house):
    boss = await house.signed_in()
    number, csrf = house.submit(), await boss.csrf()
    path, origin = f"/actions/{number}/decide", {"Origin": boss.home}

    async def post(content, kind="application/x-www-form-urlencoded"):
        answer = await boss.http.post(path, content=content, headers={**origin, "Content-Type": kind})
        return answer.status_code

    assert await post(f"csrf={csrf}&decision=approve&decision=deny") == 400
    assert await post(json.dumps({"csrf": csrf, "decision": "approve"}), "application/json") == 415
    assert await post(f"csrf={csrf}&decision=perhaps") == 400
    assert await post(f"csrf={csrf}") == 400
    assert await post("a" * 70_000) == 413
    assert await post(b"csrf=%ff&decision=approve") == 400
    assert house.status(number) == "pending"


# --- deciding


async def test_a_person_approves_and_denies_with_a_comment(house):
    boss = await house.signed_in()
    first, other = house.submit(), house.submit()
    answer = await boss.send(f"/actions/{first}/decide", {"decision": "approve", "comments": "checked\r\nthe invoice"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/?done=approved")
    assert "Approved." in (await boss.get("/?done=approved")).text
    assert "Approved." not in (await boss.get("/?done=<b>Approved")).text
    answer = await boss.send(f"/actions/{other}/decide", {"decision": "deny"}, headers={"Accept": "application/json"})
    assert answer.json() == {"message": "Denied."}
    row = house.store.action(first, tenant="default")
    assert row["status"] == "approved" and house.status(other) == "denied"
    approval = row["approval"]
    assert (approval["by"], approval["comments"], approval["via"]) == ("boss", "checked\nthe invoice", "page")
    shown = (await boss.get(f"/actions/{first}")).text
    assert "checked\nthe invoice" in shown and "Action approved" in shown
    again = await boss.send(f"/actions/{first}/decide", {"decision": "deny"})
    assert again.status_code == 409 and "not pending" in again.text


async def test_the_page_obeys_the_rules_of_approval(house):
    boss, second, third = [await house.signed_in(name) for name in ("boss", "second", "third")]
    own = house.submit(key="boss")
    assert "You submitted this yourself" in (await boss.get("/")).text
    answer = await boss.send(f"/actions/{own}/decide", {"decision": "approve"})
    assert answer.status_code == 403 and house.status(own) == "pending"
    assert "DECISION_REFUSED" in house.events()

    huge = house.submit("huge")
    assert "Decided by boss, second." in (await third.get(f"/actions/{huge}")).text
    assert (await third.send(f"/actions/{huge}/decide", {"decision": "approve"})).status_code == 403
    answer = await boss.send(f"/actions/{huge}/decide", {"decision": "approve"})
    assert answer.headers["location"] == "/?done=counted" and house.status(huge) == "pending"
    page = (await boss.get(f"/actions/{huge}")).text
    assert "1 of 2 approvals" in page and "You have approved" in page
    await second.send(f"/actions/{huge}/decide", {"decision": "approve"})
    assert house.status(huge) == "approved"


async def test_another_organisation_sees_nothing(house):
    number = house.submit()
    stranger = await house.signed_in("stranger")
    assert "Nothing is waiting" in (await stranger.get("/")).text
    for path in (f"/actions/{number}", "/actions/999", "/actions/99999999999999999999"):
        assert (await stranger.get(path)).status_code == 404
    assert (await stranger.send(f"/actions/{number}/decide", {"decision": "approve"})).status_code == 404
    assert f"/actions/{number}" not in (await stranger.get("/audit")).text
    assert "<bdi>bot</bdi>" not in (await stranger.get("/agents")).text
    assert house.status(number) == "pending"


async def test_a_database_that_fails_decides_nothing_and_says_so(house):
    boss = await house.signed_in()
    number, csrf = house.submit(), await boss.csrf()
    with refusing(house.store, "audit"):
        answer = await boss.post(f"/actions/{number}/decide", {"decision": "approve", "csrf": csrf})
    assert answer.status_code == 503 and "Nothing was decided" in answer.text
    assert house.status(number) == "pending"


# --- what is shown


class Checker(html.parser.HTMLParser):
    """Finds what a content security policy without inline code would have to stop."""

    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        if tag in ("script", "link", "img", "iframe", "object", "embed", "base"):
            address = given.get("src") or given.get("href") or ""
            if not address.startswith("/page/"):
                self.found.append((tag, given))
        self.found += [(tag, name) for name in given if name.startswith("on") or name == "style"]
        if tag in ("a", "form"):
            address = given.get("href") or given.get("action") or "/"
            if not address.startswith(("/", "#")) or address.startswith("//"):
                self.found.append((tag, address))


async def test_hostile_text_stays_text_on_every_page(house):
    boss = await house.signed_in()
    # What a program may submit in free text, and as names.
    number = house.submit(
        resource=HOSTILE, description=HOSTILE, action_details={HOSTILE: HOSTILE, "l": [{"x": HOSTILE}]}, context={"c": HOSTILE},
        agent_name='"><script>alert(3)</script>', agent_id="<b>bot</b>", business_justification=HOSTILE,
    )  # fmt: skip
    await boss.send("/agents/command", {"agent_id": "<b>bot</b>", "command_type": "BLOCK", "reason": HOSTILE})
    pages = [
        (path, await boss.get(path))
        for path in ("/", f"/actions/{number}", "/history", "/agents", "/audit", "/account")
    ]
    await boss.send(f"/actions/{number}/decide", {"decision": "deny", "comments": HOSTILE})
    pages += [(path, await boss.get(path)) for path in (f"/actions/{number}", "/history", "/audit")]
    for path, answer in pages:
        assert answer.status_code == 200, path
        policy = answer.headers["content-security-policy"]
        assert "unsafe" not in policy and "default-src 'none'" in policy and "frame-ancestors 'none'" in policy
        assert answer.headers["cache-control"] == "no-store" and answer.headers["x-frame-options"] == "DENY"
        checker = Checker()
        checker.feed(answer.text)
        assert checker.found == [], path
        for char in ("\u202e", "\x1b", "\u200b"):
            assert char not in answer.text, path
    assert "U+202E" in pages[0][1].text and "&lt;script&gt;" in pages[0][1].text


def test_text_is_shown_with_nothing_hidden():
    assert shown("a<b>") == "<bdi>a&lt;b&gt;</bdi>"
    assert "U+202E" in shown("\u202e") and "U+000A" in shown("\n") and "\n" in shown("\n", lines=True)
    assert shown("Ünïcödé 漢字 😀") == "<bdi>Ünïcödé 漢字 😀</bdi>"
    assert "U+D800" in shown("\ud800")


def test_parameters_as_facts():
    value = {"amount": 5, "dry": False, "who": {"id": 7, "name": None}, "tags": ["a", "b"], "rows": [{"x": 1}], "e": {}}
    assert facts(value) == [
        ("amount", "5"), ("dry", "false"), ("who.id", "7"), ("who.name", "null"), ("tags", '["a", "b"]'),
        ("rows[0].x", "1"), ("e", "{}"),
    ]  # fmt: skip
    assert len(facts({str(number): number for number in range(500)})) == 61


async def test_history_is_filtered_and_paged(house):
    boss = await house.signed_in()
    for number in range(60):
        house.submit("read", resource=f"thing-{number}", agent_id="reader" if number % 2 else "bot")
    denied = house.submit()
    await boss.send(f"/actions/{denied}/decide", {"decision": "deny"})
    first = (await boss.get("/history")).text
    assert "1–50 of 61" in first and "thing-59" in first and "thing-3<" not in first
    older = re.search(r'href="(/history\?[^"]*at=50)"', first)[1].replace("&amp;", "&")
    assert "51–61 of 61" in (await boss.get(older)).text
    only = (await boss.get("/history?status=denied")).text
    assert "1–1 of 1" in only and "by" in only
    assert "1–30 of 30" in (await boss.get("/history?agent_id=reader")).text
    assert "No actions match" in (await boss.get("/history?agent_id=nobody")).text
    assert "61" in (await boss.get("/history?start_date=2023-11-14&end_date=2023-11-14")).text
    bad = await boss.get("/history?start_date=yesterday")
    assert bad.status_code == 200 and "date" in bad.text and 'role="alert"' in bad.text
    assert (await boss.get("/history?offset=-5")).status_code == 200


async def test_agents_are_blocked_and_unblocked(house):
    boss = await house.signed_in()
    house.submit("read")
    page = (await boss.get("/agents")).text
    assert ">bot<" in page and "active" in page
    answer = await boss.send("/agents/command", {"agent_id": "bot", "command_type": "BLOCK", "reason": "odd"})
    assert answer.headers["location"] == "/agents?done=commanded"
    assert "blocked" in (await boss.get("/agents")).text
    with pytest.raises(AssertionError, match="AGENT_BLOCKED"):
        house.submit("read")
    await boss.send("/agents/command", {"agent_id": "bot", "command_type": "UNBLOCK", "reason": "fine again"})
    house.submit("read")
    for fields, words in (
        ({"command_type": "BLOCK", "reason": ""}, "Reason"),
        ({"command_type": "EXPLODE", "reason": "x"}, "must be one of"),
        ({"command_type": "RATE_LIMIT", "reason": "x"}, "needs it"),
        ({"command_type": "RATE_LIMIT", "reason": "x", "max_per_minute": "-1"}, "whole number"),
        ({"command_type": "BLOCK", "reason": "x", "agent_id": " bot"}, "names no agent"),
    ):
        answer = await boss.send("/agents/command", {"agent_id": "bot", **fields})
        assert answer.status_code in (400, 422) and words in answer.text, fields
    await boss.send(
        "/agents/command", {"agent_id": "bot", "command_type": "RATE_LIMIT", "reason": "x", "max_per_minute": "5"}
    )
    assert "rate limited to 5 a minute" in (await boss.get("/agents")).text
    issued = [entry["data"] for entry in entries(house.store) if entry["event"] == "AGENT_COMMAND_ISSUED"]
    assert [one["issued_via"] for one in issued] == ["page"] * 3


async def test_all_agents_are_stopped_with_a_reason(house):
    boss = await house.signed_in()
    short = await boss.send("/agents/command", {"command_type": "BLOCK", "reason": "stop"})
    assert short.status_code == 422 and "ten" not in house.events()
    await boss.send("/agents/command", {"command_type": "BLOCK", "reason": "incident 4711 is open"})
    assert "All agents are stopped" in (await boss.get("/agents")).text
    with pytest.raises(AssertionError, match="KILL_SWITCH_ACTIVE"):
        house.submit("read")
    await boss.send("/agents/command", {"command_type": "UNBLOCK", "reason": "incident 4711 is closed"})
    house.submit("read")


async def test_the_audit_page_says_whether_the_log_is_whole(house):
    boss = await house.signed_in()
    house.submit()
    assert "The log is whole" in (await boss.get("/audit")).text
    change(house.path, "UPDATE audit SET entry = replace(entry, 'pending', 'approved') WHERE action_id = 1")
    answer = await boss.send("/audit/verify", {})
    assert answer.status_code == 303
    page = (await boss.get("/audit")).text
    assert "tampered with" in page and "was changed" in page and 'class="bad"' in page


async def test_a_finding_shows_another_organisations_rows_to_nobody_else(house):
    number = house.submit("huge")
    house.post(f"/api/v1/actions/{number}/approve", {"comments": "a word among us"}, key="boss")
    with house.store.write():
        house.store.execute("UPDATE approvals SET comments = 'forged among us'")
    boss, stranger = await house.signed_in(), await house.signed_in("stranger")
    assert "a word among us" in (await boss.get("/audit")).text
    page = (await stranger.get("/audit")).text
    assert "tampered with" in page and "table approvals" in page
    assert "among us" not in page and "boss" not in page


async def test_who_only_reads_sees_of_the_log_what_the_api_shows_them(house):
    """How policies fail, and by which keys of theirs others repeat requests, is for admins on the page, too."""
    house.viewer = house.store.issue_key(name="viewer", role=Role.VIEWER, tenant="default")
    body = {"agent_id": "bot", "action_type": "refund", "resource": "r"}
    assert house.post("/api/v1/actions/submit", body, idempotency_key="word-of-somebody")[0] == 200
    boss, viewer = await house.signed_in(), await house.signed_in("viewer")
    assert "word-of-somebody" in (await boss.get("/audit")).text
    page = (await viewer.get("/audit")).text
    assert "ACTION_SUBMITTED" in page or "Action submitted" in page
    assert "word-of-somebody" not in page
    _, answer = house.get("/audit/logs", key="viewer")
    assert "word-of-somebody" not in json.dumps(answer)


async def test_a_token_for_programs(house):
    boss = await house.signed_in()
    token = re.search(r'<pre class="token">([^<]+)', (await boss.send("/account", {})).text)[1]
    headers = {"authorization": f"Bearer {token}"}
    assert house.authority.handle("GET", "/api/deployment-info", "", headers, b"")[0] == 200


async def test_the_api_is_where_it_was(house):
    boss = await house.signed_in()
    answer = await boss.get("/audit/logs", x_api_key=house.boss)
    assert answer.status_code == 200 and answer.json()["events"]
    assert (await boss.get("/audit/logs")).status_code == 401  # a session's cookie opens the page, not the API
    assert (await boss.get("/health")).json()["status"] == "healthy"
    assert (await boss.get("/nowhere")).status_code == 401


async def test_files(house):
    browser = house.browser()
    for name, kind in (("page.css", "text/css"), ("page.js", "text/javascript"), ("icon.svg", "image/svg+xml")):
        answer = await browser.get(f"/page/{name}")
        assert answer.status_code == 200 and answer.headers["content-type"].startswith(kind)
    for name in ("desk.py", "..%2fapp.py", "none"):
        assert (await browser.get(f"/page/{name}")).status_code == 404
    assert (await browser.get("/history/x")).status_code == 404
    assert (await browser.post("/history", {})).status_code == 405


# --- live


async def test_open_pages_are_told_what_changes(house):
    feed = Feed(house.store, period=0.01)
    valid = [True]
    events = feed.listen("default", valid=lambda: valid[0])
    told = [json.loads((await anext(events)).decode().partition("data: ")[2])]
    house.submit()
    told.append(json.loads((await anext(events)).decode().partition("data: ")[2]))
    assert [one["pending"] for one in told] == [0, 1] and told[0]["queue"] != told[1]["queue"]
    assert told[1]["head"] > told[0]["head"]
    other = feed.listen("other", valid=lambda: True)
    assert b'"pending": 0' in await anext(other)
    valid[0] = False
    house.submit()
    with pytest.raises(StopAsyncIteration):  # a session that has ended is told nothing more
        await anext(events)
    await feed.close()
    with pytest.raises(StopAsyncIteration):
        async with asyncio.timeout(10):
            while True:
                await anext(other)
    assert feed.full


async def test_no_more_pages_listen_than_fit(house):
    feed = Feed(house.store, period=0.01, most=1)
    events = feed.listen("default", valid=lambda: True)
    await anext(events)
    assert feed.full
    await events.aclose()
    assert not feed.full
    async with asyncio.timeout(60):
        await feed.close()
