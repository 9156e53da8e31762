"""How the fields of answers are spelled, and become JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from .store.patience import in_pieces

__all__ = ["encode", "pending_word", "rows_encoded"]

# Not `encode_json`, which looks through every value: those of an answer were looked through when they came.
encode: Final = msgspec.json.Encoder().encode
_MANY: Final = 20


def rows_encoded(fields: dict[str, Any]) -> dict[str, Any]:
    """Return an answer's fields with the rows of its list encoded, if there are many.

    They are encoded one by one, as nobody else gets the interpreter's lock while one is; and once, though they stand
    under several names.
    """
    rows = fields.get("data")
    if not isinstance(rows, list) or len(rows) < _MANY:
        return fields
    encoded = msgspec.Raw(b"[" + b",".join(encode(row) for row in in_pieces(rows)) + b"]")
    return {name: encoded if value is rows else value for name, value in fields.items()}


def pending_word(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Spell a pending decision as the envelope generation does."""
    if fields["status"] != "pending":
        return dict(fields)
    return {**fields, "status": "pending_approval", "decision": "pending_approval"}
