"""The page in Chromium: hostile text runs nowhere, decisions without a reload, the keyboard, and pictures to look at."""

import os
import shutil
import sqlite3
import subprocess
from pathlib import Path

import pytest
from authority_process import Process
from playwright.sync_api import expect, sync_playwright

from ascend_middleware.cli import main

pytestmark = [pytest.mark.slow, pytest.mark.socket]

PICTURES = Path(__file__).parents[2] / "artifacts" / "page"
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip
HOSTILE = "<img src=x onerror=alert(1)>\u202egnp.exe <script>alert(2)</script>\"'><svg onload=alert(3)>"
POLICY = """
[approvals]
expires_after = "24h"

[approvals.critical]
count = 2

[[policy]]
name = "large refunds need a person"
action_types = ["refund"]
when = "has(action.action_details.amount) && action.action_details.amount > 1000"
decision = "pending"
risk_score = 75
reason = "refund above 1000"

[[policy]]
name = "deleting mail needs a person"
action_types = ["mail_delete"]
decision = "pending"
risk_score = 45

[[policy]]
name = "the vault needs two people"
action_types = ["credential_access"]
decision = "pending"
risk_score = 92
reason = "access to production secrets"
"""


def chromium():
    for name in ("chromium", "chromium-browser", "google-chrome"):
        found = shutil.which(name)
        if found:
            return found
    if shutil.which("apt-get") and os.geteuid() == 0:
        quiet = {"check": True, "capture_output": True}
        subprocess.run(["apt-get", "update", "-q"], **quiet)
        subprocess.run(["apt-get", "install", "-y", "-q", "--no-install-recommends", "chromium"], **quiet)
        return chromium()
    raise AssertionError("the page is tested in Chromium: apt-get install chromium")


@pytest.fixture(scope="module")
def browser():
    path = chromium()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(FLAGS))
        yield browser
        browser.close()


