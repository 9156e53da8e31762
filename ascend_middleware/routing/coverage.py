"""What is governed: every live route and method of an application with its rule, and rules that match nothing.

A resolver of any framework is listed by what `Routes` asks of it: `leaves()`, each a `Leaf` with

- `template`: the full one, with the prefixes of everything it is mounted under (never the server's root path);
- `methods`: in upper case, those on which something of the application runs; HEAD where a GET handler answers it,
  OPTIONS only where a handler of the application does. None: any method runs it;
- `websocket`: True for a handshake, whose method is WEBSOCKET and whose `methods` is None;
- `kind`: ROUTE, STATIC (the path names a file), or OPAQUE (a foreign application, one unit);
- `endpoint`, `host`, `declared`: as the resolver gives them to the guard.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .leaves import Leaf

__all__ = ["Routes"]


class Routes(Protocol):
    """What every framework's resolver offers, so that its routes can be listed."""

    def leaves(self) -> Sequence[Leaf]:
        """Return every unit that a request can run, in the order in which the framework asks them."""
        ...
