"""What is printed, and with which code a command ends: in one place, so that nothing printed can steer a terminal."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from .._version import __version__
from ..text import one_line

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable

__all__ = ["FAILED", "MISUSED", "OK", "Result", "note", "say", "show", "show_error", "version"]

OK: Final = 0
FAILED: Final = 1
MISUSED: Final = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What a command found.

    Attributes:
        data: what `--json` prints, as one JSON value; None where the command has no such option.
        lines: the same for people; each is printed as soon as it is there.
        notes: what people are told besides, on stderr.
        code: with which the command ends.
    """

    data: object = None
    lines: Iterable[str] = ()
    notes: Iterable[str] = ()
    code: int = OK


def show(result: Result, *, as_json: bool) -> int:
    """Print what a command found, and return its exit code."""
    if as_json and result.data is not None:
        print(json.dumps(result.data, indent=2))
    else:
        for line in result.lines:
            say(line)
    for text in result.notes:
        note(text)
    return result.code


def show_error(message: str, *, as_json: bool) -> None:
    """Print why a command failed."""
    if as_json:
        print(json.dumps({"error": message}, indent=2))
    else:
        for line in f"ascend-middleware: {message}".split("\n"):
            note(line)


def say(line: str) -> None:
    """Print one line."""
    print(one_line(line))


def note(line: str) -> None:
    """Print one line on stderr."""
    print(one_line(line), file=sys.stderr)


def version(_: argparse.Namespace) -> Result:
    """Print the version."""
    return Result(data={"version": __version__}, lines=[__version__])
