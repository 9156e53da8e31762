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
        rules = len(RuleTable.from_toml(args.table).rules)
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
        if not rules:
            print("the table has no rules: nothing is mapped, and what is unmapped is refused", file=sys.stderr)
    return 1 if problems else 0
