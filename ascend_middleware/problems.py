"""What is wrong in something that the user wrote: every problem at once, each with its place and what to do about it.

One reader for `ascend.toml`, `policy.toml` and settings: a `Report` collects the problems, `Report.table` reads a table
by its keys' parsers, and a parser raises `ValueError`, which says what was expected and what was got.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from .json_schema import TEXT, Schema, takes

Parser: TypeAlias = Callable[[object], Any]


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong in a configuration.

    Attributes:
        code: a stable identifier, `rules.unknown-key`.
        where: the file, rule and key, `ascend.toml: rule 3 (POST /refunds): details.amount`.
        message: what is wrong there.
        hint: what to do about it; may be empty.
    """

    code: str
    where: str
    message: str
    hint: str = ""

    def __str__(self) -> str:
        text = f"{self.where}: {self.message}" if self.where else self.message
        return f"{text} ({self.hint})" if self.hint else text


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return a hint for a misspelt name."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1)
    return f"did you mean {close[0]}?" if close else f"known: {', '.join(names)}"


class BadValueError(ValueError):
    """A value that a parser does not take, and what to write instead."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class Report:
    """The problems found so far, each with a place that begins with `name`, and a code that begins with `codes`."""

    def __init__(self, name: str, codes: str) -> None:
        self.name = name
        self.codes = codes
        self.problems: list[Problem] = []

    def add(self, code: str, where: Iterable[str], message: str, hint: str = "") -> None:
        """Add a problem; `where` goes from the table to the key."""
        place = ": ".join(filter(None, (self.name, *where)))
        self.problems.append(Problem(f"{self.codes}.{code}", place, message, hint))

    def table(
        self, raw: object, fields: Mapping[str, Parser], *where: str, required: Iterable[str] = ()
    ) -> dict[str, Any]:
        """Return what a table says, parsed by the parsers of its keys; a value of None counts as not given.

        An unknown key, a bad value and a missing required one each become a problem.
        """
        given: dict[str, Any] = {}
        if not isinstance(raw, Mapping):
            self.add("bad-value", where, "expected a table")
            return given
        for key, value in raw.items():
            if key not in fields:
                self.add("unknown-key", (*where, str(key)), "no such key", did_you_mean(str(key), fields))
            elif value is not None:
                try:
                    given[key] = fields[key](value)
                except ValueError as error:
                    self.add("bad-value", (*where, key), str(error), getattr(error, "hint", ""))
        for key in required:
            if key not in raw:
                self.add("missing-key", (*where, key), "is required")
        return given


# --- parsers of values


@takes(TEXT)
def text(value: object) -> str:
    """Take a text that is not blank."""
    if not isinstance(value, str):
        raise ValueError(f"expected a text, got {value!r}")
    if not value.strip():
        raise ValueError(f"expected a text that is not empty, got {value!r}")
    return value


@takes({"type": "array", "items": {"type": "string", "minLength": 1}})
def texts(value: object) -> tuple[str, ...]:
    """Take a list of texts."""
    if not isinstance(value, list | tuple) or not all(isinstance(item, str) and item for item in value):
        raise ValueError(f"expected a list of texts, got {value!r}")
    return tuple(value)


@takes({"type": "boolean"})
def flag(value: object) -> bool:
    """Take true or false."""
    if not isinstance(value, bool):
        raise ValueError(f"expected true or false, got {value!r}")
    return value


@takes({"type": "number"})
def number(value: object) -> int | float:
    """Take a number; true and false are none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"expected a number, got {value!r}")
    return value


