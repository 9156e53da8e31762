"""Kill-switch commands: read from whatever carries them (the HTTP API, SQS, SNS, JSON text), judged the strict way.

Source of the shapes: contract section 2.10. Nothing that cannot be read ever lifts a block.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final

from ..exceptions import ProtocolError
from ..strict_json import StrictJSON
from ..text import one_line

__all__ = [
    "MAX_SKEW",
    "Command",
    "CommandKind",
    "MalformedCommand",
    "Target",
    "UnknownCommand",
    "parse_command",
    "unwrap_message",
]

# How far in the future a command's issue time may lie, in seconds, before it counts as wrong and not as a fast clock.
MAX_SKEW: Final = 300.0
_MAX_BYTES: Final = 262_144
_MAX_LAYERS: Final = 4
_MAX_TEXT: Final = 500
# NaN is taken: a number that cannot be read makes no command weaker.
_json: Final = StrictJSON()


class MalformedCommand(ProtocolError):  # noqa: N818 - says what it is
    """A message that cannot be read as a command; loud wherever it turns up, and it never lifts anything."""


class UnknownCommand(MalformedCommand):
    """A message of a known shape with a command type that this version does not know."""


class CommandKind(StrEnum):
    """What a command asks for. SUSPEND and QUARANTINE block until UNBLOCK or RESUME (contract C27)."""

    BLOCK = "BLOCK"
    UNBLOCK = "UNBLOCK"
    SUSPEND = "SUSPEND"
    QUARANTINE = "QUARANTINE"
    RESUME = "RESUME"
    RATE_LIMIT = "RATE_LIMIT"

    @property
    def lifts(self) -> bool:
        """Whether it lets its target go on."""
        return self in (CommandKind.UNBLOCK, CommandKind.RESUME)


class Target(StrEnum):
    """What a command is aimed at."""

    AGENT = "agent"
    MCP_SERVER = "mcp_server"
    ORGANIZATION = "organization"


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """One command, checked.

    Attributes:
        command_id: the sender's id, under which it is applied once; empty where a blocking command came without.
        kind: what it asks for; a rate limit that cannot be read is a BLOCK.
        target: what it is aimed at.
        agent_id: the agent, or None for every agent of the organisation.
        mcp_server: the MCP server's name, where it is aimed at one by name.
        mcp_server_config_id: the MCP server's number, where it is aimed at one by number.
        organization_id: the organisation as a text, or None where the message does not say.
        issued_at: seconds since the epoch.
        expires_at: seconds since the epoch, or None.
        reason: for people.
        max_per_minute: of a rate limit.
        parameters: as sent; empty when they were no mapping.
    """

    command_id: str
    kind: CommandKind
    target: Target
    issued_at: float
    agent_id: str | None = None
    mcp_server: str | None = None
    mcp_server_config_id: int | None = None
    organization_id: str | None = None
    expires_at: float | None = None
    reason: str = ""
    max_per_minute: int | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)

    @property
    def lifts(self) -> bool:
        """Whether it lets its target go on."""
        return self.kind.lifts

    @property
    def slots(self) -> tuple[str, ...]:
        """What it is about: a lift is about both; else a block does not touch a limit, nor a limit a block."""
        return ("block", "limit") if self.lifts else ("limit",) if self.kind == "RATE_LIMIT" else ("block",)


def unwrap_message(message: object) -> dict[str, Any]:
    """Return the command's own object out of JSON text, a raw SQS message or an SNS notification.

    Raises:
        MalformedCommand: it holds none.
    """
    value = message
    for _ in range(_MAX_LAYERS):
        if isinstance(value, str | bytes | bytearray):
            value = _parse_json(value)
        if not isinstance(value, Mapping):
            raise MalformedCommand(f"a command is an object, not {type(value).__name__}")
        inner = _inner(value)
        if inner is None:
            return dict(value)
        value = inner
    raise MalformedCommand("the message is wrapped too often")


def _inner(value: Mapping[Any, Any]) -> object | None:
    if "command_type" in value:
        return None
    if value.get("Type") in ("Notification", "SubscriptionConfirmation", "UnsubscribeConfirmation"):
        if value["Type"] != "Notification":
            raise MalformedCommand(f"an SNS {value['Type']} is no command; confirm the subscription by hand")
        return _carried(value, "Message")
    for name in ("Body", "body"):
        if name in value:
            return _carried(value, name)
    return None


def _carried(value: Mapping[Any, Any], name: str) -> object:
    inner = value.get(name)
    if inner is None or inner == "":
        raise MalformedCommand(f"the message's {name} is empty")
    return inner


def _parse_json(text: str | bytes | bytearray) -> object:
    if len(text) > _MAX_BYTES:
        raise MalformedCommand(f"the message is longer than {_MAX_BYTES} bytes")
    try:
        return _json.decode(text)
    except (ValueError, RecursionError) as error:
        raise MalformedCommand(f"the message is not JSON: {type(error).__name__}") from None


def parse_command(message: object, *, received_at: float) -> Command:
    """Return the command that a message holds, in whatever it is wrapped.

    What only makes a command weaker is refused, what only lacks an ornament is taken: a BLOCK without issue time or id
    is a BLOCK of this moment, while an UNBLOCK needs both.

    Args:
        message: a mapping, JSON text, a raw SQS message, or an SNS notification inside one.
        received_at: seconds since the epoch.

    Raises:
        UnknownCommand: its command type is not known here.
        MalformedCommand: it cannot be read.
    """
    body = unwrap_message(message)
    kind = _kind(body)
    parameters = body.get("parameters")
    parameters = dict(parameters) if isinstance(parameters, Mapping) else {}
    limit: int | None = None
    if kind is CommandKind.RATE_LIMIT:
        limit = _limit(parameters)
        kind = kind if limit is not None else CommandKind.BLOCK
    target, agent_id = _target(body, kind)
    server, number = _server(body, parameters) if target is Target.MCP_SERVER else (None, None)
    return Command(
        command_id=_command_id(body, kind),
        kind=kind,
        target=target,
        issued_at=_issued_at(body, kind, received_at),
        agent_id=agent_id,
        mcp_server=server,
        mcp_server_config_id=number,
        organization_id=_organization(body),
        expires_at=_time(body.get("expires_at")),
        reason=_reason(body),
        max_per_minute=limit,
        parameters=parameters,
    )


def _kind(body: Mapping[str, Any]) -> CommandKind:
    word = body.get("command_type")
    if not isinstance(word, str) or not word.strip():
        raise MalformedCommand("the message names no command_type")
    try:
        return CommandKind(word.strip().upper().replace("-", "_"))
    except ValueError:
        raise UnknownCommand(f"unknown command type {word[:40]!r}") from None


def _limit(parameters: Mapping[str, Any]) -> int | None:
    """Return how many requests a minute a rate limit allows; None, which blocks, when it does not say so clearly."""
    value = parameters.get("max_per_minute")
    if isinstance(value, str) and value.isascii() and value.strip().isdigit():
        value = int(value.strip()[:9])
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return int(value) if 1 <= value <= 1_000_000 and value == int(value) else None


def _target(body: Mapping[str, Any], kind: CommandKind) -> tuple[Target, str | None]:
    word = body.get("target_type")
    agent_id = body.get("agent_id")
    if agent_id is not None and (not isinstance(agent_id, str) or not agent_id.strip()):
        raise MalformedCommand("agent_id is neither a text nor null")
    whose = Target.ORGANIZATION if agent_id is None else Target.AGENT
    if word is None:
        named = ("target_mcp_server_config_id", "mcp_server", "mcp_server_name")
        target = Target.MCP_SERVER if any(body.get(name) is not None for name in named) else whose
    else:
        try:
            target = Target(word.strip().lower() if isinstance(word, str) else "")
        except ValueError:
            if kind.lifts:
                raise MalformedCommand("a lifting command names an unknown target_type") from None
            # A block of nobody knows what, but of our organisation, is a block of whoever it names, or of everybody.
            target = whose
    if target is Target.MCP_SERVER:
        return target, agent_id
    if not kind.lifts and (target is Target.ORGANIZATION or body.get("is_broadcast") is True):
        return Target.ORGANIZATION, None
    return whose, agent_id


def _server(body: Mapping[str, Any], parameters: Mapping[str, Any]) -> tuple[str | None, int | None]:
    number = body.get("target_mcp_server_config_id")
    if isinstance(number, str) and number.isascii() and number.isdigit():
        number = int(number[:18])
    if number is not None and (isinstance(number, bool) or not isinstance(number, int)):
        raise MalformedCommand("target_mcp_server_config_id is no number")
    for source, name in ((body, "mcp_server"), (body, "mcp_server_name"), (parameters, "mcp_server")):
        value = source.get(name)
        if isinstance(value, str) and value.strip():
            return value.strip(), number
    if number is None:
        raise MalformedCommand("a command for an MCP server names none")
    return None, number


def _command_id(body: Mapping[str, Any], kind: CommandKind) -> str:
    value = body.get("command_id")
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if isinstance(value, str) and 0 < len(value.strip()) <= 200:
        return value.strip()
    if kind.lifts:
        raise MalformedCommand("a lifting command has no command_id")
    return ""


def _issued_at(body: Mapping[str, Any], kind: CommandKind, received_at: float) -> float:
    given = body.get("issued_at")
    issued = _time(body.get("created_at") if given is None else given)
    if kind.lifts:
        if issued is None:
            raise MalformedCommand("a lifting command has no issue time that can be read")
        if issued > received_at + MAX_SKEW:
            raise MalformedCommand("a lifting command was issued in the future")
        return issued
    return received_at if issued is None else min(issued, received_at + MAX_SKEW)


def _time(value: object) -> float | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        number = float(value)
        if number > 1e11:  # milliseconds
            number /= 1000
        return number if math.isfinite(number) and 0 < number < 1e11 else None
    if not isinstance(value, str) or len(value) > 64:
        return None
    try:
        moment = datetime.fromisoformat(value.strip())
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    try:
        return moment.timestamp()
    except (OverflowError, OSError, ValueError):
        return None


def _organization(body: Mapping[str, Any]) -> str | None:
    value = body.get("organization_id")
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | str) or not str(value).strip():
        raise MalformedCommand("organization_id is neither a number nor a text")
    return str(value).strip()


def _reason(body: Mapping[str, Any]) -> str:
    value = body.get("reason")
    text = value if isinstance(value, str) else ""
    return one_line(text[:_MAX_TEXT]).strip()
