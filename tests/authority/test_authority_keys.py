"""Keys in the life of an organisation: they end, are replaced, speak for some agents only, and leave traces."""

import asyncio
import json

import jwt
import pytest
from kit.desk import POLICY

from ascend_middleware.authority import Role
from ascend_middleware.authority.page.sessions import Sessions
from ascend_middleware.authority.service import Service
from ascend_middleware.authority.webhooks import Outbox
from ascend_middleware.cli import main
from ascend_middleware.exceptions import ConflictError, ValidationError

WHERE = "/api/deployment-info"
HOOK = {"target_url": "https://hooks.example.com/a", "event_types": ["action.submitted"]}


def made(desk, **options):
    return desk.store.issue_key(**{"name": "n", "role": Role.USER, "tenant": "default", **options})


def test_a_key_ends_at_its_time_and_its_session_and_tokens_with_it(desk):
    key = made(desk, role=Role.ADMIN, lifetime=60)
    who = desk.store.find_key(key)
    token = desk.authority.tokens.issue(who, now=desk.time)
    sessions = Sessions(desk.store, now=lambda: desk.time)
    cookie = sessions.open(who).cookie
    desk.time += 59
    assert desk.get(WHERE, key=key)[0] == 200 and sessions.find(cookie)
    desk.time += 1
    assert desk.get(WHERE, key=key)[0] == 401 and sessions.find(cookie) is None
    assert desk.get(WHERE, key=None, authorization=f"Bearer {token}")[0] == 401
    assert [row["state"] for row in desk.store.list_keys()][-1] == "expired"


def test_a_rotated_key_stays_for_the_overlap_and_hands_on_what_it_registered(desk):
    old = made(desk, agents=["billing-*"])
    number = desk.store.find_key(old).key_id
    desk.post("/api/registry/agents", {"agent_id": "billing-1"}, key=old)
    desk.post("/api/webhooks", HOOK, key=old)
    new, _ = desk.store.rotate_key(number, overlap=3600)
    who = desk.store.find_key(new)
    assert (who.name, who.role, who.agents) == ("n", Role.USER, ("billing-*",))
    assert desk.get("/api/webhooks", key=new)[1]["total"] == 1
    assert desk.get("/api/registry/agents/billing-1", key=new)[1]["registered_by_key"] == who.key_id
    assert desk.get(WHERE, key=old)[0] == desk.get(WHERE, key=new)[0] == 200
    desk.time += 3600
    assert (desk.get(WHERE, key=old)[0], desk.get(WHERE, key=new)[0]) == (401, 200)
    with pytest.raises(ConflictError, match="not valid any more"):
        desk.store.rotate_key(number, overlap=60)


def test_a_key_that_takes_the_place_of_one_that_ends_lasts_as_long_as_that_was_to(desk):
    old = made(desk, lifetime=90 * 86_400)
    desk.time += 80 * 86_400
    new, _ = desk.store.rotate_key(desk.store.find_key(old).key_id, overlap=60)
    desk.time += 89 * 86_400
    assert (desk.get(WHERE, key=old)[0], desk.get(WHERE, key=new)[0]) == (401, 200)
    short, _ = desk.store.rotate_key(desk.store.find_key(new).key_id, overlap=60, lifetime=120)
    desk.time += 86_400
    assert (desk.get(WHERE, key=new)[0], desk.get(WHERE, key=short)[0]) == (401, 401)


SPOKEN = [
    ("POST", "/api/v1/actions/submit", {"agent_id": "{}", "action_type": "read"}),
    (
        "POST",
        "/api/v1/mcp/actions/submit",
        {"agent_id": "{}", "mcp_server": "files", "namespace": "f", "verb": "v", "resource": "r"},
    ),
    ("POST", "/api/registry/agents", {"agent_id": "{}"}),
    ("POST", "/api/agents/health/heartbeat", {"agent_id": "{}"}),
    ("POST", "/api/registry/agents/{}/commands/x/ack", None),
    ("DELETE", "/api/registry/agents/{}", None),
]


@pytest.mark.parametrize(("method", "path", "body"), SPOKEN, ids=[row[1] for row in SPOKEN])
def test_a_key_speaks_for_its_own_agents_only(desk, method, path, body):
    key = made(desk, agents=["billing-*", "till"])
    desk.post("/api/registry/agents", {"agent_id": "shipping-1"}, key="peer")

    def ask(agent):
        filled = json.loads(json.dumps(body).replace("{}", agent))
        return desk.call(method, path.replace("{}", agent), filled, key=key)

    assert desk.code(ask("shipping-1")) == (403, "AGENT_NOT_ALLOWED")
    assert desk.events()[-1] == "AGENT_REFUSED"
    for agent in ("tills", "billing"):
        assert desk.code(ask(agent)) == (403, "AGENT_NOT_ALLOWED") or method == "DELETE"
    for agent in ("billing-1", "till"):
        assert ask(agent)[1].get("error", {}).get("code") != "AGENT_NOT_ALLOWED"


def test_what_another_teams_agent_did_is_not_concluded(desk):
    number = desk.submit(agent_id="shipping-1")[1]["action_id"]
    key = made(desk, agents=["billing-*"])
    answer = desk.post(f"/api/agent-action/{number}/complete", {}, key=key)
    assert desk.code(answer) == (403, "AGENT_NOT_ALLOWED")
    told = {"outcomes": [{"action_id": number, "status": "completed"}]}
    (row,) = desk.post("/api/agent-action/outcomes", told, key=key)[1]["outcomes"]
    assert (row["status"], row["error"]["code"]) == (403, "AGENT_NOT_ALLOWED")
    assert "outcome" not in desk.get(f"/api/v1/actions/{number}")[1]


