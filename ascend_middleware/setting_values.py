"""The values of settings: from an argument, an environment text or a TOML value to the field's type.

Each parser raises `ValueError`, which says what was expected and what was got. Here are, too, what the guard may find
wrong with a request before it looks at its rule, and where state and journal are on a machine by default.
"""

from __future__ import annotations

import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from . import problems
from .exceptions import ConfigurationError
from .json_schema import TEXT, either, schema_of, takes

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_NAME: Final = "ascend-middleware"
MAX_WAIT_SECONDS: Final = 55.0
_DAY: Final = 86_400
_YEAR: Final = 31_536_000
_MAX_KEPT_SECONDS: Final = 3600.0
# What makes a request suspicious; a rule may permit some of it.
FINDINGS: Final = {
    "not-origin-form": "the target does not begin with /",
    "dot-segment": "the path has a . or .. segment",
    "empty-segment": "the path has an empty segment",
    "backslash": "the path has a backslash",
    "control-character": "the path has a control character",
    "invalid-utf8": "the path is not valid UTF-8",
    "path-parameter": "the path has a ; parameter",
    "encoded-separator": "the path has an encoded slash or percent outside a parameter",
    "fragment": "the target has a fragment",
    "root-path": "the path may be read in two ways, with and without the server's root path",
    "method-override": "a header asks for another method",
    "path-override": "a header asks for another path",
    "bad-method": "the method is not a token in upper case letters",
}

_YES: Final = ("true", "1", "yes", "on")
_NO: Final = ("false", "0", "no", "off")
_PENDING: Final = r"wait:(\d+(?:\.\d+)?)s"
_HEADER: Final = r"[A-Za-z0-9-]+"
_PATH: Final = r"(?:/[A-Za-z0-9._~-]+)+"
# What an environment variable says, a file may say likewise: in a text.
_DIGITS: Final = {"type": "string", "pattern": r"\d"}
_WORDS: Final = "|".join(
    "".join(f"[{char}{char.upper()}]" if char.isalpha() else char for char in word) for word in _YES + _NO
)


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


@takes({"type": "string", "pattern": f"^(refuse|{_PENDING})$"})
def parse_pending(value: object) -> Pending:
    """Parse `refuse` or `wait:30s` (at most 55 s).

    Raises:
        ValueError: anything else.
    """
    if isinstance(value, Pending):
        return value
    if value == "refuse":
        return Pending()
    match = re.fullmatch(_PENDING, value) if isinstance(value, str) else None
    if match is None:
        raise ValueError(f'expected "refuse" or "wait:30s" (seconds, at most {MAX_WAIT_SECONDS:g}), got {value!r}')
    wait = float(match[1])
    if not 0 < wait <= MAX_WAIT_SECONDS:
        raise ValueError(f"a request waits more than 0 and at most {MAX_WAIT_SECONDS:g} seconds, got {value!r}")
    return Pending(wait)


@takes({"type": "string", "pattern": "^[0-9]{1,9}[smh]$"})
def kept_seconds(value: object) -> float:
    """Parse how long a decision is kept, `30s` or `5m`, at most an hour, as seconds."""
    found = problems.duration(value)
    if found > _MAX_KEPT_SECONDS:
        raise problems.BadValueError(f"a decision is kept for an hour at most, got {value!r}", 'such as "30s" or "5m"')
    return found


_ENGINES: Final = problems.choice("auto", "httpx2")


@takes(schema_of(_ENGINES))
def engine(value: object) -> str:
    """Parse the name of an engine."""
    if value == "pyreqwest":
        raise ValueError("'pyreqwest' was removed: leave the setting out, or write 'auto'")
    return _ENGINES(value)


@takes(TEXT)
def agent_id(value: object) -> str:
    """Parse an agent's id."""
    name = text(value)
    if name in (".", ".."):
        raise ValueError("a dot segment is no id that the authority can be asked about")
    return name


@takes(TEXT)
def text(value: object) -> str:
    """Parse a text that is not blank."""
    return problems.text(value).strip()


def place(*words: str) -> Callable[[object], str]:
    """Return the parser of a path that may also be one of the words, of which those with // begin URLs.

    A mistyped scheme would make a folder of that name, password included; so the message shows the scheme alone.
    """
    names, urls = {word.partition(":")[0] for word in words}, tuple(word for word in words if word.endswith("//"))

    @takes(TEXT)
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


@takes(either(schema_of(problems.flag), {"type": "string", "pattern": rf"^\s*({_WORDS})\s*$"}))
def flag(value: object) -> bool:
    """Parse true or false."""
    word = value.strip().lower() if isinstance(value, str) else ""
    return word in _YES if word in _YES + _NO else problems.flag(value)


