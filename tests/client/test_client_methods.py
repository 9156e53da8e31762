"""What each method sends, how it reads the answer, and what it refuses to send or to believe."""

import copy
import json
import pickle
import threading

import anyio
import pytest
from kit.clients import KINDS, Desk, run
from kit.engine import Awaited

from ascend_middleware import exceptions as errors
from ascend_middleware.api.models import AgentAction, Decision
from ascend_middleware.client import Response

OK = {"success": True}


def ask(kind, desk, work, **options):
    return run(kind, desk, work, **{"agent_name": "A", **options})


def refused(status, body=None):
    return Response(status, {}, json.dumps(body or {"detail": "no"}).encode())


# method and arguments, the request line, the body, the answer, what the result holds
CALLS = {
    "register": (
        lambda c: c.register("automation", ["database.query"], ["db"], {"team": "x"}),
        "POST /api/registry/agents",
        {
            "agent_id": "a", "display_name": "A", "agent_type": "automation", "environment": "production",
            "capabilities": ["database.query"], "allowed_resources": ["db"], "metadata": {"team": "x"},
            "sdk_version": ...,
        },
        {"success": True, "status": "active", "trust_level": "new"},
        {"status": "active", "trust_level": "new"},
    ),
    "action": (lambda c: c.get_action("7"), "GET /api/v1/actions/7", None, {"action_id": "7", "status": "approved"}, {"status": "approved"}),
    "actions": (
        lambda c: c.list_actions(), "GET /api/v1/actions?limit=50&offset=0", None, {"actions": [], "total": 0}, {"total": 0},
    ),
    "deregister": (lambda c: c.deregister(), "DELETE /api/registry/agents/a", None, b"", {}),
    "link model": (
        lambda c: c.link_model_to_agent(agent_id="b", model_id=42),
        "PUT /api/registry/agents/b",
        {"model_id": 42},
        {"success": True, "agent": {"agent_id": "b"}, "message": "m"},
        {"success": True, "message": "m"},
    ),
    "agent status": (
        lambda c: c.get_agent_status(),
        "GET /api/agents/health/a",
        None,
        {"agent_id": "a", "status": "healthy"},
        {"status": "healthy", "last_heartbeat": None, "metadata": {}},
    ),
    "heartbeat": (
        lambda c: c.heartbeat(12, 0.5, 3),
        "POST /api/agents/health/heartbeat",
        {
            "agent_id": "a", "sdk_version": ..., "timestamp": ..., "response_time_ms": 12, "error_rate": 0.5,
            "requests_count": 3,
        },
        OK,
        True,
    ),
    "older heartbeat": (
        lambda c: c.send_heartbeat({"error_rate": 0.1}, requests_count=1),
        "POST /api/agents/health/heartbeat",
        {"agent_id": "a", "sdk_version": ..., "timestamp": ..., "error_rate": 0.1, "requests_count": 1},
        b"",
        True,
    ),
    "commands": (
        lambda c: c.get_pending_commands(agent_id="b"),
        "GET /api/registry/agents/b/commands",
        None,
        {"commands": [{"command_id": 5, "command_type": "BLOCK", "is_broadcast": True}]},
        [{"command_id": "5", "command_type": "BLOCK", "reason": "", "is_broadcast": True}],
    ),
    "ack": (lambda c: c.ack_command("5", "b"), "POST /api/registry/agents/b/commands/5/ack", {}, OK, True),
    "ack not recorded": (
        lambda c: c.ack_command("5"), "POST /api/registry/agents/a/commands/5/ack", {}, {"success": False}, False,
    ),
    "kill switch": (
        lambda c: c.get_kill_switch_status(),
        "GET /api/sdk/kill-switch/status?agent_id=a",
        None,
        {"blocked": False, "active": False},
        {"blocked": False, "reason": None, "activated_at": None, "activated_by": None},
    ),
    "approval": (
        lambda c: c.check_approval("apr_1"),
        "GET /api/sdk/approval/apr_1",
        None,
        {"status": "rejected", "rejected_by": "ann", "decided_at": "t", "rejection_reason": "no"},
        {"approved": False, "denied": True, "pending": False, "approver": "ann", "timestamp": "t", "comments": "no"},
    ),
    "approval with a comment": (
        lambda c: c.check_approval("apr_1"),
        "GET /api/sdk/approval/apr_1",
        None,
        {"status": "approved", "approved_by": "bob", "comments": "go", "rejection_reason": None},
        {"approved": True, "denied": False, "approver": "bob", "timestamp": None, "comments": "go"},
    ),
    "policy": (
        lambda c: c.evaluate_policy("t", "r", {"x": 1, "risk_score": 1}),
        "POST /api/governance/policies/evaluate-realtime",
        {"action_type": "t", "resource": "r", "context": {"x": 1}},
        {"decision": "denied", "violations": ["v"]},
        {"decision": "denied", "violations": ["v"], "matched_policies": [], "risk_score": None},
    ),
    "audit": (
        lambda c: c.query_audit_log(limit=2, offset=4),
        "GET /audit/logs?limit=2&offset=4",
        None,
        {"logs": [{"id": 9, "event_type": "X"}], "total": 7},
        {"total": 7, "limit": 2, "offset": 4, "events": [{"event_id": "9", "id": 9, "event_type": "X"}]},
    ),
    "component": (
        lambda c: c.register_supply_chain_component("i", "n", "model", version="1", provenance_verified=True),
        "POST /api/v1/supply-chain/components",
        {
            "component_id": "i", "component_name": "n", "component_type": "model", "provenance_verified": True,
            "risk_level": "medium", "version": "1",
        },
        Response(201, {}, b'{"success": true, "component": {}, "message": "m"}'),
        {"success": True},
    ),
    "mcp register": (
        lambda c: c.register_mcp_server("files", blocked_tools=["rm"], tool_risk_overrides={"cat": 10}),
        "POST /api/registry/mcp-servers",
        {
            "server_name": "files", "transport_type": "stdio", "governance_enabled": True, "blocked_tools": ["rm"],
            "tool_risk_overrides": {"cat": 10},
        },
        Response(201, {}, b'{"success": true, "server": {"server_name": "files"}}'),
        {"server": {"server_name": "files"}},
    ),
    "mcp list": (
        lambda c: c.list_mcp_servers(), "GET /api/registry/mcp-servers", None,
        {"servers": [{"server_name": "files"}]}, {"servers": [{"server_name": "files"}]},
    ),
    "mcp get": (
        lambda c: c.get_mcp_server("files/x"), "GET /api/registry/mcp-servers/files%2Fx", None,
        {"server_name": "files/x"}, {"server_name": "files/x"},
    ),
    "mcp activate": (
        lambda c: c.activate_mcp_server("files"), "POST /api/registry/mcp-servers/files/activate", {}, OK, OK,
    ),
    "mcp deactivate": (
        lambda c: c.deactivate_mcp_server("files", "odd"), "POST /api/registry/mcp-servers/files/deactivate",
        {"reason": "odd"}, OK, OK,
    ),
    "mcp delete": (
        lambda c: c.delete_mcp_server("files"), "DELETE /api/registry/mcp-servers/files", None,
        Response(204, {}, b""), {},
    ),
    "webhook, rest form": (
        lambda c: c.create_webhook("https://x.example/h?t=1", ["action.submitted"]), "POST /api/webhooks",
        {"target_url": "https://x.example/h?t=1", "event_types": ["action.submitted"]},
        Response(201, {}, b'{"id": 3, "target_url": "u", "event_types": ["e"]}'),
        {"webhook_id": "3", "url": "u", "events": ["e"]},
    ),
    "webhook": (
        lambda c: c.configure_webhook("https://x.example/h", ["action.denied"], secret="s"),
        "POST /api/webhooks/configure",
        {"url": "https://x.example/h", "events": ["action.denied"], "agent_id": "a", "secret": "s"},
        {"webhook_id": "w", "url": "u", "events": ["e"]},
        {"webhook_id": "w"},
    ),
    "webhooks": (
        lambda c: c.list_webhooks(), "GET /api/webhooks", None,
        b'[{"id": 3, "url": "u", "events": []}]', [{"id": 3, "webhook_id": "3", "url": "u", "events": []}],
    ),
    "webhook update": (
        lambda c: c.update_webhook("3", events=["x"]), "PUT /api/webhooks/3", {"events": ["x"]},
        {"webhook": {"id": 3}}, {"webhook_id": "3"},
    ),
    "webhook delete": (
        lambda c: c.delete_webhook("3"), "DELETE /api/webhooks/3", None, Response(204, {}, b""), {},
    ),
    "webhook test": (
        lambda c: c.test_webhook(3), "POST /api/webhooks/3/test", {}, {"success": False, "error": "refused"},
        {"success": False, "error": "refused", "status_code": None},
    ),
}  # fmt: skip


