"""The agents of an organisation: whoever is registered, has submitted something, sent a heartbeat, or got a command."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import msgspec

from . import killswitch
from .killswitch import Standing
from .store.engine import Reader, Row
from .store.listing import rows_of
from .store.registry_store import AGENT, Records

__all__ = ["Member", "Roster", "read_roster"]

# Each with the last time at which it submitted something. Only numbers and names are sorted; the rest is read of those
# that are shown.
_KNOWN: Final = """
    SELECT agent_id, max(last_at) AS last_at, count(*) OVER () AS total FROM (
        SELECT agent_id, last_at FROM actors WHERE tenant = ?
        UNION ALL SELECT name AS agent_id, '' AS last_at FROM records WHERE kind = ? AND tenant = ?
        UNION ALL SELECT agent_id, '' AS last_at FROM heartbeats WHERE tenant = ?
        UNION ALL SELECT agent_id, '' AS last_at FROM commands WHERE tenant = ? AND target_type = 'agent'
    ) AS known GROUP BY agent_id ORDER BY max(last_at) DESC, agent_id"""


class _Said(msgspec.Struct):
    """What is shown of a registration."""

    display_name: str | None = None
    agent_type: str | None = None


_read_said: Final = msgspec.json.Decoder(_Said).decode


@dataclass(slots=True)
class Member:
    """One agent: what its registration says, when it last submitted something or sent a heartbeat, and its standing."""

    id: str
    last: str
    standing: Standing
    count: int = 0
    beat: str = ""
    said: _Said = field(default_factory=_Said)
    registered: bool = False

    @property
    def name(self) -> str:
        """How it is called, empty if nothing says so."""
        return self.said.display_name or ""

    @property
    def type(self) -> str:
        """Of which type it is, empty if nothing says so."""
        return self.said.agent_type or ""


class Roster(NamedTuple):
    """Some agents; how many there are in all, and how many were asked for and are not among these."""

    agents: list[Member]
    total: int
    hidden: int


def read_roster(records: Records, *, tenant: str, most: int, find: str = "") -> Roster:
    """Return so many agents at most: those that the kill switch holds first, then by their last action.

    Args:
        records: where they are stored.
        tenant: whose agents.
        most: how many of them.
        find: a part of an id or a name, in whatever case; nothing for all agents.
    """
    everybody = killswitch.standing(records, None, tenant=tenant)
    standings = killswitch.standings(records, tenant=tenant)
    # Where all are held, none of them comes before the others.
    held = {name for name, one in standings.items() if one.word != "active"} if everybody.word == "active" else set()
    with records.snapshot() as reader:
        limit, values = ("", ()) if find or held else (" LIMIT ?", (most,))
        known = reader.rows(_KNOWN + limit, (tenant, AGENT, tenant, tenant, tenant, *values))
        total = known[0]["total"] if known else 0
        found, count = known, total
        if find:
            found = _named(reader, known, tenant, find.casefold())
            count = len(found)
        found = sorted(found, key=lambda row: row["agent_id"] not in held)[:most]
        members = {
            row["agent_id"]: Member(row["agent_id"], row["last_at"], standings.get(row["agent_id"], everybody))
            for row in found
        }
        _describe(reader, tenant, members)
    return Roster(list(members.values()), total, count - len(members))


def _named(reader: Reader, known: Sequence[Row], tenant: str, part: str) -> list[Row]:
    registered = reader.rows("SELECT name, fields FROM records WHERE kind = ? AND tenant = ?", (AGENT, tenant))
    names = {row["name"]: _read_said(row["fields"]).display_name or "" for row in registered}
    return [row for row in known if part in f"{row['agent_id']} {names.get(row['agent_id'], '')}".casefold()]


def _describe(reader: Reader, tenant: str, members: dict[str, Member]) -> None:
    """Add what is known of them."""
    names = list(members)
    registered = "SELECT name, fields FROM records WHERE kind = ? AND tenant = ? AND name IN ({})"
    for row in rows_of(reader, registered, names, AGENT, tenant):
        members[row["name"]].said, members[row["name"]].registered = _read_said(row["fields"]), True
    for row in rows_of(reader, "SELECT agent_id, n FROM actors WHERE tenant = ? AND agent_id IN ({})", names, tenant):
        members[row["agent_id"]].count = row["n"]
    beats = "SELECT agent_id, last_at FROM heartbeats WHERE tenant = ? AND agent_id IN ({})"
    for row in rows_of(reader, beats, names, tenant):
        members[row["agent_id"]].beat = row["last_at"]
