"""Erases personal data in archives too: another file takes the place of each one that holds some.

The steps, each durable before the next begins: an entry of the audit log tells what is erased of an action, as where
nothing is archived; the new file is written and read again; an entry names it, and the file that it replaces with that
one's hash; the old file is deleted. A run that was ended is made again by whoever erases the same once more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec

from ascend_middleware.exceptions import AscendError, ConflictError, NotFoundError

from ..keys import Credential
from .archiver import Archiver
from .archives import ARCHIVED_ACTIONS, ARCHIVED_AUDIT, archive_path, as_ranges, digest_of, read_archive, write_archive
from .engine import Row
from .erasure import Held, erase
from .past import Past
from .store import Store

__all__ = ["ErasedMany", "Eraser", "matches"]

_decode = msgspec.json.Decoder(dict[str, Any]).decode
_LIVE: Final = "SELECT id, submission FROM actions WHERE tenant = ? ORDER BY id"


@dataclass(slots=True)
class ErasedMany:
    """Which actions lost data, which wait for a person, and why others could not be erased."""

    erased: list[int] = field(default_factory=list)
    waiting: list[int] = field(default_factory=list)
    refused: dict[int, str] = field(default_factory=dict)


class Eraser:
    """Erases actions wherever they stand.

    Args:
        store: the database.
        folder: where the archives are; None if nothing is archived, or nobody knows.
        reason: why, for the audit log.
        by: who does it.
        more: what else the audit log tells of that.
    """

    def __init__(
        self, store: Store, folder: Path | None, *, reason: str, by: Credential, more: Mapping[str, Any]
    ) -> None:
        self._store = store
        self._folder = folder
        self._told: dict[str, Any] = {"reason": reason, "by": by, "more": more}
        self._tenant = by.tenant

    def erase(self, number: int) -> bool:
        """Erase one action, also where it is archived; say whether there was anything to erase.

        Raises:
            NotFoundError: there is no such action in the organisation.
            ConflictError: it cannot be erased, or another process archives.
            AscendError: an archive cannot be read or written.
        """
        found = self._erase([number], lambda _, __: False)
        if number in found.refused:
            raise ConflictError(found.refused[number])
        return number in found.erased

    def erase_all(self, wanted: Callable[[Mapping[str, Any]], bool]) -> ErasedMany:
        """Erase all actions of the organisation of which `wanted` says so by what was submitted; raises as `erase`."""
        with self._store.snapshot() as reader:
            numbers = [row["id"] for row in reader.each(_LIVE, (self._tenant,)) if wanted(_decode(row["submission"]))]
        return self._erase(
            numbers, lambda tenant, submission: tenant == self._tenant and wanted(submission), every=True
        )

    def _erase(
        self, numbers: list[int], wanted: Callable[[str, Mapping[str, Any]], bool], *, every: bool = False
    ) -> ErasedMany:
        files = self._files()
        found = ErasedMany()
        if not files:
            for number in numbers:
                self._erase_one(number, Held(), found, every=every)
            return found
        if self._folder is None:
            raise ConflictError("there are archives: name their folder, as archive_to in [retention] or with --to")
        archiver = Archiver(self._store, self._folder)
        if not archiver.lease.take():
            raise ConflictError("another process archives; try again when it is done")
        try:
            archiver.resume()
            held = self._held(self._files(), numbers, wanted)
            for number in sorted({*numbers, *(one for one, what in held.items() if what.row is not None)}):
                archiver.lease.renew()
                self._erase_one(number, held.get(number, Held()), found, every=every)
            # Entries first: an action that still has its data is known as such by its row.
            for file in sorted(self._files(), key=lambda one: str(one["kind"]), reverse=True):
                if self._is_changed(file, held):
                    self._replace(file, held, archiver)
        finally:
            archiver.lease.give_back()
        return found

    def _erase_one(self, number: int, held: Held, found: ErasedMany, *, every: bool) -> None:
        try:
            if every and self._waits(number):
                found.waiting.append(number)
            elif erase(self._store, number, held=held, **self._told):
                found.erased.append(number)
        except NotFoundError:
            if not every:
                raise
        except ConflictError as error:
            found.refused[number] = error.message

    def _waits(self, number: int) -> bool:
        try:
            return bool(self._store.action(number, tenant=self._tenant)["status"] == "pending")
        except NotFoundError:
            return False

    # --- files

    def _files(self) -> list[Row]:
        with self._store.snapshot() as reader:
            return [row for row in Past.read(reader).files if row["state"] != "replaced"]

    def _rows(self, file: Row) -> Iterator[dict[str, Any]]:
        path = archive_path(self._folder or Path(), file["name"])
        if digest_of(path) != file["sha256"]:
            raise AscendError(f"nothing was erased in archives: {path} was changed; see `audit verify --archive`")
        return read_archive(path)

    def _held(
        self, files: Sequence[Row], numbers: Iterable[int], wanted: Callable[[str, Mapping[str, Any]], bool]
    ) -> dict[int, Held]:
        """Return what the archives hold of the actions, and of those that are wanted by what was submitted."""
        held = {number: Held() for number in numbers}
        for file in sorted(files, key=lambda one: str(one["kind"])):  # actions before entries about them
            for row in self._rows(file):
                number = row["id"] if file["kind"] == "actions" else row["action_id"]
                if file["kind"] != "actions":
                    if number in held:
                        held[number].entries[row["seq"]] = row["entry"]
                elif number in held or wanted(row["tenant"], _decode(row["submission"])):
                    held.setdefault(number, Held()).row = row
        return held

    def _is_changed(self, file: Row, held: Mapping[int, Held]) -> bool:
        if file["kind"] == "actions":
            return any(what.new_row and file["first"] <= number <= file["last"] for number, what in held.items())
        return any(file["first"] <= seq <= file["last"] for what in held.values() for seq in what.new_entries)

    def _replace(self, file: Row, held: Mapping[int, Held], archiver: Archiver) -> None:
        """Write a file without what is erased, have the log name it, and delete the one that it replaces."""
        store, folder, first, last = self._store, self._folder or Path(), file["first"], file["last"]
        about_actions = file["kind"] == "actions"
        name = archiver.plan(file["kind"], first, last)
        ids: list[int] = []
        final = ""

        def rows() -> Iterator[dict[str, Any]]:
            nonlocal final
            for row in archiver.gently(self._rows(file)):
                if about_actions:
                    ids.append(row["id"])
                    yield held[row["id"]].new_row or row if row["id"] in held else row
                else:
                    final = row["hash"]
                    what = held.get(row["action_id"])
                    text = what.new_entries.get(row["seq"]) if what is not None else None
                    yield row if text is None else {**row, "entry": text}

        digest, count = write_archive(folder / name, rows())
        data = {"sha256": digest, "first": first, "last": last}
        data |= {"actions": count, "ids": as_ranges(ids)} if about_actions else {"entries": count, "hash": final}
        data |= {"replaces": file["name"], "replaced_sha256": file["sha256"]}
        with store.write():
            archiver.lease.renew(anyway=True)
            archiver.tell(name, ARCHIVED_ACTIONS if about_actions else ARCHIVED_AUDIT, data)
            store.execute("UPDATE archives SET state = 'replaced' WHERE name = ?", (file["name"],))
        archiver.resume()


def matches(fields: Mapping[str, str]) -> Callable[[Mapping[str, Any]], bool]:
    """Return what says whether a submission has all these values, each at a place such as `context.principal`."""

    def wanted(submission: Mapping[str, Any]) -> bool:
        return all(_at(submission, place) == text for place, text in fields.items())

    return wanted


def _at(submission: Mapping[str, Any], place: str) -> str | None:
    found: Any = submission
    for name in place.split("."):
        found = found.get(name) if isinstance(found, Mapping) else None
    if isinstance(found, bool) or not isinstance(found, str | int | float):
        return None
    return str(found)
