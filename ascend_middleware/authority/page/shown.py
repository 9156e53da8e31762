"""How values appear on the page: actions carry text that an attacker may have written."""

from __future__ import annotations

import json
import unicodedata
from typing import TYPE_CHECKING, Any, Final

from markupsafe import Markup, escape

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["FILTERS", "facts", "pretty", "shown"]

# Control, format (which hold what turns the writing direction and what cannot be seen), surrogates, private use,
# unassigned, line and paragraph separators.
_UNSEEN: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
_UNSEEN_MARK: Final = Markup('<span class="unseen" title="a character that cannot be seen">U+{:04X}</span>')
_LONGEST: Final = 400
_MOST_FACTS: Final = 60


def shown(value: object, *, lines: bool = False) -> Markup:
    """Return a text in which nothing is hidden: characters that cannot be seen are spelt out.

    It stands in an element of its own writing direction, so that it cannot turn what surrounds it.

    Args:
        value: the text.
        lines: whether line ends may stay.
    """
    parts: list[Markup] = []
    plain: list[str] = []
    for char in str(value):
        if unicodedata.category(char) not in _UNSEEN or (lines and char == "\n"):
            plain.append(char)
            continue
        parts.append(escape("".join(plain)))
        plain.clear()
        parts.append(
            Markup('<span class="unseen" title="a character that cannot be seen">U+{:04X}</span>').format(ord(char))
        )
    parts.append(escape("".join(plain)))
    return Markup("<bdi>{}</bdi>").format(Markup("").join(parts))


def short(value: object, longest: int = _LONGEST) -> Markup:
    """Return a text, cut if it is long; how much is missing is said."""
    text = str(value)
    if len(text) <= longest:
        return shown(text)
    return Markup('{} <span class="cut">… {} more characters</span>').format(shown(text[:longest]), len(text) - longest)


def facts(value: object) -> list[tuple[str, str]]:
    """Return the parts of a JSON value as pairs of a dotted place and a text, in order, some dozens at most."""
    found: list[tuple[str, str]] = []
    for place, text in _flat(value, ""):
        if len(found) == _MOST_FACTS:
            found.append(("…", "more; see the whole of it below"))
            break
        found.append((place, text))
    return found


def _flat(value: object, place: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from _flat(item, f"{place}.{key}" if place else str(key))
    elif isinstance(value, list) and any(isinstance(item, dict | list) for item in value):
        for number, item in enumerate(value):
            yield from _flat(item, f"{place}[{number}]")
    elif isinstance(value, str):
        yield place, value
    else:
        yield place, json.dumps(value, ensure_ascii=False)


def pretty(value: object) -> Markup:
    """Return a JSON value on several lines."""
    return shown(json.dumps(value, indent=2, ensure_ascii=False, sort_keys=True), lines=True)


def moment(value: object) -> Markup:
    """Return a stored time as an element that the script turns into local words."""
    text = str(value or "")
    if not text:
        return Markup("–")
    return Markup('<time datetime="{}">{} UTC</time>').format(text, text[:19].replace("T", " "))


def words(value: object) -> str:
    """Return an upper-case event name as words."""
    return str(value).replace("_", " ").capitalize()


FILTERS: Final[dict[str, Any]] = {
    "shown": shown,
    "short": short,
    "facts": facts,
    "pretty": pretty,
    "moment": moment,
    "words": words,
}
