"""The kill switch as a request sees it: whether the agent may act now, or is blocked, or acts too fast.

Obedience does not depend on a thread: what workers share is read again whenever it is older than 250 ms. What this
process once knew it keeps, so that a state that was emptied lifts nothing.
"""

from __future__ import annotations

import functools
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from ..api.orders import EVERYBODY
from ..exceptions import AscendError
from ..flow import ClientGone, Sleep, Watch
from ..fork import ProcessLock
from ..masking import get_logger
from ..state.base import Snapshot, StateError, step
from ..verdict import Refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ..api.orders import Order
    from ..flow import Flow
    from ..state.base import State

__all__ = ["KILL_VARIABLE", "KillSwitch", "unavailable_state"]

logger = get_logger("ascend_middleware.kill")

KILL_VARIABLE: Final = "ASCEND_KILL"
FRESH_SECONDS: Final = 0.25
# How long what was read last is used while another request reads, or while the state cannot be read.
_GRACE_SECONDS: Final = 0.75
_FUTURE_SECONDS: Final = 300.0
_LOUD_SECONDS: Final = 60.0
# Far longer than a read may take: after that, the reader is taken for lost.
_READ_SECONDS: Final = 3.0
_ALL: Final = frozenset({"1", "true", "yes", "on", "all", EVERYBODY})
_NONE: Final = frozenset({"", "0", "false", "no", "off"})
_SEEN_AGAIN: Final = 3600.0
_MAX_SEEN: Final = 10_000
# How often a request looks whether another one has read the kill state meanwhile.
_WAIT_SECONDS: Final = 0.01
# After a failed attempt to confirm what is too old, others block without an attempt of their own for so long.
_FAILED_SECONDS: Final = 1.0


class _Poller(Protocol):
    """What a check needs of `poller.CommandPoller`."""

    def poll(self, *, deadline: float | None) -> Flow[None]: ...
    def is_silent_about(self, agent_id: str) -> bool: ...
    def ask_for(self, agent_id: str, *, deadline: float) -> Flow[None]: ...


