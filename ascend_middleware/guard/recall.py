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
_HOST: Final = b"host"
# Callers make up what names there are.
_MOST_NAMES: Final = 256
_LONGEST_NAME: Final = 64


class Recalled(NamedTuple):
    """What is kept with a path under which requests may be found: by whom, and which headers tell nothing.

    Of most who need no credentials, only `host` tells something: all their headers are `usual`.
    """

    recall: object
    silent: set[bytes]
    usual: set[bytes]


class Recall(Generic[T]):
    """What requests were let pass by, under what they came with; `most` of them."""

    def __init__(self, most: int) -> None:
        self._most: Final = most
        self._found: dict[tuple[object, ...], T] = {}
        # Two sets of names of headers, by the rule: see `Recalled`.
        self._names: dict[object, tuple[set[bytes], set[bytes]]] = {}
        # Queries and headers hold credentials: what is in memory for long tells nothing of them.
        self._secret: Final = os.urandom(32)

    def __len__(self) -> int:
        return len(self._found)

    def find(self, known: Known, came: Came) -> T | None:
        """Return what is kept for such a request; None where that is unknown. `known` is one that says `Recalled`."""
        told = known.told
        try:
            return self._found.get(self._key(told, known, came)) if told.recall is self else None
        except (TypeError, ValueError, OverflowError):  # no texts and bytes, as a server's are
            return None

    def keep(self, rule: object, known: Known, came: Came, telling: Collection[str], found: T) -> None:
        """Keep what was found for an ordinary request without a body; `telling` are the headers that tell something."""
        silent, usual = self._names.setdefault(rule, (set(), {_HOST}))
        if len(silent) >= _MOST_NAMES:
            silent.clear()
            usual.intersection_update((_HOST,))
        for name, _ in came[2]:
            if name not in silent and len(name) <= _LONGEST_NAME:
                folded = fold_header(name.decode("latin-1"))
                if folded not in telling and folded not in _OF_BODIES:
                    silent.add(bytes(name))
                    usual.add(bytes(name))
        known.told = Recalled(self, silent, usual)
        try:
            key = self._key(known.told, known, came)
            if key not in self._found and len(self._found) >= self._most:
                self._found.clear()
        except (TypeError, ValueError, OverflowError):
            return
        self._found[key] = found

    def forget(self) -> None:
        """Forget all that was found."""
        self._found.clear()

    def _key(self, told: Recalled, known: Known, came: Came) -> tuple[object, ...]:
        place, query, headers = came
        if not query:
            given = dict(headers)
            if given.keys() <= told.usual and len(given) == len(headers):
                return known, place, given.get(_HOST)
        telling = [header for header in headers if header[0] not in told.silent]
        digest = hashlib.blake2b(_encode((query, telling)), digest_size=32, key=self._secret).digest()
        return known, place, None, digest
