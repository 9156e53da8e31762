"""Tell the authority what a journal holds: in its order, at least once, with a key for each line that makes it once.

A line that the authority cannot take now stays next. One that it will never take is set aside, loudly.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import msgspec

from ..api.models import AgentAction
from ..client import requests
from ..exceptions import (
    AscendError,
    AuthorizationDeniedError,
    ConflictError,
    KillSwitchError,
    NotFoundError,
    ProtocolError,
    ServerError,
    ValidationError,
)
from ..masking import get_logger
from .segments import seal, unseal

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..client.core import ClientCore
    from ..flow import Flow
    from .segments import Log

__all__ = [
    "CALL_SECONDS",
    "FINAL",
    "PROCESS_ENDED",
    "Delivery",
    "Foreign",
    "decode_entry",
    "decode_line",
    "iso_time",
]

logger = get_logger("ascend_middleware.journal")

# What one call may take; it is nobody's request that waits.
CALL_SECONDS: Final = 10.0
FINAL: Final = (AuthorizationDeniedError, ConflictError, KillSwitchError, NotFoundError, ValidationError)
# So often in a row the authority may fail at a line: with the pauses between, for some ten minutes.
_PATIENCE: Final = 25
# An entry that stays open while so many segments fill up is written again, so that they can go.
_CARRIED_SEGMENTS: Final = 3

_decode: Final = msgspec.json.Decoder(dict[str, Any]).decode
_encode: Final = msgspec.json.Encoder().encode
PROCESS_ENDED: Final = "process ended"


class Foreign(AscendError):  # noqa: N818 - says what it is
    """The authority does not let this service speak about a dead process's action; another one may."""


@dataclass(slots=True)
class _Open:
    """An entry whose outcome was not seen yet."""

    segment: int
    line: bytes
    action_id: str
    at: float


def decode_line(line: bytes) -> dict[str, Any] | None:
    """Return a line of a journal as an object, or None if it is damaged."""
    content = unseal(line)
    try:
        return None if content is None else _decode(content)
    except msgspec.DecodeError:
        return None


def decode_entry(text: str) -> dict[str, Any] | None:
    """Return the entry that was kept with a claim, or None if it is damaged."""
    try:
        return _decode(text.encode())
    except msgspec.DecodeError:
        return None


