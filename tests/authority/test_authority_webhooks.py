"""Webhooks: signed, to public addresses over TLS only, at least once and in order, whatever fails in between."""

import asyncio
import http.server
import json
import math
import socket
import ssl
import threading
import time

import pytest
import trustme
from kit.desk import Desk
from kit.scripted import DROP, Reset, Scripted

from ascend_middleware.authority import Role
from ascend_middleware.authority.delivery import Attempt, deliver, is_public, sign, verify_signature
from ascend_middleware.authority.store.audit import entries, head
from ascend_middleware.authority.webhooks import Courier, Outbox, events_of

POLICY = """
[[policy]]
name = "refunds need a person"
action_types = ["refund"]
decision = "pending"

[[policy]]
name = "no schema"
action_types = ["database_schema"]
decision = "denied"
"""
SECRET = "s" * 32


class Subscribed(Desk):
    KEYS = (
        ("agent", "agent", Role.USER, "default"),
        ("boss", "boss", Role.ADMIN, "default"),
        ("stranger", "stranger", Role.ADMIN, "other"),
    )
    KEY = "boss"

    def __init__(self, policy, path, **options):
        super().__init__(policy, path, development=True, **options)
        self.outbox = Outbox(self.authority, dice=lambda: 1.0)

    def subscribe(self, url, *events, key="boss", **more):
        body = {"url": url, "events": list(events), "secret": SECRET, **more}
        status, answer = self.call("POST", "/api/webhooks/configure", body, key=key)
        assert status == 201, answer
        return answer["webhook_id"]

    def submit(self, kind="read", agent="a", key="agent", **more):
        body = {"agent_id": agent, "action_type": kind, "parameters": {"card": "HIDDEN"}, **more}
        return self.call("POST", "/api/v1/actions/submit", body, key=key)[1]

    def queued(self):
        while self.outbox.fill():
            pass
        return [(row["webhook"], row["event"]) for row in self.store.rows("SELECT * FROM deliveries ORDER BY id")]


@pytest.fixture
def desk(desk_of, database):
    return desk_of(POLICY, database, Subscribed)


# --- what is queued


def test_subscribers_are_told_what_they_asked_for(desk):
    every = desk.subscribe(
        "https://e.example", "action.submitted", "action.approved", "action.denied", "action.pending"
    )
    narrow = desk.subscribe("https://n.example", "action.denied", "policy.violation")
    mine = desk.subscribe("https://m.example", "action.approved", agent_id="b")
    desk.subscribe("https://s.example", "action.submitted", key="stranger")
    desk.submit()
    desk.submit("database_schema")
    desk.submit(agent="b")
    number = desk.submit("refund")["action_id"]
    desk.call("POST", f"/api/v1/actions/{number}/approve", {"comments": "ok"})
    assert desk.queued() == [
        (every, "action.submitted"),
        (every, "action.approved"),
        (every, "action.submitted"),
        (every, "action.denied"),
        (narrow, "action.denied"),
        (narrow, "policy.violation"),
        (every, "action.submitted"),
        (every, "action.approved"),
        (mine, "action.approved"),
        (every, "action.submitted"),
        (every, "action.pending"),
        (every, "action.approved"),
    ]
    body = json.loads(desk.store.rows("SELECT body FROM deliveries ORDER BY id DESC LIMIT 1")[0]["body"])
    assert body["id"].startswith("evt_") and body["event"] == body["type"] == "action.approved"
    assert (body["data"]["action_id"], body["data"]["decided_by"], body["data"]["comments"]) == ("4", "boss", "ok")
    assert "HIDDEN" not in "".join(row["body"] for row in desk.store.rows("SELECT body FROM deliveries"))


