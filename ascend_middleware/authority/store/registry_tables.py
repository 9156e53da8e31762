"""The tables of what an organisation keeps at its authority: agents, commands, rules, servers, models, components."""

from __future__ import annotations

from typing import Final

__all__ = ["RECORDS"]

# `revision` is another one after each change that a cached reading would miss, also of other processes. It is drawn at
# random: a number that a rolled back change had must not come again.
RECORDS: Final = (
    """CREATE TABLE records (
        id INTEGER PRIMARY KEY AUTOINCREMENT, tenant TEXT NOT NULL, kind TEXT NOT NULL, name TEXT NOT NULL,
        fields TEXT NOT NULL, key_id INTEGER NOT NULL, created_at TEXT NOT NULL, updated_at TEXT NOT NULL,
        UNIQUE (tenant, kind, name))""",
    # An agent's id belongs to one organisation.
    "CREATE UNIQUE INDEX records_agent ON records (name) WHERE kind = 'agent'",
    """CREATE TABLE commands (
        seq INTEGER PRIMARY KEY AUTOINCREMENT, command_id TEXT NOT NULL UNIQUE, tenant TEXT NOT NULL,
        command_type TEXT NOT NULL, target_type TEXT NOT NULL, agent_id TEXT, mcp_server TEXT, reason TEXT NOT NULL,
        parameters TEXT NOT NULL, issued_by TEXT NOT NULL, issued_via TEXT NOT NULL, created_at TEXT NOT NULL)""",
    "CREATE INDEX commands_target ON commands (tenant, target_type, agent_id, seq)",
    """CREATE TABLE acks (
        command_id TEXT NOT NULL, agent_id TEXT NOT NULL, key_id INTEGER NOT NULL, at TEXT NOT NULL,
        PRIMARY KEY (command_id, agent_id))""",
    """CREATE TABLE heartbeats (
        tenant TEXT NOT NULL, agent_id TEXT NOT NULL, first_at TEXT NOT NULL, last_at TEXT NOT NULL,
        fields TEXT NOT NULL, PRIMARY KEY (tenant, agent_id))""",
    "CREATE TABLE organizations (id INTEGER PRIMARY KEY AUTOINCREMENT, tenant TEXT NOT NULL UNIQUE)",
    "CREATE TABLE secrets (name TEXT PRIMARY KEY, value BLOB NOT NULL)",
    "CREATE INDEX actions_agent ON actions (tenant, agent_id, id)",
    "CREATE TABLE revision (n INTEGER NOT NULL)",
    "INSERT INTO revision (n) VALUES (0)",
    *(
        f"CREATE TRIGGER {table}_{event} AFTER {event} ON {table} BEGIN UPDATE revision SET n = random(); END"  # noqa: S608
        for table in ("records", "commands")
        for event in ("INSERT", "UPDATE", "DELETE")
    ),
)
