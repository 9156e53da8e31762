"""What is not in the tables any more, as a verification needs it: archived entries and actions, and erased data."""

from __future__ import annotations

import bisect
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from ascend_middleware.exceptions import AscendError

from .archives import ARCHIVED_ACTIONS, ARCHIVED_AUDIT, archive_path, as_numbers, digest_of, read_archive
from .audit import NO_HASH, entry_hash
from .database import Database
from .engine import Reader, Row, StorageError
from .findings import Finding

__all__ = ["ERASED", "Erasures", "Past", "archived_upto", "as_written"]

ERASED: Final = "ACTION_ERASED"


@dataclass(frozen=True, slots=True)
class Past:
    """What is archived.

    Attributes:
        last: number of the last archived entry, 0 if none is.
        hash: its hash, as the entry says it that names its archive.
        actions: the numbers of archived actions, as ranges in their order.
        files: what the table says of each archive that an entry names.
        findings: what of that is not so.
    """

    last: int = 0
    hash: str = NO_HASH
    actions: tuple[tuple[int, int], ...] = ()
    files: tuple[Row, ...] = ()
    findings: tuple[Finding, ...] = ()

    @classmethod
    def read(cls, reader: Reader) -> Past:
        """Return what the entries say that stand in the table `archives`."""
        try:
            rows = reader.rows(
                "SELECT archives.*, audit.entry FROM archives LEFT JOIN audit ON audit.seq = archives.seq"
                " WHERE state <> 'planned' ORDER BY archives.seq"
            )
        except StorageError:
            return cls()  # made by a version that had no archives
        last, digest, findings = 0, NO_HASH, []
        ranges: list[tuple[int, int]] = []
        for row in rows:
            data = _named(row)
            if data is None:
                if row["entry"] is not None:
                    message = f"entry {row['seq']} does not name the archive {row['name']}"
                    findings.append(Finding(row["seq"], "archive", message))
            elif row["kind"] == "audit":
                if row["last"] > last:
                    last, digest = row["last"], data["hash"]
            elif row["state"] != "replaced":
                ranges += as_numbers(data["ids"])
        return cls(last, digest, tuple(sorted(ranges)), tuple(sorted(rows, key=_place)), tuple(findings))

    def has_action(self, number: int) -> bool:
        """Say whether an action is archived."""
        place = bisect.bisect_right(self.actions, (number, number)) - 1
        near = self.actions[max(place, 0) : place + 2]
        return any(first <= number <= last for first, last in near)

    def entry_hash(self, folder: Path | None, seq: int) -> str:
        """Return the hash of an archived entry as its file has it, or nothing if no archive holds the entry.

        Raises:
            AscendError: the archive cannot be asked: it was changed, cannot be read, or nobody says where it is.
        """
        for row in self.files:
            if row["kind"] != "audit" or row["state"] == "replaced" or not row["first"] <= seq <= row["last"]:
                continue
            for finding in self.findings:
                if finding.seq == row["seq"]:
                    raise AscendError(finding.message)
            if folder is None:
                raise AscendError(f"nothing says where the archive {row['name']} is")
            path = archive_path(folder, row["name"])
            if digest_of(path) != row["sha256"]:
                raise AscendError(f"the archive {path} was changed")
            return next((str(one.get("hash")) for one in read_archive(path) if one.get("seq") == seq), "")
        return ""

    def entries(self, folder: Path) -> Iterator[dict[str, Any] | Finding]:
        """Yield the archived entries as they stand in the files of a folder, and what is wrong with these."""
        for row in self.files:
            try:
                path = archive_path(folder, row["name"])
                if row["state"] == "replaced":
                    if path.exists():
                        yield Finding(row["seq"], "archive", f"{path} was replaced by another file, and is still there")
                    continue
                if digest_of(path) != row["sha256"]:
                    yield Finding(row["seq"], "archive", f"the archive {path} was changed")
                elif row["kind"] == "audit":
                    yield from read_archive(path)
            except AscendError as error:
                yield Finding(row["seq"], "archive", error.message)


def archived_upto(database: Database) -> int:
    """Return the number of the last entry that an archive holds which an entry names, 0 if none does."""
    return int(database.rows("SELECT max(last) FROM archives WHERE kind = 'audit' AND state <> 'planned'")[0][0] or 0)


def _place(row: Row) -> tuple[str, int]:
    return row["kind"], row["first"]


def _named(row: Row) -> Mapping[str, Any] | None:
    """Return what the entry of an archive says of it, or None if it is another one's, or archived itself."""
    try:
        entry = json.loads(row["entry"])
        data: Mapping[str, Any] = entry["data"]
        said = (entry["event"], data["file"], data["sha256"], data["first"], data["last"])
    except (ValueError, KeyError, TypeError):
        return None
    event = ARCHIVED_AUDIT if row["kind"] == "audit" else ARCHIVED_ACTIONS
    return data if said == (event, row["name"], row["sha256"], row["first"], row["last"]) else None


# --- erased data


def as_written(reader: Reader, row: Row | Mapping[str, Any]) -> bool:
    """Say whether an entry is what its hash says, and lost nothing but what a later entry tells as erased."""
    if entry_hash(row["previous"], row["entry"]) != row["hash"]:
        return False
    erasures = Erasures()
    if erasures.claims(row):
        for seq, _, _ in list(erasures.open.values()):
            for told in reader.rows("SELECT seq, action_id, entry FROM audit WHERE seq = ?", (seq,)):
                erasures.told(told)
    return not erasures.open


@dataclass(slots=True)
class Erasures:
    """The entries that say of themselves that text of theirs was erased, until a later entry tells the same.

    That nothing else of them was changed, their own hashes say; see `audit.written`. `open` has for each such entry the
    number of the one that must tell it, the action, and the hash of the text that stands there.
    """

    open: dict[int, tuple[int, Any, str]] = field(default_factory=dict)
    count: int = 0

    def claims(self, row: Row | Mapping[str, Any]) -> bool:
        """Note an entry that says so of itself; say whether it does."""
        text = row["entry"]
        if '"erased":' not in text:
            return False
        try:
            number = json.loads(text)["erased"]
        except (ValueError, KeyError, TypeError, RecursionError):
            return False
        self.open[row["seq"]] = number, row["action_id"], hashlib.sha256(text.encode()).hexdigest()
        return True

    def told(self, row: Row | Mapping[str, Any]) -> None:
        """Take an entry that may be one that tells what was erased."""
        if not self.open or ERASED not in row["entry"]:
            return
        try:
            entry = json.loads(row["entry"])
            if entry["event"] != ERASED:
                return
            for name, digest in entry["data"]["entries"].items():
                if int(name) < row["seq"] and self.open.get(int(name)) == (row["seq"], row["action_id"], digest):
                    del self.open[int(name)]
                    self.count += 1
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return  # told as a changed entry

    def findings(self) -> Iterator[Finding]:
        """Yield the entries that nothing tells of."""
        for seq in sorted(self.open):
            yield Finding(seq, "changed", f"entry {seq} was changed: it lost text, and no erasure tells of that")
