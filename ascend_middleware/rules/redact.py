"""A value of an action without its secrets; `secret_names.py` says which names hold them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from ..secret_names import SECRET_NAMES, is_secret

__all__ = ["REDACTED", "redact"]

REDACTED: Final = "[redacted]"
_MAX_DEPTH: Final = 64


def redact(value: Any, names: frozenset[str] = SECRET_NAMES) -> Any:
    """Return a JSON value in which whatever stands under a secret name, at any depth, is `[redacted]`."""
    return _redact(value, names, 0)


def _redact(value: Any, names: frozenset[str], depth: int) -> Any:
    if depth > _MAX_DEPTH:
        return REDACTED
    if isinstance(value, str):  # most values; asked before what costs more
        return value
    if isinstance(value, Mapping):
        return {
            key: REDACTED if _hides(item) and is_secret(str(key), names) else _redact(item, names, depth + 1)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [_redact(item, names, depth + 1) for item in value]
    return value


def _hides(value: Any) -> bool:
    # `card_present = true` raises a risk and tells no secret.
    return value is not None and not isinstance(value, bool)