class Scene:
    """A served authority with some history, and people at it."""

    def __init__(self, folder, browser):
        self.policy = folder / "policy.toml"
        self.policy.write_text(POLICY)
        self.server = Process(self.policy, log=folder / "log")
        self.user, self.admin = self.server.keys["user"], self.server.keys["admin"]
        self.browser = browser
        self.complaints = []
        PICTURES.mkdir(parents=True, exist_ok=True)

    def submit(self, kind="refund", key=None, **more):
        body = {
            "agent_id": "billing-api",
            "agent_name": "Billing API",
            "action_type": kind,
            "resource": "refund for customer 7",
        }
        body |= {"parameters": {"amount": 5000, "currency": "EUR"}, **more}
        status, answer = self.server.call("/api/v1/actions/submit", key or self.user, body)
        assert status == 200, answer
        return answer["id"]

    def status(self, number):
        return self.server.call(f"/api/v1/actions/{number}/status", self.user)[1]["status"]

    def history(self):
        """Something of everything."""
        for number in range(12):
            self.submit("data_access", resource=f"customer {number}", parameters={})
        for number, (word, comment) in enumerate(
            [("approve", "invoice checked"), ("approve", ""), ("reject", "no ticket")]
        ):
            done = self.submit(resource=f"refund for customer {number + 40}")
            self.server.call(f"/api/v1/actions/{done}/{word}", self.admin, {"comments": comment})
            if number == 0:
                self.server.call(f"/api/agent-action/{done}/complete", self.user, {"duration_ms": 220})
        self.server.call("/api/registry/agents", self.user, {"agent_id": "billing-api", "display_name": "Billing API"})
        self.server.call("/api/registry/agents", self.user, {"agent_id": "mail-bot", "display_name": "Mail bot"})
        self.submit("data_access", agent_id="crawler-3", agent_name="Crawler", resource="all customers", parameters={})
        command = {"command_type": "BLOCK", "reason": "read far more than its task needs"}
        self.server.call("/api/registry/agents/crawler-3/commands", self.admin, command)

    def waiting(self):
        """What a person may find in the morning."""
        return [
            self.submit(
                tool_name="stripe",
                business_justification="The customer was charged twice; ticket 8841.",
                parameters={
                    "amount": 5000,
                    "currency": "EUR",
                    "customer": {"id": 7, "name": "Grace Hopper"},
                    "notify": True,
                },
                risk_indicators={"financial_data": True},
            ),
            self.submit(
                "mail_delete",
                agent_id="mail-bot",
                agent_name="Mail bot",
                resource="archive of 2019",
                description="Free 40 GB before the nightly run",
                parameters={"recursive": True},
            ),
            self.submit("credential_access", resource="production vault", parameters={"path": "db/root"}),
        ]

    def visit(self, path="/", *, scheme="light", width=1200, height=900, signed_in=True, scripts=True):
        context = self.browser.new_context(
            color_scheme=scheme,
            viewport={"width": width, "height": height},
            java_script_enabled=scripts,
            reduced_motion="reduce",
        )
        page = context.new_page()
        page.set_default_timeout(20_000)
        page.on("console", lambda message: self.complaints.append(message.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("dialog", lambda dialog: (self.complaints.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        page.on("request", lambda request: self._only_home(request.url))
        if signed_in:
            page.goto(f"{self.server.url}/sign-in")
            page.fill("#key", self.admin)
            page.press("#key", "Enter")
            page.wait_for_url(f"{self.server.url}/")
        if path != "/" or not signed_in:
            page.goto(self.server.url + path)
        return page

    def _only_home(self, url):
        if not url.startswith(self.server.url):
            self.complaints.append(f"request to {url}")


@pytest.fixture
def scene(tmp_path, browser):
    scene = Scene(tmp_path, browser)
    with scene.server:
        yield scene
        for context in browser.contexts:
            context.close()
    assert scene.complaints == []


def test_pictures(scene):
    scene.history()
    number = scene.waiting()[0]
    views = {
        "waiting": "/",
        "action": f"/actions/{number}",
        "history": "/history",
        "agents": "/agents",
        "audit": "/audit",
    }
    for scheme, width, height in (("light", 1200, 900), ("dark", 1200, 900), ("light", 390, 844), ("dark", 390, 844)):
        page = scene.visit(scheme=scheme, width=width, height=height)
        for name, path in views.items():
            page.goto(scene.server.url + path)
            expect(page.locator("[data-link-state].on")).to_be_visible()
            page.screenshot(path=PICTURES / f"{name}-{scheme}-{width}.png", full_page=True)
            # Nothing sticks out at the side.
            assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth"), (
                name,
                width,
            )
        page.context.close()
        page = scene.visit("/sign-in", scheme=scheme, width=width, height=height, signed_in=False)
        page.screenshot(path=PICTURES / f"sign-in-{scheme}-{width}.png")
        page.context.close()
    assert len(list(PICTURES.glob("*.png"))) >= 24


def test_hostile_text_runs_nowhere(scene):
    number = scene.submit(
        resource=HOSTILE, agent_name='"><script>alert(4)</script>', agent_id="<b>bot</b>", description=HOSTILE,
        business_justification=HOSTILE, parameters={HOSTILE: HOSTILE, "amount": 9999}, context={"javascript:alert(5)": HOSTILE},
    )  # fmt: skip
    page = scene.visit()
    page.fill(f"#action-{number} textarea", HOSTILE)
    page.click(f"#action-{number} button.deny")
    expect(page.locator("#notice")).to_have_text("Denied.")
    for path in (f"/actions/{number}", "/history", "/agents", "/audit"):
        page.goto(scene.server.url + path)
        page.wait_for_timeout(150)
        assert (
            page.locator("img:not([src^='/page/']), svg, b, script:not([src])").count()
            == page.locator(".risk b").count()
        )
        for details in page.locator("main details").all():
            details.evaluate("node => { node.open = true; }")
    page.screenshot(path=PICTURES / "hostile-light-1200.png", full_page=True)


def test_inline_code_is_refused_by_the_browser_itself(scene):
    page = scene.visit()
    ran = page.evaluate(
        """async () => {
            const script = document.createElement("script");
            script.textContent = "window.ran = true";
            document.body.append(script);
            const button = document.createElement("button");
            button.setAttribute("onclick", "window.ran = true");
            document.body.append(button);
            button.click();
            const gone = await fetch("https://elsewhere.example/").then(() => "sent", () => "refused");
            return [window.ran ?? false, gone];
        }"""
    )
    assert ran == [False, "refused"]
    assert any("Content Security Policy" in text for text in scene.complaints)
    scene.complaints.clear()


def test_decisions_without_a_reload(scene):
    first, second = scene.submit(), scene.submit("mail_delete")
    page = scene.visit()
    page.evaluate("window.sameDocument = true")
    page.fill(f"#action-{second} textarea", "half a sentence")
    page.fill(f"#action-{first} textarea", "invoice checked")
    page.click(f"#action-{first} button.approve")
    expect(page.locator("#notice")).to_have_text("Approved.")
    expect(page.locator(f"#action-{first}")).to_have_count(0)
    assert scene.status(first) == "approved"
    assert page.input_value(f"#action-{second} textarea") == "half a sentence"
    assert page.evaluate("window.sameDocument")
    expect(page.locator("[data-count]")).to_have_text("1")
    page.click(f"#action-{second} button.deny")
    expect(page.get_by_text("Nothing is waiting.")).to_be_visible()
    assert scene.status(second) == "denied" and page.title().startswith("Waiting")


def test_what_happens_elsewhere_appears_by_itself(scene, capsys):
    page = scene.visit()
    expect(page.get_by_text("Nothing is waiting.")).to_be_visible()
    expect(page.locator("[data-link-state].on")).to_be_visible()
    first = scene.submit()
    expect(page.locator(f"#action-{first}")).to_be_visible()
    page.fill(f"#action-{first} textarea", "I am writing")
    second = scene.submit("mail_delete")
    expect(page.locator(f"#action-{second}")).to_be_visible()
    assert page.input_value(f"#action-{first} textarea") == "I am writing"
    # By another process, on the same database.
    assert main(["approve", str(second), "--policy", str(scene.policy)]) == 0
    expect(page.locator(f"#action-{second}")).to_have_count(0)
    # What another person decided meanwhile is told to whoever comes too late.
    page.route("**/live", lambda route: route.abort())
    assert main(["deny", str(first), "--policy", str(scene.policy)]) == 0
    expect(page.locator(f"#action-{first}")).to_have_count(0)


def test_by_keyboard_alone(scene):
    first, second = scene.submit(), scene.submit("mail_delete")
    page = scene.visit()
    press = page.keyboard.press
    press("j")
    expect(page.locator(f"#action-{first}")).to_be_focused()
    press("j")
    expect(page.locator(f"#action-{second}")).to_be_focused()
    press("k")
    press("c")
    page.keyboard.type("by keyboard; a d j k")
    press("Escape")
    expect(page.locator(f"#action-{first}")).to_be_focused()
    press("a")
    expect(page.locator(f"#action-{first} button.approve")).to_be_focused()
    assert scene.status(first) == "pending"  # a letter alone decides nothing
    press("Enter")
    expect(page.locator(f"#action-{first}")).to_have_count(0)
    expect(page.locator(f"#action-{second}")).to_be_focused()
    press("d")
    press("Enter")
    expect(page.get_by_text("Nothing is waiting.")).to_be_visible()
    assert (scene.status(first), scene.status(second)) == ("approved", "denied")
    press("?")
    expect(page.locator("dialog#help")).to_be_visible()
    press("Escape")
    for key, path in (("2", "/history"), ("3", "/agents"), ("4", "/audit"), ("1", "/")):
        press(key)
        page.wait_for_url(scene.server.url + path)
    page.goto(scene.server.url + "/")
    press("Tab")
    expect(page.locator(".skip")).to_be_focused()


def test_agents_are_blocked_and_unblocked(scene):
    scene.submit("data_access", parameters={})
    page = scene.visit("/agents")
    card = page.locator("article.agent")
    card.locator("summary").click()
    card.locator("input[name=reason]").fill("acts oddly")
    card.get_by_role("button", name="Block", exact=True).click()
    expect(card.locator(".standing")).to_have_text("blocked")
    assert (
        scene.server.call("/api/v1/actions/submit", scene.user, {"agent_id": "billing-api", "action_type": "x"})[0]
        == 403
    )
    card.locator("summary").click()
    card.locator("input[name=reason]").fill("explained")
    card.get_by_role("button", name="Unblock", exact=True).click()
    expect(card.locator(".standing")).to_have_text("active")
    page.get_by_text("Stop all agents", exact=True).click()
    page.locator(".everybody input[name=reason]").fill("incident 4711 is open")
    page.get_by_role("button", name="Stop all agents now").click()
    expect(page.get_by_text("All agents are stopped.")).to_be_visible()
    page.screenshot(path=PICTURES / "stopped-light-1200.png", full_page=True)


def test_without_scripts_every_form_works(scene):
    number = scene.submit()
    page = scene.visit(scripts=False)
    page.fill(f"#action-{number} textarea", "plain")
    page.click(f"#action-{number} button.approve")
    page.wait_for_url("**/?done=approved")
    assert page.locator("#notice").inner_text() == "Approved."
    page.goto(scene.server.url + "/agents")
    page.locator("article.agent summary").click()
    page.locator("article.agent input[name=reason]").fill("plain")
    page.locator("article.agent button[value=BLOCK]").click()
    page.wait_for_url("**/agents?done=commanded")
    page.click("text=Sign out")
    page.wait_for_url("**/sign-in?done=out")


def test_a_session_that_ends_ends_the_page(scene):
    page = scene.visit()
    expect(page.locator("[data-link-state].on")).to_be_visible()
    assert main(["keys", "revoke", "1", "--policy", str(scene.policy)]) == 0
    scene.submit()
    page.wait_for_url("**/sign-in")
    # The browser tells of the stream that was refused.
    scene.complaints[:] = [text for text in scene.complaints if "EventSource" not in text]


def test_the_log_that_was_tampered_with(scene):
    scene.history()
    raw = sqlite3.connect(scene.policy.with_suffix(".db"), isolation_level=None, timeout=10)
    for trigger in ("audit_fixed", "audit_kept"):
        raw.execute(f"DROP TRIGGER {trigger}")
    raw.execute("UPDATE audit SET entry = replace(entry, 'data_access', 'data_egress') WHERE seq = 7")
    raw.execute("DELETE FROM audit WHERE seq BETWEEN 20 AND 22")
    raw.close()
    page = scene.visit("/audit")
    expect(page.get_by_text("The log was tampered with.")).to_be_visible()
    text = page.locator(".findings").inner_text()
    assert "entry 7 was changed" in text and "entries 20 to 22 were removed" in text
    page.screenshot(path=PICTURES / "tampered-light-1200.png", full_page=True)


def test_what_is_done_on_the_page_is_in_the_log(scene):
    number = scene.submit()
    page = scene.visit()
    page.click(f"#action-{number} button.approve")
    expect(page.locator(f"#action-{number}")).to_have_count(0)
    record = scene.server.call(f"/api/v1/actions/{number}", scene.user)[1]
    last = record["audit_trail"][-1]
    assert (last["event"], last["actor"], last["data"]["via"]) == ("ACTION_APPROVED", "first admin", "page")
    assert scene.server.end() == 0  # an open page does not hold up a stop
    page.close()
    # It looked for its server again meanwhile, on a busy machine.
    scene.complaints[:] = [text for text in scene.complaints if "ERR_CONNECTION_REFUSED" not in text]


@pytest.mark.parametrize("by", ["mouse", "keyboard"])
def test_the_page_of_one_action_shows_what_was_decided_at_once(scene, by):
    number = scene.submit()
    page = scene.visit(f"/actions/{number}")
    expect(page.locator("[data-link-state].on")).to_be_visible()
    if by == "mouse":
        page.click("button.approve")
    else:
        page.keyboard.press("a")
        page.keyboard.press("Enter")
    expect(page.locator("#notice")).to_have_text("Approved.")
    expect(page.locator(".status")).to_have_text("approved")
    expect(page.locator("[data-decide] button")).to_have_count(0)
    expect(page.locator(".trail")).to_contain_text("Action approved")
    expect(page.locator(".crumbs a")).to_have_text("History")
    page.screenshot(path=PICTURES / f"decided-{by}.png", full_page=True)


def test_the_queue_tells_whom_an_action_is_about(scene):
    scene.submit(resource_id="customer-4711", context={"environment": "production", "ticket": "T-8841"})
    page = scene.visit(width=360, height=800)
    card = page.locator("article.card")
    for words in ("customer-4711", "environment", "production", "T-8841"):
        expect(card).to_contain_text(words)
    # Every tab is there in whole, on the narrowest screens too.
    for tab in page.locator(".top nav a").all():
        box = tab.bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= 360, tab.text_content()
    page.screenshot(path=PICTURES / "queue-360.png", full_page=True)
