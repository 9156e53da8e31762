"""Cursors: where the page after this one begins. However deep it is, that page costs what the first one did."""

from __future__ import annotations

import base64
import binascii
from typing import Final, NamedTuple

import msgspec

__all__ = ["Cursor", "OtherListError", "read_cursor"]

_LONGEST: Final = 1024


class OtherListError(ValueError):
    """A cursor is of a list in another order."""


class Cursor(NamedTuple):
    """The last row that was shown: its number and, where the list is ordered by something else, that."""

    number: int
    order: str = "id"  # by what the list is ordered; a minus before it: the highest first
    value: str | int | None = None

    def __str__(self) -> str:
        return base64.urlsafe_b64encode(msgspec.json.encode(list(self))).decode().rstrip("=")


def read_cursor(text: str) -> Cursor:
    """Read the form that `str` gives; raise `ValueError` for another text."""
    if len(text) > _LONGEST:
        raise ValueError("a cursor is not that long")
    try:
        content = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        cursor = Cursor(*msgspec.json.decode(content, type=tuple[int, str, str | int | None]))
    except (binascii.Error, UnicodeError, msgspec.MsgspecError) as error:
        raise ValueError("no cursor") from error
    if not -(2**63) < cursor.number < 2**63 or (isinstance(cursor.value, int) and abs(cursor.value) >= 2**63):
        raise ValueError("no cursor")
    return cursor
