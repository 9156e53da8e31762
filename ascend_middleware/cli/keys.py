"""The `keys` command: issue, list and revoke the authority's API keys."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from .files import add_place, open_store
from .terminal import OK, plain, print_json

if TYPE_CHECKING:
    import argparse

__all__ = ["add_parser"]


def add_parser(commands: Any) -> None:
    """Add the command to the command line."""
    parser = commands.add_parser("keys", help="issue, list and revoke API keys")
    tasks = parser.add_subparsers(title="tasks", metavar="TASK", required=True)
    issue = tasks.add_parser("issue", help="make a key and print it, once")
    issue.add_argument("--name", required=True, help="whose key it is, for the audit log")
    issue.add_argument("--role", choices=("super_admin", "admin", "user"), default="user", help="default: user")
    issue.add_argument("--tenant", default="default", help="the organisation of the key (default: default)")
    issue.set_defaults(run=_keys_issue)
    listing = tasks.add_parser("list", help="list the keys; never shows them")
    listing.set_defaults(run=_keys_list)
    revoke = tasks.add_parser("revoke", help="make a key invalid")
    revoke.add_argument("id", type=int, help="the number that `keys list` shows")
    revoke.set_defaults(run=_keys_revoke)
    for task in (issue, listing, revoke):
        add_place(task)
        task.add_argument("--json", action="store_true", help="print one JSON object")


def _keys_issue(args: argparse.Namespace) -> int:
    from ..authority.keys import Role

    with open_store(args, create=True) as store:
        key = store.issue_key(name=args.name, role=Role(args.role), tenant=args.tenant)
    if args.json:
        print_json({"key": key, "name": args.name, "role": args.role, "tenant": args.tenant})
    else:
        print(key)
        print("keep it: it cannot be shown again", file=sys.stderr)
    return OK


def _keys_list(args: argparse.Namespace) -> int:
    with open_store(args) as store:
        keys = store.list_keys()
    if args.json:
        print_json({"keys": keys})
        return OK
    for key in keys:
        state = f"revoked {key['revoked_at']}" if key["revoked_at"] else "valid"
        print(f"{key['id']:>4}  {key['role']:<11}  {key['tenant']}  {plain(key['name'])}  {state}")
    return OK


def _keys_revoke(args: argparse.Namespace) -> int:
    with open_store(args) as store:
        store.revoke_key(args.id)
    if args.json:
        print_json({"revoked": args.id})
    else:
        print(f"key {args.id} is revoked")
    return OK
