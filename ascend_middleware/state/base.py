"""What the workers of a service share: approvals and their claims, the kill state, rate limits, leases.

One interface, `State`, and the stores that keep it: a SQLite file for the workers of one machine, `memory:` for one
process, `redis://` for a fleet. Every method may block and raises `StateError` when the store cannot be used.
"""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol

from ..api.orders import Order, Orders
from ..exceptions import AscendError
from ..flow import Blocking

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ..config import Settings

__all__ = [
    "MAX_HINTS",
    "Approval",
    "Snapshot",
    "State",
    "StateError",
    "scope_of",
    "step",
]

# Beyond this many distinct requests on hold, every governed request looks for its own approval.
MAX_HINTS: Final = 1000
# How long a row is kept after its expiry, so that late users of a handle learn what became of it.
KEPT_SECONDS: Final = 86_400.0


class StateError(AscendError):
    """The shared state cannot be read or written now; whatever depends on it is refused."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Approval:
    """One action that was held for a person, and the one request that may resume it.

    Attributes:
        handle: the key, 256 random bits in base64url; whoever repeats the request shows it.
        action_id: the action's id at the authority.
        fingerprint: digest of the request that may resume it.
        sharing: digest under which an identical request of the same caller finds this row.
        hint: digest of what is known of a request before its body is read.
        agent_id: on whose behalf.
        rule: the rule's label.
        created_at: seconds since the epoch, as all times here.
        expires_at: until when it may be resumed; a denial holds until then.
        status: the authority's last known word: `pending`, `approved`, `denied`.
        reason: why it was denied.
        process: the journal id of the process that claimed it; empty before.
        claimed_by: the token of the claim; empty before.
        claimed_at: when it was claimed, 0 before.
        outcome: what became of the run: empty while unknown, `completed`, `failed`, `unknown`.
        entry: the journal's entry, written with the claim.
        given_back: how often it was claimed for a run that did not happen.
    """

    handle: str
    action_id: str
    fingerprint: str
    sharing: str
    hint: str
    agent_id: str
    rule: str
    created_at: float
    expires_at: float
    status: str = "pending"
    reason: str = ""
    process: str = ""
    claimed_by: str = ""
    claimed_at: float = 0.0
    outcome: str = ""
    entry: str = ""
    given_back: int = 0

    @property
    def key(self) -> str:
        """The digest under which stores keep the row: a lookup tells nothing about the handle by its timing."""
        return key_of(self.handle)


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """The part of the state that every guarded request looks at.

    Attributes:
        orders: what the kill switch orders.
        hints: the hints of requests on hold, or None when there are too many to list.
        confirmed_at: when a background worker last had the authority's word on the kill state; 0 when never.
    """

    orders: Orders[str, Order] = field(default_factory=Orders)
    hints: frozenset[str] | None = frozenset()
    confirmed_at: float = 0.0


class State(Protocol):
    """What a store does. Times are seconds since the epoch."""

    kind: str
    """`memory`, `file` or `redis`."""

    blocks: bool
    """Whether calls may wait for a disk or a network, so that an event loop makes them in a thread."""

    def hold(self, approval: Approval, *, now: float) -> Approval:
        """Keep a new row, or return the one that an identical request of the same caller has open; atomic."""

    def find(self, handle: str) -> Approval | None:
        """Return the row of a handle, also when it is expired or used; None when there is none."""

    def find_open(self, sharing: str, *, now: float) -> Approval | None:
        """Return the unclaimed, unexpired row of an identical request."""

    def note(self, handle: str, *, status: str, reason: str = "") -> None:
        """Keep the authority's word on an unclaimed row; a denial stays."""

    def drop(self, handle: str, *, now: float) -> None:
        """Let an unclaimed row expire at once, because the authority no longer knows its action."""

    def claim(self, handle: str, *, by: str, process: str, entry: str, now: float) -> Approval | None:
        """Claim a row and keep the journal's entry with it, in one atomic operation.

        Returns:
            The row as it now stands: claimed by `by` if this call, or an earlier try of it, won. None without a row.
        """

    def give_back(self, handle: str, *, by: str, most: int) -> int:
        """Undo the claim of `by`, because its run did not happen; at most `most` times for one row.

        Returns:
            How often this row was given back so far, this time included; 0 where it was not.
        """

    def settle(self, handle: str, *, outcome: str) -> None:
        """Record what became of a claimed run, once; the first word stands, except that it may replace `unknown`."""

    def unsettled(self, process: str) -> Sequence[Approval]:
        """Return the claims of one process of which no outcome is known."""

    def apply(self, orders: Sequence[Order], *, command_id: str, now: float) -> bool:
        """Apply a command's orders where they are newer; False if the command was applied before."""

    def confirm(self, *, now: float) -> None:
        """Keep that the authority's word on the kill state is known as of now."""

    def snapshot(self, *, now: float) -> Snapshot:
        """Return what every guarded request looks at."""

    def take(self, name: str, *, limit: int, now: float) -> float | None:
        """Count one request under a name: None if within `limit` in any 60 seconds, else the seconds to wait."""

    def lease(self, name: str, *, owner: str, seconds: float, now: float) -> bool:
        """Take or prolong a lease; False while another owner has it."""

    def see(self, agent_id: str, *, now: float) -> None:
        """Keep that an agent is active here, so that its commands are asked for."""

    def agents(self, *, since: float) -> Sequence[str]:
        """Return the agents seen since then, most recent first."""

    def close(self) -> None:
        """Close what is open in this process."""


def step(
    state: State,
    function: Callable[..., Any],
    *arguments: Any,
    abandon: Callable[[Any], Any] | None = None,
    **named: Any,
) -> Blocking:
    """Return the step that makes a call which uses the state."""
    return Blocking(functools.partial(function, **named), arguments, inline=not state.blocks, abandon=abandon)


def key_of(handle: str) -> str:
    """Return the digest under which a handle's row is kept."""
    return hashlib.sha256(handle.encode("utf-8", "replace")).hexdigest()


def scope_of(settings: Settings) -> str:
    """Return under what name this service keeps its rows: services of one authority and organisation share them."""
    text = "\n".join(["state", settings.api_url, settings.organization_id])
    return hashlib.sha256(text.encode()).hexdigest()[:16]
