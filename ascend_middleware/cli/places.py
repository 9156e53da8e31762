"""Where the embedded authority's files are, as its commands are told."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from ..authority import Store

__all__ = ["DEFAULT_POLICY", "add_place", "open_store", "place_of"]

DEFAULT_POLICY: Final = "policy.toml"


def add_place(parser: argparse.ArgumentParser) -> None:
    """Add the options that name the policy file and the database."""
    parser.add_argument("--policy", default=DEFAULT_POLICY, help=f"the policy file (default: {DEFAULT_POLICY})")
    parser.add_argument("--db", help="the database (default: beside the policy file)")


def place_of(args: argparse.Namespace) -> str:
    """Return the database that the arguments name."""
    from ..authority.store import default_database

    return str(args.db or default_database(args.policy))


@contextlib.contextmanager
def open_store(args: argparse.Namespace, *, create: bool = False) -> Iterator[Store]:
    """Open the database that the arguments name, directly: this also works for `local:` and beside a server."""
    from ..authority.store import Store

    store = Store.open(place_of(args), now=time.time, create=create)
    try:
        yield store
    finally:
        store.close()
