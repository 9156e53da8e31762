"""Every method of the client against the embedded authority over a socket, blocking and awaitable."""

import inspect

import anyio
import pytest

from ascend_middleware import AgentAction, AscendClient, AsyncAscendClient, exceptions

KINDS = pytest.mark.parametrize("kind", ["sync", "async"])


class Both:
    """One client of a kind, its methods called the same way whichever kind it is."""

    def __init__(self, kind, town, key=None, **options):
        self.kind = kind
        self.options = {"api_url": town.url, "agent_id": f"every-{kind}", "agent_name": "Every", **options}
        self.key = key or town.admin

    def __getattr__(self, name):
        def call(*args, **fields):
            if self.kind == "sync":
                with AscendClient(self.key, **self.options) as client:
                    return getattr(client, name)(*args, **fields)

            async def main():
                async with AsyncAscendClient(self.key, **self.options) as client:
                    result = getattr(client, name)(*args, **fields)
                    return await result if inspect.isawaitable(result) else result

            return anyio.run(main)

        return call


@KINDS
def test_the_life_of_an_agent(kind, fresh):
    client = Both(kind, fresh)
    assert client.register("automation", ["t"], ["r"], {"team": "x"})["trust_level"]
    assert client.register()["status"] == "already_registered"
    assert client.link_model_to_agent(f"every-{kind}", 42)["success"] is True
    assert client.heartbeat(12.5, 0.1, 3) is client.send_heartbeat({"error_rate": 0.2}) is True
    status = client.get_agent_status()
    assert status.status and status["last_heartbeat"]
    assert client.get_kill_switch_status().blocked is False
    assert client.get_pending_commands() == []
    foreign = Both(kind, fresh, fresh.stranger)
    with pytest.raises(exceptions.ConflictError):
        foreign.register()
    fresh.call("POST", f"/api/registry/agents/every-{kind}/commands", {"command_type": "BLOCK", "reason": "incident"})
    assert client.get_kill_switch_status().blocked is True
    with pytest.raises(exceptions.KillSwitchError):
        client.submit_action(action_type="t", resource="r")
    (command,) = client.get_pending_commands()
    with pytest.raises(exceptions.AuthorizationDeniedError):
        foreign.ack_command(command["command_id"], f"every-{kind}")
    assert client.ack_command(command["command_id"]) is True
    client.deregister()
    with pytest.raises(exceptions.NotFoundError):
        client.get_agent_status()


@KINDS
def test_actions(kind, approving):
    client = Both(kind, approving)
    made = client.submit_action(AgentAction("another", "Another", "t", "r", action_details={"n": 1}))
    assert client.get_action_status(int(made.action_id)).is_approved()
    assert client.get_action_details(made.action_id)["agent_id"] == "another"
    assert client.list_actions(limit=1, agent_id="another", sort="created_at", order="desc").actions
    assert client.wait_for_decision(made.action_id, timeout_seconds=5).is_approved()
    many = client.evaluate_actions([{"action_type": "t", "resource": f"r{number}"} for number in range(7)])
    assert many.succeeded == 7
    shown = [client.get_action(each.decision.action_id)["resource"] for each in many.results]
    assert shown == [f"r{number}" for number in range(7)]
    assert client.log_action_completed(made.action_id, {"rows": 3}, 12.5)["success"] is True
    client.log_action_failed(many.results[0].decision.action_id, ValueError("x"))
    with pytest.raises(exceptions.ConflictError):
        client.log_action_failed(made.action_id, "and now the contrary")
    same = [client.submit_action(action_type="t", resource="r", idempotency_key=f"{kind}-once") for _ in range(2)]
    assert same[0].action_id == same[1].action_id


@KINDS
def test_approvals(kind, holding):
    client = Both(kind, holding, holding.user)
    held = client.evaluate_action("t", "r", timeout=0.1)
    assert held.is_pending() and held.required_approvers is not None
    assert client.check_approval(held.approval_request_id).pending
    holding.call("POST", f"/api/governance/workflows/{held.action_id}/approve", {"comments": "go on"})
    approval = client.check_approval(held.approval_request_id)
    assert approval.approved and approval["approver"] == "boss"
    assert client.wait_for_decision(held.action_id, 1).is_approved()


@KINDS
def test_the_organisation(kind, fresh):
    client = Both(kind, fresh)
    dry = client.evaluate_policy("t", "r", {"session": "s"})
    assert dry.decision and dry.matched_policies is not None
    log = client.query_audit_log(limit=1)
    assert len(log.events) <= 1 and log.total >= 0
    component = client.register_supply_chain_component("c", "c", "tool", latest_version="2", compliance_notes="n")
    assert component["component"]["component_id"] == "c"
    server = client.register_mcp_server("tools", blocked_tools=["rm"], tool_risk_overrides={"cat": 10})
    assert server["server"]["server_name"] == "tools"
    assert "tools" in [row["server_name"] for row in client.list_mcp_servers().servers]
    client.activate_mcp_server("tools")
    assert client.evaluate_mcp_action("tools", "n", "cat", "r", model_id=42).is_approved()
    assert client.evaluate_mcp_action("tools", "n", "rm", "r").is_denied()
    client.deactivate_mcp_server("tools", "incident")
    assert client.evaluate_action("t", "r", mcp_server_name="tools").is_denied()
    assert client.get_mcp_server("tools")["server_name"] == "tools"
    client.delete_mcp_server("tools")
    with pytest.raises(exceptions.NotFoundError):
        client.get_mcp_server("tools")


@KINDS
def test_c23_web_hooks(kind, fresh):
    client = Both(kind, fresh)
    first = client.create_webhook("https://x.example/h", ["action.denied"])
    second = client.configure_webhook("https://y.example/h", ["action.approved"], "a-secret-of-sixteen")
    assert "secret-of-sixteen" not in repr(second)
    assert {hook.webhook_id for hook in client.list_webhooks()} == {first.webhook_id, second.webhook_id}
    changed = client.update_webhook(first.webhook_id, events=["action.approved", "action.denied"])
    assert changed.events == ["action.approved", "action.denied"] and changed.url == "https://x.example/h"
    client.delete_webhook(first.webhook_id)
    with pytest.raises(exceptions.NotFoundError):
        client.delete_webhook(first.webhook_id)
