"""The `approvers` command: how many people, and who, approve at which risk level."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from .places import add_organisation, open_management
from .terminal import OK, plain, print_json

if TYPE_CHECKING:
    import argparse

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
    with open_management(args) as management:
        found = management.approvers()
    if args.json:
        rows = {level: {"count": one.count, "approvers": list(one.names)} for level, one in found.items()}
        print_json({"approvers": rows})
        return OK
    for level, one in found.items():
        who = plain(", ".join(one.names)) if one.names else "any admin"
        print(f"{level:<8}  {one.count} of {who}")
    if not found:
        print("nothing is set here; the policy file says who approves")
    return OK


def _set(args: argparse.Namespace) -> int:
    with open_management(args, create=True) as management:
        management.set_approvers(args.level, count=args.count, names=args.approver)
    if args.json:
        print_json({"level": args.level, "count": args.count, "approvers": args.approver})
    else:
        who = plain(", ".join(args.approver)) if args.approver else "any admin"
        print(f"actions of {args.level} risk need {args.count} of {who}")
    return OK


def _clear(args: argparse.Namespace) -> int:
    with open_management(args) as management:
        management.clear_approvers(args.level)
    if args.json:
        print_json({"cleared": args.level})
    else:
        print(f"the policy file says who approves actions of {args.level} risk")
    return OK
