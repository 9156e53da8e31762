"""A request as the guard sees it; every adapter builds one."""

from __future__ import annotations

from dataclasses import dataclass, field
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl, quote

from ..rules import WEBSOCKET, fold_header

if TYPE_CHECKING:
    from ..routing import Resolved
    from ..rules import Method

__all__ = ["RequestView", "quoted"]

_MOST_FIELDS: Final = 1000
_SHOWN: Final = str(WEBSOCKET)
_first: Final = itemgetter(0)


def quoted(prefix: str) -> str:
    """Return a decoded prefix as it stands in a URL."""
    return quote(prefix, safe="/:@!$&'()*+,=", errors="replace")


@dataclass(slots=True, kw_only=True)
class RequestView:
    """What is known of a request before its body is read.

    Attributes:
        method: upper case; a handshake is no method, but `rules.WEBSOCKET`.
        path: decoded and application-relative.
        raw_path: the target's path as it arrived, without the query, or None where the server hides it.
        query: the query string as it arrived.
        headers: names in lower case, values as text (latin-1), in order, repeats kept.
        resolved: what the router will run, or None where no router can be asked.
        request: the framework's own object, for `identify`.
        other_path: how the application may read the path instead; the same rule has to govern both.
        findings: what the adapter found suspicious by itself, names of `FINDINGS`.
        prefix: the path under which the server runs the application, for the URLs that the guard names.
        header_names: the names of the headers that are there, folded as `rules.fold_header` does it.
    """

    method: Method
    path: str
    raw_path: str | None
    query: bytes
    headers: list[tuple[str, str]]
    resolved: Resolved | None = None
    request: Any = None
    other_path: str | None = None
    findings: tuple[str, ...] = ()
    prefix: str = ""
    _query_pairs: list[tuple[str, str]] | None = field(default=None, repr=False)
    header_names: frozenset[str] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Fold the headers' names; one that held a line break would only be two that are looked for."""
        lines = "\n".join(map(_first, self.headers))
        self.header_names = frozenset(lines.lower().replace("_", "-").split("\n"))

    @property
    def verb(self) -> str:
        """The method for texts; what is shown as WEBSOCKET is a handshake, whatever the wire says."""
        return f"HTTP {self.method}" if self.method == _SHOWN else str(self.method)

    @property
    def query_pairs(self) -> list[tuple[str, str]]:
        """The decoded query; raises ValueError for what frameworks decode differently."""
        if self._query_pairs is None:
            try:
                text = self.query.decode("ascii")
            except UnicodeDecodeError:
                raise ValueError("the query holds other bytes than ASCII, unescaped") from None
            try:
                pairs = parse_qsl(text, keep_blank_values=True, errors="strict", max_num_fields=_MOST_FIELDS)
            except UnicodeDecodeError:
                raise ValueError("the query is not UTF-8") from None
            except ValueError:
                raise ValueError(f"the query has more than {_MOST_FIELDS} fields") from None
            self._query_pairs = pairs
        return self._query_pairs

    def header(self, name: str) -> list[str]:
        """Return all values of a header, whatever its spelling; see `rules.fold_header`."""
        wanted = fold_header(name)
        if wanted not in self.header_names:
            return []
        return [value for key, value in self.headers if fold_header(key) == wanted]
