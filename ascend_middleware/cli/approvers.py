"""The `approvers` command: how many people, and who, approve at which risk level."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from .files import add_organisation, open_management
from .terminal import OK, plain, print_json

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping, Sequence

    from ..authority.management import Management
    from ..authority.policy.approvers import Requirement

__all__ = ["add_parser"]

_LEVELS: Final = ("low", "medium", "high", "critical")


def add_parser(commands: Any) -> None:
    """Add the command to the command line."""
    parser = commands.add_parser(
        "approvers",
        help="say who approves at which risk level",
        description="What is set here goes before the policy file, for actions that are submitted from then on.",
    )
    tasks = parser.add_subparsers(title="tasks", metavar="TASK", required=True)
    listing = tasks.add_parser("list", help="list what is set here")
    listing.set_defaults(run=_list)
    assign = tasks.add_parser("set", help="set the approvers of a level")
    assign.add_argument("level", choices=_LEVELS)
    assign.add_argument("--count", type=int, default=1, help="so many different people (default: 1)")
    assign.add_argument("--approver", action="append", default=[], metavar="NAME", help="the name of an admin key")
    assign.set_defaults(run=_set)
    clear = tasks.add_parser("clear", help="let the policy file say it again")
    clear.add_argument("level", choices=_LEVELS)
    clear.set_defaults(run=_clear)
    for task in (listing, assign, clear):
        add_organisation(task)


def _list(args: argparse.Namespace) -> int:
    declared, issuer = _declared(args)
    with open_management(args) as management:
        found = management.approvers()
        warnings = _warnings(management, {**declared, **found}, issuer)
    if args.json:
        rows = {level: _shown(one) for level, one in found.items()}
        declared_rows = {level: _shown(one) for level, one in declared.items()}
        print_json({"approvers": rows, "policy_file": declared_rows, "warnings": warnings})
        return OK
    for level, one in found.items():
        print(f"{level:<8}  {one.count} of {_who(one.names)}")
    for level, one in declared.items():
        if level not in found:
            print(f"{level:<8}  {one.count} of {_who(one.names)}  (policy file)")
    if not found:
        print("nothing is set here; the policy file says who approves")
    _warn(warnings)
    return OK


def _declared(args: argparse.Namespace) -> tuple[Mapping[str, Requirement], str]:
    """Return the approvers of the policy file, where there is one, and whose tokens it takes."""
    from ..authority import load_policy

    if not Path(args.policy).exists():
        return {}, ""
    policy = load_policy(args.policy)
    return policy.approvals.levels, policy.token_key.issuer if policy.token_key else ""


def _warnings(management: Management, levels: Mapping[str, Requirement], issuer: str) -> list[str]:
    from ..authority.management import unknown_approvers

    return unknown_approvers(management.store, levels, tenant=management.by.tenant, issuer=issuer)


def _warn(warnings: list[str]) -> None:
    for words in warnings:
        print(f"ascend-middleware: warning: {plain(words)}", file=sys.stderr)


def _shown(one: Requirement) -> dict[str, Any]:
    return {"count": one.count, "approvers": list(one.names)}


def _who(names: Sequence[str]) -> str:
    return plain(", ".join(names)) if names else "any admin"


def _set(args: argparse.Namespace) -> int:
    with open_management(args, create=True) as management:
        management.set_approvers(args.level, count=args.count, names=args.approver)
        warnings = _warnings(management, {args.level: management.approvers()[args.level]}, _declared(args)[1])
    if args.json:
        print_json({"level": args.level, "count": args.count, "approvers": args.approver, "warnings": warnings})
    else:
        print(f"actions of {args.level} risk need {args.count} of {_who(args.approver)}")
        _warn(warnings)
    return OK


def _clear(args: argparse.Namespace) -> int:
    with open_management(args) as management:
        management.clear_approvers(args.level)
    if args.json:
        print_json({"cleared": args.level})
    else:
        print(f"the policy file says who approves actions of {args.level} risk")
    return OK
