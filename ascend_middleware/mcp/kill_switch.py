"""Which MCP servers an administrator has stopped: fed with messages from a queue, asked before a tool runs.

The application owns the queue and its loop; nothing here does IO. State is the newest command for each target, by
issue time, so the order in which a queue delivers does not matter, and neither does delivering twice.
"""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from ..api.commands import Command, CommandKind, MalformedCommand, Target, UnknownCommand, parse_command, unwrap_message
from ..exceptions import ConfigurationError
from ..fork import ProcessLock
from ..masking import get_logger

__all__ = ["MCPKillSwitchConsumer", "ServerState"]

logger = get_logger("ascend_middleware.mcp")

_MINUTE: Final = 60.0
_REMEMBERED: Final = 10_000
_DATES: Final = ("issued_at", "created_at")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerState:
    """How an MCP server stands.

    Attributes:
        blocked: whether its tools must not run now.
        reason: why, for people; empty when it is not blocked.
        command: the command that blocks it, when one does.
        max_per_minute: the strictest rate limit in force, or None.
    """

    blocked: bool
    reason: str = ""
    command: Command | None = None
    max_per_minute: int | None = None


class _Key(NamedTuple):
    """What a command is aimed at; a release lifts what was ordered for exactly the same."""

    organization: str | None
    agent: str | None
    server: str | int | None  # a name in lower case, a number, or every server


@dataclass(slots=True)
class _Standing:
    """The newest order of one sort. Commands without any date are ordered among themselves, by arrival."""

    dated: Command | None = None
    undated: Command | None = None
    arrival: int = -1

    def take(self, command: Command, arrival: int | None) -> None:
        if arrival is not None:
            self.undated, self.arrival = command, arrival
        elif self.dated is None or command.rank > self.dated.rank:
            self.dated = command

    def against(self, release: _Release) -> Iterator[Command]:
        """Yield what the newest release has not lifted; of one instant, the order stands."""
        if self.dated is not None and release.at <= self.dated.issued_at:
            yield self.dated
        if self.undated is not None and release.arrival < self.arrival and release.at <= self.undated.issued_at:
            yield self.undated


@dataclass(slots=True)
class _Release:
    at: float = float("-inf")
    arrival: int = -1


@dataclass(slots=True)
class _Entry:
    block: _Standing = field(default_factory=_Standing)
    limit: _Standing = field(default_factory=_Standing)
    release: _Release = field(default_factory=_Release)
    uses: deque[float] = field(default_factory=deque)


