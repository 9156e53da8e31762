"""The journal: what was passed, kept before the handler runs, and what became of it, kept before the response ends.

Each process has a journal of its own. Its lines are JSON objects with `k` (what the line says), `n` (the entry's number
in this journal), `at` (seconds since the epoch) and:

- `entry`: `id` (the action's id at the authority, empty for a pass without a decision), `how` (`allowed`, `approval`,
  `cached` and `coalesced` where the decision was made about another request, `open`), `rule`, `agent`, and for `open`
  the `action` that is still to be submitted;
- `outcome`: `error` (null when the handler completed), `ms`, the handler's duration, and `given_back`, how often the
  approval was given back so far, if this run gave it back;
- `submitted`: `id`, under which the authority knows an `open` entry now.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import secrets
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from ..exceptions import AscendError, ConfigurationError
from ..fork import known_id, process_id, renew_once
from ..masking import get_logger
from ..setting_values import default_directory, make_directory
from ..state.base import scope_of
from .lines import LINE, begin, checksum, encode_line
from .memory import MemoryLog
from .segments import FileLog, Log

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..config import Settings
    from .lines import Begun

__all__ = ["Entry", "Journal", "JournalError", "Limits", "begin_entry", "directory_of", "open_journal", "place_of"]

logger = get_logger("ascend_middleware.journal")

_TRIES: Final = 20
_MAX_UNWRITTEN: Final = 10_000
_NEAR: Final = 0.8
_LOUD_SECONDS: Final = 60.0
_encode: Final = msgspec.json.Encoder().encode
_COMPLETED, _COMPLETED_SUM = begin(b'{"k":"outcome","error":null,"n":')


class JournalError(AscendError):
    """An action cannot be journalled, so it does not run.

    Attributes:
        full: whether a limit was reached; else the file could not be written.
    """

    def __init__(self, message: str = "", *, full: bool = False, **fields: Any) -> None:
        super().__init__(message, **fields)
        self.full = full


class Entry(msgspec.Struct, tag_field="k", tag="entry"):
    """An entry's line; number and time are given to it by the journal."""

    n: int
    at: float
    id: str
    how: str
    rule: str
    agent: str


