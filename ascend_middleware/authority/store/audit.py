"""The audit log: every entry's hash covers the entry before, so that a later change can be seen."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from ascend_middleware.api.values import iso_time
from ascend_middleware.fork import Identifiers

from .database import Database

__all__ = [
    "DECIDED",
    "NO_HASH",
    "Entry",
    "Head",
    "answer_digest",
    "canonical_json",
    "chained",
    "digest",
    "entries",
    "entry_hash",
    "head",
    "iso_time",
    "lasting",
    "new_salt",
    "read_entry",
    "without_comments",
    "without_faults",
    "written",
]

_encoder = msgspec.json.Encoder(order="sorted")
_decode: Final = msgspec.json.Decoder(dict[str, Any]).decode
NO_HASH: Final = "0" * 64
_salts: Final = Identifiers(32, str)


class Entry(msgspec.Struct):
    """What an entry says; `read_entry` raises `msgspec.MsgspecError` where a text is none."""

    at: str
    tenant: str
    event: str
    actor: str
    data: dict[str, Any]


read_entry: Final = msgspec.json.Decoder(Entry).decode


def canonical_json(value: object) -> str:
    """Return the one JSON text of a value: keys sorted, no blanks, characters as they are."""
    return _encoder.encode(value).decode()


def digest(text: object, salt: str = "") -> str:
    """Return by which hash an entry knows a text; of what is no text, which a table may hold, none."""
    return hashlib.sha256((salt + text).encode("utf-8", "surrogatepass")).hexdigest() if isinstance(text, str) else ""


def answer_digest(row: Mapping[str, Any]) -> str:
    """Return by which hash an entry knows an answer that is kept for its repetition."""
    body = hashlib.sha256(row["body"]).hexdigest()
    return digest(canonical_json([row["fingerprint"], row["status"], body, row["at"]]))


@dataclass(frozen=True, slots=True)
class Head:
    """The last entry: its number and its hash. Whoever keeps one elsewhere can tell whether the log still holds it."""

    seq: int
    hash: str

    def __str__(self) -> str:
        return f"{self.seq}:{self.hash}"

    @classmethod
    def parse(cls, text: str) -> Head:
        """Read the form that `str` gives; raise `ValueError` for another text."""
        number, _, digest = text.strip().partition(":")
        if not (number.isascii() and number.isdigit() and len(digest) == 64 and set(digest) <= set("0123456789abcdef")):
            raise ValueError("expected NUMBER:HASH, as `audit verify` prints it")
        return cls(int(number), digest)


def head(database: Database) -> Head:
    """Return the recorded head; of an empty log number 0 and a hash of zeros."""
    return Head(*database.tip())


def entries(
    database: Database,
    *,
    after: int = 0,
    tenant: str | None = None,
    on_changed: Callable[[int], None] = lambda seq: None,
) -> Iterator[dict[str, Any]]:
    """Yield the entries with their hashes, oldest first, from one consistent state of the log.

    `on_changed` is told the number of each entry that is not what its hash says.
    """
    with database.snapshot() as reader:
        whose, values = ("", (after,)) if tenant is None else (" AND tenant = ?", (after, tenant))
        for row in reader.each(f"SELECT * FROM audit WHERE seq > ?{whose} ORDER BY seq", values):  # noqa: S608
            if entry_hash(row["previous"], row["entry"]) != row["hash"]:
                on_changed(row["seq"])
            yield {**json.loads(row["entry"]), "previous": row["previous"], "hash": row["hash"]}


# The entries that decide a pending action, and how.
DECIDED: Final = {"ACTION_APPROVED": "approved", "ACTION_DENIED": "denied", "ACTION_EXPIRED": "denied"}


def new_salt() -> str:
    """Return what stands beside personal data under a hash, so that the hash confirms no guess once both are erased."""
    return _salts.draw()


def chained(previous: str, entry: str) -> str:
    """Return the hash of a text that follows the entry of a hash."""
    return hashlib.sha256(f"{previous}\n{entry}".encode()).hexdigest()


# --- what may be erased

# What people or programs wrote, in entries and in what is kept of a decision and an outcome.
_WRITTEN: Final = ("error", "kept", "result")
_SEALED: Final = '"sealed":'


def lasting(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return what stays of an entry's data, or of the same in the action's row, once personal data is erased."""
    kept = {name: value for name, value in data.items() if name not in _WRITTEN}
    if "comments" in kept:
        kept["comments"] = ""
    if "session" in kept:
        kept["session"] = None
    if isinstance(kept.get("approvals"), list | tuple):
        kept["approvals"] = without_comments(kept["approvals"])
    return without_faults(kept)


def without_comments(approvals: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return who approved, and not what they wrote."""
    return [{**one, "comments": ""} for one in approvals]


def without_faults(judgement: Mapping[str, Any]) -> dict[str, Any]:
    """Return a judgement that names the policies which could not be evaluated, and not what was wrong."""
    faults = judgement.get("faults")
    return {**judgement, "faults": dict.fromkeys(faults, "")} if faults else dict(judgement)


def written(previous: str, entry: Mapping[str, Any], data: Mapping[str, Any]) -> tuple[str, str]:
    """Return the text of a new entry with its data, and the hash of it that `entry_hash` finds.

    An entry about an action may lose its personal data and still prove all else that it says: its hash then covers what
    lasts, and `sealed`: a hash of all its data with a salt, which is erased with the data.
    """
    whole = canonical_json(data)
    if entry["action_id"] is not None and (lasts := lasting(data)) != data:
        salt = new_salt()
        entry = {**entry, "sealed": digest(whole, salt)}
        text = canonical_json({**entry, "salt": salt, "data": msgspec.Raw(whole)})
        return text, chained(previous, canonical_json({**entry, "data": lasts}))
    text = canonical_json({**entry, "data": msgspec.Raw(whole)})
    return text, chained(previous, text)


def entry_hash(previous: str, text: str) -> str:
    """Return the hash of an entry that follows the one of a hash; of one that cannot be what was written, none."""
    if _SEALED not in text:
        return chained(previous, text)
    try:
        entry = _decode(text)
        if "sealed" not in entry:
            return chained(previous, text)
        if canonical_json(entry) != text:
            return ""  # other readers might find something else in it
        data, seal, salt = entry["data"], entry["sealed"], entry.pop("salt", None)
        lasts = lasting(data)
        if salt is not None:
            whole = digest(canonical_json(data), salt) == seal
        else:
            whole = type(entry.pop("erased", None)) is int and lasts == data
        if not whole:
            return ""
        return chained(previous, canonical_json({**entry, "data": lasts}))
    except (msgspec.MsgspecError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return ""
