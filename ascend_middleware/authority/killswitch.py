"""The kill switch: commands to agents, whether an agent may act by them, and who has acknowledged them.

A command is aimed at one agent, at an MCP server, or, without an agent, at the whole organisation. What holds for an
agent is the stricter of its own commands and the organisation's, so that releasing everybody never frees an agent that
was quarantined by itself.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, get_args

from ascend_middleware.api.bodies import CommandType
from ascend_middleware.exceptions import NotFoundError, ValidationError

from .keys import Credential
from .store.database import Row
from .store.engine import stored_json
from .store.registry_store import Records
from .store.store import Store, iso_time

__all__ = [
    "COMMAND_TYPES",
    "Standing",
    "acknowledge",
    "issue",
    "pending",
    "rate_excess",
    "server_block",
    "standing",
    "standings",
]

COMMAND_TYPES: Final[tuple[str, ...]] = get_args(CommandType)
_LIFTING: Final = ("UNBLOCK", "RESUME")
_MAX_PER_MINUTE: Final = 1_000_000
_MAX_REASON: Final = 1000
_MAX_LISTED: Final = 1000
_MINUTE: Final = 60.0
_OF_AGENTS: Final = "SELECT * FROM commands WHERE tenant = ? AND target_type != 'mcp_server'"
# The words for an agent's standing, and the codes of the refusals (api.decode.KILL_CODES).
_WORDS: Final = {"BLOCK": "blocked", "SUSPEND": "suspended", "QUARANTINE": "quarantined"}
_CODES: Final = {"BLOCK": "AGENT_BLOCKED", "SUSPEND": "AGENT_SUSPENDED", "QUARANTINE": "AGENT_QUARANTINED"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What the kill switch says of an agent: free, blocked by a command, or slowed down."""

    word: str = "active"  # or blocked, suspended, quarantined, rate_limited
    code: str = ""  # of the refusal, where something blocks
    command: Mapping[str, Any] | None = None  # the one that blocks, or else the one that slows down
    max_per_minute: int | None = None

    @property
    def blocked(self) -> bool:
        """Whether nothing may be done."""
        return bool(self.code)


def issue(
    store: Store,
    command_type: str,
    reason: str,
    *,
    by: Credential,
    via: str,
    agent_id: str | None = None,
    mcp_server: str | None = None,
    max_per_minute: int | None = None,
) -> dict[str, Any]:
    """Issue one command and return it; without an agent and without an MCP server it is for the whole organisation.

    The reason is for people, also those who run the agent, which need not be registered. `via` is api, cli or page.
    What makes no sense raises `ValidationError`.
    """
    if command_type not in COMMAND_TYPES:
        message = f"must be one of {', '.join(COMMAND_TYPES)}"
        raise ValidationError(f"command_type: {message}", field="command_type")
    if not reason.strip() or len(reason) > _MAX_REASON:
        raise ValidationError(f"reason: must be a text of 1 to {_MAX_REASON} characters", field="reason")
    if mcp_server is not None and (agent_id is not None or command_type not in ("BLOCK", "UNBLOCK")):
        raise ValidationError("mcp_server: can be blocked and unblocked, apart from any agent", field="mcp_server")
    if (command_type == "RATE_LIMIT") != (max_per_minute is not None):
        raise ValidationError("max_per_minute: belongs to RATE_LIMIT, which needs it", field="max_per_minute")
    if max_per_minute is not None and not 1 <= max_per_minute <= _MAX_PER_MINUTE:
        raise ValidationError(f"max_per_minute: must be 1 to {_MAX_PER_MINUTE}", field="max_per_minute")
    target = "mcp_server" if mcp_server is not None else "agent" if agent_id is not None else "organization"
    given = {"max_per_minute": max_per_minute, "mcp_server": mcp_server}
    parameters = {name: value for name, value in given.items() if value is not None}
    row = {
        "command_id": str(uuid.uuid4()),
        "tenant": by.tenant,
        "command_type": command_type,
        "target_type": target,
        "agent_id": agent_id,
        "mcp_server": mcp_server,
        "reason": reason,
        "parameters": json.dumps(parameters),
        "issued_by": by.name,
        "issued_via": via,
        "created_at": store.moment(),
    }
    told: dict[str, Any] = {
        name: row[name] for name in ("command_id", "command_type", "target_type", "agent_id", "reason")
    }
    told |= {**parameters, "issued_via": via, "key": None if by.is_operator else by.key_id}
    with store.write():
        store.changed()
        told["number"] = store.insert("commands", row)
        store.audit("AGENT_COMMAND_ISSUED", tenant=by.tenant, actor=by.name, data=told, at=row["created_at"])
        return _shown(store, row)


def pending(records: Records, agent_id: str, *, tenant: str) -> list[dict[str, Any]]:
    """Return the commands that an agent has not acknowledged, its own and the organisation's, oldest first."""
    rows = records.rows(
        "SELECT * FROM commands WHERE tenant = ? AND (agent_id = ? OR agent_id IS NULL) AND NOT EXISTS"
        " (SELECT 1 FROM acks WHERE acks.command_id = commands.command_id AND acks.agent_id = ?)"
        " ORDER BY seq DESC LIMIT ?",
        (tenant, agent_id, agent_id, _MAX_LISTED),
    )
    # The newest are what holds; where there are too many, the oldest are dropped.
    return [_shown(records, dict(row)) for row in reversed(rows)]


