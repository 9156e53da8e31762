"""The documented flows of ascend-ai-sdk 2.x; runs in that package's environment and prints one JSON object."""

import json
import os
import threading
import time
import warnings
from enum import Enum

warnings.simplefilter("ignore")

import requests  # noqa: E402 - the SDK's own dependency
from ascend import AscendClient  # noqa: E402

URL, ADMIN = os.environ["AUTHORITY_URL"], os.environ["ADMIN_KEY"]
NAME = os.environ["AGENT"]
told = {}


def plain(value):
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, Enum):
        return value.value
    if hasattr(value, "__dict__"):
        return {name: plain(item) for name, item in vars(value).items() if not name.startswith("_")}
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)


def step(name, run):
    try:
        told[name] = plain(run())
    except Exception as error:
        told[name] = {"raised": type(error).__name__, "text": str(error)}


def client(key, agent_id=NAME, **options):
    return AscendClient(
        api_key=key, agent_id=agent_id, agent_name=agent_id, api_url=URL, timeout=20, max_retries=0, **options
    )


def decide(action_id, approved=True):
    word = "approve" if approved else "reject"
    requests.post(
        f"{URL}/api/v1/actions/{action_id}/{word}",
        json={"comments": "looked at"},
        headers={"X-API-Key": ADMIN},
        timeout=20,
    ).raise_for_status()


def soon(run, *arguments):
    timer = threading.Timer(0.3, run, arguments)
    timer.start()
    return timer


user, admin = client(os.environ["USER_KEY"]), client(ADMIN)
stranger = client(os.environ["STRANGER_KEY"])

step("connect", user.test_connection)
step("connect with a wrong key", client("owkai_user_wrong_wrong_wrong").test_connection)
step("register", lambda: user.register(agent_type="automation", capabilities=["x"], allowed_resources=["r"]))
step("register again", user.register)
step("register what is taken", lambda: client(os.environ["STRANGER_KEY"]).register())

step("allow", lambda: user.evaluate_action("data_access", "customers", {"table": "c"}, wait_for_decision=False))
step("deny", lambda: user.evaluate_action("database_schema", "customers", wait_for_decision=False))
large = ("transaction", "refund", {"amount": 5000})
step("hold", lambda: user.evaluate_action(*large, wait_for_decision=False))
held = str(told["hold"].get("action_id"))
step("status", lambda: user.get_action_status(held))
step("details", lambda: user.get_action_details(held))
step("list pending", lambda: user.list_actions(status="pending"))
step("approval pending", lambda: user.check_approval(held))
timer = soon(decide, held)
step("wait", lambda: user.wait_for_decision(held, timeout=20, poll_interval=0.1))
timer.join()
step("approval given", lambda: user.check_approval(held))
step("complete", lambda: user.log_action_completed(held, result={"rows": 3}, duration_ms=12))
step("details after", lambda: user.get_action_details(held))


def decide_newest():
    """Approve what waits for a person, as soon as something does."""
    until = time.monotonic() + 60
    while time.monotonic() < until:
        place = f"{URL}/api/governance/pending-actions?agent_id={NAME}"
        rows = requests.get(place, headers={"X-API-Key": ADMIN}, timeout=20).json()["actions"]
        if rows:
            decide(rows[0]["action_id"])
            return
        time.sleep(0.05)


timer = soon(decide_newest)
step("evaluate and wait", lambda: user.evaluate_action(*large, timeout=30))
timer.join()
refused = str(user.evaluate_action(*large, wait_for_decision=False).action_id)
decide(refused, approved=False)
step("refused by a person", lambda: user.get_action_status(refused))
step("approval refused", lambda: user.check_approval(refused))
failing = str(user.evaluate_action("data_access", "x", wait_for_decision=False).action_id)
step("fail", lambda: user.log_action_failed(failing, {"code": "E1", "message": "broken"}, duration_ms=5))
step("bulk", lambda: user.evaluate_actions([{"action_type": "data_access", "resource": str(n)} for n in range(4)]))

root = user.evaluate_action(
    "orchestrator.plan", "plan", wait_for_decision=False, orchestration_session_id=NAME, orchestration_depth=0
)
step(
    "child",
    lambda: user.evaluate_action(
        "data_access",
        "child",
        wait_for_decision=False,
        orchestration_session_id=NAME,
        parent_action_id=int(root.action_id),
        orchestration_depth=1,
    ),
)
step(
    "graft",
    lambda: user.evaluate_action(
        "data_access",
        "child",
        wait_for_decision=False,
        orchestration_session_id="another",
        parent_action_id=int(root.action_id),
        orchestration_depth=1,
    ),
)


def named(**names):
    return lambda: user.evaluate_action("data_access", "x", wait_for_decision=False, **names)


step("approved model", named(model_id="7"))
step("refused model", named(model_id="8"))
step("registered server", named(mcp_server_name="filesystem"))
step("unregistered server", named(mcp_server_name="nowhere"))