@takes(either(schema_of(problems.seconds), _DIGITS))
def seconds(value: object) -> float:
    """Parse more than 0 seconds and at most a day."""
    return problems.seconds(number(value))


@takes(either({"type": "number", "minimum": 0, "maximum": _DAY}, _DIGITS))
def seconds_or_never(value: object) -> float:
    """Parse seconds, or 0."""
    return 0.0 if number(value) == 0 else seconds(value)


@takes(either({"type": "number", "exclusiveMinimum": 0, "maximum": _YEAR}, _DIGITS))
def days(value: object) -> float:
    """Parse more than 0 seconds and at most a year."""
    return problems.seconds(number(value), _YEAR, "a year")


@takes(either(schema_of(problems.number), _DIGITS))
def number(value: object) -> int | float:
    """Parse a number."""
    try:
        return float(value) if isinstance(value, str) else problems.number(value)
    except ValueError:
        raise ValueError(f"expected a number, got {value!r}") from None


def count(low: int, high: int) -> Callable[[object], int]:
    """Return the parser of a whole number from `low` to `high`."""
    parse = problems.whole(low, high)

    @takes(either(schema_of(parse), _DIGITS))
    def parse_count(value: object) -> int:
        found = number(value)
        return parse(int(found) if isinstance(found, float) and found.is_integer() else found)

    return parse_count


@takes(either(schema_of(problems.texts), {"type": "string"}))
def texts(value: object) -> tuple[str, ...]:
    """Parse texts, one or a list, or with commas."""
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return problems.texts(value)


@takes(either({"type": "array", "items": {"enum": list(FINDINGS)}}, {"type": "string"}))
def findings(value: object) -> tuple[str, ...]:
    """Parse names of findings."""
    names = texts(value)
    for name in names:
        if name not in FINDINGS:
            raise ValueError(f"there is no finding {name!r}; {problems.did_you_mean(name, FINDINGS)}")
    return names


@takes({"type": "string", "pattern": rf"^\s*{_HEADER}\s*$"})
def header_name(value: object) -> str:
    """Parse a header's name, in lower case."""
    name = text(value)
    if not re.fullmatch(_HEADER, name):
        raise ValueError(f"expected a header name of letters, digits and dashes, got {value!r}")
    return name.lower()


@takes(either({"type": "array", "items": schema_of(header_name)}, {"type": "string"}))
def header_names(value: object) -> tuple[str, ...]:
    """Parse names of headers."""
    return tuple(header_name(name) for name in texts(value))


@takes(either(TEXT, {"type": "integer"}))
def identifier(value: object) -> str:
    """A number or a text, as a text."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else text(value)


@takes({"type": "string", "pattern": rf"^\s*{_PATH}\s*$"})
def local_path(value: object) -> str:
    """Parse the path of a URL."""
    path = text(value)
    if not re.fullmatch(_PATH, path) or "/../" in f"{path}/" or "/./" in f"{path}/":
        raise ValueError(f"expected a path such as /.ascend/approvals, got {value!r}")
    return path


# --- where state and journal are


def default_directory(environ: Mapping[str, str] | None = None, *, platform: str = sys.platform) -> Path:
    """Return the directory for what outlives a process: systemd's, else the user's own state directory.

    Raises:
        ConfigurationError: the process has no home directory.
    """
    environ = os.environ if environ is None else environ
    given = environ.get("STATE_DIRECTORY", "").split(":")[0]
    if given:
        return Path(given) / _NAME
    try:
        if platform == "win32":
            base = Path(environ["LOCALAPPDATA"]) if environ.get("LOCALAPPDATA") else Path.home() / "AppData" / "Local"
        elif platform == "darwin":
            base = Path.home() / "Library" / "Application Support"
        else:
            given = environ.get("XDG_STATE_HOME", "")
            base = Path(given) if os.path.isabs(given) else Path.home() / ".local" / "state"
    except RuntimeError:
        raise ConfigurationError(
            "there is no home directory for the state; set state (ASCEND_STATE) to a file, redis://… or memory:"
        ) from None
    return base / _NAME


def make_directory(path: Path) -> None:
    """Make a directory that only its owner may read, with its parents; raises OSError."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)


def shown(url: str) -> str:
    """Return a URL without its user name, password and query, for messages; rather too little than too much of it."""
    return re.sub(r"\?\S*", "?…", re.sub(r"//.*@", "//…@", url))
