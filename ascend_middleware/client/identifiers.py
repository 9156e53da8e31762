"""Random identifiers for the headers of a request, many of them from one draw: each draw is a system call."""

from __future__ import annotations

import os
from typing import Final

__all__ = ["Identifiers"]

_AT_ONCE: Final = 64


class Identifiers:
    """Hands out 128 random bits at a time, in hexadecimal digits, each once; safe among threads and across forks."""

    __slots__ = ("_process", "_ready")

    def __init__(self) -> None:
        self._ready: list[str] = []
        self._process = os.getpid()

    def draw(self) -> str:
        """Return 32 hexadecimal digits."""
        if self._process != os.getpid():
            # The parent hands these out, too. In this order, so that no thread of the child meets them.
            self._ready = []
            self._process = os.getpid()
        try:
            return self._ready.pop()
        except IndexError:
            digits = os.urandom(16 * _AT_ONCE).hex()
            ready = [digits[at : at + 32] for at in range(0, len(digits), 32)]
            last = ready.pop()
            self._ready = ready
            return last