@KINDS
@pytest.mark.parametrize("name", CALLS)
def test_what_is_sent_and_what_comes_back(kind, name):
    call, line, body, answer, expected = CALLS[name]
    desk = Desk(answer)
    result = ask(kind, desk, call)
    assert desk.lines == [line]
    sent = desk.body()
    if body is None:
        assert sent is None
    else:
        assert sent.keys() == body.keys()
        assert all(value is ... or sent[key] == value for key, value in body.items())
    if isinstance(expected, dict):
        assert {key: result[key] for key in expected} == expected
    else:
        assert result == expected


@KINDS
@pytest.mark.parametrize(
    "call",
    [
        lambda c: c.register(capabilities="database.query"),
        lambda c: c.register(agent_type=""),
        lambda c: c.link_model_to_agent("b", True),
        lambda c: c.link_model_to_agent("b", 0),
        lambda c: c.link_model_to_agent("", 1),
        lambda c: c.heartbeat(error_rate=1.5),
        lambda c: c.send_heartbeat({"cpu": 1}),
        lambda c: c.start_heartbeat(0),
        lambda c: c.start_kill_switch_polling(-1),
        lambda c: c.ack_command(".."),
        lambda c: c.check_approval(""),
        lambda c: c.evaluate_policy("", "r"),
        *(lambda c, limit=limit: c.query_audit_log(limit=limit) for limit in (0, 1.5, "5", True)),
        lambda c: c.register_supply_chain_component("i", "n", "gadget"),
        lambda c: c.register_supply_chain_component("i", "n", "model", risk_level="MEDIUM"),
        lambda c: c.register_supply_chain_component("i", "n", "model", provenance_verified="yes"),
        lambda c: c.register_mcp_server("files", tool_risk_overrides={"x": 101}),
        lambda c: c.register_mcp_server("  "),
        lambda c: c.get_mcp_server(7),
        lambda c: c.create_webhook("http://x.example", ["e"]),
        lambda c: c.create_webhook("https://x.example", []),
        lambda c: c.configure_webhook("local:x", ["e"]),
        lambda c: c.update_webhook("3"),
        lambda c: c.evaluate_mcp_action("", "n", "v", "r"),
        lambda c: c.evaluate_mcp_action("s", "n", "v", "r", orchestration_depth=6),
        lambda c: c.evaluate_actions([{"action_type": "t"}] * 51),
        lambda c: c.evaluate_actions([{"action_type": "t", "resource": "r"}, {"resource": "r"}]),
        lambda c: c.evaluate_actions([None]),
        lambda c: c.evaluate_actions({"action_type": "t"}),
        *(lambda c, most=most: c.evaluate_actions([], max_concurrent=most) for most in (0, 51, True, 1.5, "5")),
        lambda c: c.wait_for_decision("7", on_escalated="x"),
    ],
)
def test_local_checks_come_before_any_request(kind, call):
    desk = Desk(OK)
    with pytest.raises(errors.ValidationError):
        ask(kind, desk, call)
    assert not desk.requests


