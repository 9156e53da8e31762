"""The audit log's head, told outside at intervals: in a file, and to the webhooks that want it.

Whoever keeps one can prove later that the log's end was not cut, and that nothing before it was made anew.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
from pathlib import Path

from ascend_middleware.exceptions import AscendError

from .core import Authority
from .store import audit
from .store.audit import Head, iso_time
from .store.past import Past
from .webhooks import Outbox

__all__ = ["Heads", "read_heads"]

log = logging.getLogger(__name__)


def read_heads(path: str | Path) -> tuple[Head, ...]:
    """Return the heads of a file, one at the beginning of each line; raise `ValueError` or `OSError`."""
    lines = Path(path).read_text(encoding="ascii").splitlines()
    found = tuple(Head.parse(line.split()[0]) for line in lines if line.strip())
    if not found:
        raise ValueError("there is no head in it")
    return found


class Heads:
    """Tells the head of an authority's log as its policy file says; `tell` is called more often than that."""

    def __init__(self, authority: Authority, outbox: Outbox) -> None:
        self._authority = authority
        self._outbox = outbox
        self._told_at = -math.inf
        self._told: Head | None = None

    def tell(self, *, now: bool = False) -> None:
        """Tell the head if it is time, or `now`, and if it is another one."""
        rules, moment = self._authority.policy.heads, self._authority.now()
        if not now and 0 <= moment - self._told_at < rules.every:
            return
        self._told_at = moment
        head = audit.head(self._authority.store)
        if head == self._told or not head.seq:
            return
        if rules.file is not None:
            self._write(rules.file, head, moment)
        self._outbox.queue_head(head)
        self._told = head

    def _write(self, path: Path, head: Head, moment: float) -> None:
        try:
            self._check_known(path)
            write_whole(path, f"{head} {iso_time(moment)}\n")
        except (AscendError, OSError, ValueError) as error:
            log.error("the head of the audit log was not written to %s: %s", path, error)

    def _check_known(self, path: Path) -> None:
        """Keep a file that names what the log does not hold: it is the proof that the end was cut."""
        if not path.exists():
            return
        for known in read_heads(path):
            if self._held(path, known) != known.hash:
                raise AscendError(
                    f"it names {known}, which the log does not hold: its end was cut, or it is that of a backup. See "
                    "`audit verify --head`, and move the file away once that is settled"
                )

    def _held(self, path: Path, known: Head) -> str:
        """Return the hash that an entry of a number has, in the table or in an archive; nothing if there is none."""
        with self._authority.store.snapshot() as reader:
            found = reader.rows("SELECT hash FROM audit WHERE seq = ?", (known.seq,))
            if found:
                return str(found[0]["hash"])
            past = Past.read(reader)
        try:
            return past.entry_hash(self._authority.policy.retention.archive_to, known.seq)
        except AscendError as error:
            raise AscendError(
                f"it names {known}, whose entry is archived, and the archive was not asked: {error.message}. Bring the "
                f"archive to the archive_to of [retention], or have `audit verify --archive DIR --head {path}` ask it, "
                "and move the file away once that is settled"
            ) from None


def write_whole(path: Path, text: str) -> None:
    """Write a small file so that whoever reads it sees the old one or the new one, whole."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with partial.open("w", encoding="ascii") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            partial.unlink()
