"""The kinds of values in requests, as msgspec types: they check bodies and make the OpenAPI document."""

from __future__ import annotations

from typing import Annotated, Final, TypeAlias

from msgspec import Meta

__all__ = ["MAX_NAME", "MAX_TEXT", "NAME_PATTERN", "Count", "Name", "Needed", "Number", "Text", "Words"]

MAX_NAME: Final = 255
MAX_TEXT: Final = 4096
# No control characters, no line separators, nothing that turns the writing direction or cannot be seen, and no blanks
# at the ends: two names that look the same to a person must not be two names. The end is spelt so because Python's `$`
# also stands before a last newline, and other readers of the OpenAPI document know no `\Z`.
_UNSEEN: Final = r"\x00-\x1f\x7f-\x9f\xad\u061c\u180e\u200b-\u200f\u2028-\u202f\u205f-\u206f\u3000\ufeff\ufff9-\uffff"
NAME_PATTERN: Final = rf"^[^\s{_UNSEEN}](?:[^{_UNSEEN}]*[^\s{_UNSEEN}])?$(?!\n)"

Name: TypeAlias = Annotated[str, Meta(min_length=1, max_length=MAX_NAME, pattern=NAME_PATTERN)]
Text: TypeAlias = Annotated[str, Meta(max_length=MAX_TEXT)]
Needed: TypeAlias = Annotated[str, Meta(min_length=1, max_length=MAX_TEXT, pattern=r"\S")]
Count: TypeAlias = Annotated[int, Meta(ge=0, le=2**53)]
Number: TypeAlias = Annotated[int, Meta(ge=1, le=2**53)]
Words: TypeAlias = Annotated[tuple[Name, ...], Meta(max_length=200)]