@KINDS
@pytest.mark.parametrize("call", [c for c, *_ in CALLS.values() if c is not CALLS["heartbeat"][0]])
def test_refusals_are_errors_whatever_they_look_like(kind, call):
    """A 403 in the form of a governance violation is a denial for an action, and an error for everything else."""
    body = {"detail": {"error": "MCP governance violation", "code": "X", "detail": "already exists"}}
    desk = Desk(refused(403, body))
    if call is CALLS["older heartbeat"][0]:
        assert ask(kind, desk, call) is False
        return
    with pytest.raises(errors.AuthorizationDeniedError):
        ask(kind, desk, call)


@KINDS
@pytest.mark.parametrize("name", [name for name in CALLS if "heartbeat" not in name])
@pytest.mark.parametrize("answer", [b"[1]", b"null", b"<html>", b'"x"', b'{"status": "error", "detail": "x"}'])
def test_unreadable_answers_are_errors(kind, name, answer):
    with pytest.raises(errors.ProtocolError):
        ask(kind, Desk(answer), CALLS[name][0])


@KINDS
@pytest.mark.parametrize(
    ("call", "answer"),
    [
        (lambda c: c.get_pending_commands(), {"commands": [{"command_id": "x"}]}),
        (lambda c: c.get_pending_commands(), {}),
        (lambda c: c.get_kill_switch_status(), {}),
        (lambda c: c.get_kill_switch_status(), {"blocked": "no"}),
        (lambda c: c.get_kill_switch_status(), {"blocked": False, "active": None}),
        (lambda c: c.get_kill_switch_status(), {"status": "inactive"}),
        (lambda c: c.check_approval("a"), {"status": "sure"}),
        (lambda c: c.check_approval("a"), {"status": "approved", "approved": False}),
        (lambda c: c.get_agent_status(), {"agent_id": "other", "status": "healthy"}),
        (lambda c: c.evaluate_policy("t", "r"), {"success": True}),
        (lambda c: c.test_webhook("3"), {"success": "yes"}),
        (lambda c: c.list_webhooks(), {"webhooks": [{"url": "u"}]}),
        (lambda c: c.list_mcp_servers(), {"servers": [7]}),
        (lambda c: c.query_audit_log(), {"events": "none"}),
    ],
)
def test_answers_that_do_not_say_what_was_asked(kind, call, answer):
    with pytest.raises(errors.ProtocolError):
        ask(kind, Desk(answer), call)