class _Outcome(msgspec.Struct, tag_field="k", tag="outcome", omit_defaults=True):
    n: int
    at: float
    error: str | None
    ms: int
    given_back: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much may wait for the authority.

    Attributes:
        size: bytes, those of dead processes' journals in the same directory included.
        age: seconds since the oldest line that waits.
        when_full: `refuse`, or `pass` with no journal, loudly.
    """

    size: int = 268_435_456
    age: float = 604_800.0
    when_full: str = "refuse"
    near_size: float = field(init=False)
    near_age: float = field(init=False)

    def __post_init__(self) -> None:
        """Work out at what size and age a limit is near."""
        object.__setattr__(self, "near_size", self.size * _NEAR)
        object.__setattr__(self, "near_age", self.age * _NEAR)


class Journal:
    """The journal of the serving process; a forked child gets one of its own.

    Attributes:
        process: its id, part of its files' names and of every idempotency key.
        news: set when there is something for the background worker, if that `awaits` it.
        waiting_since: since when the next line to be delivered waits; the background worker keeps it up to date.
        others_bytes: how much the journals of dead processes hold; likewise.
        unjournalled: how many actions ran without an entry.
        entered: about how many entries were made: whether requests come in while the background worker delivers.
        delivered: how many outcomes were told to the authority.
        worker_seconds: processor time that the background worker has used.
    """

    def __init__(
        self,
        directory: Path | None,
        *,
        limits: Limits | None = None,
        power_safe: bool = False,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.directory: Final = directory
        self.limits: Final = limits or Limits()
        self._power_safe = power_safe
        self._now = now
        self._reset()

    def _reset(self) -> None:
        # The lock too: another thread of the parent may have held it.
        self._lock = threading.Lock()
        self._log: Log | None = None
        self._numbers = itertools.count(1)
        self._unwritten: deque[bytes] = deque()
        self._said: dict[str, float] = {}
        self.process = f"{int(self._now())}-{process_id()}-{secrets.token_hex(4)}"
        self.news = threading.Event()
        self.awaits = False
        self.waiting_since: float | None = None
        self.others_bytes = self.unjournalled = self.entered = self.delivered = 0
        self.worker_seconds = 0.0
        self._pid = process_id()

    def renew(self) -> None:
        """Become this process's journal, where it was made by another one."""
        if self._pid != process_id():
            renew_once(lambda: self._pid, self._reset)

    @property
    def is_open(self) -> bool:
        """Whether this process has written anything."""
        return self._log is not None and self._pid == process_id()

    @property
    def log(self) -> Log:
        """This process's lines; raises `JournalError` where the files cannot be made."""
        self.renew()
        if self._log is None:
            with self._lock:
                if self._log is None:
                    self._log = self._open()
        return self._log

    def _open(self) -> Log:
        if self.directory is None:
            return MemoryLog()
        try:
            log = _new_log(self.directory, f"{int(self._now())}-{process_id()}", power_safe=self._power_safe)
        except OSError as error:
            raise JournalError(f"the journal {self.directory} cannot be written: {error}") from None
        self.process = log.name
        return log

    @property
    def backlog(self) -> int:
        """How many bytes wait for the authority, those of dead processes included."""
        return (self.log.backlog if self.is_open else 0) + self.others_bytes

    @property
    def is_full(self) -> bool:
        """Whether so much waits, or for so long, that a limit is reached."""
        return self.backlog >= self.limits.size or (self.age or 0.0) >= self.limits.age

    @property
    def age(self) -> float | None:
        """For how many seconds the oldest line waits; None where none does."""
        since = self.waiting_since
        return max(0.0, self._now() - since) if since is not None and self.backlog else None

    def next_number(self) -> int:
        """Return the number for an entry."""
        if self._pid != process_id():
            self.renew()
        return next(self._numbers)

    def enter(self, number: int, fields: Entry | dict[str, Any], *, wait: bool = True) -> bool:
        """Keep an entry: when this returns True, it survives the end of the process.

        With `wait` False it returns False instead of waiting for another thread or the disk. It raises `JournalError`
        where it cannot be written, or a limit is reached.
        """
        if self._pid != process_id():
            self.renew()
        now = self._now()
        if isinstance(fields, Entry):
            fields.n, fields.at = number, now
            line = encode_line(fields)
        else:
            line = encode_line({"k": "entry", "n": number, "at": now, **fields})
        return self._enter(line, now, wait=wait)

    def enter_allowed(self, action_id: str, begun: Begun) -> int:
        """Keep the entry of a permission, as `enter` does without waiting; return its number, 0 where it was not kept.

        The id is one as `normalize_action_id` returns it; `begun` is what `begin_entry` made. For guards only.
        """
        if self._pid != known_id[0] and self._pid != process_id():
            self.renew()
        log, number, now, since = self._log or self.log, next(self._numbers), self._now(), self.waiting_since
        content, sum_before = begun
        rest = b'%d,"at":%b,"id":"%b"}' % (number, _encode(now), action_id.encode())
        line = LINE % (checksum(rest, sum_before), content, rest)
        if (
            log.appended - log.taken + self.others_bytes < self.limits.near_size
            and (since is None or now - since < self.limits.near_age)
            and not self._unwritten
            and log.keep(line)
        ):
            self.entered += 1
            return number
        return number if self._enter(line, now, wait=False) else 0

    def _enter(self, line: bytes, now: float, *, wait: bool) -> bool:
        log = self._log or self.log
        self.entered += 1
        size, since = log.appended - log.taken + self.others_bytes, self.waiting_since
        is_near = size >= self.limits.near_size or (since is not None and now - since >= self.limits.near_age)
        if is_near and self._is_full(size, 0.0 if since is None else now - since):
            return True
        if self._unwritten and not self._write_late(log, wait=wait):
            return False
        try:
            return log.append(line, wait=wait)
        except OSError as error:
            if log is not self._log:
                return self._enter(line, now, wait=wait)  # it was closed meanwhile; there is another one
            raise self._unwritable(error) from None

    def complete(self, number: int, duration_ms: int) -> bool:
        """Keep that an entry's handler completed, as of most; False where only `conclude` can."""
        if self._pid != known_id[0] and self._pid != process_id():  # the handler may have forked
            return True  # the parent's entry: the parent, or its death, concludes it
        log = self._log
        if log is None:
            return False
        rest = b'%d,"at":%b,"ms":%d}' % (number, _encode(self._now()), duration_ms)
        if not log.keep(LINE % (checksum(rest, _COMPLETED_SUM), _COMPLETED, rest)):
            return False
        if self.awaits:
            self._tell()
        return True

    def conclude(
        self, number: int, error: str | None, duration_ms: int, given_back: int = 0, *, wait: bool = True
    ) -> bool:
        """Keep what became of an entry. Never raises: what cannot be written now is written later, or lost loudly."""
        if self._pid != process_id():
            return True  # as of `complete`
        line = encode_line(_Outcome(number, self._now(), error, duration_ms, given_back))
        try:
            if not (self._log or self.log).append(line, wait=wait):
                return False
        except (OSError, JournalError) as failure:
            self._loud("outcome", f"an outcome cannot be written to the journal: {failure}")
            if len(self._unwritten) < _MAX_UNWRITTEN:
                self._unwritten.append(line)
        if self.awaits:
            self._tell()
        return True

    def _tell(self) -> None:
        """Wake the background worker, once: who writes next need not."""
        self.awaits = False
        self.news.set()

    def _write_late(self, log: Log, *, wait: bool) -> bool:
        while self._unwritten:
            try:
                line = self._unwritten.popleft()
            except IndexError:
                break
            try:
                if not log.append(line, wait=wait):
                    self._unwritten.appendleft(line)
                    return False
            except OSError as error:
                self._unwritten.appendleft(line)
                raise self._unwritable(error) from None
        return True

    def _unwritable(self, error: OSError) -> JournalError:
        self._loud("write", f"the journal cannot be written: {error}")
        return JournalError("the journal cannot be written")

    def _is_full(self, size: int, age: float) -> bool:
        """Say whether to pass without an entry, where much waits; raise where the limits refuse."""
        text = f"{size} of {self.limits.size} bytes, the oldest line {age:.0f} of {self.limits.age:.0f} seconds old"
        if size < self.limits.size and age < self.limits.age:
            self._loud("near", f"the journal is nearly full: {text}; is the authority away?")
            return False
        if self.limits.when_full == "refuse":
            self._loud("full", f"the journal is full, actions are refused (journal_full = refuse): {text}")
            raise JournalError("the journal is full", full=True)
        self.unjournalled += 1
        self._loud("full", f"the journal is full, actions run without an entry (journal_full = pass): {text}")
        return True

    def look(self) -> None:
        """Put back what somebody removed of the files; until that is done, nothing is entered. For the reader only.

        A file that is open can be written to all the same, and ends with its process.
        """
        log = self._log
        if not isinstance(log, FileLog) or self._pid != process_id():
            return
        what = f"files of the journal {log.name} in {self.directory} were removed or replaced"
        try:
            lost = log.put_back()
        except OSError as error:
            self._loud("removed", f"{what} and cannot be put back, actions are refused: {error}")
            return
        if lost is not None:
            logger.error("%s; they are there again%s", what, f", without {lost} bytes of earlier lines" if lost else "")

    def _loud(self, about: str, text: str) -> None:
        now = self._now()
        if not 0 <= now - self._said.get(about, -_LOUD_SECONDS) < _LOUD_SECONDS:
            self._said[about] = now
            logger.error("%s", text)

    def close(self, *, remove: bool, unread: bool = True) -> None:
        """Close the files of this process and `remove` them; with `unread` False, only where all was delivered."""
        if self._pid != process_id() or self._log is None:
            return
        with self._lock:
            log, self._log = self._log, None
            self.process = f"{int(self._now())}-{self._pid}-{secrets.token_hex(4)}"
        if self.directory is None and not remove:
            self._log = log  # what is in memory only would be gone
        else:
            log.close(remove=remove, unread=unread)


