"""Tell the authority what journals hold: in their order, at least once, with a key for each line that makes it once.

A line that the authority cannot take now stays next. One that it will never take is set aside, loudly. The journals of
dead processes are adopted: what they left is delivered, and what they never finished is reported.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from ..api.models import AgentAction
from ..client.core import iso_time
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
from ..flow import drive
from ..fork import FileLock
from ..masking import get_logger
from .segments import FileLog, decode_line, encode_line, read_lines

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..client.core import ClientCore
    from ..flow import Flow
    from ..state.base import State
    from .segments import Log

__all__ = ["Delivery", "adopt", "bytes_of_others", "names_of"]

logger = get_logger("ascend_middleware.journal")

# What one call may take; it is nobody's request that waits.
_CALL_SECONDS: Final = 10.0
_FINAL: Final = (AuthorizationDeniedError, ConflictError, KillSwitchError, NotFoundError, ValidationError)
# So often in a row the authority may fail at a line: with the pauses between, for some ten minutes.
_PATIENCE: Final = 25
# An entry that stays open while so many segments fill up is written again, so that they can go.
_CARRIED_SEGMENTS: Final = 3
_PROCESS_ENDED: Final = "process ended"
# How long a journal is left alone whose actions the authority does not let this service speak about.
_FOREIGN_SECONDS: Final = 600.0
# And one to which the authority gave no sensible answer.
_FAILED_SECONDS: Final = 60.0
_left_alone: Final[dict[str, float]] = {}


class _Foreign(AscendError):  # noqa: N818 - says what it is
    """The authority lets another service speak about a dead process's action."""


@dataclass(slots=True)
class _Open:
    """An entry whose outcome was not seen yet."""

    segment: int
    line: bytes
    action_id: str


class Delivery:
    """Deliver one log, of which this is the only reader.

    The process of one that is `adopted` is dead; what nobody may deliver for it is set aside after `max_age` seconds.
    """

    def __init__(
        self,
        log: Log,
        *,
        process: str,
        core: ClientCore,
        adopted: bool = False,
        max_age: float = 604_800.0,
        now: Callable[[], float],
    ) -> None:
        self._log = log
        self._process = process
        self._core = core
        self._adopted = adopted
        self._max_age = max_age
        self._now = now
        self._open: dict[int, _Open] = {}
        self._known: dict[int, str] = {}
        self._carried: set[int] = set()
        self._concluded: set[int] = set()
        self._segment = 0
        self._failures = 0
        # Of an adopted log: every entry's outcome, `completed`, `failed` or, where it has none, `unknown`.
        self._outcomes: dict[int, str] = {}

    @property
    def open_entries(self) -> int:
        """How many entries have no outcome yet, as far as was read."""
        return len(self._open)

    def known(self, number: int, action_id: str) -> None:
        """Say beforehand under which id the authority knows an entry."""
        self._known[number] = action_id

    @property
    def waiting_since(self) -> float | None:
        """When the line was written that is next; None when there is none."""
        found = self._log.peek()
        record = None if found is None else decode_line(found[1])
        return None if record is None else float(record.get("at", 0.0))

    def deliver_next(self) -> Flow[bool]:
        """Deliver the next line; False when there is none. What is raised tells that it stays next."""
        found = self._log.peek()
        if found is None:
            return False
        segment, line = found
        record = decode_line(line)
        if record is not None:
            try:
                yield from self._deliver(record, segment, line)
            except _FINAL as error:
                self._give_up(record, line, error)
            except (ServerError, ProtocolError) as error:
                self._failures += 1
                if self._failures < _PATIENCE:
                    raise
                # It stands before all others. Where the authority answers else, it is this line.
                self._failures = 0
                yield from self._core.try_key(seconds=_CALL_SECONDS)
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

    def finish(self, state: State | None) -> Flow[None]:
        """Conclude what a dead process left without an outcome, and its claims."""
        for number, opened in sorted(self._open.items()):
            record = {"n": number, "at": self._now(), "error": _PROCESS_ENDED, "ms": None}
            try:
                yield from self._report(record, opened)
            except _FINAL as error:
                self._give_up({"k": "outcome", **record}, opened.line, error)
            self._open.pop(number, None)
        if state is None:
            return
        # Also the claim between which and whose journal line it died.
        for row in state.unsettled(self._process):
            number = _number_in(row.entry)
            outcome = self._outcomes.get(number)
            if outcome is None:
                how = {"at": row.claimed_at, **self._how(number, "outcome")}
                try:
                    yield from self._core.report(row.action_id, failed=True, error=_PROCESS_ENDED, **how)
                except _FINAL as error:
                    logger.error("a dead process's claim of action %s cannot be reported: %s", row.action_id, error)
            state.settle(row.handle, outcome=outcome or "unknown")

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
                self._outcomes[number] = "completed" if record.get("error") is None else "failed"

    def _conclude(self, number: int) -> None:
        self._open.pop(number, None)
        self._known.pop(number, None)
        if self._adopted or number in self._carried:
            self._concluded.add(number)

    def _enter(self, record: dict[str, Any], number: int, segment: int, line: bytes) -> Flow[None]:
        if self._adopted:
            self._outcomes.setdefault(number, "unknown")
        if number in self._concluded:
            return  # written again just before its outcome
        opened = self._open.get(number)
        if opened is not None:
            opened.segment = segment
            return
        opened = _Open(segment, line, self._known.get(number) or record.get("id") or "")
        if record.get("how") == "open" and not opened.action_id:
            opened.action_id = yield from self._submit(record, number)
        self._open[number] = opened

    def _submit(self, record: dict[str, Any], number: int) -> Flow[str]:
        """Submit what was passed while the authority was away, marked as such."""
        action = AgentAction(**record["action"])
        passed_at = iso_time(record.get("at", 0.0))
        action.context = {**(action.context or {}), "passed_open": True, "passed_open_at": passed_at}
        decision = yield from self._core.submit(action, **self._how(number, "submit"))
        if not decision.is_approved():
            logger.error(
                "an action that ran because on_failure is open is %s, says the authority now: action %s under %s",
                decision.status,
                decision.action_id,
                record.get("rule"),
            )
        self._log.append(encode_line({"k": "submitted", "n": number, "at": self._now(), "id": decision.action_id}))
        return decision.action_id

    def _report(self, record: dict[str, Any], opened: _Open) -> Flow[None]:
        if not opened.action_id:
            return  # it was set aside when it could not be submitted
        error = record.get("error")
        yield from self._core.report(
            opened.action_id,
            failed=error is not None,
            error=error,
            at=record.get("at", 0.0),
            duration_ms=record.get("ms"),
            given_back=record.get("given_back"),
            **self._how(record["n"], "outcome"),
        )

    def _how(self, number: int, what: str) -> dict[str, Any]:
        deadline, key = self._core.clock() + _CALL_SECONDS, f"journal-{self._process}-{number}-{what}"
        return {"deadline": deadline, "idempotency_key": key, "breaker": self._core.unbroken}

    def _give_up(self, record: dict[str, Any], line: bytes, error: AscendError) -> None:
        number = record.get("n", 0)
        if self._adopted and isinstance(error, AuthorizationDeniedError | NotFoundError):
            opened = self._open.get(number)
            entry = record if opened is None else decode_line(opened.line) or record
            if self._now() - float(entry.get("at", 0.0)) < self._max_age:
                raise _Foreign(f"the authority refuses: {error}") from error
        logger.error("the authority does not take a line of the journal; it is set aside: %s", error)
        self._log.set_aside(line)
        if record.get("k") == "entry":
            # Its outcome is then nobody's, but the entry is still open until it is seen.
            self._open[number] = _Open(self._segment, line, "")
        else:
            self._conclude(number)

    def _make_room(self, segment: int) -> None:
        for number, opened in self._open.items():
            if opened.segment < segment - _CARRIED_SEGMENTS and not self._adopted:
                self._log.append(encode_line({**(decode_line(opened.line) or {}), "id": opened.action_id}))
                self._carried.add(number)
                opened.segment = self._log.segment
        oldest = min((opened.segment for opened in self._open.values()), default=segment)
        self._log.release(min(oldest, segment))


