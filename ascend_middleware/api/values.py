"""What may stand in JSON that is sent, and how it is written: the same for the client and the authority."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime
from decimal import Decimal
from functools import lru_cache
from itertools import repeat
from types import NoneType
from typing import TYPE_CHECKING, Any, Final

import msgspec

from ..exceptions import ValidationError
from ..text import one_line

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "MAX_DEPTH",
    "MAX_VALUES",
    "check_values",
    "clean",
    "encode_json",
    "is_plain",
    "iso_time",
    "strip_risk_claims",
]

# Of what is submitted: levels below the body, and values in all of them.
MAX_DEPTH: Final = 32
MAX_VALUES: Final = 10_000
_NAMED_LEVELS: Final = 4
_FEW: Final = 100
_RISK_CLAIMS: Final = frozenset({"risk_score", "riskScore", "risk_level", "riskLevel"})

_NO_NUMBERS: Final = re.compile(rb'null|"-?(?:s?nan\d*|inf|infinity)"')
_TEXTS: Final = frozenset({str})
# What holds nothing, and is understood alike by all.
_PLAIN: Final = frozenset({str, bool, NoneType})
_encoder = msgspec.json.Encoder()


def iso_time(seconds: float) -> str:
    """Return a time as ISO 8601 in UTC with milliseconds; such texts sort as the times do."""
    whole, microseconds = divmod(round(seconds * 1e6), 1_000_000)
    return f"{_iso_second(whole)}.{microseconds // 1000:03d}Z"


@lru_cache(maxsize=64)
def _iso_second(whole: int) -> str:
    """Return a second; much that happens is told of the same one."""
    return datetime.fromtimestamp(whole, UTC).isoformat()[:19]


def encode_json(value: object) -> bytes:
    """Encode a value as compact UTF-8 JSON; raise `ValidationError` for what JSON cannot hold."""
    try:
        content = _encoder.encode(value)
        # The encoder writes null for what is no number, which a reader takes for a value that was left out; of a
        # decimal, or a key, it writes the name.
        lowered = content.lower()
        suspected = b"null" in lowered or b"nan" in lowered or b"inf" in lowered  # ten times faster than the pattern
        if (
            suspected
            and _NO_NUMBERS.search(lowered)
            and not _is_finite(msgspec.to_builtins(value, builtin_types=(Decimal,)))
        ):
            raise ValueError("NaN and infinity are no JSON numbers")
    except RecursionError:
        raise ValidationError("not representable as JSON: nested too deeply, or in itself") from None
    except (TypeError, ValueError, UnicodeError, OverflowError) as error:
        raise ValidationError(f"not representable as JSON: {error}") from None
    return content


def _is_finite(value: object) -> bool:
    """Say whether a value that was encoded, and its keys, are finite where they are numbers."""
    if isinstance(value, float | Decimal):
        return value.is_finite() if isinstance(value, Decimal) else math.isfinite(value)
    if isinstance(value, dict):
        return all(map(_is_finite, value)) and all(map(_is_finite, value.values()))
    return all(map(_is_finite, value)) if isinstance(value, list | tuple | set | frozenset) else True


def check_values(body: Mapping[str, Any]) -> None:
    """Refuse, before anything is sent, values that not every reader of JSON understands alike, and far too many.

    Raises:
        ValidationError: naming the place (`action_details.amount`): a number that is not finite or beyond 64 bits, more
            than `MAX_DEPTH` levels (so also what holds itself), more than `MAX_VALUES` values.
    """
    level: list[tuple[Any, object]] = [(None, body)]
    depth = seen = 0
    while level:
        below: list[tuple[Any, object]] = []
        for place, item in level:
            if isinstance(item, dict):
                # Keys are texts nearly always, and those need no look.
                if not _TEXTS.issuperset(map(type, item)) and not all(map(_is_finite, item)):
                    raise _bad_value(place, "must have no key that is NaN or infinite")
                if depth < MAX_DEPTH and _PLAIN.issuperset(map(type, item.values())):
                    seen += len(item)
                else:
                    below += zip(zip(repeat(place), item, strict=False), item.values(), strict=True)
            elif isinstance(item, list | tuple | set | frozenset):
                below += [((place, number), inner) for number, inner in enumerate(item)]
            elif isinstance(item, float | Decimal) and not _is_finite(item):
                raise _bad_value(place, "must be a finite number")
            elif isinstance(item, int) and not -(2**63) <= item < 2**63:
                raise _bad_value(place, "must be a number of at most 64 bits")
            if seen + len(level) + len(below) > MAX_VALUES:
                raise _bad_value(place, f"has too many values, more than {MAX_VALUES}")
        seen += len(level)
        level, depth = below, depth + 1
        if depth > MAX_DEPTH and level:
            raise _bad_value(level[0][0], f"is nested more than {MAX_DEPTH} levels deep")


def _bad_value(place: Any, text: str) -> ValidationError:
    keys: list[str] = []
    while place is not None:
        place, key = place
        keys.append(str(key))
    # Not the whole way to the depth of a value that is too deep.
    name = clean(".".join(keys[::-1][:_NAMED_LEVELS]))
    return ValidationError(f"{name or 'the body'} {text}", field=name or None)


def is_plain(value: dict[Any, Any]) -> bool:
    """Say whether an object holds nothing that `check_values` could refuse, or `strip_risk_claims` leave out."""
    return (
        len(value) < _FEW
        and _TEXTS.issuperset(map(type, value))
        and _PLAIN.issuperset(map(type, value.values()))
        and _RISK_CLAIMS.isdisjoint(value)
    )


def strip_risk_claims(value: Any) -> Any:
    """Return the value without the caller's own risk scores and levels, at any depth: the authority scores.

    Raises:
        ValidationError: it is nested too deeply, or in itself.
    """
    try:
        return _stripped(value)
    except RecursionError:
        raise ValidationError("not representable as JSON: nested too deeply, or in itself") from None


def _stripped(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _stripped(item) for key, item in value.items() if key not in _RISK_CLAIMS}
    if isinstance(value, list | tuple):
        return [_stripped(item) for item in value]
    return value


def clean(text: str) -> str:
    """Bound a stranger's text and drop its control characters: it goes to logs and terminals."""
    return one_line(text[:500])
