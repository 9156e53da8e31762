"""The values of settings: from an argument, an environment text or a TOML value to the field's type.

Each parser raises `ValueError`, which says what was expected and what was got.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from . import problems
from .findings import parse_findings

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Pending", "parse_pending"]  # and the parsers, which `config` calls by their module

MAX_WAIT_SECONDS: Final = 55.0
_YES: Final = ("true", "1", "yes", "on")
_NO: Final = ("false", "0", "no", "off")


@dataclass(frozen=True, slots=True)
class Pending:
    """What happens to a request whose action is held for a person: refused at once, or held up to `seconds`."""

    seconds: float = 0.0

    @property
    def waits(self) -> bool:
        """Whether the request is held."""
        return self.seconds > 0

    def __str__(self) -> str:
        return f"wait:{self.seconds:g}s" if self.waits else "refuse"


def parse_pending(value: object) -> Pending:
    """Parse `refuse` or `wait:30s` (at most 55 s).

    Raises:
        ValueError: anything else.
    """
    if isinstance(value, Pending):
        return value
    if value == "refuse":
        return Pending()
    match = re.fullmatch(r"wait:(\d+(?:\.\d+)?)s", value) if isinstance(value, str) else None
    if match is None:
        raise ValueError(f'expected "refuse" or "wait:30s" (seconds, at most {MAX_WAIT_SECONDS:g}), got {value!r}')
    wait = float(match[1])
    if not 0 < wait <= MAX_WAIT_SECONDS:
        raise ValueError(f"a request waits more than 0 and at most {MAX_WAIT_SECONDS:g} seconds, got {value!r}")
    return Pending(wait)


def engine(value: object) -> str:
    """Parse the name of an engine."""
    if value == "pyreqwest":
        raise ValueError("'pyreqwest' was removed: leave the setting out, or write 'auto'")
    return problems.choice("auto", "httpx2")(value)


def agent_id(value: object) -> str:
    """Parse an agent's id."""
    name = text(value)
    if name in (".", ".."):
        raise ValueError("a dot segment is no id that the authority can be asked about")
    return name


def text(value: object) -> str:
    """Parse a text that is not blank."""
    return problems.text(value).strip()


def place(*words: str) -> Callable[[object], str]:
    """Return the parser of a path that may also be one of the words, of which those with // begin URLs.

    A mistyped scheme would make a folder of that name, password included; so the message shows the scheme alone.
    """
    names, urls = {word.partition(":")[0] for word in words}, tuple(word for word in words if word.endswith("//"))

    def parse(value: object) -> str:
        place = text(value)
        name, colon, _ = place.partition(":")
        is_scheme = colon and re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]+", name)  # one letter is a drive of Windows
        # What begins so is meant as a path, whatever it holds.
        is_path = re.match(r"~|\.{0,2}[/\\]|[A-Za-z]:\\", place)
        is_url = not is_path and re.search("@|//", place)
        if place in words or place.startswith(urls) or not (is_scheme or is_url or name.lower() in names):
            return place
        got = name if is_scheme or not is_url else f"…@{place.rpartition('@')[2]}" if "@" in place else place
        raise ValueError(f"expected {' or '.join(('a path', *words))}, got {got!r} (a file of such a name: ./…)")

    return parse


def flag(value: object) -> bool:
    """Parse true or false."""
    word = value.strip().lower() if isinstance(value, str) else ""
    return word in _YES if word in _YES + _NO else problems.flag(value)


def seconds(value: object) -> float:
    """Parse more than 0 seconds and at most a day."""
    return problems.seconds(number(value))


def seconds_or_never(value: object) -> float:
    """Parse seconds, or 0."""
    return 0.0 if number(value) == 0 else seconds(value)


def days(value: object) -> float:
    """Parse more than 0 seconds and at most a year."""
    return problems.seconds(number(value), 31_536_000, "a year")


def number(value: object) -> int | float:
    """Parse a number."""
    try:
        return float(value) if isinstance(value, str) else problems.number(value)
    except ValueError:
        raise ValueError(f"expected a number, got {value!r}") from None


def count(low: int, high: int) -> Callable[[object], int]:
    """Return the parser of a whole number from `low` to `high`."""
    parse = problems.whole(low, high)

    def parse_count(value: object) -> int:
        found = number(value)
        return parse(int(found) if isinstance(found, float) and found.is_integer() else found)

    return parse_count


def texts(value: object) -> tuple[str, ...]:
    """Parse texts, one or a list, or with commas."""
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return problems.texts(value)


def findings(value: object) -> tuple[str, ...]:
    """Parse names of findings."""
    return parse_findings(texts(value))


def header_name(value: object) -> str:
    """Parse a header's name, in lower case."""
    name = text(value)
    if not re.fullmatch(r"[A-Za-z0-9-]+", name):
        raise ValueError(f"expected a header name of letters, digits and dashes, got {value!r}")
    return name.lower()


def header_names(value: object) -> tuple[str, ...]:
    """Parse names of headers."""
    return tuple(header_name(name) for name in texts(value))


def identifier(value: object) -> str:
    """A number or a text, as a text."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else text(value)


def local_path(value: object) -> str:
    """Parse the path of a URL."""
    path = text(value)
    if not re.fullmatch(r"(?:/[A-Za-z0-9._~-]+)+", path) or "/../" in f"{path}/" or "/./" in f"{path}/":
        raise ValueError(f"expected a path such as /.ascend/approvals, got {value!r}")
    return path
