"""The documented flows of ascend-ai-sdk 1.0.0; runs in that package's environment and prints one JSON object."""

import json
import logging
import os
import threading

import requests  # the SDK's own dependency
from ascend import AgentAction, AscendClient, AuthorizedAgent

logging.disable(logging.CRITICAL)
URL, ADMIN = os.environ["AUTHORITY_URL"], os.environ["ADMIN_KEY"]
told = {}


def plain(value):
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return plain(vars(value)) if hasattr(value, "__dict__") else value


def step(name, run):
    try:
        told[name] = plain(run())
    except Exception as error:
        told[name] = {"raised": type(error).__name__, "text": str(error)}


def client(key):
    return AscendClient(api_key=key, base_url=URL, timeout=20)


def action(kind, amount=1):
    return AgentAction(
        agent_id="one",
        agent_name="One",
        action_type=kind,
        resource="customers",
        tool_name="sql",
        resource_id="7",
        action_details={"amount": amount},
        context={"team": "red"},
        risk_indicators={"pii": True},
    )


def decide(action_id, word="approve"):
    place = f"{URL}/api/v1/actions/{action_id}/{word}"
    requests.post(place, json={"comments": "c"}, headers={"X-API-Key": ADMIN}, timeout=20).raise_for_status()


user = client(os.environ["USER_KEY"])
step("connect", user.test_connection)
step("connect with a wrong key", client("owkai_user_wrong_wrong_wrong").test_connection)
step("allow", lambda: user.submit_action(action("data_access")))
step("deny", lambda: user.submit_action(action("database_schema")))
step("hold", lambda: user.submit_action(action("transaction", 5000)))
held = told["hold"].get("action_id")
step("status", lambda: user.get_action_status(held))
timer = threading.Timer(0.3, decide, (held,))
timer.start()
step("wait", lambda: user.wait_for_decision(held, timeout_ms=20_000, poll_interval=0.1))
timer.join()
step("details", lambda: user.get_action(held))
step("list", lambda: user.list_actions(limit=2, status="approved"))
other = user.submit_action(action("transaction", 5000)).action_id
decide(other, "reject")
step("refused by a person", lambda: user.get_action_status(other))
step("nothing", lambda: user.get_action("999999"))

agent = AuthorizedAgent(agent_id="one", agent_name="One", client=user)


def execute(kind, amount):
    ran = []
    try:
        value = agent.execute_if_authorized(
            action_type=kind,
            resource="r",
            execute_fn=lambda: ran.append(1) or "done",
            details={"amount": amount},
        )
    except Exception as error:
        value = type(error).__name__
    return {"value": value, "ran": len(ran)}


step("agent", lambda: execute("data_access", 1))
print(json.dumps(told))