def mcp(server, verb, resource="/x", kind=None):
    return lambda: user.evaluate_mcp_action(
        mcp_server=server, namespace="fs", verb=verb, resource=resource, action_type=kind, tool_name=verb
    )


step("mcp allow", mcp("filesystem", "read"))
step("mcp deny", mcp("filesystem", "drop", kind="db.drop"))
step("mcp blocked tool", mcp("filesystem", "delete_file"))
step("mcp unregistered", mcp("nowhere", "read"))
step(
    "mcp hold",
    lambda: user.evaluate_mcp_action(
        mcp_server="filesystem",
        namespace="fs",
        verb="pay",
        resource="x",
        action_type="transaction",
        parameters={"amount": 5000},
    ),
)

step("link", lambda: admin.link_model_to_agent(NAME, 7))
step("link a refused model", lambda: admin.link_model_to_agent(NAME, 8))
component = {
    "component_id": NAME,
    "component_name": "NumPy",
    "component_type": "library",
    "provider": "NumFOCUS",
    "version": "1.26",
    "license_type": "BSD",
    "source_url": "https://numpy.org",
    "provenance_verified": True,
    "risk_level": "low",
    "package_name": "numpy",
    "package_ecosystem": "pypi",
}
step("component", lambda: admin.register_supply_chain_component(**component))
step("component by a user", lambda: user.register_supply_chain_component(**component))
step("components", lambda: user.list_supply_chain_components())
step("component counts", lambda: user.get_supply_chain_stats())

server = f"server-{NAME}"
step("server", lambda: admin.register_mcp_server(server, blocked_tools=["rm"]))
step("servers", user.list_mcp_servers)
step("server details", lambda: user.get_mcp_server(server))
step("server off", lambda: admin.deactivate_mcp_server(server, reason="maintenance"))
step("server off refuses", mcp(server, "read"))
step("server on", lambda: admin.activate_mcp_server(server))
step("server gone", lambda: admin.delete_mcp_server(server))

step("policy", lambda: user.evaluate_policy("transaction", "x", risk_score=1, context={"environment": "production"}))
step("classification", lambda: user.get_resource_classification("database"))
step("no classification", lambda: user.get_resource_classification("none"))
step("audit", lambda: user.query_audit_log(limit=5))
step("heartbeat", lambda: user.heartbeat(response_time_ms=3, error_rate=0.1, requests_count=9))
step("health", user.get_agent_status)

hook = "https://hooks.example.com/ascend"
step("webhook", lambda: user.configure_webhook(hook, ["action.approved"], secret="s" * 20))
step("webhooks", user.list_webhooks)
number = told["webhook"].get("webhook_id", "none")
step("webhook changed", lambda: user.update_webhook(number, events=["action.denied"]))
step("webhook gone", lambda: user.delete_webhook(number))


def order(kind, agent_id=NAME, **fields):
    place = f"{URL}/api/registry/agents/{agent_id}/commands" if agent_id else f"{URL}/api/registry/commands"
    body = {"command_type": kind, "reason": "by order", **fields}
    requests.post(place, json=body, headers={"X-API-Key": ADMIN}, timeout=20).raise_for_status()


order("BLOCK")
step("commands", lambda: user.get_pending_commands())
first = told["commands"][0]["command_id"]
step("ack", lambda: user.ack_command(first))
step("ack twice", lambda: user.ack_command(first))
step("ack by a stranger", lambda: stranger.ack_command(first, agent_id=NAME))
step("commands after", lambda: user.get_pending_commands())
step("blocked", lambda: user.evaluate_action("data_access", "x", wait_for_decision=False))
order("UNBLOCK")
step("unblocked", lambda: user.evaluate_action("data_access", "x", wait_for_decision=False))


def watched():
    watcher = client(os.environ["STRANGER_KEY"], f"watched-{NAME}")
    states = []
    organization = requests.get(
        f"{URL}/api/sdk/kill-switch/status", headers={"X-API-Key": os.environ["STRANGER_KEY"]}, timeout=20
    ).json()["organization_id"]
    try:
        watcher.start_kill_switch_polling(interval_seconds=0.1)
        states.append(watcher.is_blocked())
        for act in (watcher.trigger_kill_switch, watcher.release_kill_switch):
            act(organization, "a drill, announced to all")
            wanted = act == watcher.trigger_kill_switch
            until = time.monotonic() + 60
            while watcher.is_blocked() is not wanted and time.monotonic() < until:
                time.sleep(0.05)
            states.append(watcher.is_blocked())
    finally:
        watcher.stop_kill_switch_polling()
    return states


step("kill switch", watched)
step("trigger by a user", lambda: user.trigger_kill_switch(1, "this must not be possible"))
step("deregister", user.deregister)
step("health after", user.get_agent_status)
step("absent feature", lambda: user.get_orchestration_stats())

print(json.dumps(told))
