"""Texts that are written again and again, with other words in a few places."""

from __future__ import annotations

import operator
import re
from typing import Final

__all__ = ["Template"]


class Template:
    """A text in which marks stand for what is filled in, each once or more often.

    A mark is found wherever it stands, so it must be one that nothing else in the text can hold: drawn at random.
    """

    __slots__ = ("_chosen", "_text")

    def __init__(self, text: str, *marks: str) -> None:
        found = re.split(f"({'|'.join(map(re.escape, marks))})", text)
        self._text: Final[str] = "%s".join(piece.replace("%", "%%") for piece in found[::2])
        self._chosen: Final = operator.itemgetter(*[marks.index(mark) for mark in found[1::2]])

    def fill(self, *values: str) -> str:
        """Return the text with a value for each mark, in the order in which the marks were given."""
        text: str = self._text % self._chosen(values)
        return text