def test_outcomes_expiry_blocks_and_deactivations(desk):
    hook = desk.subscribe(
        "https://e.example", "action.completed", "action.failed", "action.denied", "agent.blocked", "policy.violation"
    )
    desk.call("POST", f"/api/agent-action/{desk.submit()['action_id']}/complete", {}, key="agent")
    desk.call("POST", f"/api/agent-action/{desk.submit()['action_id']}/fail", {"error": "x"}, key="agent")
    desk.submit("refund")
    desk.time += 8 * 86_400
    desk.store.expire()
    desk.submit(mcp_server_name="unknown")
    for kind in ("BLOCK", "UNBLOCK"):
        desk.call("POST", "/api/registry/agents/a/commands", {"command_type": kind, "reason": "r"})
    assert desk.queued() == [
        (hook, "action.completed"),
        (hook, "action.failed"),
        (hook, "action.denied"),
        (hook, "policy.violation"),
        (hook, "agent.blocked"),
    ]


def test_nobody_is_told_of_what_was_before_and_nothing_of_what_is_removed(desk):
    desk.submit()
    desk.time += 1
    first = desk.subscribe("https://e.example", "action.submitted")
    assert desk.queued() == []
    desk.submit()
    assert desk.queued() == [(first, "action.submitted")]
    assert desk.queued() == [(first, "action.submitted")]  # once
    desk.call("PUT", f"/api/webhooks/{first}", {"active": False})
    desk.submit()
    assert len(desk.queued()) == 1
    delivery = desk.outbox.due()[0]
    assert desk.outbox.subscription(delivery) is None
    desk.outbox.settle(delivery, None)
    assert desk.outbox.due() == []


def test_a_long_log_without_subscribers_is_not_read_again(desk):
    with desk.store.write():
        for _ in range(1200):
            desk.store.audit("E", tenant="default", actor="a", data={})
    assert desk.outbox.fill() is False
    assert desk.store.rows("SELECT seq FROM webhook_scan")[0]["seq"] == head(desk.store).seq
    assert desk.outbox.fill() is False


def test_a_long_log_is_read_to_its_end_in_turns(desk):
    hook = desk.subscribe("https://e.example", "action.completed")
    with desk.store.write():
        for _ in range(150):
            desk.store.audit("E", tenant="default", actor="a", data={})
    desk.call("POST", f"/api/agent-action/{desk.submit()['action_id']}/complete", {}, key="agent")
    assert [desk.outbox.fill(), desk.outbox.fill(), desk.outbox.fill()] == [True, False, False]
    assert desk.queued() == [(hook, "action.completed")]
    assert desk.store.rows("SELECT seq FROM webhook_scan")[0]["seq"] == head(desk.store).seq


def test_a_head_is_told_once(desk):
    desk.subscribe("https://e.example", "action.submitted")
    hook = desk.subscribe("https://h.example", "audit.head")
    for _ in range(2):
        desk.outbox.queue_head(head(desk.store))
    assert desk.queued() == [(hook, "audit.head")]


def test_the_events_of_an_entry():
    assert events_of({"event": "KEY_ISSUED", "data": {}}) == ()
    denied = ("action.submitted", "action.denied", "policy.violation")
    assert events_of({"event": "ACTION_SUBMITTED", "data": {"decision": "denied"}}) == denied
    for kind in ("BLOCK", "SUSPEND", "QUARANTINE"):
        assert events_of({"event": "AGENT_COMMAND_ISSUED", "data": {"command_type": kind}}) == ("agent.blocked",)
    for kind in ("UNBLOCK", "RATE_LIMIT"):
        assert events_of({"event": "AGENT_COMMAND_ISSUED", "data": {"command_type": kind}}) == ()
    # What was only observed waits for nobody, and else is told as what was decided.
    observed = {"event": "ACTION_SUBMITTED", "data": {"decision": "pending", "observed": True}}
    assert events_of(observed) == ("action.submitted",)
    assert events_of({"event": "ACTION_SUBMITTED", "data": {"decision": "denied", "observed": True}}) == denied


# --- retries


