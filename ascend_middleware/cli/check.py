"""The `check` command: say everything that is wrong with a rule table."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

from ..exceptions import ConfigurationError, Problem

if TYPE_CHECKING:
    import argparse

__all__ = ["add_parser", "run"]

DEFAULT_TABLE = "ascend.toml"
_EMPTY = 'begin one with [[rule]], or set unmapped = "by-method"; rules at handlers are checked by the command routes'


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser(
        "check",
        help="check a rule table",
        description="Check a rule table and print every problem. Exit codes: 0 no problem, 1 problems, 2 usage.",
    )
    parser.add_argument("table", nargs="?", default=DEFAULT_TABLE, help=f"the rule table (default: {DEFAULT_TABLE})")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Check the table that the arguments name; return the exit code."""
    from ..rules import RuleTable

    problems: tuple[Problem, ...] = ()
    rules: int | None = None
    try:
        table = RuleTable.from_toml(args.table)
        rules = len(table.rules)
        if not rules and table.settings.get("unmapped") != "by-method":
            problems = (Problem("rules.empty", args.table, "it has no rule, so that every request is refused", _EMPTY),)
    except ConfigurationError as error:
        if any(problem.code == "rules.unreadable" for problem in error.problems):
            raise  # there is no table to check, which is wrong usage
        problems = error.problems or (Problem("rules.unreadable", "", error.message),)
    if args.json:
        rows = [{"code": p.code, "where": p.where, "message": p.message, "hint": p.hint} for p in problems]
        result = {"ok": not problems, "table": str(args.table), "rules": rules, "problems": rows}
        sys.stdout.write(json.dumps(result, indent=2) + "\n")
    elif problems:
        sys.stdout.write("".join(f"{problem}\n" for problem in problems))
    else:
        sys.stdout.write(f"ok: {rules} {'rule' if rules == 1 else 'rules'}\n")
    return 1 if problems else 0