class Delivery:
    """Deliver one log.

    Args:
        log: the lines; this is their only reader.
        process: the journal's id, part of every idempotency key.
        core: the client's flows.
        note: keeps under which id the authority knows a pass without a decision: number, id.
        adopted: whether the process that wrote it is dead.
        max_age: seconds after which what nobody may deliver for a dead process is set aside.
        now: seconds since the epoch.
    """

    def __init__(
        self,
        log: Log,
        *,
        process: str,
        core: ClientCore,
        note: Callable[[int, str], None],
        adopted: bool = False,
        max_age: float = 604_800.0,
        now: Callable[[], float],
    ) -> None:
        self._log = log
        self._process = process
        self._core = core
        self._note = note
        self._adopted = adopted
        self._max_age = max_age
        self._now = now
        self._open: dict[int, _Open] = {}
        self._known: dict[int, str] = {}
        self._carried: set[int] = set()
        self._concluded: set[int] = set()
        self._segment = 0
        self._failures = 0
        self.set_aside = 0
        # Of an adopted log: every entry's outcome, `completed`, `failed` or, where it has none, `unknown`.
        self.outcomes: dict[int, str] = {}

    @property
    def open_entries(self) -> int:
        """How many entries have no outcome yet, as far as was read."""
        return len(self._open)

    def known(self, number: int, action_id: str) -> None:
        """Say beforehand under which id the authority knows an entry; its line may stand behind the outcome's."""
        self._known[number] = action_id

    @property
    def waiting_since(self) -> float | None:
        """When the line was written that is next; None when there is none."""
        found = self._log.peek()
        record = None if found is None else decode_line(found[1])
        return None if record is None else float(record.get("at", 0.0))

    def deliver_next(self) -> Flow[bool]:
        """Deliver the next line; False when there is none.

        Raises:
            Foreign: see there.
            AscendError: not now; the line stays next.
        """
        found = self._log.peek()
        if found is None:
            return False
        segment, line = found
        record = decode_line(line)
        if record is not None:
            try:
                yield from self._deliver(record, segment, line)
            except FINAL as error:
                self._give_up(record, line, error)
            except (ServerError, ProtocolError) as error:
                self._failures += 1
                if self._failures < _PATIENCE:
                    raise
                # It stands before all others. Where the authority answers else, it is this line.
                self._failures = 0
                yield from self._core.try_key(seconds=CALL_SECONDS)
                self._give_up(record, line, error)
        elif line.strip():
            logger.error("a damaged line of the journal %s is skipped", self._process)
            self._log.set_aside(line)
        self._failures = 0
        self._log.advance()
        if segment != self._segment:
            self._segment = segment
            self._make_room(segment)
        return True

    def finish(self) -> Flow[None]:
        """Report every entry without an outcome as failed, because its process ended; after the last line."""
        for number, opened in sorted(self._open.items()):
            record = {"n": number, "at": self._now(), "error": PROCESS_ENDED, "ms": None}
            try:
                yield from self._report(record, opened)
            except FINAL as error:
                self._give_up({"k": "outcome", **record}, opened.line, error)
            self._open.pop(number, None)

    def _deliver(self, record: dict[str, Any], segment: int, line: bytes) -> Flow[None]:
        kind, number = record.get("k"), record.get("n", 0)
        if kind == "entry":
            yield from self._enter(record, number, segment, line)
        elif kind == "submitted":
            if number in self._open:
                self._open[number].action_id = record["id"]
        elif kind == "outcome":
            opened = self._open.get(number)
            if opened is not None and not self._log.was_delivered:
                yield from self._report(record, opened)
            self._conclude(number)
            if self._adopted:
                self.outcomes[number] = "completed" if record.get("error") is None else "failed"

    def _conclude(self, number: int) -> None:
        self._open.pop(number, None)
        self._known.pop(number, None)
        if self._adopted or number in self._carried:
            self._concluded.add(number)

    def _enter(self, record: dict[str, Any], number: int, segment: int, line: bytes) -> Flow[None]:
        if self._adopted:
            self.outcomes.setdefault(number, "unknown")
        if number in self._concluded:
            return  # written again just before its outcome
        opened = self._open.get(number)
        if opened is not None:
            opened.segment = segment
            return
        opened = _Open(segment, line, self._known.get(number) or record.get("id") or "", float(record.get("at", 0.0)))
        if record.get("how") == "open" and not opened.action_id:
            opened.action_id = yield from self._submit(record, number)
        self._open[number] = opened

    def _submit(self, record: dict[str, Any], number: int) -> Flow[str]:
        """Submit what was passed while the authority was away, marked as such."""
        action = AgentAction(**record["action"])
        passed_at = iso_time(record.get("at", 0.0))
        action.context = {**(action.context or {}), "passed_open": True, "passed_open_at": passed_at}
        key = f"journal-{self._process}-{number}-submit"
        decision = yield from self._core.submit(
            action, deadline=self._deadline(), idempotency_key=key, breaker=self._core.unbroken
        )
        if not decision.is_approved():
            logger.error(
                "an action that ran because on_failure is open is %s, says the authority now: action %s under %s",
                decision.status,
                decision.action_id,
                record.get("rule"),
            )
        self._note(number, decision.action_id)
        return decision.action_id

    def _report(self, record: dict[str, Any], opened: _Open) -> Flow[None]:
        if not opened.action_id:
            return  # it was set aside when it could not be submitted
        at, error, duration = iso_time(record.get("at", 0.0)), record.get("error"), record.get("ms")
        if error is None:
            operation = requests.complete_action(opened.action_id, at=at, duration_ms=duration)
        else:
            operation = requests.fail_action(
                opened.action_id, at=at, error=error, duration_ms=duration, given_back=record.get("given_back")
            )
        key = f"journal-{self._process}-{record['n']}-outcome"
        yield from self._core.call(
            operation, deadline=self._deadline(), idempotency_key=key, breaker=self._core.unbroken
        )

    def _deadline(self) -> float:
        return self._core.clock() + CALL_SECONDS

    def _give_up(self, record: dict[str, Any], line: bytes, error: AscendError) -> None:
        number = record.get("n", 0)
        if self._adopted and isinstance(error, AuthorizationDeniedError | NotFoundError):
            opened = self._open.get(number)
            at = opened.at if opened is not None else float(record.get("at", 0.0))
            if self._now() - at < self._max_age:
                raise Foreign(f"the authority refuses: {error}") from error
        self.set_aside += 1
        logger.error("the authority does not take a line of the journal; it is set aside: %s", error)
        self._log.set_aside(line)
        if record.get("k") == "entry":
            # Its outcome is then nobody's, but the entry is still open until it is seen.
            self._open[number] = _Open(self._segment, line, "", float(record.get("at", 0.0)))
        else:
            self._conclude(number)

    def _make_room(self, segment: int) -> None:
        for number, opened in self._open.items():
            if opened.segment < segment - _CARRIED_SEGMENTS and not self._adopted:
                record = {**(decode_line(opened.line) or {}), "id": opened.action_id}
                self._log.append(seal(_encode(record)))
                self._carried.add(number)
                opened.segment = self._log.segment
        oldest = min((opened.segment for opened in self._open.values()), default=segment)
        self._log.release(min(oldest, segment))


def iso_time(at: float) -> str:
    """Return seconds since the epoch as the wire writes them."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