def test_failures_are_repeated_later_and_later_and_given_up_after_a_day(desk):
    hook = desk.subscribe("https://e.example", "action.submitted")
    desk.submit()
    desk.submit()
    desk.queued()
    pauses = []
    first = desk.outbox.due()[0]
    for _ in range(100):
        delivery = desk.outbox.due()[0]
        if delivery["id"] != first["id"]:
            break
        assert desk.outbox.claim(delivery) and not desk.outbox.claim(delivery)
        desk.outbox.settle(delivery, Attempt(status=500))
        waiting = desk.store.rows("SELECT next_at FROM deliveries WHERE id = ?", (delivery["id"],))
        if waiting:
            assert desk.outbox.due() == []  # the second waits for the first
            pauses.append(waiting[0]["next_at"] - desk.time)
            desk.time = waiting[0]["next_at"]
    assert pauses[:5] == [1, 2, 4, 8, 16] and max(pauses) == 3600 and 86_400 <= sum(pauses) < 95_000
    given_up = [entry["data"] for entry in entries(desk.store) if entry["event"] == "WEBHOOK_GIVEN_UP"]
    assert [(data["webhook_id"], data["event"], data["error"]) for data in given_up] == [
        (hook, "action.submitted", "status 500")
    ]
    assert [row["attempts"] for row in desk.outbox.due()] == [0]


@pytest.mark.parametrize(
    ("attempt", "tries"),
    [
        *((Attempt(status=status), 5) for status in (300, 302, 404, 407, 410, 424, 426, 428, 430, 499)),
        *((Attempt(status=status), 20) for status in (199, 408, 409, 425, 429, 500)),
        (Attempt(error="refused"), 20),
    ],
)
def test_what_refuses_the_request_itself_is_given_up_sooner(desk, attempt, tries):
    desk.subscribe("https://e.example", "action.submitted")
    desk.submit()
    desk.queued()
    for number in range(1, 21):
        due = desk.outbox.due()
        if not due:
            break
        desk.outbox.claim(due[0])
        desk.outbox.settle(due[0], attempt)
        desk.time += 3600
    assert number - 1 == tries or (number == tries == 20)


@pytest.mark.parametrize(("seconds", "left"), [(86_399, 1), (86_400, 0)])
def test_a_delivery_is_given_up_after_a_day(desk, seconds, left):
    desk.subscribe("https://e.example", "action.submitted")
    desk.submit()
    desk.queued()
    (delivery,) = desk.outbox.due()
    desk.time += seconds
    desk.outbox.settle(delivery, Attempt(error="refused"))
    assert len(desk.queued()) == left


def test_a_claim_that_was_never_settled_is_attempted_again(desk):
    desk.subscribe("https://e.example", "action.submitted")
    desk.submit()
    desk.queued()
    delivery = desk.outbox.due()[0]
    assert desk.outbox.claim(delivery)  # and the process ends
    assert desk.outbox.due() == []
    desk.time += 31
    assert desk.outbox.due()[0]["name"] == delivery["name"]


# --- one delivery


def test_signatures():
    body = b'{"a":1}'
    header = sign(SECRET, body, at=1_700_000_000)
    good = {"now": 1_700_000_100.0}
    assert header.startswith("t=1700000000,v1=")
    assert verify_signature(SECRET, body, header, **good)
    assert not verify_signature(SECRET, body + b" ", header, **good)
    assert not verify_signature("x" * 32, body, header, **good)
    assert not verify_signature(SECRET, body, header, now=1_700_000_301.0)
    assert not verify_signature(SECRET, body, header.replace("t=17", "t=18"), now=1_800_000_000.0)
    for odd in (
        "", "t=,v1=", "v1=abc", "t=1700000000", "nonsense", f"t=٧,{header}", f"{header},t=1700000000", f"{header},v1=abc",
        "t=" + "9" * 5000 + ",v1=abc", "t=-1,v1=abc", "t=²,v1=abc",
    ):  # fmt: skip
        assert not verify_signature(SECRET, body, odd, **good)


