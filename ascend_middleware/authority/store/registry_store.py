"""What an organisation keeps at its authority besides actions: agents, servers, models, rules, webhooks, components."""

from __future__ import annotations

import contextlib
import json
import threading
from typing import TYPE_CHECKING, Any, Final, TypeVar

from ascend_middleware.exceptions import ConflictError, NotFoundError

from .store import canonical_json, iso_time

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence

    from .store import Store

__all__ = ["AGENT", "APPROVERS", "COMPONENT", "MCP_SERVER", "MODEL", "POLICY", "SMART_RULE", "WEBHOOK", "Records"]

AGENT: Final = "agent"
APPROVERS: Final = "approvers"
MCP_SERVER: Final = "mcp_server"
MODEL: Final = "model"
POLICY: Final = "policy"
SMART_RULE: Final = "smart_rule"
WEBHOOK: Final = "webhook"
COMPONENT: Final = "component"

_MAX_CACHED: Final = 10_000
_MAX_NUMBER: Final = 2**63 - 1
_Value = TypeVar("_Value")


class Records:
    """Records of named kinds, each with a number, a name that is unique in its organisation and kind, and fields.

    Every method is for one organisation, the caller's.
    """

    def __init__(self, store: Store, *, now: Callable[[], float]) -> None:
        self._store = store
        self._now = now
        self._lock = threading.Lock()
        self._steady = threading.local()
        self._revision = -1
        self._cached: dict[Hashable, Any] = {}

    def now(self) -> str:
        """Return the time as the database keeps it."""
        return iso_time(self._now())

    # --- raw access for the modules that keep tables of their own

    def rows(self, statement: str, values: Sequence[object] = ()) -> list[sqlite3.Row]:
        """Return the rows of a query."""
        return self._store.rows(statement, values)

    def change(self, statement: str, values: Sequence[object] = ()) -> sqlite3.Cursor:
        """Run one statement within the current transaction, or in one of its own."""
        with self._store.write():
            memo = self._store.memo
            if memo is not None:
                memo.pop("revision", None)
            return self._store.execute(statement, values)

    def cached(self, key: Hashable, load: Callable[[], _Value]) -> _Value:
        """Return what `load` gave for a key, until any record or command changes, in whatever process."""
        steady = getattr(self._steady, "revision", None)
        revision = self._read_revision() if steady is None else steady
        with self._lock:
            if revision != self._revision or len(self._cached) > _MAX_CACHED:
                self._cached.clear()
                self._revision = revision
            elif key in self._cached:
                value: _Value = self._cached[key]
                return value
        value = load()
        with self._lock:
            # Loaded while something changed, it may be old already.
            if self._revision == revision:
                self._cached[key] = value
        return value

    @contextlib.contextmanager
    def steady(self) -> Iterator[None]:
        """Look only once, for the block, whether something has changed.

        For blocks within one transaction, where nobody else can change anything, that change no record themselves.
        """
        self._steady.revision = self._read_revision()
        try:
            yield
        finally:
            self._steady.revision = None

    def _read_revision(self) -> int:
        memo = self._store.memo
        if memo is None:
            return int(self.rows("SELECT n FROM revision")[0][0])
        if "revision" not in memo:
            memo["revision"] = int(self.rows("SELECT n FROM revision")[0][0])
        return int(memo["revision"])

    # --- records

    def add(self, kind: str, name: str, fields: Mapping[str, Any], *, tenant: str, key_id: int) -> dict[str, Any]:
        """Store a new record.

        Raises:
            ConflictError: there is one of that name; for agents also if another organisation has it.
        """
        now = self.now()
        with self._store.write():
            taken = "kind = ? AND name = ?" + ("" if kind == AGENT else " AND tenant = ?")
            values = (kind, name) if kind == AGENT else (kind, name, tenant)
            if self.rows(f"SELECT 1 FROM records WHERE {taken}", values):  # noqa: S608 - columns are ours
                raise ConflictError(f"there is a {kind} {name!r} already")
            self.change(
                "INSERT INTO records (tenant, kind, name, fields, key_id, created_at, updated_at)"
                " VALUES (?, ?, ?, ?, ?, ?, ?)",
                (tenant, kind, name, canonical_json(fields), key_id, now, now),
            )
            return self.get(kind, name, tenant=tenant)

    def get(self, kind: str, name: str, *, tenant: str) -> dict[str, Any]:
        """Return a record with its `id`, `name`, `key_id` and times; raise `NotFoundError` if there is none."""
        found = self.rows("SELECT * FROM records WHERE tenant = ? AND kind = ? AND name = ?", (tenant, kind, name))
        if not found:
            raise NotFoundError(f"there is no {kind} {name!r}")
        return _record(found[0])

    def numbered(self, kind: str, number: int, *, tenant: str) -> dict[str, Any]:
        """Return a record by its number; raise `NotFoundError` if there is none."""
        found = self.rows(
            "SELECT * FROM records WHERE id = ? AND tenant = ? AND kind = ?", (min(number, _MAX_NUMBER), tenant, kind)
        )
        if not found:
            raise NotFoundError(f"there is no {kind} {number}")
        return _record(found[0])

    def all(self, kind: str, *, tenant: str) -> list[dict[str, Any]]:
        """Return every record of a kind, oldest first."""
        rows = self.rows("SELECT * FROM records WHERE tenant = ? AND kind = ? ORDER BY id", (tenant, kind))
        return [_record(row) for row in rows]

    def page(self, kind: str, *, tenant: str, limit: int, offset: int) -> tuple[list[dict[str, Any]], int]:
        """Return one page of a kind, oldest first, and the total."""
        total = self.rows("SELECT count(*) FROM records WHERE tenant = ? AND kind = ?", (tenant, kind))[0][0]
        rows = self.rows(
            "SELECT * FROM records WHERE tenant = ? AND kind = ? ORDER BY id LIMIT ? OFFSET ?",
            (tenant, kind, limit, offset),
        )
        return [_record(row) for row in rows], total

    def update(self, record: Mapping[str, Any], fields: Mapping[str, Any], *, tenant: str) -> dict[str, Any]:
        """Change some of a record's fields and return it."""
        with self._store.write():
            current = self.rows("SELECT * FROM records WHERE id = ? AND tenant = ?", (record["id"], tenant))
            if not current:
                raise NotFoundError("the record is gone")
            kept = {**json.loads(current[0]["fields"]), **fields}
            self.change(
                "UPDATE records SET fields = ?, updated_at = ? WHERE id = ? AND tenant = ?",
                (canonical_json(kept), self.now(), record["id"], tenant),
            )
            return self.numbered(current[0]["kind"], record["id"], tenant=tenant)

    def remove(self, record: Mapping[str, Any], *, tenant: str) -> None:
        """Delete a record."""
        self.change("DELETE FROM records WHERE id = ? AND tenant = ?", (record["id"], tenant))

    def organization_id(self, tenant: str) -> int:
        """Return the number by which messages name an organisation."""
        found = self.rows("SELECT id FROM organizations WHERE tenant = ?", (tenant,))
        if found:
            return int(found[0][0])
        with self._store.write():
            self.change("INSERT OR IGNORE INTO organizations (tenant) VALUES (?)", (tenant,))
            return int(self.rows("SELECT id FROM organizations WHERE tenant = ?", (tenant,))[0][0])


def _record(row: sqlite3.Row) -> dict[str, Any]:
    return {
        **json.loads(row["fields"]),
        "id": row["id"],
        "name": row["name"],
        "key_id": row["key_id"],
        "created_at": row["created_at"],
        "updated_at": row["updated_at"],
    }