@pytest.mark.parametrize("pattern", ["", "a*b", "*x", " a", "a\n", "x" * 256])
def test_agents_of_a_key_are_ids_or_beginnings(desk, pattern):
    with pytest.raises(ValidationError, match="billing-"):
        made(desk, agents=[pattern])


@pytest.mark.parametrize(
    ("role", "may"),
    [
        (Role.VIEWER, {"read"}),
        (Role.APPROVER, {"read", "decide"}),
        (Role.USER, {"read", "submit"}),
        (Role.ADMIN, {"read", "decide", "submit", "command"}),
    ],
)
def test_a_role_may_do_what_it_is_for_and_nothing_else(desk, role, may):
    key = made(desk, role=role, name="somebody")
    number = desk.submit("transaction", amount=5000)[1]["action_id"]
    asked = {
        "read": ("GET", f"/api/v1/actions/{number}", None),
        "submit": ("POST", "/api/v1/actions/submit", {"agent_id": "a", "action_type": "read"}),
        "command": ("POST", "/api/registry/agents/a/commands", {"command_type": "BLOCK", "reason": "r"}),
        "decide": ("POST", f"/api/v1/actions/{number}/approve", {}),
    }
    answers = {name: desk.call(*one, key=key)[0] for name, one in asked.items()}
    assert {name for name, status in answers.items() if status in (200, 201)} == may
    assert {status for name, status in answers.items() if name not in may} <= {403}


def test_the_last_use_of_a_key_is_stored_by_a_serving_authority(desk):
    async def served():
        service = Service(desk.authority)
        await service.start()
        await service.answer("GET", WHERE, "", {"x-api-key": desk.user}, b"")
        await service.stop()

    asyncio.run(served())
    used = {row["name"]: row["used_at"] for row in desk.store.list_keys()}
    assert used["u"] == desk.store.moment() and used["boss"] is None


def test_failed_sign_ins_are_in_the_audit_log_and_cannot_flood_it(desk):
    key = made(desk, tenant="other")
    desk.store.revoke_key(desk.store.find_key(key).key_id)
    desk.get(WHERE, key=key, client="192.0.2.1")
    desk.get(WHERE, key="owkai_user_guess", client="192.0.2.1")
    desk.get(WHERE, key=None, client="192.0.2.1")  # nobody tried anything
    row = desk.store.rows("SELECT tenant, entry FROM audit ORDER BY seq DESC LIMIT 2")
    assert [one["tenant"] for one in row] == ["default", "other"]
    assert "guess" not in row[0]["entry"] and json.loads(row[1]["entry"])["data"]["key"] == 5
    for number in range(200):
        desk.get(WHERE, key="owkai_user_guess", client=f"192.0.2.{number}")
    assert desk.events().count("SIGN_IN_FAILED") == 100
    desk.later(61)
    desk.get(WHERE, key="owkai_user_guess", client="192.0.2.1")
    assert desk.audit()[-1][1]["further"] == 102


def test_signing_out_everywhere_ends_tokens_and_later_ones_are_valid(desk):
    who = desk.store.find_key(desk.admin)
    sessions = Sessions(desk.store, now=lambda: desk.time)

    def status(token):
        return desk.get(WHERE, key=None, authorization=f"Bearer {token}")[0]

    old = desk.authority.tokens.issue(who, now=desk.time)
    sessions.close(sessions.open(who), everywhere=False)
    assert status(old) == 200
    sessions.close(sessions.open(who), everywhere=True)
    new = desk.authority.tokens.issue(who, now=desk.time)
    assert (status(old), status(new)) == (401, 200)
    claims = jwt.decode(old, options={"verify_signature": False})
    assert claims["round"] == 0


def test_the_webhooks_of_a_key_stop_with_it(desk):
    key = made(desk)
    outbox = Outbox(desk.authority)
    desk.post("/api/webhooks", HOOK, key=key)
    desk.submit()
    outbox.fill()
    (queued,) = outbox.due()
    assert outbox.subscription(queued)
    desk.store.revoke_key(desk.store.find_key(key).key_id)
    assert outbox.subscription(queued) is None  # what waits is not told any more
    desk.submit()
    outbox.fill()
    assert len(outbox.due()) == 1


def test_the_command_line_makes_rotates_and_lists_keys(desk_of, database, capsys):
    desk = desk_of(POLICY, database)
    place = ["--db", str(database)]

    def run(*words):
        code = main([*words, *place])
        return code, capsys.readouterr()

    words = ("--name", "ci", "--role", "user", "--agents", "billing-*", "--agents", "till", "--expires", "90d")
    code, told = run("keys", "create", *words)
    key = told.out.strip()
    assert code == 0 and desk.store.find_key(key).agents == ("billing-*", "till")
    code, told = run("keys", "rotate", "5", "--overlap", "2h")
    assert code == 0 and desk.store.find_key(told.out.strip()).name == "ci"
    assert "key 5 ends at" in told.err
    lines = run("keys", "list")[1].out.splitlines()
    assert "until" in lines[4] and "for billing-*, till" in lines[5]
    code, told = run("keys", "rotate", "99")
    assert code == 1 and told.err == "ascend-middleware: there is no key 99; `keys list` shows them\n"
    code, told = run("keys", "issue", "--name", "x", "--agents", "a*b")
    assert code == 1 and "'a*b' is neither" in told.err
    with pytest.raises(SystemExit):
        run("keys", "issue", "--name", "x", "--expires", "soon")
    assert '"24h" or "7d"' in capsys.readouterr().err
