"""For all command lines: what a command is, what it prints, and how it ends; nothing printed can steer a terminal."""

from __future__ import annotations

import importlib
import json
import os
import sys
from argparse import Namespace
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final, TypeAlias, TypeVar

from ..exceptions import AscendError, ConfigurationError
from ..text import one_line

__all__ = [
    "EXPLAIN",
    "FAILED",
    "JSON",
    "MISUSED",
    "OK",
    "ROUTES",
    "RULES",
    "Command",
    "Result",
    "arg",
    "note",
    "progress",
    "run",
    "say",
    "show_error",
]

_Item = TypeVar("_Item")
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


Argument: TypeAlias = "tuple[tuple[str, ...], dict[str, Any]]"


def arg(*names: str, **options: Any) -> Argument:
    """Return what `add_argument` is given."""
    return names, options


JSON: Final = arg("--json", action="store_true", help="print one JSON object")


class Command:
    """One command.

    Args:
        path: its name; or that of its group of tasks, a blank, and its own.
        text: what `--help` says of it, in one line.
        function: `module:function`, the module within this package.
        arguments: what it takes.
        description: what its own help says first; `epilog` is what that says last.
        fixed: arguments that the command line does not give.
    """

    def __init__(
        self,
        path: str,
        text: str,
        function: str,
        *arguments: Argument,
        description: str = "",
        epilog: str = "",
        **fixed: Any,
    ) -> None:
        self.path, self.text, self.function, self.arguments = path, text, function, arguments
        self.description, self.epilog, self.fixed = description, epilog, fixed

    def load(self) -> Callable[[Namespace], Result]:
        """Import and return its function."""
        module, _, name = self.function.partition(":")
        function: Callable[[Namespace], Result] = getattr(importlib.import_module(f"..{module}", __package__), name)
        return function

    def add_to(self, commands: Any, name: str) -> None:
        """Add its parser to the subparsers of a command line."""
        parser = commands.add_parser(
            name, help=self.text, description=self.description or None, epilog=self.epilog or None
        )
        for names, options in self.arguments:
            parser.add_argument(*names, **options)
        parser.set_defaults(command=self, **self.fixed)


RULES: Final = arg("--rules", help="a rule table, instead of the installed guard's own")
ROUTES: Final = Command(
    "routes",
    "list what is governed in an application",
    "inspection.about:list_routes",
    *(RULES, JSON),
    arg("--fail-unmapped", action="store_true", help="exit with 1 if a route is not covered; for CI"),
    arg("--suggest", action="store_true", help="print rules to start from for what is not covered"),
    description="List every live route and method with its rule, what is not covered, and what can never match.",
    epilog="Exit codes: 0 listed, 1 something is not covered or contradictory (--fail-unmapped), 2 wrong usage.",
)
EXPLAIN: Final = Command(
    "explain",
    "explain what governs one request",
    "inspection.about:explain_request",
    *(RULES, JSON),
    arg("request", help='method and target, "POST /customers/7/refunds?dry_run=1"'),
    arg("--header", action="append", default=[], metavar="NAME: VALUE", help="a header; may be repeated"),
    arg("--body", help="the body; @FILE reads it from a file"),
    description="Print the rule that governs a request, the rules that lost and why, and what would be sent.",
    epilog="Nobody is asked and nothing runs. The agent is the configured one, whatever identify would say.",
)


def run(args: Namespace) -> int:
    """Run the command that was parsed, print what it found, and return its exit code."""
    as_json = getattr(args, "json", False)
    try:
        return _show(args.command.load()(args), as_json=as_json)
    except AscendError as error:
        show_error(error.message, as_json=as_json)
        return MISUSED if isinstance(error, ConfigurationError) else FAILED
    except BrokenPipeError:
        # The reader left (`| head`); what it did not read is no failure, and the interpreter must not flush again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK
    except KeyboardInterrupt:
        return 130


def _show(result: Result, *, as_json: bool) -> int:
    if as_json and result.data is not None:
        print(json.dumps(result.data, indent=2))
    else:
        for line in result.lines:
            say(line)
    sys.stdout.flush()  # where both go to one place, they come in this order
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


def progress(items: Iterable[_Item], what: str, total: int | None = None) -> Iterable[_Item]:
    """Return the items; while they are taken, a bar on stderr tells how many were, where that is a terminal."""
    try:
        from tqdm import tqdm
    except ImportError:  # of the extra `authority`, whose commands are those that take long
        return items
    found: Iterable[_Item] = tqdm(items, desc=what, total=total, unit="", unit_scale=True, leave=False, disable=None)
    return found
