"""The command line: `ascend-middleware authority | keys | pending | approve | deny | check | demo | version`.

Exit codes: 0 done, 1 failed, 2 wrong usage or configuration. Each command is a function from its arguments to an exit
code; commands in modules of their own have `add_parser(subparsers)` and `run(args)`.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import importlib.util
import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from . import __version__
from .exceptions import AscendError, ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from .authority import Authority, Store

__all__ = ["main"]

OK: Final = 0
FAILED: Final = 1
MISUSED: Final = 2

_DEFAULT_POLICY: Final = "policy.toml"
_LOCAL_OPERATOR: Final = "local-operator"
_MODULES: Final = ("check", "demo")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    parser = _parser()
    args = parser.parse_args(argv)
    run: Callable[[argparse.Namespace], int] = args.run
    try:
        return run(args)
    except ConfigurationError as error:
        return _complain(error, args, MISUSED)
    except AscendError as error:
        return _complain(error, args, FAILED)
    except ImportError as error:
        missing = (error.name or "").split(".")[0]
        if missing not in ("cel", "uvicorn"):
            raise
        print("the embedded authority is not installed: add the extra ascend-middleware[authority]", file=sys.stderr)
        return MISUSED
    except BrokenPipeError:
        # The reader left (`| head`); what it did not read is no failure, and the interpreter must not flush again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK
    except KeyboardInterrupt:
        return 130


def _complain(error: AscendError, args: argparse.Namespace, code: int) -> int:
    if getattr(args, "json", False):
        _print_json({"error": error.message})
    else:
        print(f"ascend-middleware: {error.message}", file=sys.stderr)
    return code


def _print_json(value: object) -> None:
    print(json.dumps(value, indent=2))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ascend-middleware",
        description="Authorization for agents that call your web application.",
        epilog="Exit codes: 0 done, 1 failed, 2 wrong usage or configuration.",
    )
    parser.add_argument("--version", action="version", version=f"ascend-middleware {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_authority(commands)
    _add_keys(commands)
    _add_pending(commands)
    _add_decision(commands, "approve", approved=True)
    _add_decision(commands, "deny", approved=False)
    for name in _MODULES:
        if importlib.util.find_spec(f"{__package__}.{name}") is not None:
            importlib.import_module(f"{__package__}.{name}").add_parser(commands)
    version = commands.add_parser("version", help="print the version")
    version.add_argument("--json", action="store_true", help="print one JSON object")
    version.set_defaults(run=_version)
    return parser


_Commands = Any  # argparse's own type for it is private and generic


def _add_authority(commands: _Commands) -> None:
    parser = commands.add_parser(
        "authority",
        help="serve the embedded authority",
        description="Serve the embedded authority, or with `authority init [PATH]` write a policy file to start from.",
    )
    parser.add_argument("task", nargs="?", choices=("serve", "init"), default="serve", help="serve (default) or init")
    parser.add_argument("path", nargs="?", help=f"init: the file to write (default: {_DEFAULT_POLICY})")
    _add_place(parser)
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on (default: 127.0.0.1)")
    parser.add_argument("--port", type=_port, default=8700, help="the port, 0 for any free one (default: 8700)")
    parser.add_argument("--allow-remote", action="store_true", help="listen where other machines can connect")
    parser.set_defaults(run=_authority)


def _add_keys(commands: _Commands) -> None:
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
        _add_place(task)
        task.add_argument("--json", action="store_true", help="print one JSON object")


def _add_pending(commands: _Commands) -> None:
    parser = commands.add_parser("pending", help="list the actions that wait for a person")
    _add_place(parser)
    parser.add_argument("--tenant", default="default", help="the organisation (default: default)")
    parser.add_argument("--limit", type=int, choices=range(1, 1001), default=50, metavar="N", help="at most N (50)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=_pending)


def _add_decision(commands: _Commands, name: str, *, approved: bool) -> None:
    parser = commands.add_parser(name, help=f"{name} a pending action")
    parser.add_argument("action", help="the action's id, 7 or act_7")
    parser.add_argument("--comments", default="", help="why; kept in the audit log")
    parser.add_argument("--tenant", default="default", help="the organisation (default: default)")
    _add_place(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=_decide, approved=approved)


def _add_place(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--policy", default=_DEFAULT_POLICY, help=f"the policy file (default: {_DEFAULT_POLICY})")
    parser.add_argument("--db", help="the database (default: beside the policy file)")


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) <= 65_535):
        raise argparse.ArgumentTypeError(f"expected a port number, got {text!r}")
    return int(text)


@contextlib.contextmanager
def _store(args: argparse.Namespace, *, create: bool = False) -> Iterator[Store]:
    """Open the database that the arguments name, directly: this also works for `local:` and beside a server."""
    from .authority.store import Store, default_database

    store = Store.open(args.db or default_database(args.policy), now=time.time, create=create)
    try:
        yield store
    finally:
        store.close()


# --- commands


def _version(args: argparse.Namespace) -> int:
    if args.json:
        _print_json({"version": __version__})
    else:
        print(__version__)
    return OK


def _authority(args: argparse.Namespace) -> int:
    from .authority import Authority, PolicySet, Store, default_database
    from .authority.server import bind, serve, shown_url

    if args.task == "init":
        return _init(Path(args.path or args.policy))
    if args.path is not None:
        raise ConfigurationError(f"unexpected argument {args.path!r}; name the policy file with --policy")
    policy = PolicySet.load(args.policy)
    # Bound before keys are made: they are shown once, by the server that stays.
    listener = bind(args.host, args.port, allow_remote=args.allow_remote)
    with contextlib.closing(listener):
        store = Store.open(args.db or default_database(args.policy), now=time.time)
        with contextlib.closing(Authority(store, policy)) as authority:
            _first_keys(authority)
            print(f"authority listening on {shown_url(listener)}", flush=True)
            serve(authority, listener)
    return OK


def _init(path: Path) -> int:
    from .authority import sample_policy

    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(sample_policy())
    except FileExistsError:
        raise AscendError(f"{path} exists already; it was not touched") from None
    except OSError as error:
        raise AscendError(f"{path} cannot be written: {error.strerror}") from None
    print(f"wrote {path}; serve it with: ascend-middleware authority --policy {path}")
    return OK


def _first_keys(authority: Authority) -> None:
    from .authority.keys import DEFAULT_TENANT, Role

    if authority.store.list_keys():
        return
    print("first start: these keys are shown this once")
    for role, name in ((Role.ADMIN, "first admin"), (Role.USER, "first user")):
        key = authority.store.issue_key(name=name, role=role, tenant=DEFAULT_TENANT)
        print(f"  {role:<5} {key}")


def _keys_issue(args: argparse.Namespace) -> int:
    from .authority.keys import Role

    with _store(args, create=True) as store:
        key = store.issue_key(name=args.name, role=Role(args.role), tenant=args.tenant)
    if args.json:
        _print_json({"key": key, "name": args.name, "role": args.role, "tenant": args.tenant})
    else:
        print(key)
        print("keep it: it cannot be shown again", file=sys.stderr)
    return OK


def _keys_list(args: argparse.Namespace) -> int:
    with _store(args) as store:
        keys = store.list_keys()
    if args.json:
        _print_json({"keys": keys})
        return OK
    for key in keys:
        state = f"revoked {key['revoked_at']}" if key["revoked_at"] else "valid"
        print(f"{key['id']:>4}  {key['role']:<11}  {key['tenant']}  {_plain(key['name'])}  {state}")
    return OK


def _keys_revoke(args: argparse.Namespace) -> int:
    with _store(args) as store:
        store.revoke_key(args.id)
    if args.json:
        _print_json({"revoked": args.id})
    else:
        print(f"key {args.id} is revoked")
    return OK


def _pending(args: argparse.Namespace) -> int:
    from .authority.forms import record_fields

    with _store(args) as store:
        rows, total = store.actions(tenant=args.tenant, equal={"status": "pending"}, descending=False, limit=args.limit)
    records = [record_fields(row) for row in rows]
    if args.json:
        _print_json({"actions": records, "total": total})
        return OK
    for record in records:
        risk = f"{record['risk_score']} {record['risk_level']}"
        what = f"{_plain(record['agent_id'])}: {_plain(record['action_type'])} on {_plain(record['resource'])}"
        print(f"{record['action_id']:>4}  {record['created_at']}  {risk:<11}  {what}  ({_plain(record['reason'])})")
    if total > len(records):
        print(f"{total - len(records)} more; see --limit")
    elif not records:
        print("nothing is pending")
    return OK


def _decide(args: argparse.Namespace) -> int:
    from .authority.forms import decision_fields
    from .exceptions import ProtocolError
    from .wire import normalize_action_id

    try:
        digits = normalize_action_id(args.action)
    except ProtocolError:
        digits = ""
    if not digits.isdigit():
        raise ConfigurationError(f"not an action id: {args.action!r}; expected 7 or act_7")
    with _store(args) as store:
        row = store.decide(
            int(digits),
            tenant=args.tenant,
            approved=args.approved,
            actor=_LOCAL_OPERATOR,
            key_id=None,
            comments=args.comments,
        )
    if args.json:
        _print_json(decision_fields(row))
    else:
        print(f"action {row['id']} is {row['status']}")
    return OK


def _plain(text: str) -> str:
    """Drop control characters: an agent's words must not steer the operator's terminal."""
    return "".join(char if char.isprintable() else " " for char in text)


if __name__ == "__main__":
    sys.exit(main())
