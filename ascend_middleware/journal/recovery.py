"""Adopt the journals of dead processes: what they left is delivered, and what they never finished is reported."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ..exceptions import ProtocolError, ServerError
from ..flow import drive
from ..fork import FileLock
from ..masking import get_logger
from .delivery import Delivery, Foreign
from .files import read_lines, size_of
from .lines import decode_line
from .segments import FileLog

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
            total += size_of(path)
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
        except Foreign as error:
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
    while drive(delivery.deliver_many(), perform):
        pass
    ended = delivery.open_entries
    drive(delivery.finish(state), perform)
    if lines:
        logger.warning("delivered the journal of a process that ended: %d lines, %d without an outcome", lines, ended)