@KINDS
@pytest.mark.parametrize(
    "answer", [{"active": True}, {"is_active": True}, {"is_blocked": True}, {"status": "blocked"},
               {"blocked": False, "is_active": True}, {"status": "success", "data": {"blocked": True}},
               {"blocked": False, "status": "suspended"}, {"blocked": False, "status": "active"}],
)  # fmt: skip
def test_every_word_for_a_stop_is_understood(kind, answer):
    status = ask(kind, Desk(answer), lambda c: c.get_kill_switch_status())
    assert status.blocked is status["blocked"] is True
    with pytest.raises(TypeError):
        bool(status)


@KINDS
def test_registered_already_by_oneself_or_by_another(kind):
    own = Desk(refused(409, {"detail": "already exists"}), {"agents": [{"agent_id": "a"}]})
    record = ask(kind, own, lambda c: c.register())
    assert record == {"success": True, "status": "already_registered", "agent_id": "a"}
    assert own.lines[1] == "GET /api/registry/agents"
    foreign = Desk(refused(409, {"detail": "already exists in another organization"}), {"agents": []})
    with pytest.raises(errors.ConflictError):
        ask(kind, foreign, lambda c: c.register())
    with pytest.raises(errors.ValidationError, match="agent_id"):
        ask(kind, Desk(OK), lambda c: c.register(), agent_id=None, agent_name="only a name")


@KINDS
def test_a_heartbeat_that_is_not_heard_stops_nobody(kind):
    for answer in (refused(500), errors.NetworkError("x"), b"<html>", refused(401)):
        assert ask(kind, Desk(answer), lambda c: c.heartbeat()) is False


APPROVED = {"action_id": "7", "status": "approved", "decision": "approved"}


