"""Webhooks: events are read from the audit log, kept in a queue, and delivered at least once, in order.

The log is written in the transaction of the event itself, so nothing that happened can be missing from it, and deciding
costs nothing for what is told later.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from operator import itemgetter
from typing import Any, Final

from ascend_middleware.exceptions import AscendError, NotFoundError

from .bodies import decision_fields
from .core import Authority
from .delivery import Attempt, deliver
from .policy.approvers import OBSERVED
from .store import audit
from .store.database import StorageError
from .store.listing import rows_of
from .store.registry_store import WEBHOOK
from .store.store import canonical_json, iso_time

__all__ = ["Courier", "Outbox", "events_of"]

log = logging.getLogger(__name__)

# Audit entries that one reading takes; decisions wait for it.
_MOST_READ: Final = 100
_NOTED_EVERY: Final = 1000
# Seconds: between looks for something new; the first pause after a failure; the longest; and until one is given up.
_PERIOD: Final = 0.5
# Not of the global generator, which is the application's to seed.
_dice: Final = random.SystemRandom().random
_FIRST_PAUSE: Final = 1.0
_LONGEST_PAUSE: Final = 3600.0
_GIVEN_UP_AFTER: Final = 86_400.0
# A subscriber that refuses the request itself is not asked as often as one that cannot answer.
_MOST_REFUSALS: Final = 5
_TRY_AGAIN: Final = (408, 409, 425, 429)
# Seconds for which a delivery is one process's own.
_CLAIM: Final = 30.0
_MOST_AT_ONCE: Final = 16
# Seconds after which a subscription that is owed more lets another one go first.
_TURN: Final = 2.0

# The event that tells the log's head, on an interval and not as an entry.
HEAD: Final = "audit.head"
_BLOCKING: Final = ("BLOCK", "SUSPEND", "QUARANTINE")
_SIMPLE: Final = {
    "ACTION_APPROVED": ("action.approved",),
    "ACTION_DENIED": ("action.denied",),
    "ACTION_EXPIRED": ("action.denied",),
    "ACTION_COMPLETED": ("action.completed",),
    "ACTION_FAILED": ("action.failed",),
    "MCP_SERVER_DEACTIVATED": ("mcp.server.deactivated",),
    "MCP_GOVERNANCE_DENY": ("policy.violation",),
    "MODEL_GOVERNANCE_DENY": ("policy.violation",),
}


def events_of(entry: Mapping[str, Any]) -> tuple[str, ...]:
    """Return which webhook events an audit entry stands for."""
    event, data = entry["event"], entry["data"]
    if event == "ACTION_SUBMITTED":
        if data["decision"] == "pending" and data.get(OBSERVED):
            return ("action.submitted",)
        decided = f"action.{data['decision']}"
        violation = ("policy.violation",) if data["decision"] == "denied" else ()
        return ("action.submitted", decided, *violation)
    if event == "AGENT_COMMAND_ISSUED":
        return ("agent.blocked",) if data.get("command_type") in _BLOCKING else ()
    return _SIMPLE.get(event, ())


def _body(name: str, event: str, at: str, data: Mapping[str, Any]) -> str:
    return canonical_json({"id": name, "event": event, "type": event, "created_at": at, "data": data})


class Outbox:
    """The queue of deliveries, and how far the audit log has been read for it.

    `dice` gives a number from 0 to 1, which spreads repetitions.
    """

    def __init__(self, authority: Authority, *, dice: Callable[[], float] = _dice) -> None:
        self._authority = authority
        self._store = authority.store
        self._dice = dice

    def fill(self) -> bool:
        """Read the log on and queue what is to be told; say whether there may be more."""
        seen = "SELECT seq FROM webhook_scan"
        head = audit.head(self._store).seq  # before the subscriptions: what comes meanwhile is read the next time
        behind = head - self._store.rows(seen)[0]["seq"]
        if behind <= 0:
            return False
        if not self._subscriptions():
            # Nobody is told what happened before they subscribed, so all of it is read. That is noted now and then.
            if behind >= _NOTED_EVERY:
                with self._store.write():
                    self._store.execute("UPDATE webhook_scan SET seq = ? WHERE seq < ?", (head, head))
            return False
        with self._store.write():
            # Under the lock: another process may have read on, and whoever has subscribed meanwhile is among these.
            first, subscriptions = self._store.rows(seen)[0]["seq"], self._subscriptions()
            rows = self._store.rows(
                "SELECT seq, entry FROM audit WHERE seq > ? ORDER BY seq LIMIT ?", (first, _MOST_READ)
            )
            for row in rows:
                try:
                    self._queue(json.loads(row["entry"]), subscriptions)
                except (AscendError, ValueError, LookupError, TypeError) as error:
                    # One that cannot be read, or whose action is gone, must not end the telling of all others.
                    log.error("audit entry %s is told to nobody, it cannot be read: %r", row["seq"], error)
            if rows:
                self._store.execute("UPDATE webhook_scan SET seq = ?", (rows[-1]["seq"],))
            return len(rows) == _MOST_READ

    def queue_head(self, head: audit.Head) -> None:
        """Queue the audit log's head for those who want it."""
        now = self._authority.now()
        for tenant, records in self._subscriptions().items():
            wanted = [record for record in records if HEAD in record["events"]]
            if wanted:
                name, at = f"evt_{head.seq}_{HEAD}", iso_time(now)
                body = _body(name, HEAD, at, {"head": str(head), "seq": head.seq, "hash": head.hash})
                rest = {"tenant": tenant, "name": name, "event": HEAD, "body": body, "since": now, "next_at": now}
                with self._store.write():
                    for record in wanted:
                        self._store.insert("deliveries", {"webhook": record["name"], **rest}, once=True)

    def _subscriptions(self) -> dict[str, list[dict[str, Any]]]:
        found = self._store.rows("SELECT DISTINCT tenant FROM records WHERE kind = ?", (WEBHOOK,))
        records = {row["tenant"]: self._authority.store.all(WEBHOOK, tenant=row["tenant"]) for row in found}
        active = {tenant: [one for one in rows if self._wants(one)] for tenant, rows in records.items()}
        return {tenant: rows for tenant, rows in active.items() if rows}

    def _queue(self, entry: Mapping[str, Any], subscriptions: Mapping[str, list[dict[str, Any]]]) -> None:
        events = events_of(entry)
        wanted = subscriptions.get(entry["tenant"], []) if events else []
        # What happened before somebody subscribed is not told.
        wanted = [one for one in wanted if one["created_at"] <= entry["at"]]
        if not wanted:
            return
        told = self._told(entry)
        now = self._authority.now()
        for event in events:
            for record in wanted:
                if event not in record["events"] or record["agent_id"] not in (None, told.get("agent_id")):
                    continue
                name = f"evt_{entry['seq']}_{event}"
                body = _body(name, event, entry["at"], told)
                delivery = {"webhook": record["name"], "tenant": entry["tenant"], "name": name, "event": event}
                self._store.insert("deliveries", {**delivery, "body": body, "since": now, "next_at": now}, once=True)

    def _told(self, entry: Mapping[str, Any]) -> dict[str, Any]:
        """Return what an event says: of an action its decision, never its parameters, which may hold secrets."""
        if entry["action_id"] is None:
            data = {name: value for name, value in entry["data"].items() if name not in ("kept", "stored")}
            return {"audit_event": entry["event"], "actor": entry["actor"], **data}
        row = self._then(entry)
        named = {name: row["submission"].get(name) for name in ("agent_id", "agent_name", "action_type", "resource")}
        return {
            "audit_event": entry["event"],
            "actor": entry["actor"],
            **named,
            **decision_fields(row),
            "outcome": (row["outcome"] or {}).get("status"),
        }

    def _then(self, entry: Mapping[str, Any]) -> dict[str, Any]:
        """Return an action as it was when an entry was written, by what the log says until there."""
        row = self._store.action(entry["action_id"], tenant=entry["tenant"])
        row |= {"approval": None, "approvals": [], "outcome": None}
        for one in self._store.audit_trail(entry["action_id"], tenant=entry["tenant"]):
            data = one["data"]
            if one["seq"] > entry["seq"]:
                break
            if one["event"] == "ACTION_SUBMITTED":
                row["status"] = data["decision"]
            elif one["event"] == "ACTION_APPROVAL_ADDED":
                row["approvals"] = [*row["approvals"], {**data, "at": one["at"]}]
            elif one["event"] in audit.DECIDED:
                row |= {"status": audit.DECIDED[one["event"]], "approval": data}
            elif one["event"] in ("ACTION_COMPLETED", "ACTION_FAILED"):
                row["outcome"] = data
            else:
                continue
            row["updated_at"] = one["at"]
        return row

    def due(self, webhook: str = "") -> list[dict[str, Any]]:
        """Return the deliveries to attempt now: of each subscription the first in its queue, if its time has come.

        With the name of a subscription, only its.
        """
        first = (
            "SELECT * FROM deliveries WHERE id = (SELECT min(id) FROM deliveries WHERE webhook = ?) AND next_at <= ?"
        )
        now = self._authority.now()
        if webhook:
            return [dict(row) for row in self._store.rows(first, (webhook, now))]
        # From one subscription to the next by the index, however long their queues are. In one statement PostgreSQL,
        # which cannot know how many there are, may rather read the whole table.
        heads = (
            "WITH RECURSIVE owed (webhook) AS (SELECT min(webhook) FROM deliveries UNION ALL"
            " SELECT (SELECT min(webhook) FROM deliveries WHERE webhook > owed.webhook) FROM owed"
            " WHERE owed.webhook IS NOT NULL)"
            " SELECT (SELECT min(id) FROM deliveries WHERE webhook = owed.webhook) FROM owed WHERE webhook IS NOT NULL"
        )
        with self._store.reading() as reader:
            numbers = [row[0] for row in reader.rows(heads)]
            chosen = "SELECT * FROM deliveries WHERE next_at <= ? AND id IN ({})"
            rows = [dict(row) for row in rows_of(reader, chosen, numbers, now)]
        return sorted(rows, key=itemgetter("next_at"))

    def claim(self, delivery: Mapping[str, Any]) -> bool:
        """Make a delivery this process's own for a while; say whether it was not another's already."""
        now = self._authority.now()
        # The first of its subscription still: what comes after it is told after it, whoever tells it.
        claimed = self._store.aside(
            "UPDATE deliveries SET next_at = ?, attempts = attempts + 1 WHERE id = (SELECT id FROM deliveries"
            " WHERE id = ? AND next_at <= ? AND id = (SELECT min(id) FROM deliveries AS queue WHERE queue.webhook = ?)"
            " /* skip locked */) RETURNING id",
            (now + _CLAIM, delivery["id"], now, delivery["webhook"]),
        )
        return bool(claimed)

    def subscription(self, delivery: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return to whom a delivery goes, or None if nobody wants it any more."""
        try:
            record = self._authority.store.get(WEBHOOK, delivery["webhook"], tenant=delivery["tenant"])
        except NotFoundError:
            return None
        return record if self._wants(record) else None

    def _wants(self, record: Mapping[str, Any]) -> bool:
        # Whoever has no valid key any more must hear nothing either.
        return bool(record["active"]) and self._store.is_valid(record["key_id"])

    def settle(self, delivery: Mapping[str, Any], attempt: Attempt | None) -> None:
        """Note what came of an attempt; None means that nobody wants the delivery any more."""
        now, tries = self._authority.now(), delivery["attempts"] + 1
        error = "" if attempt is None else attempt.failure
        status = (attempt and attempt.status) or 0
        refused = 300 <= status < 500 and status not in _TRY_AGAIN and tries >= _MOST_REFUSALS
        if error and not refused and now - delivery["since"] < _GIVEN_UP_AFTER:
            pause = min(_FIRST_PAUSE * 2 ** (tries - 1), _LONGEST_PAUSE) * (0.5 + 0.5 * self._dice())
            later = "UPDATE deliveries SET next_at = ?, error = ? WHERE id = ? RETURNING id"
            self._store.aside(later, (now + pause, error, delivery["id"]))
        elif not error:
            self._store.aside("DELETE FROM deliveries WHERE id = ? RETURNING id", (delivery["id"],))
        else:
            with self._store.write():
                self._store.execute("DELETE FROM deliveries WHERE id = ?", (delivery["id"],))
                data = {name: delivery[name] for name in ("event", "name")}
                data |= {"webhook_id": delivery["webhook"], "attempts": tries, "error": error}
                self._store.audit("WEBHOOK_GIVEN_UP", tenant=delivery["tenant"], actor="authority", data=data)


class Courier:
    """Delivers what the outbox holds, in the background of a serving authority; every `period` seconds it looks."""

    def __init__(
        self, authority: Authority, *, send: Callable[..., Attempt] = deliver, period: float = _PERIOD
    ) -> None:
        self._authority = authority
        self._send = send
        self._period = period
        self.outbox = Outbox(authority)
        self.on_attempt: Callable[[bool], None] = lambda _: None  # is told whether an attempt was taken
        self._busy: set[str] = set()  # subscriptions to which something is being delivered
        self._ended = False
        self._turns: dict[str, int] = {}  # when each subscription had its last turn, as far as it is owed anything
        self._count = 0

    def test(self, record: Mapping[str, Any], tenant: str) -> dict[str, Any]:
        """Send a test event at once, in the calling thread, and return what came of it (contract §3.2)."""
        name, event = f"evt_test_{record['name']}", "webhook.test"
        body = _body(name, event, iso_time(self._authority.now()), {"webhook_id": record["name"]})
        attempt = self._deliver(record, event, name, body)
        return {
            "success": attempt.delivered,
            "status_code": attempt.status,
            "response_time_ms": round(attempt.seconds * 1000, 1),
            "error": attempt.failure or None,
        }

    def _deliver(self, record: Mapping[str, Any], event: str, name: str, body: str) -> Attempt:
        headers = {"X-Ascend-Event": event, "X-Ascend-Delivery": name}
        return self._send(
            record["url"],
            body.encode(),
            headers,
            secret=record["secret"],
            at=self._authority.now(),
            private=self._authority.development,
        )

    async def run(self) -> None:
        """Read, queue and deliver until cancelled; what is under way then is delivered again after a restart."""
        watch = self._authority.store.watch()
        unread = False
        try:
            while True:
                with _logged():
                    # A change is seen once; what could not be read then is read the next time.
                    unread = await asyncio.to_thread(watch.changed) or unread
                    while unread:
                        unread = await asyncio.to_thread(self.outbox.fill)
                    await self._attempt_due()
                await asyncio.sleep(self._period)
        finally:
            watch.close()
            self._ended = True

    async def _attempt_due(self) -> None:
        # Whoever had a turn least lately comes first: sixteen slow subscribers must not keep all others waiting.
        due = await asyncio.to_thread(self.outbox.due)
        self._turns = {one["webhook"]: self._turns.get(one["webhook"], 0) for one in due}
        for delivery in sorted(due, key=lambda one: self._turns[one["webhook"]]):
            name = delivery["webhook"]
            if name not in self._busy and len(self._busy) < _MOST_AT_ONCE:
                self._count += 1
                self._turns[name] = self._count
                self._busy.add(name)
                # A thread that ends with the process: a slow subscriber must not hold up a stop.
                thread = threading.Thread(target=self._turn, args=(delivery,), daemon=True)
                thread.name = "ascend-authority-webhook"
                thread.start()

    def _turn(self, delivery: dict[str, Any]) -> None:
        """Deliver some of what one subscription is owed, one after the other, until one fails or nothing is left."""
        following: dict[str, Any] | None = delivery
        until = time.monotonic() + _TURN
        with _logged():
            while following is not None and self.outbox.claim(following):
                record, attempt = self.outbox.subscription(following), None
                if record is not None:
                    attempt = self._attempt(record, following)
                if self._ended:
                    break
                self.outbox.settle(following, attempt)
                if time.monotonic() >= until:
                    break
                following = next(iter(self.outbox.due(delivery["webhook"])), None)
        self._busy.discard(delivery["webhook"])

    def _attempt(self, record: Mapping[str, Any], delivery: Mapping[str, Any]) -> Attempt:
        try:
            attempt = self._deliver(record, delivery["event"], delivery["name"], delivery["body"])
        except Exception as error:  # a delivery that fails in any way is one attempt of its own subscription
            attempt = Attempt(error=f"{type(error).__name__}: {error}"[:200])
        self.on_attempt(attempt.delivered)
        if not attempt.delivered:
            log.warning("webhook %s was not delivered: %s", delivery["webhook"], attempt.failure)
        return attempt


@contextlib.contextmanager
def _logged() -> Iterator[None]:
    try:
        yield
    except StorageError as error:
        log.error("webhooks wait, the database failed: %s", error)
    except Exception:
        log.exception("webhooks wait, what comes next is tried again")