class KillSwitch:
    """What the state, the local file and the environment say about agents.

    While the local file exists, everybody is blocked, or the agents that it names line by line. After `max_staleness`
    seconds without the authority's word the kill state is too old to be trusted; 0 is never. The poller asks about the
    service's `own` agent anyway.
    """

    def __init__(
        self,
        state: State,
        *,
        own: str = "",
        kill_file: str = "",
        max_staleness: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self.max_staleness: Final = max_staleness
        self._state = state
        self._file = Path(kill_file).absolute() if kill_file else None
        self._clock = clock
        self._now = now
        self._environ = os.environ if environ is None else environ
        self.snapshot = Snapshot()
        # How often what is ordered was found to be another thing than before.
        self.changes = 0
        self._local: frozenset[str] = frozenset()
        self._local_reason = ""
        self._read_at = -1e9
        self._reading_until = -1e9
        self._failing = False
        self._failed_at = -1e9
        self._said_at = -1e9
        self._expired = False
        # Until when `is_quiet` and `is_idle` hold; every request asks.
        self._quiet_until = self._idle_until = -1e9
        self._lock: Final = ProcessLock()
        self._seen: dict[str, float] = {own: float("inf")}
        # Of single agents, and of the whole state under no name: until when somebody asks, and when that failed.
        self._asking: dict[str, float] = {}
        self._unheard: dict[str, float] = {}

    @property
    def is_fresh(self) -> bool:
        """Whether what was read last is still good enough to decide by."""
        now = self._clock()
        if self._expired:
            return False
        if now - self._read_at < FRESH_SECONDS:
            return True
        # While one request reads, the others use what was read before, for a moment.
        return now - self._read_at < _GRACE_SECONDS and now < self._reading_until

    @property
    def is_quiet(self) -> bool:
        """Whether what was read is fresh, and blocks or limits nobody: then no agent needs a closer look."""
        return self._clock() < self._quiet_until

    @property
    def is_idle(self) -> bool:
        """Whether, beside that, no action is on hold: then no request needs a closer look."""
        return self._clock() < self._idle_until

    def look(self, *, waits: bool = True) -> Flow[bool]:
        """Read the state if what was read is too old, one request for all; False where it cannot be read.

        While the state does not answer, one request at a time tries to read it, and the others do not wait.
        """
        while not self.is_fresh:
            now = self._clock()
            with self._lock:
                is_read = now < self._reading_until
                if self._failing and (is_read or now - self._failed_at < FRESH_SECONDS):
                    return False
                if not is_read:
                    self._reading_until = now + _READ_SECONDS
            if not is_read:
                try:
                    yield step(self._state, self.refresh)
                except StateError:
                    return False
                break
            if not waits:
                break
            yield Sleep(_WAIT_SECONDS)
        return True

    @property
    def age(self) -> float:
        """How many seconds ago the state was read."""
        return self._clock() - self._read_at

    @property
    def confirmed_age(self) -> float | None:
        """How many seconds ago the authority's word on the kill state was known; None where it never was."""
        at = self.snapshot.confirmed_at
        return max(0.0, self._now() - at) if at else None

    @property
    def is_thrown(self) -> bool:
        """Whether the local switch blocked anybody when it was read last."""
        return bool(self._local)

    def expire(self) -> None:
        """Let the next request read the state again."""
        self._expired = True
        self._quiet_until = self._idle_until = -1e9

    def refresh(self) -> None:
        """Read the state and the local switch; raises `StateError` where what is known is too old, too."""
        began = self._clock()
        self._expired = False
        self._quiet_until = self._idle_until = -1e9
        self._read_local()
        try:
            found = self._state.snapshot(now=self._now())
            lost = found.orders.merge(self.snapshot.orders)
            if lost:
                logger.error("the state has lost %d kill-switch orders; they are put back", len(lost))
                self._state.apply(lost, command_id="", now=self._now())
            if found.orders != self.snapshot.orders:
                self.changes += 1
            self.snapshot, self._read_at = found, began
            if not (self.max_staleness or self._local or found.orders):
                self._quiet_until = began + FRESH_SECONDS
                if found.hints is not None and not found.hints:
                    self._idle_until = began + FRESH_SECONDS
                if self._expired:  # by another thread, meanwhile
                    self._quiet_until = self._idle_until = -1e9
        except StateError as error:
            self._failing, self._failed_at = True, self._clock()
            if not 0 <= began - self._said_at < _LOUD_SECONDS:
                self._said_at = began
                logger.error("the kill state cannot be read: %s", error)
            if began - self._read_at > _GRACE_SECONDS:
                raise
        else:
            self._failing = False
        finally:
            self._reading_until = -1e9

    def refusal(self, agent_id: str) -> Refusal | None:
        """Return why an agent is blocked, by what was read last; None if it is not."""
        if self._local and (agent_id in self._local or EVERYBODY in self._local):
            return _blocked(f"blocked by {self._local_reason}")
        orders = self.snapshot.orders
        order = orders.why_blocked(agent_id, EVERYBODY) if orders else None
        return None if order is None else _blocked(_said(order))

    def limit(self, agent_id: str) -> int | None:
        """Return how many requests a minute an agent is held to; None without a limit."""
        orders = self.snapshot.orders
        order = orders.limit(agent_id, EVERYBODY) if orders else None
        return None if order is None else order.max_per_minute

    @property
    def is_stale(self) -> bool:
        """Whether the authority's last word on the kill state is older than `max_staleness`."""
        if not self.max_staleness:
            return False
        age = self._now() - self.snapshot.confirmed_at
        # A confirmation from the future was made before the clock was set back.
        return age > self.max_staleness or age < -_FUTURE_SECONDS

    def _read_local(self) -> None:
        named, reason = _agents(self._environ.get(KILL_VARIABLE, ""), ","), f"the environment ({KILL_VARIABLE})"
        if self._file is not None:
            try:
                text = self._file.read_text("utf-8", "replace")
            except FileNotFoundError:
                pass
            except OSError as error:
                # If the file cannot be read, the switch counts as thrown.
                named, reason = frozenset({EVERYBODY}), f"the local kill file, which cannot be read: {error.strerror}"
            else:
                named, reason = named | (_agents(text, "\n") or frozenset({EVERYBODY})), "the local kill file"
        if named and (not self._local or reason != self._local_reason):
            logger.error("the local kill switch is thrown by %s", reason)
        if named != self._local:
            self.changes += 1
        self._local, self._local_reason = named, reason

    # --- what a request asks

    def obey(self, agent_id: str, poller: _Poller, *, deadline: float) -> Flow[Refusal | None]:
        """Return why an agent may not act now: it is blocked or too fast, or the kill state is not known."""
        refusal = yield from self.blocked(agent_id)
        if refusal is None and self.is_stale:
            refusal = yield from self._confirmed(agent_id, "", lambda: self.is_stale, poller.poll, deadline)
        if refusal is None and poller.is_silent_about(agent_id):
            is_silent = functools.partial(poller.is_silent_about, agent_id)
            ask = functools.partial(poller.ask_for, agent_id)
            refusal = yield from self._confirmed(agent_id, agent_id, is_silent, ask, deadline)
        limit = self.limit(agent_id)
        if refusal is not None or limit is None:
            return refusal
        try:
            wait = yield step(self._state, self._state.take, f"agent {agent_id}", limit=limit, now=self._now())
        except StateError:
            return unavailable_state()
        if wait is None:
            return None
        detail = f"The agent is held to {limit} requests a minute."
        return Refusal(problem="agent-rate-limit", detail=detail, retry_after=max(wait, 0.001))

    def blocked(self, agent_id: str) -> Flow[Refusal | None]:
        """Return why an agent is blocked, by a state of at most 250 ms ago."""
        is_known = yield from self.look()
        return self.refusal(agent_id) or (None if is_known else unavailable_state())

    def _confirmed(
        self,
        agent_id: str,
        name: str,
        is_old: Callable[[], bool],
        ask: Callable[..., Flow[None]],
        deadline: float,
    ) -> Flow[Refusal | None]:
        """Have the authority confirm what is too old, once for all who wait."""
        while self._clock() < self._asking.get(name, -1e9):
            if (yield Watch(0.05)):
                raise ClientGone
        if is_old() and self._clock() - self._unheard.get(name, -1e9) >= _FAILED_SECONDS:
            self._asking[name] = deadline
            try:
                yield from ask(deadline=deadline)
                yield step(self._state, self.refresh)
            except AscendError as error:
                if len(self._unheard) >= _MAX_SEEN:
                    self._unheard.clear()
                self._unheard[name] = self._clock()
                whose = f" of agent {name[:80]!r}" if name else ""
                logger.error("the kill state%s is stale and cannot be confirmed: %s", whose, error)
            finally:
                self._asking.pop(name, None)
        if is_old():
            return _blocked("the kill state could not be confirmed with the authority for too long")
        return self.refusal(agent_id)

    def see(self, agent_id: str) -> Flow[None]:
        """Keep that an agent acts here, so that its commands are asked for.

        Only one that the authority let act, or holds: names that a caller made up must not crowd out the others.
        """
        if self._clock() - self._seen.get(agent_id, -1e9) <= _SEEN_AGAIN:
            return
        if len(self._seen) > _MAX_SEEN:
            self._seen.clear()
        self._seen[agent_id] = self._clock()
        try:
            yield step(self._state, self._state.see, agent_id, now=self._now())
        except StateError as error:
            logger.warning("an agent's activity cannot be kept: %s", error)


def _agents(text: str, separator: str) -> frozenset[str]:
    if text.strip().lower() in _NONE:
        return frozenset()
    names = {part.strip() for part in text.split(separator) if part.strip()}
    return frozenset(EVERYBODY if name.lower() in _ALL else name for name in names)


def _blocked(why: str) -> Refusal:
    return Refusal(problem="kill-switch", detail=f"The agent may not act: {why}.")


def _said(order: Order) -> str:
    reason = f" ({order.reason[:200].rstrip('.')})" if order.reason else ""
    return f"{order.kind.lower()}ed by command{reason}" if order.kind == "BLOCK" else f"{order.kind.lower()}{reason}"


def unavailable_state() -> Refusal:
    """Return what a request gets that depends on a state which cannot be used."""
    return Refusal(problem="unavailable", detail="What the workers share cannot be read or written.", retry_after=1.0)
