"""The `mcp-servers` command: the MCP servers that actions may name, besides those of the policy file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .files import add_organisation, open_management
from .terminal import OK, plain, print_json

if TYPE_CHECKING:
    import argparse

__all__ = ["add_parser"]


def add_parser(commands: Any) -> None:
    """Add the command to the command line."""
    parser = commands.add_parser("mcp-servers", help="register MCP servers, switch them off and on, block them")
    tasks = parser.add_subparsers(title="tasks", metavar="TASK", required=True)
    listing = tasks.add_parser("list", help="list the MCP servers of the database")
    listing.set_defaults(run=_list)
    add = tasks.add_parser("add", help="register an MCP server")
    add.add_argument("--block-tool", action="append", default=[], metavar="TOOL", help="a tool that may not be used")
    add.add_argument("--description", default="", help="for people")
    add.set_defaults(run=_add)
    activate = tasks.add_parser("activate", help="let actions name a server again, or for the first time")
    activate.set_defaults(run=_switch, active=True, reason="")
    deactivate = tasks.add_parser("deactivate", help="refuse actions that name a server")
    deactivate.add_argument("--reason", default="", help="why; kept in the audit log")
    deactivate.set_defaults(run=_switch, active=False)
    remove = tasks.add_parser("remove", help="remove a server")
    remove.set_defaults(run=_remove)
    block = tasks.add_parser("block", help="issue a kill-switch command against a server")
    block.set_defaults(run=_issue, kind="BLOCK")
    unblock = tasks.add_parser("unblock", help="lift it")
    unblock.set_defaults(run=_issue, kind="UNBLOCK")
    for task in (block, unblock):
        task.add_argument("--reason", required=True, help="why; everybody who uses the server sees it")
    for task in (add, activate, deactivate, remove, block, unblock):
        task.add_argument("name", help="the server's name")
    for task in (listing, add, activate, deactivate, remove, block, unblock):
        add_organisation(task)


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    kept = ("name", "active", "deactivated_reason", "blocked_tools", "description")
    return {name: row[name] for name in kept}


def _list(args: argparse.Namespace) -> int:
    with open_management(args) as management:
        rows = [_shown(row) for row in management.servers()]
    if args.json:
        print_json({"servers": rows})
        return OK
    for row in rows:
        blocked = f"  without {plain(', '.join(row['blocked_tools']))}" if row["blocked_tools"] else ""
        reason = f"  ({plain(row['deactivated_reason'])})" if row["deactivated_reason"] else ""
        print(f"{'active' if row['active'] else 'inactive':<8}  {plain(row['name'])}{blocked}{reason}")
    if not rows:
        print("no MCP servers in the database; those of the policy file are not listed here")
    return OK


def _add(args: argparse.Namespace) -> int:
    with open_management(args, create=True) as management:
        row = management.add_server(args.name, blocked_tools=args.block_tool, description=args.description)
    return _tell(args, _shown(row), f"MCP server {plain(args.name)} is registered")


def _switch(args: argparse.Namespace) -> int:
    with open_management(args) as management:
        row = management.switch_server(args.name, active=args.active, reason=args.reason)
    return _tell(args, _shown(row), f"MCP server {plain(args.name)} is {'active' if args.active else 'inactive'}")


def _remove(args: argparse.Namespace) -> int:
    with open_management(args) as management:
        management.remove_server(args.name)
    return _tell(args, {"removed": args.name}, f"MCP server {plain(args.name)} is removed")


def _issue(args: argparse.Namespace) -> int:
    from ..authority.killswitch import issue

    with open_management(args, create=True) as management:
        command = issue(
            management.store,
            management.records,
            tenant=args.tenant,
            command_type=args.kind,
            reason=args.reason,
            issued_by=management.by.name,
            issued_via="cli",
            mcp_server=args.name,
        )
    return _tell(args, command, f"{args.kind} issued about MCP server {plain(args.name)}")


def _tell(args: argparse.Namespace, row: dict[str, Any], text: str) -> int:
    if args.json:
        print_json(row)
    else:
        print(text)
    return OK