def whole(low: int, high: int, what: str = "") -> Callable[[object], int]:
    """Return the parser of a whole number from `low` to `high`; `what` says of what, for the message."""

    @takes({"type": "integer", "minimum": low, "maximum": high})
    def parse(value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise ValueError(f"expected {what}a whole number from {low} to {high}, got {value!r}")
        return value

    return parse


@takes({"type": "number", "exclusiveMinimum": 0, "maximum": 86_400})
def seconds(value: object, most: float = 86_400, words: str = "a day") -> float:
    """Take more than 0 seconds and at most a day, or what `words` calls `most`."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= most:
        raise ValueError(f"expected seconds, more than 0 and at most {words}, got {value!r}")
    return float(value)


def choice(*words: str) -> Callable[[object], str]:
    """Return the parser of one of the words."""
    expected = " or ".join(words) if len(words) < 3 else f"one of {', '.join(words)}"

    @takes({"enum": list(words)})
    def parse(value: object) -> str:
        if isinstance(value, str) and value in words:
            return str(value)
        raise ValueError(f"expected {expected}, got {value!r}")

    return parse


_UNITS: Final = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_MOST_SECONDS: Final = 3650 * _UNITS["d"]


@takes({"type": "string", "pattern": "^[0-9]{1,9}[smhd]$"})
def duration(value: object) -> float:
    """Take a text such as `90s`, `24h` or `7d`, at most ten years, as seconds."""
    match = re.fullmatch(r"(\d{1,9})([smhd])", value, re.ASCII) if isinstance(value, str) else None
    found = int(match[1]) * _UNITS[match[2]] if match is not None else 0.0
    if not 0 < found <= _MOST_SECONDS:
        hint = 'expected a number and a unit, such as "90s", "24h" or "7d"'
        raise BadValueError(f"no such duration: {value!r}", hint)
    return found


def mapping(what: str, values: Schema | None = None) -> Callable[[object], Mapping[str, object]]:
    """Return the parser of a table; `what` says of what, for the message. Who reads it takes such `values` only."""

    @takes({"type": "object", "propertyNames": {"minLength": 1}, "additionalProperties": values or True})
    def parse(value: object) -> Mapping[str, object]:
        if not isinstance(value, Mapping) or not all(isinstance(key, str) and key for key in value):
            raise ValueError(f"expected a table of {what}, got {value!r}")
        return value

    return parse


# --- TOML


# What `tomllib` raises for a text that is no TOML; deep nesting and overlong numbers have errors of their own.
TOML_ERRORS: Final = (ValueError, RecursionError)
# The words of other languages for TOML's values.
_TOML_WORDS: Final = {
    "true": "write true",
    "false": "write false",
    "none": "leave the key out",
    "null": "leave the key out",
}
_TOML_PLACE = re.compile(
    r"^(?P<message>.*) \(at (?:line (?P<line>\d+), column (?P<column>\d+)|end of document)\)$", re.DOTALL
)


def toml_problem(code: str, name: str, text: str, error: Exception) -> Problem:
    """Return what a text that is no TOML has wrong, by what `tomllib` raised, with its line and what is meant."""
    if isinstance(error, RecursionError):
        return Problem(code, name, "it is not TOML: tables or lists stand too deep in each other")
    found = _TOML_PLACE.match(str(error))
    if found is None:
        return Problem(code, name, f"it is not TOML: {error}")
    lines = text.splitlines() or [""]
    number = int(found["line"] or 0) or next((n for n in range(len(lines), 0, -1) if lines[n - 1].strip()), 1)
    line = lines[min(number, len(lines)) - 1]
    rest = line[int(found["column"]) - 1 :].strip() if found["column"] else ""
    message = f"it is not TOML: line {number}: {found['message']}: {line.strip()[:120]}"
    return Problem(code, name, message, _toml_hint(found["message"], line, rest))


def _toml_hint(message: str, line: str, rest: str) -> str:
    value = re.match(r"[A-Za-z_][^#\]},]*", rest)
    if message == "Invalid value" and value is not None:
        word = value[0].strip()
        return _TOML_WORDS.get(word.lower(), f'a text stands in quotes: "{word}"')
    if message == "Invalid value":
        return "a value is missing, or is no text in quotes, number, true, false or list"
    if message.startswith("Expected newline"):
        if line.count('"') > 2:
            return "a text that holds quotes stands in single quotes: '…'"
        return "a text stands in quotes, and each key on a line of its own"
    if message.startswith("Expected '='"):
        return "a line reads: key = value; a key with blanks stands in quotes"
    if message.startswith(("Unterminated string", "Illegal character", 'Expected "\'"')):
        return "the text has no quote at its end"
    if message.startswith("Unescaped '\\'"):
        return "a text with backslashes stands in single quotes: '…'"
    if message.startswith(("Cannot overwrite", "Cannot declare", "Cannot mutate")):
        return "it stands twice; each entry of a list begins with two brackets: [[policy]], [[rule]]"
    return ""