def begin_entry(*, how: str, rule: str, agent: str) -> Begun:
    """Return what the entries of one rule's permissions begin with, for `Journal.enter_allowed`."""
    return begin(_encode({"k": "entry", "how": how, "rule": rule, "agent": agent})[:-1] + b',"n":')


def _new_log(directory: Path, prefix: str, *, power_safe: bool = False) -> FileLog:
    """Open a log under a name of its own.

    A background worker that looks for what dead processes left may take a lock between its making and its locking:
    then another one is made.
    """
    for _ in range(_TRIES):
        with contextlib.suppress(FileExistsError):
            return FileLog(directory, f"{prefix}-{secrets.token_hex(4)}", power_safe=power_safe)
    raise FileExistsError("its new files are in use")


def directory_of(settings: Settings) -> Path | None:
    """Return where the journals of this service are; None for memory.

    Services of one authority, organisation and agent id share a directory, and deliver for each other's dead.
    """
    base = place_of(settings)
    return None if base is None else base / f"{scope_of(settings)}-{_plain(settings.agent_id)}"


def place_of(settings: Settings) -> Path | None:
    """Return the directory below which every service has its own; None for memory."""
    place = settings.journal or ("memory:" if settings.state == "memory:" else "")
    if place in ("memory:", "off"):
        return None
    return (Path(place) if place else default_directory() / "journal").expanduser().absolute()


def _plain(text: str) -> str:
    """Return a text as part of a file name: what a name cannot hold is told apart by a digest."""
    kept = "".join(char if char.isascii() and (char.isalnum() or char in "-_") else "_" for char in text[:40])
    return kept if kept == text else f"{kept}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def open_journal(settings: Settings, *, now: Callable[[], float] = time.time) -> Journal | None:
    """Return the journal that the settings name, or None when they switch it off; checked: it can be written.

    Raises:
        ConfigurationError: it cannot be written; names the place and the setting.
    """
    if settings.journal == "off":
        return None
    directory = directory_of(settings)
    if directory is not None:
        try:
            make_directory(directory)
            log = _new_log(directory, f"check-{process_id()}")
            log.append(b"\n")
            log.close(remove=True)
        except OSError as error:
            raise ConfigurationError(
                f"the journal {directory} cannot be written: {error}. The setting journal (ASCEND_JOURNAL) names "
                "another directory, memory: for one that ends with the process, or off; see docs/state.md"
            ) from None
    limits = Limits(size=settings.journal_max_bytes, age=settings.journal_max_age, when_full=settings.journal_full)
    return Journal(directory, limits=limits, power_safe=settings.durability == "power", now=now)
