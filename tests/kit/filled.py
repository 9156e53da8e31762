"""A database file with something in every table, beside its policy file."""

import contextlib

from ascend_middleware.authority.page.sessions import Sessions
from ascend_middleware.authority.store.archiver import Archiver
from ascend_middleware.authority.store.audit import iso_time
from ascend_middleware.authority.store.leases import Lease
from ascend_middleware.authority.webhooks import Outbox

from .desk import POLICY, Desk

DAY = 86_400.0


TWO = (
    POLICY
    + '\n[[policy]]\nname = "two"\naction_types = ["two"]\ndecision = "pending"\nrisk_score = 95\n[approvals.critical]\ncount = 2\n'
)


def filled(folder, policy=TWO, rounds=4):
    """Make `policy.toml`, `policy.db` and the folder `archive`; return the desk, which is closed."""
    (folder / "policy.toml").write_text(policy)
    (folder / "archive").mkdir()
    desk = Desk(policy, folder / "policy.db")
    with contextlib.closing(desk.authority):
        for number in range(rounds):
            desk.submit("transaction", amount=7000, agent_id=f"a{number}", note="x" * 300)
            desk.submit("database_schema")
        desk.post("/api/v1/actions/1/approve", {"comments": "fine"}, key="admin")
        desk.post("/api/agent-action/1/complete", {"result": {"n": 1}})
        desk.time += 40 * DAY
        list(
            Archiver(desk.store, folder / "archive").run(
                actions=iso_time(desk.time - DAY), audit=iso_time(desk.time - DAY)
            )
        )
        body = {"agent_id": "a", "action_type": "data_access"}
        desk.post("/api/v1/actions/submit", body, idempotency_key="once")
        desk.submit("transaction", amount=5000)
        two = desk.submit("two")[1]["id"]
        desk.post(f"/api/v1/actions/{two}/approve", {"comments": "fine"}, key="admin")
        approved = desk.submit("transaction", amount=6000, resource="Zürich 🎉")[1]["id"]
        desk.post(f"/api/v1/actions/{approved}/approve", {"comments": "fine"}, key="admin")
        desk.post("/api/registry/agents", {"agent_id": "a", "display_name": "A"})
        hook = {"target_url": "https://h.example.com/", "event_types": ["action.denied"]}
        desk.post("/api/webhooks", hook, key="admin")
        desk.submit("database_schema")
        while Outbox(desk.authority).fill():
            pass
        beat = {"agent_id": "a", "sdk_version": "2.7.1", "timestamp": "t", "response_time_ms": 3, "error_rate": 0.1}
        desk.post("/api/agents/health/heartbeat", beat)
        desk.post("/api/registry/agents/a/commands", {"command_type": "BLOCK", "reason": "why"}, key="admin")
        (command,) = desk.get("/api/registry/agents/a/commands")[1]["commands"]
        desk.post(f"/api/registry/agents/a/commands/{command['command_id']}/ack")
        desk.store.organization_id("default")
        desk.store.revoke_key(3)
        desk.authority.tokens.issue(desk.store.find_key(desk.admin), now=desk.time)
        Sessions(desk.store, now=lambda: desk.time).open(desk.store.find_key(desk.admin))
        Lease(desk.store, "archive").take()
    return desk
