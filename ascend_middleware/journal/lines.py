"""The lines of a journal: each tells by a checksum whether it is whole."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["LINE", "Begun", "begin", "checksum", "decode_as", "decode_line", "encode_line", "seal", "unseal"]

_Record = TypeVar("_Record")

# For who makes a line of each request: of the checksum of all content, what it begins with, and the rest.
LINE: Final = b"%08x %b%b\n"
checksum: Final = zlib.crc32
_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder(dict[str, Any]).decode


class Begun(NamedTuple):
    """What many lines begin with, and its checksum: that of the rest takes less time."""

    content: bytes
    checksum: int


def begin(content: bytes) -> Begun:
    """Return what lines begin with whose rest is made by request: `LINE % (checksum(rest, sum), content, rest)`."""
    return Begun(content, checksum(content))


def encode_line(record: Mapping[str, Any] | msgspec.Struct | msgspec.Raw) -> bytes:
    """Return a line that tells whether it is whole; see `journal` for what it holds."""
    return seal(_encode(record))


def seal(content: bytes) -> bytes:
    """Return a line of encoded content; `unseal` takes the content out."""
    return LINE % (checksum(content), content, b"")


def unseal(line: bytes) -> bytes | None:
    """Return a line's content, or None if it is not whole."""
    content = line[9:-1]
    try:
        is_whole = line[8:9] == b" " and line[-1:] == b"\n" and int(line[:8], 16) == checksum(content)
    except ValueError:
        return None
    return content if is_whole else None


def decode_line(line: bytes) -> dict[str, Any] | None:
    """Return a line of a journal as an object, or None if it is damaged."""
    return decode_as(_decode, line)


def decode_as(decode: Callable[[bytes], _Record], line: bytes) -> _Record | None:
    """Return what `decode` makes of a line's content, or None if it is damaged."""
    content = unseal(line)
    try:
        return None if content is None else decode(content)
    except msgspec.DecodeError:
        return None