class MCPKillSwitchConsumer:
    """Tracks kill-switch commands for the MCP servers of this process (contract §1.7, §2.10); safe between threads.

    Feed it whatever the queue delivers, and ask before a tool runs:

        consumer = MCPKillSwitchConsumer(organization_id=42)
        for message in messages:
            consumer.apply_message(message)
        if consumer.is_blocked("filesystem-server"):
            raise RuntimeError("MCP server blocked by administrator")

    BLOCK, SUSPEND and QUARANTINE block until a newer UNBLOCK or RESUME for the same target; one for a single server
    does not lift an order for all of them, nor the other way round. A RATE_LIMIT blocks what goes beyond its
    `max_per_minute`. A message that cannot be read blocks every server until `recover()`.

    Args:
        organization_id: whose commands are obeyed; those of others are ignored. When None, every organisation's
            commands block, and each lifts only its own.
        agent_id: the agent that this process serves: commands aimed at it block every server here. Commands aimed at
            other agents are ignored.
        servers: the config number of each server by its name. A command may name a server by number only: without the
            pair such a block stops every server here whose number is not known.
        on_malformed: `"block"`, or `"ignore"` to only log what cannot be read.
        now: seconds since the epoch.
        clock: monotonic seconds, for rate limits.

    Raises:
        ConfigurationError: an argument cannot work.
    """

    def __init__(
        self,
        organization_id: int | str | None = None,
        *,
        agent_id: str | None = None,
        servers: Mapping[str, int] | None = None,
        on_malformed: str = "block",
        now: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if on_malformed not in ("block", "ignore"):
            raise ConfigurationError(f"on_malformed must be 'block' or 'ignore', not {on_malformed!r}")
        if isinstance(organization_id, bool) or not isinstance(organization_id, int | str | None):
            raise ConfigurationError("organization_id must be a number or a text")
        self._organization: Final = None if organization_id is None else str(organization_id).strip()
        self._agent: Final = agent_id
        self._blocks_on_malformed: Final = on_malformed == "block"
        self._now: Final = now
        self._clock: Final = clock
        self._lock: Final = ProcessLock()
        self._given: Final = {number: _folded(name) for name, number in (servers or {}).items()}
        self._start_anew()

    def _start_anew(self) -> None:
        self._entries: dict[_Key, _Entry] = {}
        self._names: dict[int, str] = dict(self._given)
        self._shown: dict[str, str] = {}
        self._seen: OrderedDict[tuple[object, ...], None] = OrderedDict()
        self._arrivals = 0
        self._degraded: str | None = None

    # --- messages

    def apply_message(self, message: object) -> None:
        """Apply one message; never raises.

        Args:
            message: the command as a mapping or as JSON text, a raw SQS message (`{"Body": …}`), or one whose body is
                an SNS notification. A command that is applied already changes nothing.
        """
        try:
            with self._lock:
                self._apply(message)
        except UnknownCommand as error:
            # It may be for anybody, and it lifts nothing.
            logger.error("kill switch: %s; nothing was changed", error)
        except MalformedCommand as error:
            self._degrade(str(error))
        except Exception as error:
            self._degrade(f"a message could not be applied: {type(error).__name__}")

    def _apply(self, message: object) -> None:
        body = unwrap_message(message)
        if self._is_foreign(body):
            logger.info("kill switch: ignored a command of another organisation")
            return
        body, dated = _completed(body, _carrier(message))
        received = self._now()
        arrival = None
        if not dated:
            self._arrivals += 1
            arrival = self._arrivals
            body["issued_at"] = received
        anonymous = body.get("command_id") in (None, "")
        if anonymous:
            body["command_id"] = f"arrival {self._arrivals}" if arrival is not None else f"issued {body['issued_at']}"
        command = parse_command(body, received_at=received)
        if command.kind.lifts and self._organization is not None and command.organization_id is None:
            raise MalformedCommand("a lifting command does not say of which organisation it is")
        if command.target is Target.AGENT and command.agent_id != self._agent:
            logger.debug("kill switch: ignored a command for another agent")
            return
        keys = self._keys(command)
        if not anonymous and self._is_repeated(command, keys):
            return
        if command.kind.lifts and command.expires_at is not None and command.expires_at <= received:
            logger.warning("kill switch: ignored a %s that has expired", command.kind)
            return
        for key in keys:
            entry = self._entries.setdefault(key, _Entry())
            if command.kind.blocks:
                entry.block.take(command, arrival)
            elif command.kind is CommandKind.RATE_LIMIT:
                entry.limit.take(command, arrival)
            elif arrival is not None:
                entry.release.arrival = arrival
            else:
                entry.release.at = max(entry.release.at, command.issued_at)
        logger.warning("kill switch: %s for %s: %s", command.kind, _aim(command), command.reason or "no reason given")

    def _is_foreign(self, body: Mapping[str, Any]) -> bool:
        given = body.get("organization_id")
        if self._organization is None or isinstance(given, bool) or not isinstance(given, int | str):
            return False
        return str(given).strip() != self._organization

    def _is_repeated(self, command: Command, keys: list[_Key]) -> bool:
        # The id alone does not say it: nobody may spend a later BLOCK by sending something else under its id.
        mark = (command.command_id, command.kind, *keys)
        if mark in self._seen:
            return True
        self._seen[mark] = None
        if len(self._seen) > _REMEMBERED:
            self._seen.popitem(last=False)
        return False

    def _keys(self, command: Command) -> list[_Key]:
        organization = command.organization_id if self._organization is None else self._organization
        if command.target is not Target.MCP_SERVER:
            return [_Key(organization, command.agent_id, None)]
        name, number = command.mcp_server, command.mcp_server_config_id
        if name is not None:
            self._shown[_folded(name)] = name
            if number is not None:
                self._names.setdefault(number, _folded(name))
        servers: set[str | int] = set()
        if name is not None:
            servers |= {_folded(name), *(known for known, given in self._names.items() if given == _folded(name))}
        if number is not None:
            servers |= {number} | ({self._names[number]} if number in self._names and name is None else set())
        return [_Key(organization, command.agent_id, server) for server in servers]

    def _degrade(self, text: str) -> None:
        if not self._blocks_on_malformed:
            logger.error("kill switch: ignored a message that cannot be read: %s", text)
            return
        with self._lock:
            self._degraded = text
        logger.error("kill switch: every server is blocked until recover(): a message cannot be read: %s", text)

    # --- questions

    def is_blocked(self, mcp_server: str | None = None, mcp_server_config_id: int | None = None) -> bool:
        """Say whether the tools of a server must not run now.

        Ask once for each run: while a rate limit is in force, every question that is answered with False counts as one
        run. `state()` looks without counting.

        Args:
            mcp_server: the server's name; letter case does not matter.
            mcp_server_config_id: the server's number at the authority.
        """
        return self._judge(mcp_server, mcp_server_config_id, count=True).blocked

    def state(self, mcp_server: str | None = None, mcp_server_config_id: int | None = None) -> ServerState:
        """Say how a server stands, and why; changes nothing.

        Args:
            mcp_server: the server's name; letter case does not matter.
            mcp_server_config_id: the server's number at the authority.
        """
        return self._judge(mcp_server, mcp_server_config_id, count=False)

    def _judge(self, name: str | None, number: int | None, *, count: bool) -> ServerState:
        with self._lock:
            if self._degraded is not None:
                return ServerState(blocked=True, reason=f"a kill-switch message cannot be read: {self._degraded}")
            limits: list[tuple[_Entry, int]] = []
            for key, entry in self._entries.items():
                if not self._concerns(key, name, number):
                    continue
                for command in entry.block.against(entry.release):
                    return ServerState(blocked=True, reason=_said(command), command=command)
                allowed = [command.max_per_minute or 0 for command in entry.limit.against(entry.release)]
                if allowed:
                    limits.append((entry, min(allowed)))
            least = min((most for _, most in limits), default=None)
            if any(self._spent(entry) >= most for entry, most in limits):
                return ServerState(
                    blocked=True, reason=f"RATE_LIMIT: at most {least} a minute are allowed", max_per_minute=least
                )
            if count:
                for entry, _ in limits:
                    entry.uses.append(self._clock())
            return ServerState(blocked=False, max_per_minute=least)

    def _spent(self, entry: _Entry) -> int:
        since = self._clock() - _MINUTE
        while entry.uses and entry.uses[0] <= since:
            entry.uses.popleft()
        return len(entry.uses)

    def _concerns(self, key: _Key, name: str | None, number: int | None) -> bool:
        if key.agent is not None and self._agent is not None and key.agent != self._agent:
            return False
        if key.server is None:
            return True
        folded = None if name is None else _folded(name)
        if isinstance(key.server, str):
            known = self._names.get(number) if number is not None else None
            if key.server in (folded, known):
                return True
            # Asked by a number of which nobody told the name, it may be this very server.
            return folded is None and number is not None and known is None and not self._has_number(key.server)
        if key.server == number or (folded is not None and self._names.get(key.server) == folded):
            return True
        # Ordered by a number of which nobody told the name: it may be this very server.
        return number is None and folded is not None and key.server not in self._names and not self._has_number(folded)

    def _has_number(self, folded: str) -> bool:
        return folded in self._names.values()

    @property
    def degraded(self) -> str | None:
        """Why every server is blocked although nobody ordered it: what could not be read, or None when all is well."""
        return self._degraded

    @property
    def blocked_servers(self) -> list[str]:
        """The names of the servers that commands block one by one, sorted; orders for all of them name none."""
        with self._lock:
            names = {
                self._shown.get(key.server, key.server)
                for key, entry in self._entries.items()
                if isinstance(key.server, str) and any(entry.block.against(entry.release))
            }
        return sorted(names)

    def recover(self) -> None:
        """Go on after a message that could not be read; what commands ordered stands."""
        with self._lock:
            self._degraded = None

    def reset(self) -> None:
        """Forget every command and every message."""
        with self._lock:
            self._start_anew()


def _folded(name: str) -> str:
    return name.strip().casefold()


def _aim(command: Command) -> str:
    if command.target is Target.MCP_SERVER:
        return f"MCP server {command.mcp_server!r} ({command.mcp_server_config_id})"
    return f"agent {command.agent_id!r}" if command.agent_id is not None else "the organisation"


def _said(command: Command) -> str:
    return f"{command.kind}: {command.reason}" if command.reason else str(command.kind)


def _carrier(message: object) -> dict[str, Any]:
    """Return the id and the time that the queue gave a message: they stay the same when it is delivered again."""
    if not isinstance(message, Mapping) or "command_type" in message:
        return {}
    identity = message.get("MessageId", message.get("messageId"))
    attributes = message.get("Attributes", message.get("attributes"))
    sent = message.get("Timestamp")
    if sent is None and isinstance(attributes, Mapping):
        sent = attributes.get("SentTimestamp")
        sent = int(sent) if isinstance(sent, str) and sent.isascii() and sent.isdigit() else sent
    return {"command_id": identity, "issued_at": sent}


def _completed(body: Mapping[str, Any], carrier: Mapping[str, Any]) -> tuple[dict[str, Any], bool]:
    """Fill in what the command does not say from what carried it; also say whether there is a date at all."""
    result = {**body, **{name: value for name, value in carrier.items() if _blank(body, name) and value}}
    return result, any(result.get(name) not in (None, "") for name in _DATES)


def _blank(body: Mapping[str, Any], name: str) -> bool:
    names = _DATES if name == "issued_at" else (name,)
    return all(body.get(each) in (None, "") for each in names)