def acknowledge(records: Records, command_id: str, agent_id: str, *, tenant: str, key_id: int) -> dict[str, Any]:
    """Note that an agent has received a command; twice is as good as once.

    Nothing tells whether there is no such command or it is another's: both raise `NotFoundError`.
    """
    found = records.rows(
        "SELECT * FROM commands WHERE command_id = ? AND tenant = ? AND (agent_id = ? OR agent_id IS NULL)",
        (command_id, tenant, agent_id),
    )
    if not found:
        raise NotFoundError("there is no such command for this agent")
    received = {"command_id": command_id, "agent_id": agent_id, "key_id": key_id, "at": records.moment()}
    known = "SELECT 1 FROM acks WHERE command_id = ? AND agent_id = ?"
    with records.write():
        if not records.rows(known, (command_id, agent_id)):
            records.insert("acks", received)
            records.told("acks", f"{command_id}/{agent_id}", key_id=key_id, at=received["at"])
    return _shown(records, dict(found[0]))


def _shown(records: Records, row: dict[str, Any]) -> dict[str, Any]:
    """Return a command as messages and answers show it (contract §2.10)."""
    same = ("command_id", "command_type", "target_type", "agent_id", "mcp_server", "reason", "issued_by", "issued_via")
    return {
        **{name: row[name] for name in same},
        "target_mcp_server_config_id": None,
        "organization_id": records.organization_id(row["tenant"]),
        "parameters": stored_json(row["parameters"], f"parameters of command {row['command_id']}"),
        "status": "pending",
        "is_broadcast": row["agent_id"] is None,
        "issued_at": row["created_at"],
        "created_at": row["created_at"],
        "expires_at": None,
    }


# --- what holds


def standing(records: Records, agent_id: str | None, *, tenant: str) -> Standing:
    """Return what the kill switch says of an agent; without one, of the organisation."""
    return records.cached(("standing", tenant, agent_id), lambda: _load(records, agent_id, tenant))


def standings(records: Records, *, tenant: str) -> Mapping[str, Standing]:
    """Return what the kill switch says of each agent that got a command of its own; of others, what it says of all."""
    return records.cached(("standings", tenant), lambda: _load_all(records, tenant))


def _load(records: Records, agent_id: str | None, tenant: str) -> Standing:
    broadcast = records.rows(f"{_OF_AGENTS} AND agent_id IS NULL ORDER BY seq", (tenant,))
    everybody = _stand(broadcast, code="KILL_SWITCH_ACTIVE")
    if agent_id is None:
        return everybody
    return _stricter(_stand(records.rows(f"{_OF_AGENTS} AND agent_id = ? ORDER BY seq", (tenant, agent_id))), everybody)


def _load_all(records: Records, tenant: str) -> dict[str, Standing]:
    everybody = standing(records, None, tenant=tenant)
    commands: dict[str, list[Row]] = {}
    for row in records.rows(f"{_OF_AGENTS} AND agent_id IS NOT NULL ORDER BY seq", (tenant,)):
        commands.setdefault(row["agent_id"], []).append(row)
    return {agent_id: _stricter(_stand(rows), everybody) for agent_id, rows in commands.items()}


def _stricter(own: Standing, everybody: Standing) -> Standing:
    if own.blocked or everybody.blocked:
        return own if own.blocked else everybody
    limits = [one for one in (own, everybody) if one.max_per_minute is not None]
    return min(limits, key=lambda one: one.max_per_minute or 0, default=own)


def _stand(rows: Iterable[Row], *, code: str = "") -> Standing:
    """Let a scope's commands take effect in the order of their issue."""
    block: Row | None = None
    limit: Row | None = None
    for row in rows:
        if row["command_type"] in _LIFTING:
            block = limit = None
        elif row["command_type"] == "RATE_LIMIT" and _rate(row) is not None:
            limit = row
        else:  # what cannot be read blocks
            block = row
    if block is not None:
        kind = block["command_type"]
        code = code or _CODES.get(kind, "AGENT_BLOCKED")
        return Standing(word=_WORDS.get(kind, "blocked"), code=code, command=dict(block))
    if limit is not None:
        return Standing(word="rate_limited", command=dict(limit), max_per_minute=_rate(limit))
    return Standing()


def _rate(row: Row) -> int | None:
    try:
        value = stored_json(row["parameters"], f"parameters of command {row['command_id']}")["max_per_minute"]
    except (KeyError, TypeError):
        return None
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 1 else None


def rate_excess(records: Records, agent_id: str, standing: Standing, *, tenant: str, now: float) -> float:
    """Return how many seconds an agent must wait until its limit has room again; 0 if it has.

    Counted are the actions that the database holds of the last minute, whatever process decided them.
    """
    most = standing.max_per_minute
    if most is None:
        return 0.0
    rows = records.rows(
        "SELECT created_at FROM actions WHERE tenant = ? AND agent_id = ? ORDER BY id DESC LIMIT 1 OFFSET ?",
        (tenant, agent_id, most - 1),
    )
    if rows and rows[0][0] > iso_time(now):
        # The clock was set back. What it says to come has been, and must not hold anybody up until it is.
        rows = records.rows(
            "SELECT created_at FROM actions WHERE tenant = ? AND agent_id = ? AND created_at <= ? AND created_at > ?"
            " ORDER BY created_at DESC LIMIT 1 OFFSET ?",
            (tenant, agent_id, iso_time(now), iso_time(now - _MINUTE), most - 1),
        )
    if not rows:
        return 0.0
    return max(0.0, datetime.fromisoformat(rows[0][0]).timestamp() + _MINUTE - now)


def server_block(records: Records, name: str, *, tenant: str) -> bool:
    """Say whether a command blocks an MCP server."""
    rows = records.rows(
        "SELECT command_type FROM commands WHERE tenant = ? AND target_type = 'mcp_server' AND mcp_server = ?"
        " ORDER BY seq DESC LIMIT 1",
        (tenant, name),
    )
    return bool(rows) and rows[0][0] not in _LIFTING