@pytest.mark.parametrize("offset", [-300.0, 300.0])
def test_a_signature_is_good_until_its_tolerance_is_over(offset):
    header, at = sign(SECRET, b"{}", at=1_700_000_000), 1_700_000_000 + offset
    beyond = at + math.copysign(0.1, offset)
    assert verify_signature(SECRET, b"{}", header, now=at)
    assert not verify_signature(SECRET, b"{}", header, now=beyond)
    assert verify_signature(SECRET, b"{}", header, now=beyond, tolerance=301.0)


@pytest.mark.parametrize(("at", "good"), [(10**14, True), (10**15 - 1, True), (10**15, False)])
def test_a_time_has_15_digits_at_the_most(at, good):
    assert verify_signature(SECRET, b"{}", sign(SECRET, b"{}", at=at), now=float(at)) is good


def test_a_signature_that_was_made_now_is_good_now():
    assert verify_signature(SECRET, b"{}", sign(SECRET, b"{}", at=int(time.time())))


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1",
        "255.255.255.255", "192.0.2.1", "198.18.0.1", "240.0.0.1", "::", "::1", "fe80::1", "fe80::1%eth0", "fc00::1",
        "ff02::1", "fec0::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::7f00:1", "64:ff9b::a00:1", "2002:7f00:1::",
        "2001:db8::1", "nonsense", "", "192.0.0.8", "192.0.0.171", "192.88.99.1", "3fff::1", "5f00::1", "::ffff:192.0.0.8",
        "64:ff9b::a9fe:a9fe", "64:ff9b::c0a8:101", "64:ff9b::", "64:ff9b:1::", "64:ff9b:1::a00:1", "64:ff9b:1::7f00:1",
        "64:ff9b:1:a00:0:100::", "64:ff9b:1:c0a8:1:100::", "64:ff9b:1:a:0:1::", "64:ff9b:1:0:a:0:100:0", "::ffff:169.254.169.254",
        # Of these one reading is private, and no other.
        "64:ff9b:1:a08:8:800::", "64:ff9b:1:a:8:808::", "64:ff9b:1:0:a:808:800:0",
        "2002:a00:1::1", "2001:0:7f00:1::f5ff:fffe", "2001:0:808:808::f5ff:fffe", "64:ff9b:2::808:808", "::127.0.0.1",
    ],
)  # fmt: skip
def test_private_addresses(address):
    assert is_public(address) is False


@pytest.mark.parametrize(
    "address",
    [
        *("93.184.216.34", "8.8.8.8", "2606:2800:220:1::1", "::ffff:8.8.8.8"),
        # An IPv6-only network reaches every IPv4 host so (DNS64).
        *(
            "64:ff9b::808:808",
            "64:ff9b::5db8:d822",
            "64:ff9b:1::808:808",
            "64:ff9b:1:808:8:800::",
            "64:ff9b:1:0:8:808:800:0",
            # A private address would be shorter than what stands there.
            "64:ff9b:1:a08:8:808::",
            "64:ff9b:1:a:8:808:800:0",
            "64:ff9b:1:0:a:0:808:0",
        ),
    ],
)
def test_public_addresses(address):
    assert is_public(address) is True


class Receiver(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.got.append((self.path, dict(self.headers), body))
        status = self.server.statuses.pop(0) if self.server.statuses else 200
        if status == "slow":
            for byte in b"HTTP/1.1 200 OK\r\n" * 10_000:
                try:
                    self.wfile.write(bytes([byte]))
                    self.wfile.flush()
                except OSError:
                    return
                time.sleep(0.02)
            return
        self.send_response(status)
        if 300 <= status < 400:
            self.send_header("Location", "http://127.0.0.1:1/elsewhere")
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture
def receiver():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Receiver) as server:
        server.got, server.statuses, server.daemon_threads = [], [], True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        server.url = f"http://127.0.0.1:{server.server_address[1]}"
        yield server
        server.shutdown()
        thread.join()


def send(url, **more):
    given = {"secret": SECRET, "at": 1_700_000_000.5, "private": True, **more}
    return deliver(url, b'{"a":1}', {"X-Ascend-Event": "e"}, **given)


