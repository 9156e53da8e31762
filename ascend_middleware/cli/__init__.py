"""The command line, `ascend-middleware COMMAND`: every command is in `commands`, `terminal` prints what it says.

Exit codes: 0 done, 1 failed, 2 wrong usage or configuration.
"""

from __future__ import annotations

import argparse
import os
import sqlite3
import sys
from typing import TYPE_CHECKING, Any, Final

from .._version import __version__
from ..exceptions import AscendError, ConfigurationError
from .commands import APPLICATION, COMMANDS, GROUPS, TASKS, Command
from .terminal import FAILED, MISUSED, OK, note, show, show_error

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["main", "main_about"]

# The commands about an application, for the command lines of frameworks.
_ABOUT: Final = ("routes", "explain")
# Modules that only the authority needs.
_AUTHORITY: Final = ("cel", "cryptography", "jinja2", "jwt", "starlette", "uvicorn")


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
        _add(groups[group], name, command, command.arguments)
    return _run(parser.parse_args(argv))


def main_about(app: Any, argv: Sequence[str], *, name: str, prog: str) -> int:
    """Run `routes` or `explain` for an application that is at hand, and return its exit code.

    Args:
        app: the framework's object.
        argv: the command and its arguments, without one that names the application.
        name: how the application is called in what is printed.
        prog: how the command line is called in its help.
    """
    parser = argparse.ArgumentParser(prog=prog)
    found = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in COMMANDS:
        if command.path in _ABOUT:
            arguments = [one for one in command.arguments if one not in APPLICATION]
            _add(found, command.path, command, arguments)
    return _run(parser.parse_args(argv, argparse.Namespace(app=name, found=app)))


def _overview() -> Iterator[str]:
    """Say in lines what the commands are, by their groups."""
    for group, commands in GROUPS.items():
        yield f"{group}:"
        for name in dict.fromkeys(command.path.partition(" ")[0] for command in commands):
            text = TASKS.get(name) or next(one.text for one in commands if one.path == name)
            yield f"  {name:<15} {text}"
        yield ""


def _add(commands: Any, name: str, command: Command, arguments: Sequence[Any]) -> None:
    parser = commands.add_parser(
        name, help=command.text, description=command.description or None, epilog=command.epilog or None
    )
    for names, options in arguments:
        parser.add_argument(*names, **options)
    parser.set_defaults(command=command, **command.fixed)


def _run(args: argparse.Namespace) -> int:
    as_json = getattr(args, "json", False)
    try:
        return show(args.command.load()(args), as_json=as_json)
    except AscendError as error:
        show_error(error.message, as_json=as_json)
        return MISUSED if isinstance(error, ConfigurationError) else FAILED
    except sqlite3.Error as error:
        show_error(_database_error(error, args), as_json=as_json)
        return FAILED
    except ImportError as error:
        missing = (error.name or "").split(".")[0]
        if missing not in _AUTHORITY:
            raise
        note("the embedded authority is not installed: add the extra ascend-middleware[authority]")
        return MISUSED
    except BrokenPipeError:
        # The reader left (`| head`); what it did not read is no failure, and the interpreter must not flush again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK
    except KeyboardInterrupt:
        return 130


def _database_error(error: sqlite3.Error, args: argparse.Namespace) -> str:
    """Say what is wrong with an authority's database that was opened and then could not be used."""
    place = getattr(args, "db", None) or f"beside {getattr(args, 'policy', 'the policy file')}"
    hint = "; it is damaged: put a backup in its place (`authority backup` makes them)"
    return f"the database {place} cannot be used: {error}{hint if 'malformed' in str(error) else ''}"