@KINDS
def test_an_mcp_action_is_sent_with_the_documented_keys(kind):
    desk = Desk({"status": "approved", "success": True, "action_id": 7, "requires_approval": False, "risk_score": 3})
    call = {"parameters": {"encoding": "utf-8", "risk_score": 0}, "context": {"session_id": "s"}}
    result = ask(kind, desk, lambda c: c.evaluate_mcp_action("files", "filesystem", "read_file", "/data", **call))
    assert result.decision == Decision.ALLOWED and result.action_id == "7"
    assert desk.lines == ["POST /api/v1/mcp/actions/submit"]
    assert desk.body() == {
        "mcp_server": "files", "namespace": "filesystem", "verb": "read_file", "resource": "/data",
        "action_type": "filesystem.read_file", "description": None, "parameters": {"encoding": "utf-8"},
        "context": {"session_id": "s"}, "environment": "production", "tool_name": None,
        "agent_id": "a", "agent_name": "A",
    }  # fmt: skip


@KINDS
@pytest.mark.parametrize(
    "answer",
    [
        {}, {"status": "error"}, {"status": "pending"}, {"status": "pending_approval"}, {"status": "escalated"},
        {"status": "blocked"}, {"status": "rejected"}, {"status": "timeout"}, {"decision": "denied"},
        {"status": "DENIED"}, {"approved": False}, {"success": True}, {"success": False, "status": "approved"},
        {"status": "approved", "requires_approval": True}, {"status": "success", "data": {"decision": "denied"}},
        {"status": "approved", "decision": "denied"},
    ],
)  # fmt: skip
def test_an_mcp_action_is_allowed_only_by_an_explicit_word(kind, answer):
    for action_id in ({}, {"action_id": 7}):
        try:
            result = ask(kind, Desk({**answer, **action_id}), lambda c: c.evaluate_mcp_action("s", "n", "v", "r"))
        except errors.ProtocolError:
            continue
        assert not result.is_approved() and not result.execution_allowed


EXTRAS = {"orchestration_session_id": "s", "parent_action_id": 3, "orchestration_depth": 1, "model_id": "m"}


@KINDS
def test_orchestration_model_and_server_travel_on_every_path(kind):
    whole = {**EXTRAS, "mcp_server_name": "files"}
    desk = Desk(APPROVED)

    def check(call, expected):
        ask(kind, desk, call)
        assert {name: desk.body().get(name) for name in expected} == expected

    check(lambda c: c.submit_action(AgentAction("x", "X", "t", "r", **whole)), {**whole, "agent_id": "x"})
    check(lambda c: c.submit_action({"action_type": "t", "resource": "r", **whole}), {**whole, "agent_id": "a"})
    check(lambda c: c.submit_action(action_type="t", parameters={}, **whole), whole)
    check(lambda c: c.evaluate_action("t", "r", **whole), whole)
    check(lambda c: c.evaluate_actions([AgentAction("x", "X", "t", "r", **whole)]), {**whole, "agent_id": "x"})
    check(lambda c: c.evaluate_actions([{"action_type": "t", "resource": "r", **whole}]), whole)
    check(lambda c: c.evaluate_mcp_action("files", "n", "v", "r", **EXTRAS), {**EXTRAS, "mcp_server": "files"})


@KINDS
def test_many_actions_keep_their_order_and_their_bound(kind):
    class Slow(Desk):
        """Answers an action with its own id, the later ones first, and counts how many are under way."""

        running = most = 0

        def send(self, request, timeout):
            name = json.loads(request.content)["resource"]
            self.requests.append(request)
            if name == "3":
                return refused(500)
            status = "denied" if name == "1" else "approved"
            return Response(200, {}, json.dumps({"action_id": int(name) + 100, "status": status}).encode())

    desk = Slow(OK)

    class Counting(Awaited):
        async def send(self, request, timeout):
            desk.running += 1
            desk.most = max(desk.most, desk.running)
            for _ in range(30 - int(json.loads(request.content)["resource"])):
                await anyio.sleep(0)
            desk.running -= 1
            return desk.send(request, timeout)

    actions = [{"action_type": "t", "resource": str(number)} for number in range(20)]
    engine = desk if kind == "sync" else Counting(desk)
    result = ask(kind, desk, lambda c: c.evaluate_actions(actions), engine=engine)
    assert desk.most == (0 if kind == "sync" else 5)
    assert [each.resource for each in result.results] == [str(number) for number in range(20)]
    assert [None if each.decision is None else int(each.decision.action_id) - 100 for each in result.results] == [
        None if number == 3 else number for number in range(20)
    ]
    assert (result.total, result.succeeded, result.failed) == (20, 19, 1)
    assert [each.is_approved() for each in result.results[:4]] == [True, False, True, False]
    assert isinstance(result.results[3].exception, errors.ServerError) and "500" in result.results[3].error
    with pytest.raises(TypeError):
        bool(result.results[0])


