"""What an organisation keeps at its authority besides actions: agents, servers, models, rules, webhooks, components."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from ascend_middleware.exceptions import ConflictError, NotFoundError

from ..cursors import Cursor
from .audit import canonical_json, digest, iso_time
from .database import Database, Row
from .engine import stored_json
from .listing import Listing, read_page

__all__ = ["AGENT", "APPROVERS", "COMPONENT", "MCP_SERVER", "MODEL", "POLICY", "SMART_RULE", "WEBHOOK", "Records"]

AGENT: Final = "agent"
APPROVERS: Final = "approvers"
MCP_SERVER: Final = "mcp_server"
MODEL: Final = "model"
POLICY: Final = "policy"
SMART_RULE: Final = "smart_rule"
WEBHOOK: Final = "webhook"
COMPONENT: Final = "component"

_MAX_NUMBER: Final = 2**63 - 1


class Records(Database):
    """Records of named kinds, each with a number, a name that is unique in its organisation and kind, and fields."""

    def moment(self) -> str:
        """Return the time as it is stored."""
        return iso_time(self.now())

    def add(self, kind: str, name: str, fields: Mapping[str, Any], *, tenant: str, key_id: int) -> dict[str, Any]:
        """Store a new record; raise `ConflictError` if there is one of its name, of agents also elsewhere."""
        now = self.moment()
        with self.write():
            taken = "kind = ? AND name = ?" + ("" if kind == AGENT else " AND tenant = ?")
            values = (kind, name) if kind == AGENT else (kind, name, tenant)
            if self.rows(f"SELECT 1 FROM records WHERE {taken}", values):  # noqa: S608 - columns are ours
                raise ConflictError(f"there is a {kind} {name!r} already")
            row = {"tenant": tenant, "kind": kind, "name": name, "fields": canonical_json(fields), "key_id": key_id}
            self.changed()
            number = self.insert("records", {**row, "created_at": now, "updated_at": now})
            self.told("records", number, **{**row, "fields": digest(row["fields"])}, created_at=now, updated_at=now)
            return self.get(kind, name, tenant=tenant)

    def get(self, kind: str, name: str, *, tenant: str) -> dict[str, Any]:
        """Return a record with its `id`, `name`, `key_id` and times; raise `NotFoundError` if there is none."""
        found = self._select("AND name = ?", tenant, kind, name)
        if not found:
            raise NotFoundError(f"there is no {kind} {name!r}")
        return found[0]

    def numbered(self, kind: str, number: int, *, tenant: str) -> dict[str, Any]:
        """Return a record by its number; raise `NotFoundError` if there is none."""
        found = self._select("AND id = ?", tenant, kind, min(number, _MAX_NUMBER))
        if not found:
            raise NotFoundError(f"there is no {kind} {number}")
        return found[0]

    def all(self, kind: str, *, tenant: str) -> list[dict[str, Any]]:
        """Return every record of a kind, oldest first."""
        return self._select("ORDER BY id", tenant, kind)

    def page(self, kind: str, *, tenant: str, limit: int, offset: int = 0, cursor: Cursor | None = None) -> Listing:
        """Return one page of a kind, oldest first; raise `ValueError` for a cursor of another list."""
        where = {"tenant = ?": tenant, "kind = ?": kind}
        with self.snapshot() as reader:
            found = read_page(reader, "records", where, limit=limit, offset=offset, cursor=cursor)
        return found.of(_record)

    def _select(self, more: str, *values: object) -> list[dict[str, Any]]:
        rows = self.rows(f"SELECT * FROM records WHERE tenant = ? AND kind = ? {more}", values)  # noqa: S608 - ours
        return [_record(row) for row in rows]

    def update(self, record: Mapping[str, Any], fields: Mapping[str, Any], *, tenant: str) -> dict[str, Any]:
        """Change some of a record's fields and return it."""
        with self.write():
            current = self.rows("SELECT * FROM records WHERE id = ? AND tenant = ?", (record["id"], tenant))
            if not current:
                raise NotFoundError("the record is gone")
            kept = {**stored_json(current[0]["fields"], f"fields of record {current[0]['id']}"), **fields}
            text, now = canonical_json(kept), self.moment()
            self.changed()
            self.execute(
                "UPDATE records SET fields = ?, updated_at = ? WHERE id = ? AND tenant = ?",
                (text, now, record["id"], tenant),
            )
            self.told("records", record["id"], tenant=tenant, fields=digest(text), updated_at=now)
            return self.numbered(current[0]["kind"], record["id"], tenant=tenant)

    def remove(self, record: Mapping[str, Any], *, tenant: str) -> None:
        """Delete a record."""
        with self.write():
            self.changed()
            self.execute("DELETE FROM records WHERE id = ? AND tenant = ?", (record["id"], tenant))
            self.told("records", record["id"], tenant=tenant, gone=True)

    def organization_id(self, tenant: str) -> int:
        """Return the number by which messages name an organisation."""
        statement = "SELECT id FROM organizations WHERE tenant = ?"
        found = self.rows(statement, (tenant,))
        if not found:
            with self.write():
                self.insert("organizations", {"tenant": tenant}, once=True)
                found = self.rows(statement, (tenant,))
                self.told("organizations", int(found[0][0]), tenant=tenant)
        return int(found[0][0])


def _record(row: Row) -> dict[str, Any]:
    columns = ("id", "name", "key_id", "created_at", "updated_at")
    return {
        **stored_json(row["fields"], f"fields of record {row['id']}"),
        **{column: row[column] for column in columns},
    }
