"""The `authority` command: serve the embedded authority, or write a policy file to start from."""

from __future__ import annotations

import argparse
import contextlib
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..exceptions import AscendError, ConfigurationError
from .places import DEFAULT_POLICY, add_place
from .terminal import OK

if TYPE_CHECKING:
    from ..authority import Authority

__all__ = ["add_parser"]


def add_parser(commands: Any) -> None:
    """Add the command to the command line."""
    parser = commands.add_parser(
        "authority",
        help="serve the embedded authority",
        description="Serve the embedded authority, or with `authority init [PATH]` write a policy file to start from.",
    )
    parser.add_argument("task", nargs="?", choices=("serve", "init"), default="serve", help="serve (default) or init")
    parser.add_argument("path", nargs="?", help=f"init: the file to write (default: {DEFAULT_POLICY})")
    add_place(parser)
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on (default: 127.0.0.1)")
    parser.add_argument("--port", type=_port, default=8700, help="the port, 0 for any free one (default: 8700)")
    parser.add_argument("--allow-remote", action="store_true", help="listen where other machines can connect")
    parser.set_defaults(run=_run)


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) <= 65_535):
        raise argparse.ArgumentTypeError(f"expected a port number, got {text!r}")
    return int(text)


def _run(args: argparse.Namespace) -> int:
    from ..authority import Authority, PolicySet, Store, default_database
    from ..authority.server import bind, serve, shown_url

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
    from ..authority import sample_policy

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
    from ..authority.keys import DEFAULT_TENANT, Role

    if authority.store.list_keys():
        return
    print("first start: these keys are shown this once")
    for role, name in ((Role.ADMIN, "first admin"), (Role.USER, "first user")):
        key = authority.store.issue_key(name=name, role=role, tenant=DEFAULT_TENANT)
        print(f"  {role:<5} {key}")
