"""The `agents` command: who there is, and the kill switch: block, unblock, suspend, quarantine, rate limit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from ..exceptions import ConfigurationError
from .files import add_organisation, open_management
from .terminal import OK, plain, print_json

if TYPE_CHECKING:
    import argparse

__all__ = ["add_parser"]

_COMMANDS: Final = {
    "block": ("BLOCK", "refuse everything that the agent submits"),
    "unblock": ("UNBLOCK", "lift every block and limit of the agent"),
    "suspend": ("SUSPEND", "block for the time being"),
    "quarantine": ("QUARANTINE", "block on suspicion"),
    "rate-limit": ("RATE_LIMIT", "let through so many actions a minute"),
}


def add_parser(commands: Any) -> None:
    """Add the command to the command line."""
    parser = commands.add_parser("agents", help="list agents, and block, slow down or release them")
    tasks = parser.add_subparsers(title="tasks", metavar="TASK", required=True)
    listing = tasks.add_parser("list", help="list the registered agents and those under a command")
    add_organisation(listing)
    listing.set_defaults(run=_list)
    for name, (kind, text) in _COMMANDS.items():
        task = tasks.add_parser(name, help=text)
        task.add_argument("agent", nargs="?", help="the agent's id, registered or not")
        task.add_argument("--all", action="store_true", help="every agent of the organisation, now and later")
        task.add_argument("--reason", required=True, help="why; the agent's people and the audit log see it")
        if kind == "RATE_LIMIT":
            task.add_argument("--per-minute", type=int, required=True, metavar="N", help="actions a minute")
        add_organisation(task)
        task.set_defaults(run=_issue, kind=kind, per_minute=None)


def _list(args: argparse.Namespace) -> int:
    from ..authority.killswitch import standing
    from ..authority.store.registry_store import AGENT

    with open_management(args) as management:
        records = management.records
        known = {row["name"]: row for row in records.all(AGENT, tenant=args.tenant)}
        named = records.rows(
            "SELECT DISTINCT agent_id FROM commands WHERE tenant = ? AND agent_id IS NOT NULL", (args.tenant,)
        )
        names = sorted({*known, *(row["agent_id"] for row in named)})
        rows = [
            {
                "agent_id": name,
                "registered": name in known,
                "display_name": known.get(name, {}).get("display_name"),
                "model_id": known.get(name, {}).get("model_id"),
                "standing": (found := standing(records, name, tenant=args.tenant)).word,
                "reason": found.command["reason"] if found.command else None,
            }
            for name in names
        ]
        everybody = standing(records, None, tenant=args.tenant)
    if args.json:
        print_json({"agents": rows, "organization": everybody.word})
        return OK
    if everybody.command is not None:
        print(f"the whole organisation is {everybody.word}: {plain(everybody.command['reason'])}")
    for row in rows:
        more = f"  ({plain(row['reason'])})" if row["reason"] else ""
        print(f"{row['standing']:<12}  {plain(row['agent_id'])}{'' if row['registered'] else '  not registered'}{more}")
    if not rows:
        print("no agents")
    return OK


def _issue(args: argparse.Namespace) -> int:
    from ..authority.killswitch import issue

    if (args.agent is None) != args.all:
        raise ConfigurationError("name one agent, or all of them with --all")
    with open_management(args, create=True) as management:
        command = issue(
            management.store,
            management.records,
            tenant=args.tenant,
            command_type=args.kind,
            reason=args.reason,
            issued_by=management.by.name,
            issued_via="cli",
            agent_id=args.agent,
            max_per_minute=args.per_minute,
        )
    if args.json:
        print_json(command)
        return OK
    target = "all agents" if args.all else f"agent {plain(args.agent)}"
    print(f"{args.kind} issued to {target}: command {command['command_id']}")
    return OK