def test_a_delivery_is_signed_and_says_what_it_is(receiver):
    assert send(receiver.url + "/hook?x=1").delivered
    path, headers, body = receiver.got[0]
    assert (path, body, headers["X-Ascend-Event"]) == ("/hook?x=1", b'{"a":1}', "e")
    assert headers["Content-Type"] == "application/json"
    assert verify_signature(SECRET, body, headers["X-Ascend-Signature"], now=1_700_000_000)


def test_other_answers_are_failures_and_redirects_lead_nowhere(receiver):
    receiver.statuses = [500, 302, 204]
    assert [send(receiver.url).status for _ in range(3)] == [500, 302, 204]
    assert len(receiver.got) == 3


def test_a_trickling_receiver_is_cut_off(receiver):
    receiver.statuses = ["slow"]
    started = time.monotonic()
    attempt = send(receiver.url, deadline=0.4)
    assert not attempt.delivered and "0.4 s" in attempt.error
    assert time.monotonic() - started < 60  # the receiver trickles for an hour


def test_without_the_flag_nothing_private_is_asked(receiver):
    port = receiver.server_address[1]
    plain = send(receiver.url, private=False)
    local = send(f"https://127.0.0.1:{port}", private=False)
    named = send(f"https://localhost:{port}", private=False)
    assert [one.status for one in (plain, local, named)] == [None] * 3
    assert "https" in plain.error and "private" in local.error and "private" in named.error
    assert receiver.got == []


def test_one_private_address_among_public_ones_is_enough_to_refuse():
    def both(host, port):
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (place, port)) for place in ("93.184.216.34", "10.0.0.1")]

    assert "private" in send("https://mixed.example/", private=False, resolve=both).error


def test_the_name_is_asked_for_once_and_the_address_is_the_checked_one(monkeypatch):
    """A name that answers with a public address when checked and a private one later (DNS rebinding)."""
    asked, connected = [], []

    def resolve(host, port):
        asked.append(host)
        return [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("93.184.216.34" if len(asked) == 1 else "127.0.0.1", port))
        ]

    class Socket(socket.socket):
        def connect(self, address):
            connected.append(address)
            raise ConnectionRefusedError(111, "Connection refused")

    monkeypatch.setattr(socket, "socket", Socket)
    assert "refused" in send("https://rebinding.example/", private=False, resolve=resolve).error
    assert asked == ["rebinding.example"] and connected == [("93.184.216.34", 443)]


def test_tls_is_checked_against_the_name(tmp_path):
    issuer = trustme.CA()
    trusting = ssl.create_default_context()
    issuer.configure_trust(trusting)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Receiver) as server:
        server.got, server.statuses = [], []
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        issuer.issue_cert("hook.example").configure_cert(context)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        port = server.server_address[1]

        def here(host, port):
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

        right = send(f"https://hook.example:{port}/", resolve=here, context=trusting)
        wrong = send(f"https://other.example:{port}/", resolve=here, context=trusting)
        unknown = send(f"https://hook.example:{port}/", resolve=here)
        server.shutdown()
        thread.join()
    assert right.delivered and server.got[0][1]["Host"] == f"hook.example:{port}"
    assert "certificate" in wrong.error and "certificate" in unknown.error


@pytest.mark.parametrize(
    ("url", "port"),
    [
        ("https://x.example", 443),
        ("http://x.example", 80),
        ("https://x.example:8443/a", 8443),
        ("http://x.example:81/a", 81),
    ],
)
def test_a_target_without_a_port_has_that_of_its_scheme(url, port):
    asked = []

    def resolve(*place):
        asked.append(place)
        raise OSError("no")

    assert "x.example cannot be resolved" in send(url, resolve=resolve).error
    assert asked == [("x.example", port)]


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("ftp://x.example/", "the target is no https URL"),
        ("https:///x", "the target is no https URL"),
        ("x.example", "the target is no https URL"),
        ("https://[::1", "the target is no URL"),
        ("https://x.example:99999/", "the target is no URL"),
    ],
)
def test_odd_targets(url, said):
    assert (send(url).status, send(url).error) == (None, said)


