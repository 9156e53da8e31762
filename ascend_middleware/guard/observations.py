"""What observe mode saw: how many requests were judged, and would have been refused; kept for the command `report`.

Each process keeps the counts of its lifetime in a file of its own in the journal's directory, written anew at most
every few seconds. A process that is killed loses those seconds.
"""

from __future__ import annotations

import atexit
import contextlib
import secrets
import threading
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from ..fork import process_id, renew_once
from ..text import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ..verdict import Verdict
    from .request import RequestView

__all__ = ["Observation", "Observations", "observation_files", "read_observations"]

_SECONDS: Final = 5.0
# A caller can make up paths and agents.
_MOST: Final = 5_000
_LONGEST: Final = 200
_MOST_FILES: Final = 200
_OTHERS: Final = "…"


class Observation(msgspec.Struct, kw_only=True):
    """What became of alike requests.

    Attributes:
        method: of the requests.
        route: their template; the path where no router was asked.
        rule: the rule's label, empty where none covers them.
        agent: on whose behalf they acted, empty where that was not asked.
        would: the problem type that would have been answered; empty where they would have passed.
        reason: the last one that the authority gave.
        count: how many there were.
        first: seconds since the epoch.
        last: likewise.
    """

    method: str
    route: str
    rule: str
    agent: str
    would: str
    reason: str = ""
    count: int = 0
    first: float = 0.0
    last: float = 0.0


class Observations:
    """Counts, for one guard; the directory is the journal's."""

    def __init__(self, directory: Path, *, clock: Callable[[], float], now: Callable[[], float]) -> None:
        self._directory: Final = directory
        self._clock: Final = clock
        self._now: Final = now
        self._begin()

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._found: dict[tuple[str, ...], Observation] = {}
        self._written_at = self._clock()
        # A process may have several guards of one service.
        name = f"observed-{int(self._now())}-{process_id()}-{secrets.token_hex(4)}.json"
        self._path = self._directory / name
        atexit.register(_write_last, weakref.ref(self), process_id())
        self._pid = process_id()

    def note(self, view: RequestView, verdict: Verdict) -> None:
        """Count one request."""
        if self._pid != process_id():
            renew_once(lambda: self._pid, self._begin)  # a forked child's are its own
        rule, action = verdict.rule, verdict.action
        would = verdict.would or ""
        agent = action.agent_id if action is not None else ""
        method, route, agent = (printable(text[:_LONGEST]) for text in (view.verb, view.template, agent))
        key = (method, route, rule.label if rule is not None else "", agent, would)
        moment = self._now()
        with self._lock:
            found = self._found.get(key)
            if found is None:
                if len(self._found) >= _MOST:
                    key = ("*", _OTHERS, key[2], _OTHERS, would)
                method, route, label, whose, _ = key
                found = self._found.setdefault(
                    key, Observation(method=method, route=route, rule=label, agent=whose, would=would, first=moment)
                )
            found.count += 1
            found.last = moment
            if verdict.decision is not None and verdict.decision.reason:
                found.reason = printable(verdict.decision.reason[:_LONGEST])
            if self._clock() - self._written_at < _SECONDS:
                return
            self._written_at = self._clock()
            content = msgspec.json.encode(list(self._found.values()))
        self._write(content)

    def flush(self) -> None:
        """Write what was counted so far."""
        if self._pid != process_id():
            return
        with self._lock:
            content = msgspec.json.encode(list(self._found.values())) if self._found else b""
        if content:
            self._write(content)

    def _write(self, content: bytes) -> None:
        # That nothing can be written costs a report, and no request.
        with contextlib.suppress(OSError):
            if not self._path.exists():
                self._make_room()
            unfinished = self._path.with_suffix(".new")
            unfinished.write_bytes(content)
            unfinished.replace(self._path)

    def _make_room(self) -> None:
        files = sorted(self._directory.glob("observed-*.json"), key=lambda path: path.stat().st_mtime)
        for path in files[: max(0, len(files) - _MOST_FILES + 1)]:
            path.unlink(missing_ok=True)


def observation_files(directory: Path) -> list[Path]:
    """Return the files of every process below a journal's place."""
    return sorted(directory.glob("**/observed-*.json"))


def read_observations(directory: Path) -> Iterator[Observation]:
    """Yield what every process wrote below a journal's place; what cannot be read is left out."""
    for path in observation_files(directory):
        with contextlib.suppress(OSError, msgspec.MsgspecError):
            yield from msgspec.json.decode(path.read_bytes(), type=list[Observation])


def _write_last(reference: weakref.ref[Observations], pid: int) -> None:
    observations = reference()
    if observations is not None and pid == process_id():
        observations.flush()
