"""Keys, commands, records, sessions and what else is kept beside actions, compared with what the audit log says.

Entries tell what was stored with them: some events by their own words, all others in `stored`, a list of rows with
their columns, where long texts and secrets stand as hashes. Memory grows with the number of these rows, not of actions.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

import msgspec

from .audit import Entry, digest, read_entry
from .engine import Reader, Row
from .findings import Finding, gone, unknown, unlike
from .registry_store import AGENT, APPROVERS, COMPONENT, MCP_SERVER, MODEL, POLICY, SMART_RULE, WEBHOOK

__all__ = ["Facts"]

# By which events of their own words earlier versions told that a record was added, and any version that it was
# removed: the kind, and the name's field.
_ADDED: Final = {
    "AGENT_REGISTERED": (AGENT, "agent_id"),
    "APPROVERS_SET": (APPROVERS, "level"),
    "MCP_SERVER_REGISTERED": (MCP_SERVER, "mcp_server"),
    "MODEL_REGISTERED": (MODEL, "model_id"),
    "POLICY_CREATED": (POLICY, "name"),
    "SMART_RULE_CREATED": (SMART_RULE, "name"),
    "SUPPLY_CHAIN_COMPONENT_REGISTERED": (COMPONENT, "component_id"),
    "WEBHOOK_CREATED": (WEBHOOK, "webhook_id"),
}
_REMOVED: Final = {
    "AGENT_DEREGISTERED": (AGENT, "agent_id"),
    "APPROVERS_CLEARED": (APPROVERS, "level"),
    "MCP_SERVER_REMOVED": (MCP_SERVER, "mcp_server"),
    "MODEL_REMOVED": (MODEL, "model_id"),
    "POLICY_REMOVED": (POLICY, "name"),
    "SMART_RULE_REMOVED": (SMART_RULE, "name"),
    "WEBHOOK_REMOVED": (WEBHOOK, "webhook_id"),
}


class _Table(NamedTuple):
    """A table: by which columns an entry names a row, and which columns stand in it as hashes.

    `fleeting`: rows go without an entry. `old`: earlier versions told nothing of its rows.
    """

    name: str
    key: tuple[str, ...]
    hashed: frozenset[str] = frozenset()
    fleeting: bool = False
    old: bool = False


_TABLES: Final = (
    _Table("keys", ("id",)),
    _Table("commands", ("command_id",)),
    _Table("acks", ("command_id", "agent_id"), old=True),
    _Table("records", ("id",), hashed=frozenset({"fields"})),
    _Table("organizations", ("id",), old=True),
    _Table("secrets", ("name",), hashed=frozenset({"value"}), old=True),
    _Table("sessions", ("hash",), fleeting=True, old=True),
)
# What an entry of today says of a key's hash, the whole of it.
_WHOLE_HASH: Final = 64


_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder(tuple[int, dict[str, Any]]).decode


class Facts:
    """What the log says stands in the tables.

    Attributes:
        old: whether an earlier version wrote some of the log.
        untold: how many rows were stored by an earlier version, whose log does not tell all that stands in them.
    """

    def __init__(self) -> None:
        # Packed: there may be many.
        self._rows: dict[str, dict[str, bytes]] = {table.name: {} for table in _TABLES}
        self._named: set[tuple[str, str, str]] = set()
        self.old = False
        self.untold = 0

    def add(self, row: Row) -> None:
        """Take the next entry that is about no action."""
        try:
            entry = read_entry(row["entry"])
            self._take(row["seq"], entry)
        except (msgspec.MsgspecError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return  # told as a changed entry

    def _take(self, seq: int, entry: Entry) -> None:
        event, data = entry.event, entry.data
        if event.startswith("KEY_"):
            self._key(seq, entry)
        elif event == "AGENT_COMMAND_ISSUED":
            self._command(seq, entry)
        elif event == "SIGNED_OUT_EVERYWHERE":
            self._end_sessions(data["key"])
            self._put(seq, "keys", data["key"], {"token_round": data.get("round")})
        elif event in _ADDED and "stored" not in data:
            kind, name = _ADDED[event]
            self._named.add((entry.tenant, kind, str(data[name])))
            self.old = True
        elif event in _REMOVED:
            kind, name = _REMOVED[event]
            self._named.discard((entry.tenant, kind, str(data[name])))
        for stored in data.get("stored", ()):
            columns = {name: value for name, value in stored.items() if name not in ("table", "id")}
            if columns.pop("gone", False):
                self._rows[stored["table"]].pop(str(stored["id"]), None)
            else:
                self._put(seq, stored["table"], stored["id"], columns)

    def _put(self, seq: int, table: str, number: object, columns: Mapping[str, Any]) -> None:
        rows, key = self._rows[table], str(number)
        known = _decode(rows[key])[1] if key in rows else {}
        rows[key] = _encode((seq, {**known, **columns}))

    def _key(self, seq: int, entry: Entry) -> None:
        data = entry.data
        if entry.event == "KEY_REVOKED":
            self._put(seq, "keys", data["key"], {"revoked_at": data["revoked_at"]} if "revoked_at" in data else {})
        elif entry.event == "KEY_ROTATED":
            self._put(seq, "keys", data["key"], {"expires_at": data["expires_at"]})
            self._hand_over(seq, data["key"], data["by"])
        elif entry.event == "KEY_ISSUED":
            mark = data["fingerprint"]
            columns = {"tenant": entry.tenant, "name": data["name"], "role": data["role"], "hash": mark}
            columns |= {"lookup": mark[:8], "revoked_at": None}
            if len(mark) == _WHOLE_HASH:
                columns |= {"created_at": entry.at, "expires_at": data["expires_at"], "token_round": 0}
                columns["agents"] = json.dumps(data["agents"])
            else:
                self.old = True
            self._put(seq, "keys", data["key"], columns)

    def _hand_over(self, seq: int, old: int, new: int) -> None:
        """Give what a key registered to the key that replaces it."""
        for key, packed in self._rows["records"].items():
            columns = _decode(packed)[1]
            if columns.get("key_id") == old and columns.get("kind") in (AGENT, WEBHOOK):
                self._rows["records"][key] = _encode((seq, {**columns, "key_id": new}))

    def _command(self, seq: int, entry: Entry) -> None:
        data = entry.data
        given = {name: data[name] for name in ("max_per_minute", "mcp_server") if name in data}
        columns = {name: data[name] for name in ("command_type", "target_type", "agent_id", "reason", "issued_via")}
        columns |= {"tenant": entry.tenant, "issued_by": entry.actor, "parameters": json.dumps(given)}
        columns["mcp_server"] = data.get("mcp_server")
        if "number" in data:
            columns |= {"seq": data["number"], "created_at": entry.at}
        self._put(seq, "commands", data["command_id"], columns)

    def _end_sessions(self, key: int) -> None:
        rows = self._rows["sessions"]
        for name in [name for name, packed in rows.items() if _decode(packed)[1]["key_id"] == key]:
            del rows[name]

    # --- the comparison

    def compared(self, reader: Reader, *, complete: bool) -> Iterator[Finding]:
        """Yield what stands in the tables and is not what the log says; once.

        Not `complete` is a log of which entries are elsewhere: of rows that no entry tells nothing can be said then.
        """
        for table in _TABLES:
            rows = self._rows[table.name]
            order = ", ".join(table.key)
            for row in reader.each(f"SELECT * FROM {table.name} ORDER BY {order}"):  # noqa: S608 - names are ours
                name = "/".join(str(row[column]) for column in table.key)
                packed = rows.pop(name, None)
                if packed is not None:
                    yield from _differences(table, row, name, *_decode(packed))
                elif (not complete) or self._earlier(table, row):
                    self.untold += 1
                else:
                    yield unknown(table.name, name)
            if table.fleeting:
                continue
            for name, packed in rows.items():
                yield gone(_decode(packed)[0], table.name, name)
            if table.name == "records" and complete:
                for _, kind, named in sorted(self._named):
                    yield unknown("records", f"{kind} {named}", "is gone, and the log tells of it")

    def _earlier(self, table: _Table, row: Row) -> bool:
        """Say whether an earlier version stored a row and told less of it."""
        if table.name == "records":
            named = row["tenant"], row["kind"], row["name"]
            known = named in self._named
            self._named.discard(named)
            return known
        return table.old and self.old


def _differences(table: _Table, row: Row, name: str, seq: int, columns: dict[str, Any]) -> Iterator[Finding]:
    has = set(row.keys())
    for column, said in columns.items():
        if column not in has:
            continue  # the schema of an earlier version
        found = row[column]
        if column in table.hashed:
            found = hashlib.sha256(found).hexdigest() if isinstance(found, bytes) else digest(found)
        if (table.name, column) == ("keys", "hash") and isinstance(found, str):
            found = found if len(said) == _WHOLE_HASH else found[: len(said)]
        if (table.name, column) == ("keys", "token_round") and said is None:
            continue  # an earlier version did not tell how often
        if found != said:
            yield unlike(seq, table.name, name, column, found, said)
