"""The audit log: every entry's hash covers the entry before, so that a later change can be seen."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

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
    "head",
    "iso_time",
    "new_salt",
    "read_entry",
]

_encoder = msgspec.json.Encoder(order="sorted")
NO_HASH: Final = "0" * 64


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


def iso_time(seconds: float) -> str:
    """Return a time as ISO 8601 in UTC with milliseconds; such texts sort as the times do."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


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


def entries(database: Database, *, after: int = 0, tenant: str | None = None) -> Iterator[dict[str, Any]]:
    """Yield the entries with their hashes, oldest first, from one consistent state of the log."""
    with database.snapshot() as reader:
        whose, values = ("", (after,)) if tenant is None else (" AND tenant = ?", (after, tenant))
        for row in reader.each(f"SELECT * FROM audit WHERE seq > ?{whose} ORDER BY seq", values):  # noqa: S608
            yield {**json.loads(row["entry"]), "previous": row["previous"], "hash": row["hash"]}


# The entries that decide a pending action, and how.
DECIDED: Final = {"ACTION_APPROVED": "approved", "ACTION_DENIED": "denied", "ACTION_EXPIRED": "denied"}


def new_salt() -> str:
    """Return what stands beside personal data under a hash, so that the hash confirms no guess once both are erased."""
    return secrets.token_hex(16)


def chained(previous: str, entry: str) -> str:
    """Return the hash of an entry that follows the one of a hash."""
    return hashlib.sha256(f"{previous}\n{entry}".encode()).hexdigest()