@pytest.mark.parametrize(
    ("status", "delivered"), [(None, False), (199, False), (200, True), (299, True), (300, False), (500, False)]
)
def test_a_success_is_a_delivery(status, delivered):
    assert Attempt(seconds=0.1, status=status).delivered is delivered


@pytest.mark.parametrize(
    ("answer", "said"), [(DROP, "closed connection"), (b"nonsense\r\n\r\n", "nonsense"), (Reset(), "reset by peer")]
)
def test_what_went_wrong_is_said_in_words(answer, said):
    with Scripted(answer) as server:
        attempt = send(server.url)
    assert attempt.status is None and said in attempt.error


@pytest.mark.parametrize(("words", "said"), [((), "OSError"), (("x" * 300,), "x" * 200)])
def test_what_went_wrong_is_said_in_few_words_or_by_its_kind(words, said):
    def away(host, port):
        raise OSError(*words)

    answer = deliver("https://h.example/", b"{}", {}, secret=SECRET, at=1, resolve=away)
    assert answer.error == answer.failure == f"h.example cannot be resolved: {said}"


def test_a_name_without_an_address_is_told():
    assert send("http://x.example", resolve=lambda *_: []).error == "the name has no address"


def test_nobody_there():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    assert "refused" in send(f"http://127.0.0.1:{port}/").error.lower()
    assert "resolved" in send("http://nowhere.invalid/").error


# --- in the background


async def until(condition):
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.02)


@pytest.mark.anyio
async def test_the_courier_delivers_in_order_and_repeats(desk, receiver):
    desk.subscribe(receiver.url + "/one", "action.submitted")
    desk.subscribe("http://127.0.0.1:1/closed", "action.submitted")
    desk.time = time.time()
    desk.authority.now = desk.store.now = time.time
    receiver.statuses = [503]
    courier = Courier(desk.authority, period=0.02)
    running = asyncio.create_task(courier.run())
    try:
        for number in range(20):
            await asyncio.to_thread(desk.submit, agent=f"agent-{number}")
        await until(lambda: len(receiver.got) >= 21 and desk.store.rows("SELECT count(*) FROM deliveries")[0][0] == 20)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    bodies = [json.loads(body) for _, _, body in receiver.got]
    agents = [body["data"]["agent_id"] for body in bodies]
    assert agents == ["agent-0", *(f"agent-{number}" for number in range(20))]
    assert bodies[0]["id"] == bodies[1]["id"]  # the repetition can be recognised
    waiting = desk.store.rows("SELECT webhook, error FROM deliveries ORDER BY id")
    assert len(waiting) == 20 and "refused" in waiting[0]["error"].lower()


@pytest.mark.anyio
async def test_a_restart_loses_nothing(desk, receiver):
    desk.subscribe(receiver.url, "action.submitted")
    desk.authority.now = desk.store.now = time.time
    for number in range(3):
        desk.submit(agent=f"agent-{number}")
    stopped = asyncio.create_task(Courier(desk.authority, period=0.02, send=lambda *_, **__: time.sleep(60)).run())
    await until(lambda: desk.store.rows("SELECT 1 FROM deliveries WHERE attempts > 0"))
    stopped.cancel()  # while the first delivery is under way
    await asyncio.gather(stopped, return_exceptions=True)
    desk.authority.now = lambda: time.time() + 60  # when the claim has run out
    again = asyncio.create_task(Courier(desk.authority, period=0.02).run())
    try:
        await until(lambda: len(receiver.got) == 3)
    finally:
        again.cancel()
        await asyncio.gather(again, return_exceptions=True)
    assert [json.loads(body)["data"]["agent_id"] for _, _, body in receiver.got] == ["agent-0", "agent-1", "agent-2"]