def test_many_actions_at_once_are_bounded_in_threads():
    barrier, running, most = threading.Barrier(5, timeout=10), [0], [0]
    lock = threading.Lock()

    class Crowd(Desk):
        def send(self, request, timeout):
            with lock:
                running[0] += 1
                most[0] = max(most[0], running[0])
            barrier.wait()
            with lock:
                running[0] -= 1
            return super().send(request, timeout)

    result = ask("sync", Crowd(APPROVED), lambda c: c.evaluate_actions([{"action_type": "t", "resource": "r"}] * 10))
    assert result.succeeded == 10 and most[0] == 5


@KINDS
def test_escalation_is_told_once_and_the_wait_goes_on(kind):
    pending = {"action_id": "7", "status": "pending"}
    desk = Desk(pending, {"action_id": "7", "status": "escalated"}, {"action_id": "7", "status": "escalated"}, APPROVED)
    told = []
    wait = {"timeout": 5, "poll_interval": 0.001, "on_escalated": lambda *args: told.append(args)}
    assert ask(kind, desk, lambda c: c.wait_for_decision("7", **wait)).is_approved()
    assert [(action_id, decision.is_pending(), decision.escalated) for action_id, decision in told] == [
        ("7", True, True)
    ]

    def boom(*_):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        ask(
            kind, Desk({"action_id": "7", "status": "escalated"}), lambda c: c.wait_for_decision("7", on_escalated=boom)
        )


def test_a_coroutine_may_be_told_of_an_escalation():
    told = []

    async def listen(action_id, decision):
        await anyio.sleep(0)
        told.append(action_id)

    desk = Desk({"action_id": "7", "status": "escalated"}, APPROVED)
    wait = {"poll_interval": 0.001, "on_escalated": listen}
    assert ask("async", desk, lambda c: c.wait_for_decision("7", **wait)).is_approved()
    assert told == ["7"]


@KINDS
def test_what_is_documented_as_a_dict_is_one(kind):
    told = {"agent_id": "a", "status": "registered", "metadata": {"team": "x"}}
    record = ask(kind, Desk(told), lambda c: c.register())
    assert isinstance(record, dict)
    assert json.loads(json.dumps(record, indent=2)) == told == record
    assert (record.status, record["status"], record.get("none")) == ("registered", "registered", None)
    assert record.copy() == record | {} == {**record} == told
    assert record.pop("metadata") == {"team": "x"}
    assert "metadata" not in record
    for shown in (repr(record), str(record)):
        assert "agent_id='a'" in shown
        assert "status='registered'" in shown
    assert pickle.loads(pickle.dumps(record)) == copy.deepcopy(record) == record
    with pytest.raises(AttributeError, match="agent_id, status"):
        record.metadata  # noqa: B018


@KINDS
def test_a_changed_copy_of_a_decision_changes_no_decision(kind):
    decision = ask(
        kind, Desk({"action_id": 7, "status": "denied"}), lambda c: c.submit_action(action_type="t", resource="r")
    )
    decision["status"] = decision["decision"] = "approved"
    decision["execution_allowed"] = True
    assert decision.is_denied()
    assert not decision.execution_allowed
    again = pickle.loads(pickle.dumps(decision))
    assert again.is_denied()
    assert json.loads(json.dumps(again))["action_id"] == "7"


@KINDS
def test_a_webhooks_secret_is_not_shown(kind):
    [hook] = ask(
        kind, Desk([{"webhook_id": "1", "url": "u", "events": [], "secret": "s3cret"}]), lambda c: c.list_webhooks()
    )
    assert "s3cret" not in repr(hook)
    assert hook.secret == "s3cret"
