"""Which MCP servers an administrator has stopped: fed with messages from a queue, asked before a tool runs.

The application owns the queue and its loop; nothing here does IO. State is the newest command for each target, by
issue time, so the order in which a queue delivers does not matter, and neither does delivering twice.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple

from ..api.commands import Command, MalformedCommand, Target, UnknownCommand, parse_command, unwrap_message
from ..api.orders import Orders, Uses
from ..exceptions import ConfigurationError
from ..fork import ProcessLock
from ..masking import get_logger

__all__ = ["MCPKillSwitchConsumer", "ServerState"]

logger = get_logger("ascend_middleware.mcp")

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


class _Aim(NamedTuple):
    """What a command is aimed at; a release lifts what was ordered for exactly the same."""

    organization: str | None
    agent: str | None
    server: str | int | None  # a name in lower case, a number, or every server
    # Commands without any date are ordered among themselves, by arrival; they lift nothing that has a date.
    dated: bool = True


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
        self._orders = Orders[_Aim, Command]()
        self._uses: dict[_Aim, Uses] = {}
        self._names: dict[int, str] = dict(self._given)
        self._shown: dict[str, str] = {}
        self._arrived_at = 0.0
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
        if not dated:
            # Each counts as a little later than the one before, even where the clock was set back.
            received = self._arrived_at = max(received, math.nextafter(self._arrived_at, math.inf))
            body["issued_at"] = received
        anonymous = body.get("command_id") in (None, "")
        command = parse_command({**body, "command_id": "none"} if anonymous else body, received_at=received)
        if command.kind.lifts and self._organization is not None and command.organization_id is None:
            raise MalformedCommand("a lifting command does not say of which organisation it is")
        if command.target is Target.AGENT and command.agent_id != self._agent:
            logger.debug("kill switch: ignored a command for another agent")
            return
        if command.lifts and command.expires_at is not None and command.expires_at <= self._now():
            logger.warning("kill switch: ignored a %s that has expired", command.kind)
            return
        aims = [aim._replace(dated=dated) for aim in self._aims(command)]
        if dated and command.lifts:
            aims += [aim._replace(dated=False) for aim in aims]
        if self._orders.apply(replace(command, command_id="") if anonymous else command, *aims):
            reason = command.reason or "no reason given"
            logger.warning("kill switch: %s for %s: %s", command.kind, _whom(command), reason)

    def _is_foreign(self, body: Mapping[str, Any]) -> bool:
        given = body.get("organization_id")
        if self._organization is None or isinstance(given, bool) or not isinstance(given, int | str):
            return False
        return str(given).strip() != self._organization

    def _aims(self, command: Command) -> list[_Aim]:
        organization = command.organization_id if self._organization is None else self._organization
        if command.target is not Target.MCP_SERVER:
            return [_Aim(organization, command.agent_id, None)]
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
        return [_Aim(organization, command.agent_id, server) for server in servers]

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
            aims = [aim for aim in dict.fromkeys(aim for aim, _ in self._orders) if self._concerns(aim, name, number)]
            command = self._orders.why_blocked(*aims)
            if command is not None:
                return ServerState(blocked=True, reason=_said(command), command=command)
            found = ((aim, self._orders.limit(aim)) for aim in aims)
            limits = [(self._used(aim), limit.max_per_minute or 0) for aim, limit in found if limit is not None]
            least = min((most for _, most in limits), default=None)
            if any(uses.wait(most) for uses, most in limits):
                return ServerState(
                    blocked=True, reason=f"RATE_LIMIT: at most {least} a minute are allowed", max_per_minute=least
                )
            if count:
                for uses in {uses for uses, _ in limits}:
                    uses.add()
            return ServerState(blocked=False, max_per_minute=least)

    def _used(self, aim: _Aim) -> Uses:
        return self._uses.setdefault(aim._replace(dated=True), Uses(self._clock))

    def _concerns(self, aim: _Aim, name: str | None, number: int | None) -> bool:
        if aim.agent is not None and self._agent is not None and aim.agent != self._agent:
            return False
        if aim.server is None:
            return True
        folded = None if name is None else _folded(name)
        if isinstance(aim.server, str):
            known = self._names.get(number) if number is not None else None
            if aim.server in (folded, known):
                return True
            # Asked by a number of which nobody told the name, it may be this very server.
            return folded is None and number is not None and known is None and not self._has_number(aim.server)
        if aim.server == number or (folded is not None and self._names.get(aim.server) == folded):
            return True
        # Ordered by a number of which nobody told the name: it may be this very server.
        return number is None and folded is not None and aim.server not in self._names and not self._has_number(folded)

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
                self._shown.get(aim.server, aim.server)
                for aim, _ in self._orders
                if isinstance(aim.server, str) and self._orders.why_blocked(aim)
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


def _whom(command: Command) -> str:
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
