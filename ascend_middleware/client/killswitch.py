"""Whether this client's agent may act: the commands that it fetched and the status that it polls, newest first.

What cannot be read stops: a limit without a number, a status that stays away. What cannot be read never lifts a stop.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from .. import masking
from ..api.commands import Command, MalformedCommand, Target, parse_command
from ..api.orders import EVERYBODY, Orders, Uses
from ..exceptions import KillSwitchError, RateLimitError
from ..fork import ProcessLock

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..api.models import KillSwitchStatus

__all__ = ["KillState"]

_FAILED_POLLS: Final = 3

_log = masking.get_logger("ascend_middleware.client.killswitch")


class KillState:
    """What one client knows about the kill switch of its agent, and of its whole organisation.

    Reading it takes no lock, so a request never waits for a poll, and a forked child never for a thread it has not got.
    """

    def __init__(self, *, agent_id: str, clock: Callable[[], float], now: Callable[[], float]) -> None:
        self._agent_id: Final = agent_id
        self._now: Final = now
        self._clock: Final = clock
        self._lock: Final = ProcessLock()
        self._orders = Orders[str, Command]()
        self._passed = Uses(clock)
        self._polled: tuple[bool, str] = (False, "")
        self._failures = 0
        # While polling: how old the last answer may be, and when it came.
        self._stale_after = math.inf
        self._answered_at = 0.0

    # --- what is learnt

    def expect(self, interval: float | None) -> None:
        """Say that the status is polled every `interval` seconds from now on, or no more (None)."""
        with self._lock:
            self._stale_after = math.inf if interval is None else interval * _FAILED_POLLS
            self._answered_at = self._clock()
            if self._failures >= _FAILED_POLLS:
                # Silence blocks only while polling goes on; a block that the authority reported stays.
                self._polled = (False, "")
            self._failures = 0

    def learn_status(self, status: KillSwitchStatus) -> None:
        """Take over an answer of the status poll."""
        reason = status.get("reason")
        with self._lock:
            self._polled = (status.blocked, str(reason) if reason else "")
            self._answered_at = self._clock()
            self._failures = 0

    def poll_failed(self, error: Exception) -> None:
        """Count a poll without an answer; three in a row stop the agent until one succeeds."""
        with self._lock:
            self._failures += 1
            failures = self._failures
            if failures >= _FAILED_POLLS:
                self._polled = (True, f"the kill switch could not be asked {failures} times in a row")
        # An error once; what repeats is logged at debug.
        level = _log.warning if failures < _FAILED_POLLS else _log.error if failures == _FAILED_POLLS else _log.debug
        level("kill-switch poll failed (%d in a row): %s", failures, error)

    def learn_command(self, message: object) -> None:
        """Obey a command, unless a newer order is known or it is for somebody else (contract C27, §2.10)."""
        try:
            command = parse_command(message, received_at=self._now())
        except MalformedCommand as error:
            _log.error("ignoring a kill-switch command: %s", error)
            return
        if command.target is Target.MCP_SERVER or command.agent_id not in (None, self._agent_id):
            return
        with self._lock:
            self._orders.apply(command, EVERYBODY if command.agent_id is None else command.agent_id)

    # --- what follows

    def stopped(self) -> str | None:
        """Return why the agent must not act, or None."""
        order = self._orders.why_blocked(self._agent_id, EVERYBODY)
        if order is not None:
            return order.reason or order.kind.lower()
        blocked, reason = self._polled
        if blocked:
            return reason or "the kill switch is active"
        if self._clock() - self._answered_at > self._stale_after:
            return f"the kill switch was not heard of for more than {self._stale_after:g} s"
        return None

    def check(self) -> None:
        """Raise `KillSwitchError` when the agent must not act."""
        reason = self.stopped()
        if reason is not None:
            raise KillSwitchError(f"agent {self._agent_id or 'of this client'} is blocked: {reason}")

    def admit(self) -> None:
        """Count one action against the agent's limit; raise where it must not act, or only in `retry_after` seconds."""
        self.check()
        order = self._orders.limit(self._agent_id, EVERYBODY)
        if order is None or order.max_per_minute is None:
            return
        limit = order.max_per_minute
        with self._lock:
            wait = self._passed.wait(limit)
            if not wait:
                self._passed.add()
                return
        raise RateLimitError(
            f"agent {self._agent_id} is limited to {limit} actions a minute: {order.reason or 'rate_limit'}",
            retry_after=wait,
            limit=limit,
            remaining=0,
        )
