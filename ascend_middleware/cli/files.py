"""The authority's database as its commands use it: opened where the arguments say, and asked through the API."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from ..authority import Authority, PolicySet, Store, default_database
from ..authority.bodies import ApiError
from ..authority.keys import Credential, operator
from ..authority.management import Management
from ..exceptions import AscendError, ConfigurationError, NotFoundError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Mapping

    from ..api.endpoint import Endpoint

__all__ = ["Operator", "open_database", "open_store", "place_of"]


def place_of(args: argparse.Namespace) -> str:
    """Return the database that the arguments name."""
    return str(args.db or default_database(args.policy))


@contextlib.contextmanager
def open_store(args: argparse.Namespace, *, create: bool = False) -> Iterator[Store]:
    """Open the database that the arguments name, directly: this also works for `local:` and beside a server."""
    place = place_of(args)
    if not create and not Path(place).exists():
        raise ConfigurationError(
            f"there is no database {place}; the authority, or an application with a local: URL, makes it at its first "
            "start; --policy or --db say where it is"
        )
    with contextlib.closing(Store.open(place, now=time.time, create=create)) as store:
        yield store


@dataclass(frozen=True, slots=True, kw_only=True)
class Operator:
    """Whoever runs the command line on a database, for one organisation: that they may use the file is enough.

    Attributes:
        authority: on the database, and without the policy file. No command that administers decides by policies, and
            none must fail because that file is being edited.
        by: how the audit log calls them.
    """

    authority: Authority
    by: Credential

    def ask(
        self,
        endpoint: Endpoint[Any],
        *,
        body: Mapping[str, Any] | None = None,
        query: Mapping[str, Any] | None = None,
        missing: str = "",
        **parameters: str,
    ) -> dict[str, Any]:
        """Return what the API answers at an endpoint; see `Authority.ask`.

        Args:
            endpoint: what is asked for.
            body: the fields of the body.
            query: those of the query.
            missing: what is said in the place of the API's own words where there is no such thing.
            **parameters: what stands in the path.

        Raises:
            AscendError: it was refused.
        """
        try:
            return self.authority.ask(endpoint, self.by, body=body, query=urlencode(query or {}), **parameters)
        except ApiError as error:
            if error.status == 404 and missing:
                raise NotFoundError(missing) from None
            raise AscendError(error.message) from None

    @property
    def management(self) -> Management:
        """What the API does not offer: models and approvers."""
        return Management(store=self.authority.store, records=self.authority.records, by=self.by)


@contextlib.contextmanager
def open_database(args: argparse.Namespace, *, create: bool = False) -> Iterator[Operator]:
    """Open the database that the arguments name as the operator of the organisation that they name."""
    with open_store(args, create=create) as store:
        yield Operator(authority=Authority(store, PolicySet(mcp_servers={})), by=operator(args.tenant))
