"""The `models` command: the models that actions and agents may name, besides those of the policy file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .files import add_organisation, open_management
from .terminal import OK, plain, print_json

if TYPE_CHECKING:
    import argparse

__all__ = ["add_parser"]

_STATUSES = ("approved", "partially_approved", "pending", "denied")


def add_parser(commands: Any) -> None:
    """Add the command to the command line."""
    parser = commands.add_parser("models", help="register models and say which may be used")
    tasks = parser.add_subparsers(title="tasks", metavar="TASK", required=True)
    listing = tasks.add_parser("list", help="list the models of the database")
    listing.set_defaults(run=_list)
    add = tasks.add_parser("add", help="register a model; actions name it by its number or its name")
    add.add_argument("id", type=int, help="its number")
    add.add_argument("--name", default="", help="its name")
    add.add_argument("--status", choices=_STATUSES, default="approved", help="default: approved")
    add.set_defaults(run=_add)
    status = tasks.add_parser("status", help="change a model's compliance status")
    status.add_argument("id", type=int, help="its number")
    status.add_argument("status", choices=_STATUSES)
    status.set_defaults(run=_status)
    remove = tasks.add_parser("remove", help="remove a model")
    remove.add_argument("id", type=int, help="its number")
    remove.set_defaults(run=_remove)
    for task in (listing, add, status, remove):
        add_organisation(task)


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    return {"id": int(row["name"]), "name": row["model_name"], "compliance_status": row["compliance_status"]}


def _list(args: argparse.Namespace) -> int:
    with open_management(args) as management:
        rows = [_shown(row) for row in management.models()]
    if args.json:
        print_json({"models": rows})
        return OK
    for row in rows:
        print(f"{row['id']:>6}  {row['compliance_status']:<18}  {plain(row['name'])}")
    if not rows:
        print("no models in the database; those of the policy file are not listed here")
    return OK


def _add(args: argparse.Namespace) -> int:
    with open_management(args, create=True) as management:
        row = _shown(management.add_model(args.id, name=args.name, status=args.status))
    return _tell(args, row, f"model {args.id} is registered as {args.status}")


def _status(args: argparse.Namespace) -> int:
    with open_management(args) as management:
        row = _shown(management.set_model_status(args.id, args.status))
    return _tell(args, row, f"model {args.id} is {args.status}")


def _remove(args: argparse.Namespace) -> int:
    with open_management(args) as management:
        management.remove_model(args.id)
    return _tell(args, {"removed": args.id}, f"model {args.id} is removed")


def _tell(args: argparse.Namespace, row: dict[str, Any], text: str) -> int:
    if args.json:
        print_json(row)
    else:
        print(text)
    return OK
