"""Where the embedded authority's files are, as its commands are told."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ..exceptions import ConfigurationError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from ..authority import Store
    from ..authority.management import Management

__all__ = ["DEFAULT_POLICY", "add_organisation", "add_place", "open_management", "open_store", "place_of"]

DEFAULT_POLICY: Final = "policy.toml"


def add_place(parser: argparse.ArgumentParser) -> None:
    """Add the options that name the policy file and the database."""
    parser.add_argument("--policy", default=DEFAULT_POLICY, help=f"the policy file (default: {DEFAULT_POLICY})")
    parser.add_argument("--db", help="the database (default: beside the policy file)")


def place_of(args: argparse.Namespace) -> str:
    """Return the database that the arguments name."""
    from ..authority.store.store import default_database

    return str(args.db or default_database(args.policy))


@contextlib.contextmanager
def open_store(args: argparse.Namespace, *, create: bool = False) -> Iterator[Store]:
    """Open the database that the arguments name, directly: this also works for `local:` and beside a server."""
    from ..authority.store.store import Store

    place = place_of(args)
    if not create and not Path(place).exists():
        raise ConfigurationError(
            f"there is no database {place}; the authority, or an application with a local: URL, makes it at its first "
            "start; --policy or --db say where it is"
        )
    store = Store.open(place, now=time.time, create=create)
    try:
        yield store
    finally:
        store.close()


def add_organisation(parser: argparse.ArgumentParser) -> None:
    """Add what every command has that manages an organisation's part of the database."""
    add_place(parser)
    parser.add_argument("--tenant", default="default", help="the organisation (default: default)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


@contextlib.contextmanager
def open_management(args: argparse.Namespace, *, create: bool = False) -> Iterator[Management]:
    """Open the database for managing the organisation that the arguments name."""
    from ..authority.keys import operator
    from ..authority.management import Management
    from ..authority.store.registry_store import Records

    with open_store(args, create=create) as store:
        yield Management(store=store, records=Records(store, now=time.time), by=operator(args.tenant))
