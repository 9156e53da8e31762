"""JSON that no two readers understand differently: each name once in an object, and numbers that arrive as they are."""

from __future__ import annotations

import json
import math
from typing import Any

__all__ = ["StrictJSON"]


class StrictJSON:
    """Reads JSON strictly; the words of a refusal are the caller's.

    A text that is nested too deeply raises `RecursionError`; a caller that allows fewer levels counts them itself.

    Args:
        key_twice: what is said of an object with a key twice.
        constant: what is said of NaN and infinities, which `{}` names; None allows them.
        out_of_range: what is said of a number that is too large; None allows any.
        bits: the most bits of a whole number, with its sign; None for any number.
    """

    def __init__(
        self,
        *,
        key_twice: str = "an object has the same key twice",
        constant: str | None = None,
        out_of_range: str | None = None,
        bits: int | None = None,
    ) -> None:
        def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
            value = dict(pairs)
            if len(value) != len(pairs):
                raise ValueError(key_twice)
            return value

        def refuse(word: str) -> None:
            raise ValueError(str(constant).format(word))

        def finite(text: str) -> float:
            number = float(text)
            if not math.isfinite(number):
                raise ValueError(out_of_range)
            return number

        top = 2 ** ((bits or 1) - 1)

        def whole(text: str) -> int:
            # Not int() of any length: that takes time with the square of it.
            if len(text) > (bits or 0) or not -top <= (number := int(text)) < top:
                raise ValueError(out_of_range)
            return number

        self._decoder = json.JSONDecoder(
            object_pairs_hook=unique,
            parse_constant=None if constant is None else refuse,
            parse_float=None if out_of_range is None else finite,
            parse_int=None if bits is None else whole,
        )

    def decode(self, content: str | bytes | bytearray) -> Any:
        """Return the value of a JSON text.

        Raises:
            ValueError: it is no JSON, or not strictly.
            RecursionError: it is nested too deeply.
        """
        if not isinstance(content, str):
            content = content.decode(json.detect_encoding(content), "surrogatepass")
        return self._decoder.decode(content)