# --- what dead processes left


def names_of(directory: Path) -> list[str]:
    """Return the journals of a directory, oldest first."""
    return sorted(path.stem for path in directory.glob("*.lock"))


def bytes_of_others(directory: Path, *, besides: str) -> int:
    """Return how many bytes the journals of dead processes hold."""
    total = 0
    for path in directory.glob("*.journal"):
        if path.name.startswith(f"{besides}-"):
            continue
        name = path.name.rpartition("-")[0]
        lock = FileLock.take(directory / f"{name}.lock", create=False)
        if lock is None:
            continue  # its own process counts it
        lock.release()
        try:
            total += path.stat().st_size
        except FileNotFoundError:
            continue
    return total


def adopt(
    directory: Path,
    *,
    core: ClientCore,
    state: State | None,
    perform: Callable[[Any], Any],
    max_age: float = 604_800.0,
    now: Callable[[], float] = time.time,
) -> int:
    """Deliver and remove every journal of a directory whose process is dead; return how many.

    While the authority or the state cannot be used, what is left is left for the next time.
    """
    adopted = 0
    for name in names_of(directory):
        place, done = f"{directory}/{name}", False
        lock = None
        if core.clock() >= _left_alone.get(place, 0.0):
            lock = FileLock.take(directory / f"{name}.lock", create=False)
        if lock is None:
            continue
        try:
            log = FileLog(directory, name, lock=lock)
        except OSError as error:
            logger.error("the journal %s of a dead process cannot be opened: %s", name, error)
            continue
        try:
            delivery = Delivery(log, process=name, core=core, adopted=True, max_age=max_age, now=now)
            _deliver_all(delivery, directory, name, state, perform)
            done = True
        except _Foreign as error:
            _left_alone[place] = core.clock() + _FOREIGN_SECONDS
            logger.error(
                "the journal %s of a dead process is left for the service that wrote it: %s", name, error.message
            )
        except (ServerError, ProtocolError) as error:  # to what is in it; the others may do better
            _left_alone[place] = core.clock() + _FAILED_SECONDS
            logger.error("the journal %s of a dead process cannot be delivered now: %s", name, error)
        finally:
            log.close(remove=done)
        adopted += done
    return adopted


def _deliver_all(
    delivery: Delivery, directory: Path, name: str, state: State | None, perform: Callable[[Any], Any]
) -> None:
    lines = 0
    for line, _ in read_lines(directory, name):
        record = decode_line(line)
        lines += record is not None
        if record is not None and record.get("k") == "submitted":
            delivery.known(record["n"], record["id"])
    while drive(delivery.deliver_next(), perform):
        pass
    ended = delivery.open_entries
    drive(delivery.finish(state), perform)
    if lines:
        logger.warning("delivered the journal of a process that ended: %d lines, %d without an outcome", lines, ended)


def _number_in(entry: str) -> int:
    """Return the number of the entry that was kept with a claim, 0 if it is damaged."""
    try:
        return int(msgspec.json.decode(entry.encode(), type=dict[str, Any]).get("n", 0))
    except msgspec.DecodeError:
        return 0
