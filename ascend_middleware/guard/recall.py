"""Requests that come again as they came before, and find the decision that is kept for them without a fingerprint.

The thorough way tells (`Binding.exact`) that two requests are the same. What is found by it is kept here once more,
under all that an ordinary request came with: the path that the router knows, where it stands, the query, and each
header but those of which that way says that they tell nothing. So whoever finds something here would find it there.
"""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING, Final, Generic, NamedTuple, TypeVar

import msgspec

from ..rules import fold_header

if TYPE_CHECKING:
    from collections.abc import Collection

    from ..routing import Known
    from .request import Came

__all__ = ["Recall", "Recalled"]

T = TypeVar("T")

_encode: Final = msgspec.msgpack.Encoder().encode
# They tell whether there is a body, in which requests may differ.
_OF_BODIES: Final = frozenset({"content-length", "transfer-encoding"})
# Callers make up what names there are.
_MOST_NAMES: Final = 256
_LONGEST_NAME: Final = 64


class Recalled(NamedTuple):
    """What is kept with a path under which requests may be found: by whom, and which headers tell nothing."""

    recall: object
    silent: set[bytes]


class Recall(Generic[T]):
    """What requests were let pass by, under what they came with; `most` of them."""

    def __init__(self, most: int) -> None:
        self._most: Final = most
        self._found: dict[tuple[object, ...], T] = {}
        # The names of headers that tell nothing, by the rule.
        self._silent: dict[object, set[bytes]] = {}
        # Queries and headers hold credentials: what is in memory for long tells nothing of them.
        self._secret: Final = os.urandom(32)

    def __len__(self) -> int:
        return len(self._found)

    def find(self, known: Known, came: Came) -> T | None:
        """Return what is kept for such a request; None where that is unknown. `known` is one that says `Recalled`."""
        recall, silent = known.told
        try:
            return self._found.get(self._key(silent, known, came)) if recall is self else None
        except (TypeError, ValueError, OverflowError):  # no texts and bytes, as a server's are
            return None

    def keep(self, rule: object, known: Known, came: Came, telling: Collection[str], found: T) -> None:
        """Keep what was found for an ordinary request without a body; `telling` are the headers that tell something."""
        silent = self._silent.setdefault(rule, set())
        if len(silent) >= _MOST_NAMES:
            silent.clear()
        for name, _ in came[2]:
            if name not in silent and len(name) <= _LONGEST_NAME:
                folded = fold_header(name.decode("latin-1"))
                if folded not in telling and folded not in _OF_BODIES:
                    silent.add(bytes(name))
        known.told = Recalled(self, silent)
        try:
            key = self._key(silent, known, came)
            if key not in self._found and len(self._found) >= self._most:
                self._found.clear()
        except (TypeError, ValueError, OverflowError):
            return
        self._found[key] = found

    def forget(self) -> None:
        """Forget all that was found."""
        self._found.clear()

    def _key(self, silent: set[bytes], known: Known, came: Came) -> tuple[object, ...]:
        place, query, headers = came
        if not query:  # as of most who need no credentials, with nothing that tells something but the host
            host = None
            for name, value in headers:
                if name not in silent:
                    if name != b"host" or host is not None:
                        break
                    host = value
            else:
                return known, place, host
        telling = [header for header in headers if header[0] not in silent]
        digest = hashlib.blake2b(_encode((query, telling)), digest_size=32, key=self._secret).digest()
        return known, place, None, digest
