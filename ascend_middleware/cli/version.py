"""The `version` command."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .._version import __version__
from .terminal import OK, print_json

if TYPE_CHECKING:
    import argparse

__all__ = ["add_parser"]


def add_parser(commands: Any) -> None:
    """Add the command to the command line."""
    version = commands.add_parser("version", help="print the version")
    version.add_argument("--json", action="store_true", help="print one JSON object")
    version.set_defaults(run=_version)


def _version(args: argparse.Namespace) -> int:
    if args.json:
        print_json({"version": __version__})
    else:
        print(__version__)
    return OK
