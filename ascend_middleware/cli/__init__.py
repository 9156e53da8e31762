"""The command line, `ascend-middleware COMMAND`: every command is in `commands`.

Exit codes: 0 done, 1 failed, 2 wrong usage or configuration.
"""

from __future__ import annotations

import argparse
from argparse import Namespace
from collections.abc import Iterator, Sequence
from typing import Any, Final

from .._version import __version__
from ..exceptions import StorageError
from ..inspection import FAILED, MISUSED, Result, note, run, show_error
from .commands import COMMANDS, GROUPS, TASKS
from .places import shown_database

__all__ = ["main", "version"]

# Modules that only the authority needs.
_AUTHORITY: Final = ("cel", "cryptography", "jinja2", "jwt", "prometheus_client", "starlette", "uvicorn")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    parser = argparse.ArgumentParser(
        prog="ascend-middleware",
        usage="%(prog)s [-h] [--version] COMMAND ...",
        description="Authorization for agents that call your web application.\n\n" + "\n".join(_overview()),
        epilog="Each command has --help. Exit codes: 0 done, 1 failed, 2 wrong usage or configuration.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"ascend-middleware {__version__}")
    found = parser.add_subparsers(metavar="COMMAND", required=True, prog=parser.prog, help=argparse.SUPPRESS)
    groups: dict[str, Any] = {"": found}
    for command in COMMANDS:
        group, _, name = command.path.rpartition(" ")
        if group not in groups:
            tasks = found.add_parser(group, description=f"{TASKS[group][0].upper()}{TASKS[group][1:]}.")
            groups[group] = tasks.add_subparsers(title="tasks", metavar="TASK", required=True)
        command.add_to(groups[group], name)
    return _run(parser.parse_args(argv))


def version(_: Namespace) -> Result:
    """Print the version."""
    return Result(data={"version": __version__}, lines=[__version__])


def _overview() -> Iterator[str]:
    """Say in lines what the commands are, by their groups."""
    for group, commands in GROUPS.items():
        yield f"{group}:"
        for name in dict.fromkeys(command.path.partition(" ")[0] for command in commands):
            text = TASKS.get(name) or next(one.text for one in commands if one.path == name)
            yield f"  {name:<15} {text}"
        yield ""


def _run(args: Namespace) -> int:
    try:
        return run(args)
    except StorageError as error:
        show_error(_database_error(error, args), as_json=getattr(args, "json", False))
        return FAILED
    except ImportError as error:
        missing = (error.name or "").split(".")[0]
        if missing not in _AUTHORITY:
            raise
        note("the embedded authority is not installed: add the extra ascend-middleware[authority]")
        return MISUSED


# What to do, by a word of what a database says is wrong.
_HINTS: Final = {
    "malformed": "; it is damaged: put a backup in its place (`authority backup` makes them)",
    "locked": "; another process writes to it for long: try again when that is done, or end it",
    "disk is full": "; make room on its disk and try again",
}


def _database_error(error: StorageError, args: Namespace) -> str:
    """Say what is wrong with an authority's database that was opened and then could not be used."""
    place = shown_database(args)
    hint = next((hint for word, hint in _HINTS.items() if word in str(error)), "")
    return f"the database {place} cannot be used: {error}{hint}"
