"""The kill-switch commands in force: for each target and slot the newest, and of two at one time the stricter.

A lift is an order too, which takes the place of what it lifts: so the order in which commands arrive does not matter,
and a missing order tells of a lost state. The client, the guard and the MCP kill switch all use this.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeVar

from .commands import Command, CommandKind, Target

__all__ = ["EVERYBODY", "Order", "Orders", "Uses", "orders_of", "rank"]

# The target of an order for every agent of the organisation; no agent id looks like it.
EVERYBODY: Final = "*"
_REMEMBERED: Final = 10_000
_MINUTE: Final = 60.0
_LIFTING: Final = frozenset(kind.value for kind in CommandKind if kind.lifts)


class Ranked(Protocol):
    """What an order says: a command, or what is kept of one."""

    @property
    def issued_at(self) -> float: ...
    @property
    def lifts(self) -> bool: ...
    @property
    def max_per_minute(self) -> int | None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What a command orders for one target in one slot, as the state keeps it.

    Attributes:
        target: an agent id, or `EVERYBODY`.
        slot: `block`, `limit`, or `status` for what the authority answers when it is asked.
        kind: the command's kind.
        issued_at: seconds since the epoch.
        command_id: the sender's id.
        reason: for people.
        max_per_minute: of a rate limit.
    """

    target: str
    slot: str
    kind: str
    issued_at: float
    command_id: str = ""
    reason: str = ""
    max_per_minute: int = 0

    @property
    def lifts(self) -> bool:
        """Whether it lets the target go on."""
        return self.kind in _LIFTING


K = TypeVar("K")
R = TypeVar("R", bound=Ranked)


def rank(order: Ranked) -> tuple[float, bool, int]:
    """Return what decides between two orders for one target and slot: the higher is in force."""
    return order.issued_at, not order.lifts, -(order.max_per_minute or 0)


class Orders(dict[tuple[K, str], R]):
    """The orders in force, by target and slot; `block` and `limit` do not touch each other, a lift lifts both."""

    def __init__(self, orders: Iterable[tuple[tuple[K, str], R]] = ()) -> None:
        super().__init__(orders)
        self._applied: OrderedDict[object, None] = OrderedDict()

    def take(self, target: K, slot: str, order: R) -> bool:
        """Keep an order unless one that ranks as high is known; return whether it is in force now."""
        known = self.get((target, slot))
        if known is not None and rank(known) >= rank(order):
            return False
        self[target, slot] = order
        return True

    def apply(self: Orders[K, Command], command: Command, *targets: K) -> bool:
        """Take a command's orders for its targets, once by its id; return whether that changed anything."""
        if command.command_id:
            # Not by the id alone: else a BLOCK could be made void beforehand by another command under its id.
            mark = (command.command_id, command.kind, frozenset(targets))
            if mark in self._applied:
                return False
            self._applied[mark] = None
            if len(self._applied) > _REMEMBERED:
                self._applied.popitem(last=False)
        taken = [self.take(target, slot, command) for target in targets for slot in command.slots]
        return any(taken)

    def why_blocked(self, *targets: K) -> R | None:
        """Return the order that blocks one of the targets, or None."""
        for target in targets:
            for slot in ("block", "status"):
                order = self.get((target, slot))
                if order is not None and not order.lifts:
                    return order
        return None

    def limit(self, *targets: K) -> R | None:
        """Return the strictest rate limit of the targets, or None."""
        found = (self.get((target, "limit")) for target in targets)
        limits = [order for order in found if order is not None and not order.lifts]
        return min(limits, key=lambda order: order.max_per_minute or 0, default=None)

    def merge(self, other: Orders[K, R]) -> list[R]:
        """Take what another one knows and this one lacks, or has older; return that."""
        return [order for (target, slot), order in other.items() if self.take(target, slot, order)]


class Uses:
    """When something was done within the last minute, for a rate limit; it takes no lock.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._times: deque[float] = deque()

    def wait(self, limit: int) -> float:
        """Return the seconds until there are fewer than `limit`; 0 if there are now."""
        now = self._clock()
        while self._times and now - self._times[0] >= _MINUTE:
            self._times.popleft()
        return 0.0 if len(self._times) < limit else _MINUTE - (now - self._times[-limit])

    def add(self) -> None:
        """Count one more."""
        self._times.append(self._clock())


def orders_of(command: Command) -> list[Order]:
    """Return what a command for an agent, or for all of them, says in each slot; none for an MCP server."""
    if command.target is Target.MCP_SERVER:
        return []
    fields: dict[str, Any] = {
        "target": EVERYBODY if command.agent_id is None else command.agent_id,
        "kind": str(command.kind),
        "issued_at": command.issued_at,
        "command_id": command.command_id,
        "reason": command.reason,
        "max_per_minute": command.max_per_minute or 0,
    }
    return [Order(slot=slot, **fields) for slot in command.slots]
