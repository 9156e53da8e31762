"""The command line, `ascend-middleware COMMAND`: one module for each command or group of commands.

Exit codes: 0 done, 1 failed, 2 wrong usage or configuration. A command's module has `add_parser(commands)`, which sets
`run` to a function from the parsed arguments to an exit code.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sqlite3
import sys
from typing import TYPE_CHECKING, Any, Final

from .._version import __version__
from ..exceptions import AscendError, ConfigurationError
from .terminal import FAILED, MISUSED, OK, print_json

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["main", "main_about"]

# In the order of the help text.
_MODULES: Final = (
    f"{__package__}.authority",
    f"{__package__}.keys",
    f"{__package__}.approvals",
    f"{__package__}.agents",
    f"{__package__}.models",
    f"{__package__}.mcp_servers",
    f"{__package__}.approvers",
    f"{__package__}.explain_policy",
    f"{__package__}.audit",
    f"{__package__}.check",
    f"{__package__}.routes",
    f"{__package__}.explain",
    f"{__package__}.journal",
    "ascend_middleware.demo",
    f"{__package__}.version",
)
# The commands about an application, for the command lines of frameworks.
_ABOUT: Final = (f"{__package__}.routes", f"{__package__}.explain")
# Modules that only the authority needs.
_AUTHORITY: Final = ("cel", "cryptography", "jinja2", "jwt", "starlette", "uvicorn")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    return _run(_parser().parse_args(argv))


def main_about(app: Any, argv: Sequence[str], *, name: str, prog: str) -> int:
    """Run `routes` or `explain` for an application that is at hand, and return its exit code.

    Args:
        app: the framework's object.
        argv: the command and its arguments, without one that names the application.
        name: how the application is called in what is printed.
        prog: how the command line is called in its help.
    """
    parser = argparse.ArgumentParser(prog=prog)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for module in _ABOUT:
        importlib.import_module(module).add_parser(commands, about=(name, app))
    return _run(parser.parse_args(argv))


def _run(args: argparse.Namespace) -> int:
    run: Callable[[argparse.Namespace], int] = args.run
    try:
        return run(args)
    except ConfigurationError as error:
        return _complain(error, args, MISUSED)
    except AscendError as error:
        return _complain(error, args, FAILED)
    except sqlite3.Error as error:
        return _complain(_database_error(error, args), args, FAILED)
    except ImportError as error:
        missing = (error.name or "").split(".")[0]
        if missing not in _AUTHORITY:
            raise
        print("the embedded authority is not installed: add the extra ascend-middleware[authority]", file=sys.stderr)
        return MISUSED
    except BrokenPipeError:
        # The reader left (`| head`); what it did not read is no failure, and the interpreter must not flush again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK
    except KeyboardInterrupt:
        return 130


def _database_error(error: sqlite3.Error, args: argparse.Namespace) -> AscendError:
    """Say what is wrong with an authority's database that was opened and then could not be used."""
    place = getattr(args, "db", None) or f"beside {getattr(args, 'policy', 'the policy file')}"
    hint = "; it is damaged: put a backup in its place (`authority backup` makes them)"
    return AscendError(f"the database {place} cannot be used: {error}{hint if 'malformed' in str(error) else ''}")


def _complain(error: AscendError, args: argparse.Namespace, code: int) -> int:
    if getattr(args, "json", False):
        print_json({"error": error.message})
    else:
        print(f"ascend-middleware: {error.message}", file=sys.stderr)
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ascend-middleware",
        description="Authorization for agents that call your web application.",
        epilog="Exit codes: 0 done, 1 failed, 2 wrong usage or configuration.",
    )
    parser.add_argument("--version", action="version", version=f"ascend-middleware {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name in _MODULES:
        importlib.import_module(name).add_parser(commands)
    return parser