def test_a_test_event_tells_at_once(desk, receiver):
    hook = desk.subscribe(receiver.url, "action.submitted")
    assert desk.call("POST", f"/api/webhooks/{hook}/test")[1]["success"] is False  # nothing delivers here
    desk.authority.send_webhook = Courier(desk.authority).test
    status, answer = desk.call("POST", f"/api/webhooks/{hook}/test")
    assert status == 200 and answer["success"] and answer["status_code"] == 200 and answer["error"] is None
    assert json.loads(receiver.got[0][2])["event"] == "webhook.test"
    receiver.statuses = [500]
    answer = desk.call("POST", f"/api/webhooks/{hook}/test")[1]
    assert not answer["success"] and answer["error"] == "status 500"
    desk.authority.send_webhook = Courier(desk.authority, send=lambda *_, **__: Attempt(status=200, seconds=0.25)).test
    assert desk.call("POST", f"/api/webhooks/{hook}/test")[1]["response_time_ms"] == 250.0


@pytest.mark.anyio
async def test_what_fails_for_one_subscription_or_entry_is_no_others_business(desk, caplog):
    sent = []

    def send(url, body, headers, **_):
        if "broken" in url:
            raise RuntimeError("no certificates" * 20)
        sent.append(json.loads(body)["data"].get("action_id"))
        return Attempt(status=200)

    desk.subscribe("https://broken.example", "action.submitted")
    desk.subscribe("https://good.example", "action.submitted")
    desk.submit()
    with desk.store.write():  # its action is gone, as after damage to the file
        desk.store.execute("DELETE FROM actions WHERE id = 1")
    desk.submit()
    task = asyncio.create_task(Courier(desk.authority, send=send, period=0.01).run())
    async with asyncio.timeout(10):
        while not desk.store.rows("SELECT 1 FROM deliveries WHERE attempts = 1 AND error <> ''") or not sent:
            await asyncio.sleep(0.01)
        desk.submit()
        while sent != ["2", "3"]:
            await asyncio.sleep(0.01)
    assert not task.done()
    task.cancel()
    error = desk.store.rows("SELECT error FROM deliveries ORDER BY id LIMIT 1")[0]["error"]
    assert error == f"RuntimeError: {'no certificates' * 20}"[:200]
    assert any("was not delivered: RuntimeError: no" in message for message in caplog.messages)
    assert [message for message in caplog.messages if "is told to nobody" in message]


@pytest.mark.anyio
async def test_subscribers_with_much_to_hear_do_not_keep_others_waiting(desk):
    heard = []

    def send(url, body, headers, **_):
        heard.append(url)
        if "slow" in url:
            time.sleep(0.15)
        return Attempt(status=200)

    for number in range(20):
        desk.subscribe(f"https://slow{number}.example", "action.submitted")
    for _ in range(20):
        desk.submit()
    desk.queued()
    desk.time += 1
    desk.subscribe("https://late.example", "action.submitted")
    desk.submit()
    task = asyncio.create_task(Courier(desk.authority, send=send, period=0.01).run())
    async with asyncio.timeout(30):
        while "https://late.example" not in heard:
            await asyncio.sleep(0.01)
    task.cancel()
    assert len(heard) < 20 * 20


@pytest.mark.anyio
async def test_sixteen_are_told_at_once_and_no_more(desk):
    go_on, under_way = threading.Event(), []

    def send(url, body, headers, **_):
        under_way.append(url)
        go_on.wait(20)
        return Attempt(status=200)

    for number in range(18):
        desk.subscribe(f"https://h{number}.example", "action.submitted")
    desk.submit()
    desk.submit()
    desk.queued()
    task = asyncio.create_task(Courier(desk.authority, send=send, period=0.01).run())
    try:
        await until(lambda: len(under_way) >= 16)
        await asyncio.sleep(0.1)
        assert len(under_way) == len(set(under_way)) == 16
    finally:
        go_on.set()
        await until(lambda: len(under_way) == 36)  # whoever waited has a turn
        task.cancel()
