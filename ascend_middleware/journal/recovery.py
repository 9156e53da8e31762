"""Adopt the journals of dead processes: deliver what they left, and report what they never finished."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from ..client import requests
from ..exceptions import ProtocolError, ServerError
from ..flow import drive
from ..masking import get_logger
from .delivery import CALL_SECONDS, FINAL, PROCESS_ENDED, Delivery, Foreign, decode_entry, decode_line, iso_time
from .lockfile import FileLock
from .segments import FileLog, read_lines, seal

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..client.core import ClientCore
    from ..state.base import State

__all__ = ["adopt", "bytes_of_others", "names_of"]

logger = get_logger("ascend_middleware.journal")

# How long a journal is left alone whose actions the authority does not let this service speak about.
_FOREIGN_SECONDS: Final = 600.0
# And one to which the authority gave no sensible answer.
_FAILED_SECONDS: Final = 60.0
_left_alone: Final[dict[str, float]] = {}


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

    Raises:
        AscendError: the authority or the state cannot be used now; what is left is left for the next time.
    """
    adopted = 0
    for name in names_of(directory):
        if core.clock() < _left_alone.get(f"{directory}/{name}", 0.0):
            continue
        lock = FileLock.take(directory / f"{name}.lock", create=False)
        if lock is None:
            continue
        try:
            log = FileLog(directory, name, lock=lock)
        except OSError as error:
            logger.error("the journal %s of a dead process cannot be opened: %s", name, error)
            continue
        done = False
        try:
            _deliver(log, directory, core=core, state=state, perform=perform, max_age=max_age, now=now)
            done = True
        except Foreign as error:
            _left_alone[f"{directory}/{name}"] = core.clock() + _FOREIGN_SECONDS
            logger.error(
                "the journal %s of a dead process is left for the service that wrote it: %s", name, error.message
            )
        except (ServerError, ProtocolError) as error:  # to what is in it; the others may do better
            _left_alone[f"{directory}/{name}"] = core.clock() + _FAILED_SECONDS
            logger.error("the journal %s of a dead process cannot be delivered now: %s", name, error)
        finally:
            log.close(remove=done)
        adopted += done
    return adopted


def _deliver(
    log: FileLog,
    directory: Path,
    *,
    core: ClientCore,
    state: State | None,
    perform: Callable[[Any], Any],
    max_age: float,
    now: Callable[[], float],
) -> None:
    def note(number: int, action_id: str) -> None:
        log.append(note_line(number, action_id, now()))

    delivery = Delivery(log, process=log.name, core=core, note=note, adopted=True, max_age=max_age, now=now)
    lines = 0
    for line, _ in read_lines(directory, log.name):
        record = decode_line(line)
        lines += record is not None
        if record is not None and record.get("k") == "submitted":
            delivery.known(record["n"], record["id"])
    while drive(delivery.deliver_next(), perform):
        pass
    ended = delivery.open_entries
    drive(delivery.finish(), perform)
    if state is not None:
        _settle(delivery, log.name, core=core, state=state, perform=perform)
    if lines:
        logger.warning("delivered the journal of a process that ended: %d lines, %d without an outcome", lines, ended)


def _settle(delivery: Delivery, process: str, *, core: ClientCore, state: State, perform: Callable[[Any], Any]) -> None:
    """Conclude the claims of a dead process, also the one between whose claim and whose journal line it died."""
    for row in state.unsettled(process):
        number = (decode_entry(row.entry) or {}).get("n", 0)
        outcome = delivery.outcomes.get(number)
        if outcome is None:
            deadline = core.clock() + CALL_SECONDS
            operation = requests.fail_action(row.action_id, at=iso_time(row.claimed_at), error=PROCESS_ENDED)
            key = f"journal-{process}-{number}-outcome"
            try:
                drive(core.call(operation, deadline=deadline, idempotency_key=key), perform)
            except FINAL as error:
                logger.error("a dead process's claim of action %s cannot be reported: %s", row.action_id, error)
        state.settle(row.handle, outcome=outcome or "unknown")


def note_line(number: int, action_id: str, at: float) -> bytes:
    """Return the line that keeps under which id the authority knows a pass without a decision."""
    return seal(msgspec.json.encode({"k": "submitted", "n": number, "at": at, "id": action_id}))
