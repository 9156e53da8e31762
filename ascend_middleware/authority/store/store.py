"""What the authority stores: keys, actions, answers to repeat, and the audit log, in one database."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from ascend_middleware.exceptions import ConflictError, NotFoundError

from ..cursors import Cursor
from ..keys import DEFAULT_TENANT, Credential, Role
from ..policy.approvers import EXPIRY, OBSERVED
from .audit import canonical_json, iso_time, new_salt
from .database import Row, open_engine
from .engine import Engine, stored_json
from .kept_answers import KEEP_ANSWERS
from .listing import Listing, read_page
from .patience import in_pieces, let_pass
from .submissions import Submissions
from .tallies import Counted

__all__ = ["SORT_FIELDS", "Store", "canonical_json", "default_database", "iso_time", "issue_key"]

SORT_FIELDS: Final = ("created_at", "updated_at", "risk_score", "id")
_MAX_ID: Final = 2**63 - 1
_SKIP_LOCKED: Final = "/* skip locked */"
_EXPIRED_AT_ONCE: Final = 500
_ASKED_AT_ONCE: Final = 500
_EXPIRED: Final = {"by": "authority", "key": None, "comments": "", "via": EXPIRY}


def default_database(policy_path: str | Path) -> Path:
    """Return where the database of a policy file is unless told: beside it, `policy.toml` → `policy.db`."""
    return Path(policy_path).with_suffix(".db")


def issue_key(
    database: str | Path, *, role: str, name: str, tenant: str = DEFAULT_TENANT, now: Callable[[], float] = time.time
) -> str:
    """Store a new key in a database, which is made if need be, and return it; it cannot be shown again.

    Args:
        database: the file.
        role: super_admin, admin or user.
        name: whose key it is, for the audit log.
        tenant: the organisation of the key.
        now: seconds since the epoch.
    """
    with contextlib.closing(Store.open(database, now=now)) as store:
        return store.issue_key(name=name, role=Role(role), tenant=tenant)


class Store(Submissions):
    """What the authority remembers; every change happens within `write()`, a decision and its audit entry in the same.

    `now` gives seconds since the epoch; for the rest see `Database`.
    """

    def __init__(self, engine: Engine, *, now: Callable[[], float]) -> None:
        super().__init__(engine, now=now)
        self._listeners: list[Callable[[], None]] = []
        # Says whether a decision waits to be written; what is done in the background lets it go first.
        self.urgent: Callable[[], bool] = lambda: False
        self._asides = threading.Lock()

    @classmethod
    def open(cls, path: str | Path, *, now: Callable[[], float], create: bool = True) -> Store:
        """Open the database, or make it; raise `ConfigurationError` if that cannot be done."""
        return cls(open_engine(path, create=create), now=now)

    # --- actions

    def add_action(
        self,
        submission: Mapping[str, Any],
        judgement: Mapping[str, Any],
        *,
        risk: tuple[int, str],
        by: Credential,
        texts: tuple[str, str],
    ) -> dict[str, Any]:
        """Store a decided submission and return the action; `texts` are the canonical JSON of it and its judgement."""
        now, status = self.moment(), judgement["decision"]
        if status == "pending" and judgement.get(OBSERVED):
            status = OBSERVED  # it has run already: nobody is asked, so it stands in nobody's queue
        row: dict[str, Any] = {
            "tenant": by.tenant,
            "agent_id": submission["agent_id"],
            "status": status,
            "risk_score": risk[0],
            "risk_level": risk[1],
            "created_at": now,
            "updated_at": now,
            "submitted_by": by.key_id,
            "submitter": by.name,
            "session": submission.get("orchestration_session_id"),
            "submission": texts[0],
            "salt": new_salt(),
            "judgement": texts[1],
            "expires_at": (judgement.get("approval") or {}).get("expires_at"),
        }
        with self.write():
            number = self.insert_action(row)
            self.count(Counted(1, by.tenant, now, status, risk[1], risk[0], row["agent_id"]))
        stored = {"submission": submission, "judgement": judgement, "approval": None, "outcome": None}
        return {"id": number, **row, **stored, "approvals": []}

    def action(self, action_id: int, *, tenant: str) -> dict[str, Any]:
        """Return a stored action; raise `NotFoundError` also where it is another tenant's.

        One that nobody decided about in time is denied when it is looked at, if not before.
        """
        found = self.rows("SELECT * FROM actions WHERE id = ? AND tenant = ?", (min(action_id, _MAX_ID), tenant))
        if not found:
            raise NotFoundError(f"there is no action {action_id}")
        row = found[0]
        if row["status"] == "pending" and row["expires_at"] and row["expires_at"] <= self.moment():
            self.expire(only=action_id)  # this one, however many others are due
            return self.action(action_id, tenant=tenant)
        return self._whole(found)[0]

    def _whole(self, rows: Sequence[Row]) -> list[dict[str, Any]]:
        """Return actions unpacked, each with the approvals that it has so far."""
        now = self.moment()
        whole: list[dict[str, Any]] = [{**dict(row), "approvals": []} for row in rows]
        for row in in_pieces(whole):
            if row["status"] == "pending" and row["expires_at"] and row["expires_at"] <= now:
                # Denied, though that is not stored yet.
                approval = {"decision": "denied", "at": row["expires_at"], **_EXPIRED}
                row |= {"status": "denied", "updated_at": row["expires_at"], "approval": canonical_json(approval)}
            for column in ("submission", "judgement", "approval", "outcome"):
                if row[column] is not None:
                    row[column] = stored_json(row[column], f"{column} of action {row['id']}")
            if (row["judgement"].get("approval") or {}).get("count", 1) > 1:
                given = self.rows(
                    'SELECT approver AS "by", key_id AS "key", comments, at FROM approvals WHERE action_id = ?'
                    " ORDER BY at, approver",
                    (row["id"],),
                )
                row["approvals"] = [dict(one) for one in given]
        return whole

    def actions(
        self,
        *,
        tenant: str,
        equal: Mapping[str, str] | None = None,
        since: str | None = None,
        before: str | None = None,
        sort: str = "",
        descending: bool = True,
        limit: int = 50,
        offset: int = 0,
        cursor: Cursor | None = None,
    ) -> Listing:
        """Return one page of a tenant's actions; `since` is inclusive, `before` exclusive.

        Unless `sort` says otherwise, they are in the order in which they came. Raises `ValueError` for a cursor
        of another order.
        """
        # Between two times they are found, and so ordered, by their times.
        order = sort or ("created_at" if since or before else "id")
        if order not in SORT_FIELDS:
            raise ValueError(f"cannot sort by {order!r}")
        bounds: dict[str, object] = {"tenant = ?": tenant, "created_at >= ?": since, "created_at < ?": before}
        bounds |= {f"{column} = ?": (equal or {}).get(column) for column in ("status", "risk_level", "agent_id")}
        if (equal or {}).get("status") == "pending":
            # Those whose time is over are denied in a moment; a list does not wait for it.
            bounds["(expires_at IS NULL OR expires_at > ?)"] = self.moment()
        where = {clause: value for clause, value in bounds.items() if value is not None}
        page: dict[str, Any] = {"limit": limit, "offset": offset, "cursor": cursor, "descending": descending}
        with self.snapshot() as reader:
            found = read_page(reader, "actions", where, order="" if order == "id" else order, **page)
        return found._replace(rows=self._whole(found.rows))

    def add_approval(self, row: Mapping[str, Any], *, by: Credential, comments: str, via: str) -> dict[str, Any]:
        """Record one person's approval of an action that needs more of them, and return the action."""
        now = self.moment()
        with self.write():
            key_id = by.key_id if by.key_id > 0 else None
            given = {"action_id": row["id"], "approver": by.name, "key_id": key_id, "comments": comments, "at": now}
            self.insert("approvals", given)
            self.execute("UPDATE actions SET updated_at = ? WHERE id = ?", (now, row["id"]))
            data = {"by": by.name, "key": by.key_id, "comments": comments, "via": via}
            event = "ACTION_APPROVAL_ADDED"
            self.audit(event, tenant=by.tenant, actor=by.name, action_id=row["id"], data=data, at=now)
            return self.action(row["id"], tenant=by.tenant)

    def settle(
        self, action_id: int, word: str, *, tenant: str, event: str, actor: str, data: Mapping[str, Any]
    ) -> None:
        """Give a pending action its decision, approved or denied; raise `ConflictError` if it is not pending any more.

        What is kept of it, and told in the audit log, is `data`, with `by`, `key` and `comments`.
        """
        with self.write():
            chosen = "SELECT id FROM actions WHERE id = ? AND status = 'pending'"
            if not self._settle(chosen, (action_id,), word, event=event, actor=actor, data=data, tenant=tenant):
                raise ConflictError(f"action {action_id} is not pending any more")

    def _settle(
        self,
        chosen: str,
        values: tuple[object, ...],
        word: str,
        *,
        event: str,
        actor: str,
        data: Mapping[str, Any],
        tenant: str | None = None,
    ) -> int:
        """Give the same decision to all pending actions that a statement selects, and return how many there were."""
        now = self.moment()
        approval = {"decision": word, "at": now, **data}
        changed = self.rows(
            f"UPDATE actions SET status = ?, updated_at = ?, approval = ? WHERE id IN ({chosen})"  # noqa: S608 - ours
            " RETURNING id, tenant, created_at, risk_level, risk_score",
            (word, now, canonical_json(approval), *values),
        )
        for number, whose, since, level, score in sorted(map(tuple, changed)):
            self.count(Counted(-1, whose, since, "pending", level, score))
            self.count(Counted(1, whose, since, word, level, score))
            self.audit(event, tenant=tenant or whose, actor=actor, action_id=number, data=approval, at=now)
        if changed:
            self.after_commit(self._tell)
        return len(changed)

    def expire(self, *, only: int | None = None) -> int:
        """Deny the pending actions that nobody decided about in time, or one of them; return how many."""
        due = "SELECT id FROM actions WHERE status = 'pending' AND expires_at <= ?"
        values: tuple[object, ...] = (self.moment(),)
        if only is not None:
            due, values = f"{due} AND id = ?", (*values, only)
        due = f"{due} LIMIT {_EXPIRED_AT_ONCE}"
        count = 0
        while self.rows(due, values):
            # Some hundreds to a transaction and in one statement, so that others have their turn. What was submitted
            # is not read: one that is damaged keeps no other waiting.
            if only is None:
                let_pass(self.urgent)
            with self.write():
                count += self._settle(due, values, "denied", event="ACTION_EXPIRED", actor="authority", data=_EXPIRED)
        return count

    def conclude(self, action_id: int, outcome: Mapping[str, Any], *, tenant: str, actor: str) -> None:
        """Record what became of an approved action; its `at` says when."""
        now = str(outcome["at"])
        with self.write():
            self.execute(
                "UPDATE actions SET outcome = ?, updated_at = ? WHERE id = ? AND tenant = ?",
                (canonical_json(outcome), now, action_id, tenant),
            )
            event = f"ACTION_{str(outcome['status']).upper()}"
            self.audit(event, tenant=tenant, actor=actor, action_id=action_id, data=dict(outcome), at=now)

    def decided(self, action_ids: Sequence[int]) -> list[int]:
        """Return those of the actions that are not pending."""
        found: list[int] = []
        for first in range(0, len(action_ids), _ASKED_AT_ONCE):
            some = tuple(action_ids[first : first + _ASKED_AT_ONCE])
            places = ", ".join("?" * len(some))
            statement = f"SELECT id FROM actions WHERE id IN ({places}) AND status <> 'pending'"  # noqa: S608
            found += [row["id"] for row in self.rows(statement, some)]
        return found

    def on_decision(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Call `listener` after each decision that is stored through this object; return what ends that.

        It may be called from any thread, and must be quick.
        """
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def _tell(self) -> None:
        for listener in tuple(self._listeners):
            listener()

    # --- in the background

    def aside(self, statement: str, values: Sequence[object] = ()) -> list[Row]:
        """Run one statement that ends with RETURNING, of what the audit log tells nothing of; outside of `write`.

        Where several replicas share a database it waits for none of them, and `/* skip locked */`, where rows are
        chosen, leaves out what another one is at.
        """
        if self.engine.fleet is not None:
            return self.engine.fleet.aside(statement.replace(_SKIP_LOCKED, "FOR UPDATE SKIP LOCKED"), values)
        # One at a time, and after the decisions that wait: for such a statement, none waits longer than one takes.
        with self._asides:
            let_pass(self.urgent)
            with self.write():
                return self.rows(statement.replace(_SKIP_LOCKED, ""), values)

    # --- answers to repeat

    def answer_for(self, name: str, *, key_id: int, path: str) -> tuple[str, int, bytes] | None:
        """Return fingerprint, status and body of the answer given under an idempotency key; only within `write`.

        One that is too old makes room for another.
        """
        place, known = (key_id, path, name), self._running().known
        if place not in known.get("answers", ()):
            self.look_up_answers([place])
        found = known["answers"][place]
        if found is not None and found["at"] < self.now() - KEEP_ANSWERS:
            self.execute("DELETE FROM answers WHERE key_id = ? AND path = ? AND name = ?", place)
            return None
        return None if found is None else (found["fingerprint"], found["status"], bytes(found["body"]))

    def keep_answer(self, name: str, fingerprint: str, status: int, body: bytes, *, by: Credential, path: str) -> None:
        """Keep an answer for its repetition, and forget those that are too old.

        The audit log tells it with what was done. Where it tells of nothing, nothing was done that matters: then to
        do it again is as good, and nothing is kept.
        """
        with self.write():
            now = self.now()
            row = {"key_id": by.key_id, "path": path, "name": name, "fingerprint": fingerprint, "status": status}
            row |= {"body": body, "at": now}
            told = self.tell_answer(row, by=by)
            if told is None:
                return
            if self._sweeps(now):
                self._answers_swept = now
                self.execute("DELETE FROM answers WHERE at < ?", (now - KEEP_ANSWERS,))
            self.insert_late("answers", {**row, "seq": told}, key=(by.key_id, path, name))
