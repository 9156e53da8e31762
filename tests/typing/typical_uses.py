"""Typical uses, as a reader's own project has them: checked by mypy (strict) and by pyright, and never run."""

# pyright: strict

from __future__ import annotations

import asyncio
from typing import assert_type

import ascend_middleware as ascend
from ascend_middleware import (
    ActionPage,
    ActionRecord,
    ActionType,
    AgentAction,
    AscendClient,
    AsyncAscendClient,
    AsyncAuthorizedAgent,
    AsyncOWKAIClient,
    AuthorizationDecision,
    AuthorizedAgent,
    BulkEvaluationResult,
    CircuitBreaker,
    ConnectionStatus,
    Decision,
    DecisionStatus,
    FailMode,
    OWKAIClient,
    Webhook,
)
from ascend_middleware.exceptions import AscendError, AuthorizationDeniedError, RateLimitError, ValidationError


def connect() -> AscendClient:
    return AscendClient(
        "owkai_live_0123456789",
        agent_id="billing",
        agent_name="Billing",
        api_url="https://authority.example",
        fail_mode=FailMode.CLOSED,
        timeout=30,
        debug=False,
        max_retries=3,
    )


def ask(client: AscendClient) -> str:
    status = client.test_connection()
    assert_type(status, ConnectionStatus)
    if not status.connected or status["status"] != "connected":
        return status.error or "unknown"
    decision = client.evaluate_action(
        "database.query",
        "production_db",
        {"query": "SELECT 1"},
        context={"session": 7},
        risk_indicators={"pii_involved": True},
        orchestration_session_id="s",
        orchestration_depth=0,
        model_id="gpt-4-production",
        wait_for_decision=False,
    )
    assert_type(decision, AuthorizationDecision)
    if decision.decision == Decision.ALLOWED and decision.is_approved():
        return f"{decision.risk_score or 0:.0f} {decision.reason.upper()}"
    if decision.status is DecisionStatus.PENDING:
        decision = client.wait_for_decision(
            decision.action_id, timeout_ms=60_000, on_escalated=lambda name, _: print(name)
        )
    return decision.approval_request_id or ""


def submit(client: AscendClient) -> list[str]:
    action = AgentAction(
        "a", "A", ActionType.TRANSACTION, "refund", action_details={"amount": 12.5}, tool_name="stripe"
    )
    client.submit_action(action)
    client.submit_action({"agent_id": "a", "action_type": "t", "resource": "r"})
    client.submit_action(agent_id="a", action_type="t", parameters={"n": 1}, idempotency_key="k")
    many = client.evaluate_actions([action, {"action_type": "t", "resource": "r"}], max_concurrent=2)
    assert_type(many, BulkEvaluationResult)
    record = client.get_action(7)
    assert_type(record, ActionRecord)
    page = client.list_actions(limit=10, status="pending", risk_level="high")
    assert_type(page, ActionPage)
    return [str(row["action_id"]) for row in page.actions] + [each.error or "" for each in many.results]


def guard(client: AscendClient) -> float | None:
    try:
        client.evaluate_mcp_action("files", "filesystem", "read_file", "/data", parameters={"encoding": "utf-8"})
        client.log_action_completed(7, {"rows": 3}, duration_ms=12.5)
    except AuthorizationDeniedError as error:
        print(error.message, error.action_id)
    except RateLimitError as error:
        return error.retry_after
    except (ValidationError, AscendError) as error:
        print(error.code, error.details, error.correlation_id)
    return None


def operate(client: AscendClient) -> None:
    client.register("automation", ["database.query"], ["production_db"])
    client.start_heartbeat(60)
    client.start_kill_switch_polling()
    for command in client.get_pending_commands():
        acknowledged: bool = client.ack_command(command["command_id"])
        print(acknowledged, client.is_blocked(), client.get_kill_switch_status().blocked)
    hook = client.create_webhook("https://x.example/h", ["action.denied"])
    assert_type(hook, Webhook)
    print([event.event_type for event in client.query_audit_log(limit=5).events])


def reference(client: OWKAIClient) -> dict[str, int]:
    answer = client.submit_action(agent_id="a", action_type="t", description="d", tool_name="x")
    print(answer["decision"], answer.get("reason"), dict(answer))

    def work() -> dict[str, int]:
        return {"amount": 50_000}

    agent = AuthorizedAgent("a", "A", client)
    result = agent.execute_if_authorized(
        ActionType.TRANSACTION.value, "account", work, details={"amount": 1}, timeout=60
    )
    assert_type(result, dict[str, int])
    return result


async def awaiting() -> int:
    async with AsyncAscendClient("owkai_live_0123456789", agent_id="a") as client:
        decision = await client.evaluate_action("t", "r", timeout=10)
        assert_type(decision, AuthorizationDecision)
        await client.start_kill_switch_polling(5)
        blocked: bool = await client.is_blocked()
        print(decision.is_denied(), blocked)

    async def work() -> int:
        return 7

    agent = AsyncAuthorizedAgent("a", "A", AsyncOWKAIClient(api_key="owkai_live_0123456789"))
    return await agent.execute_if_authorized("t", "r", work)


def main() -> None:
    print(ascend.__version__, CircuitBreaker)
    with connect() as client:
        print(ask(client), submit(client), guard(client))
        operate(client)
    print(asyncio.run(awaiting()))
