"""A database as it is after years: so many actions with their audit log, made at once from what real ones look like."""

import json
import random
from datetime import datetime

from ascend_middleware.authority.store.audit import canonical_json, digest, iso_time, written
from ascend_middleware.authority.store.erasure import rest_of
from ascend_middleware.authority.store.tallies import Counted

from .desk import Desk

# What is read of a grown database, by the path, and each of these queries.
READS = {
    "/api/v1/actions": [
        "",
        "sort=created_at",
        "sort=updated_at",
        "sort=risk_score",
        "status=denied",
        "risk_level=high",
    ],
    "/api/governance/pending-actions": [""],
    "/audit/logs": [""],
    "/api/registry/agents": [""],
    "/api/analytics/realtime/metrics": [""],
    "/api/analytics/executive/dashboard": ["days=7"],
    "/api/analytics/trends": ["days=7"],
}

SMALL = "other"  # the small organisation
_DAY = 86_400.0
_BATCH = 5000
_TOLD = 500  # records of which one entry tells
_HEAD = "UPDATE audit_head SET seq = ?, hash = ?"


def _samples():
    """Return what is stored of one action of each kind: its row and its entries."""
    desk = Desk()
    desk.submit("data_access")
    desk.submit("database_schema")
    for _ in range(2):
        desk.submit("transaction", amount=5000)
    desk.post("/api/v1/actions/3/approve", {"comments": "fine"}, key="admin")
    rows = [dict(row) for row in desk.store.rows("SELECT * FROM actions ORDER BY id")]
    entries = [json.loads(row["entry"]) for row in desk.store.rows("SELECT entry FROM audit ORDER BY seq")]
    desk.authority.close()
    return [(row, [entry for entry in entries if entry["action_id"] == row["id"]]) for row in rows]


class Growth:
    """Fills a desk's database; whatever is random is so by one seed.

    Args:
        desk: whose database; its time is the end of the days over which the actions spread.
        agents: how many act in the large organisation.
        days: over how many days.
        small: one in so many actions is of the small organisation.
    """

    def __init__(self, desk, *, agents=10_000, days=30, small=1000):
        self.desk, self.agents, self.days, self.small = desk, agents, days, small
        self.samples = _samples()
        self.random = random.Random(7)
        self.keys = {key["tenant"]: key for key in desk.store.list_keys() if key["role"] == "user"}
        self.keys[SMALL] = next(key for key in desk.store.list_keys() if key["tenant"] == SMALL)
        self._count = desk.store.rows("SELECT coalesce(max(id), 0) FROM actions")[0][0]
        self._head = tuple(desk.store.rows("SELECT seq, hash FROM audit_head")[0])

    def actions(self, count):
        """Add decided actions, the oldest first."""
        begin, step = self.desk.time - self.days * _DAY, self.days * _DAY / max(count, 1)
        self._add((begin + number * step, self.random.choices(range(3), (80, 10, 10))[0]) for number in range(count))

    def overdue(self, count):
        """Add actions for which the time of a decision is over."""
        self._add((self.desk.time - 8 * _DAY + number / 1000, 3) for number in range(count))

    def _add(self, wanted):
        rows, entries = [], []
        for at, kind in wanted:
            self._one(at, *self.samples[kind], rows, entries)
            if len(rows) == _BATCH:
                self._store(rows, entries)
        self._store(rows, entries)

    def _one(self, at, row, told, rows, entries):
        self._count += 1
        number, small = self._count, self._count % self.small == 0
        tenant = SMALL if small else "default"
        key = self.keys[tenant]
        agent = f"{'small' if small else 'agent'}-{self.random.randrange(7 if small else self.agents):05}"
        shift = at - datetime.fromisoformat(row["created_at"]).timestamp()

        def moved(text):
            return text and iso_time(datetime.fromisoformat(text).timestamp() + shift)

        fields = json.loads(row["submission"])
        fields |= {"agent_id": agent, "agent_name": agent}
        submission = canonical_json(fields)
        judgement = json.loads(row["judgement"])
        approval = row["approval"] and json.loads(row["approval"])
        for terms in (judgement.get("approval"), approval):
            for name in ("expires_at", "at"):
                if terms and name in terms:
                    terms[name] = moved(terms[name])
        for entry in told:
            data = {**entry["data"]}
            if entry["event"] == "ACTION_SUBMITTED":
                data |= {
                    "agent_id": agent,
                    "submission": digest(submission, row["salt"]),
                    "judgement": digest(canonical_json(judgement)),
                    "key": key["id"],
                    "rest": digest(canonical_json(rest_of(fields))),
                }
                if "approval" in data:
                    data["approval"] = judgement["approval"]
            elif approval:
                data = approval
            actor = key["name"] if entry["event"] == "ACTION_SUBMITTED" else entry["actor"]
            made = {"tenant": tenant, "action_id": number, "at": moved(entry["at"]), "actor": actor, "data": data}
            entries.append(self._chain({**entry, **made}))
        rows.append(
            {
                **row,
                **{name: moved(row[name]) for name in ("created_at", "updated_at", "expires_at")},
                "id": number,
                "tenant": tenant,
                "agent_id": agent,
                "submission": submission,
                "submitted_by": key["id"],
                "submitter": key["name"],
                "judgement": canonical_json(judgement),
                "approval": approval and canonical_json(approval),
            }
        )

    def _chain(self, entry):
        seq, previous = self._head[0] + 1, self._head[1]
        told = {"seq": seq, **{name: entry[name] for name in ("action_id", "at", "tenant", "event", "actor")}}
        text, mark = written(previous, told, entry["data"])
        self._head = seq, mark
        columns = {"seq": seq, "entry": text, "tenant": entry["tenant"], "action_id": entry["action_id"]}
        return {**columns, "previous": previous, "hash": mark}

    def _store(self, rows, entries):
        if rows:
            self._insert("actions", rows)
            with self.desk.store.write():
                for row in rows:
                    values = (
                        row[name] for name in ("tenant", "created_at", "status", "risk_level", "risk_score", "agent_id")
                    )
                    self.desk.store.count(Counted(1, *values))
            self._insert("audit", entries)
            with self.desk.store.write():
                self.desk.store.advance(*self._head)
        rows.clear()
        entries.clear()

    def _insert(self, table, rows):
        with self.desk.store.write():
            for row in rows:
                self.desk.store.insert(table, row)

    def registered(self, count):
        """Register agents."""
        now = self.desk.store.moment()
        fields = canonical_json({"display_name": "An agent", "agent_type": "supervised", "status": "active"})
        record = {
            "tenant": "default",
            "kind": "agent",
            "fields": fields,
            "key_id": 1,
            "created_at": now,
            "updated_at": now,
        }
        for first in range(0, count, _TOLD):
            with self.desk.store.write():
                for number in range(first, min(first + _TOLD, count)):
                    row = {**record, "name": f"agent-{number:05}"}
                    told = {**row, "fields": digest(fields)}
                    self.desk.store.told("records", self.desk.store.insert("records", row), **told)
        self._head = self.desk.store.tip()

    def queued(self, count, *, webhooks=20):
        """Queue deliveries, as many for each webhook."""
        now = self.desk.store.now()
        delivery = {"tenant": "default", "event": "action.approved", "body": "{}", "since": now, "next_at": now}
        self._insert(
            "deliveries",
            ({**delivery, "webhook": f"hook-{n % webhooks:03}", "name": f"evt_{n}"} for n in range(count)),
        )
