"""The `authority` command: serve the embedded authority, write a policy file to start from, or back it up."""

from __future__ import annotations

import argparse
import contextlib
import logging
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..exceptions import AscendError, ConfigurationError
from .files import DEFAULT_POLICY, add_place, open_store, place_of
from .terminal import OK

if TYPE_CHECKING:
    from ..authority import Store

__all__ = ["add_parser"]

_ABOUT = """\
Serve the embedded authority. `authority init [PATH]` writes a commented policy file, makes its database and prints the
first keys, once. `authority backup PATH` copies the database to a new file, also while it is being served.
"""


def add_parser(commands: Any) -> None:
    """Add the command to the command line."""
    parser = commands.add_parser("authority", help="serve the embedded authority", description=_ABOUT)
    tasks = ("serve", "init", "backup")
    parser.add_argument("task", nargs="?", choices=tasks, default="serve", help="serve (default), init or backup")
    parser.add_argument("path", nargs="?", help=f"init: the policy file to write (default: {DEFAULT_POLICY})")
    add_place(parser)
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on (default: 127.0.0.1)")
    parser.add_argument("--port", type=_port, default=8700, help="the port, 0 for any free one (default: 8700)")
    parser.add_argument("--tls-cert", metavar="FILE", help="the server's certificate and its chain, PEM")
    parser.add_argument("--tls-key", metavar="FILE", help="its private key, PEM")
    parser.add_argument(
        "--allow-remote", action="store_true", help="listen in plain HTTP where other machines can connect"
    )
    parser.add_argument(
        "--development", action="store_true", help="let webhooks go to plain http and to private addresses"
    )
    parser.add_argument("--no-access-log", action="store_true", help="do not log each request")
    parser.set_defaults(run=_run)


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) <= 65_535):
        raise argparse.ArgumentTypeError(f"expected a port number, got {text!r}")
    return int(text)


def _run(args: argparse.Namespace) -> int:
    if args.task == "init":
        return _init(args)
    if args.task == "backup":
        return _backup(args)
    if args.path is not None:
        raise ConfigurationError(f"unexpected argument {args.path!r}; name the policy file with --policy")
    return _serve(args)


def _serve(args: argparse.Namespace) -> int:
    from ..authority import Authority, Store, load_policy
    from ..authority.server import Tls, bind, serve, shown_url

    policy = load_policy(args.policy)
    tls = Tls.load(args.tls_cert, args.tls_key)
    # Bound before keys are made: they are shown once, by the server that stays.
    listener = bind(args.host, args.port, allow_remote=args.allow_remote or tls is not None)
    with contextlib.closing(listener):
        store = Store.open(place_of(args), now=time.time)
        with contextlib.closing(Authority(store, policy, development=args.development)) as authority:
            store.check(pages=True)
            _first_keys(store)
            with _ends_well_by_sigterm():
                print(f"authority listening on {shown_url(listener, tls=tls)}", flush=True)
                _log_to_stderr()
                authority.warn()
                serve(authority, listener, tls=tls, access_log=not args.no_access_log)
    return OK


def _log_to_stderr() -> None:
    """Send this program's log to stderr; a program that embeds the authority configures its own."""
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s")


@contextlib.contextmanager
def _ends_well_by_sigterm() -> Any:
    """Make a stop by SIGTERM end in exit code 0: the server, once it has stopped, raises the signal again.

    One that comes before the server listens for signals ends the start.
    """

    def end(*_: object) -> None:
        raise SystemExit(OK)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _init(args: argparse.Namespace) -> int:
    from ..authority import Store, default_database, sample_policy

    path = Path(args.path or args.policy)
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(sample_policy())
    except FileExistsError:
        raise AscendError(f"{path} exists already; it was not touched") from None
    except OSError as error:
        raise AscendError(f"{path} cannot be written: {error.strerror}") from None
    print(f"wrote {path}; serve it with: ascend-middleware authority --policy {path}")
    with contextlib.closing(Store.open(args.db or default_database(path), now=time.time)) as store:
        _first_keys(store)
    return OK


def _first_keys(store: Store) -> None:
    from ..authority.keys import DEFAULT_TENANT, Role

    if store.list_keys():
        return
    print("these keys are shown this once; only their hashes are kept:")
    for role, name in ((Role.ADMIN, "first admin"), (Role.USER, "first user")):
        key = store.issue_key(name=name, role=role, tenant=DEFAULT_TENANT)
        print(f"  {role:<5} {key}")


def _backup(args: argparse.Namespace) -> int:
    if args.path is None:
        raise ConfigurationError("name the file to make: ascend-middleware authority backup PATH")
    with open_store(args) as store:
        size = store.backup(args.path)
    print(f"wrote {args.path}, {size} bytes")
    return OK
