"""A request as the guard sees it, which every adapter builds, and on whose behalf it acts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final, TypeAlias
from urllib.parse import parse_qsl, quote

from ..api.endpoint import fill_path
from ..exceptions import ValidationError
from ..flow import Hook
from ..masking import get_logger
from ..rules import WEBSOCKET, fold_header
from ..text import printable
from ..verdict import Refusal

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..flow import Flow
    from ..routing import Resolved
    from ..rules import Method

__all__ = ["HANDLE_HEADER", "Agent", "Came", "NotAnAgent", "RequestView", "agent_of", "folded_names", "quoted"]

logger = get_logger("ascend_middleware.guard")

# By which a client names an action on hold.
HANDLE_HEADER: Final = "ascend-approval"
_MOST_FIELDS: Final = 1000
_SHOWN: Final = str(WEBSOCKET)
_first: Final = itemgetter(0)
# A request as it came: what its router was asked with beside path and method, its query, and its headers.
Came: TypeAlias = tuple[tuple[str, ...], bytes, Sequence[tuple[bytes, bytes]]]


def quoted(prefix: str) -> str:
    """Return a decoded prefix as it stands in a URL."""
    return quote(prefix, safe="/:@!$&'()*+,=", errors="replace")


def folded_names(headers: list[tuple[str, str]]) -> frozenset[str]:
    """Return the headers' names as `rules.fold_header` folds them; one with a line break counts as two."""
    lines = "\n".join(map(_first, headers))
    return frozenset(lines.lower().replace("_", "-").split("\n"))


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
        is_ordinary: whether `firewall.is_ordinary` said so, and the adapter found nothing.
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
    is_ordinary: bool = False
    _query_pairs: list[tuple[str, str]] | None = field(default=None, repr=False)
    header_names: frozenset[str] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Fold the headers' names; one that held a line break would only be two that are looked for."""
        self.header_names = folded_names(self.headers)

    @property
    def verb(self) -> str:
        """The method for texts; what is shown as WEBSOCKET is a handshake, whatever the wire says."""
        return f"HTTP {self.method}" if self.method == _SHOWN else str(self.method)

    @property
    def template(self) -> str:
        """The route's template, or the path where no router was asked or no handler runs."""
        resolved = self.resolved
        return resolved.leaf.template if resolved is not None and resolved.leaf is not None else self.path

    @property
    def may_have_body(self) -> bool:
        """Whether the headers leave open that there is a body."""
        if "transfer-encoding" in self.header_names:
            return True
        return "content-length" in self.header_names and self.header("content-length") != ["0"]

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

    @property
    def came(self) -> Came | None:
        """The request as `Guard.recall` is told of it; None where nobody asks that."""
        return None

    def tells(self, name: str) -> bool:
        """Say whether there is one of the headers that the guard looks for by itself."""
        return not self.is_ordinary and name in self.header_names

    def header(self, name: str) -> list[str]:
        """Return all values of a header, whatever its spelling; see `rules.fold_header`."""
        wanted = fold_header(name)
        if wanted not in self.header_names:
            return []
        return [value for key, value in self.headers if fold_header(key) == wanted]


class LazyRequestView(RequestView):
    """A request whose headers are read when somebody asks for them."""

    __slots__ = ("_header_names", "_headers")

    _headers: list[tuple[str, str]] | None
    _header_names: frozenset[str] | None

    def _read_headers(self) -> list[tuple[str, str]]:
        raise NotImplementedError

    @property
    def headers(self) -> list[tuple[str, str]]:  # type: ignore[override]  # nobody sets it here, nor the following
        """See `RequestView`."""
        if self._headers is None:
            self._headers = self._read_headers()
        return self._headers

    @property
    def header_names(self) -> frozenset[str]:  # type: ignore[override]
        """See `RequestView`."""
        if self._header_names is None:
            self._header_names = folded_names(self.headers)
        return self._header_names


@dataclass(frozen=True, slots=True)
class Agent:
    """The agent that a request acts for, as the application's `identify` found it.

    Attributes:
        id: the agent's stable identifier at the authority.
        name: the same for people; the id when empty.
        principal: the authenticated caller, where the application knows one.
    """

    id: str
    name: str = ""
    principal: str | None = None


@dataclass(frozen=True, slots=True)
class NotAnAgent:
    """A request that a person makes: it passes ungoverned, and the log says so with the reason.

    Attributes:
        reason: why it is no agent's, for the log.
    """

    reason: str


def agent_of(
    view: RequestView, header: str | None, identify: Callable[[Any], Any] | None
) -> Flow[Agent | NotAnAgent | Refusal]:
    """Say on whose behalf a request acts, by the header that names its agent or else by the application's function."""
    if header:
        twins = view.header(header)
        # A second spelling is what some servers drop or replace. They join what was sent twice with a comma.
        plain = any(key.lower() == header for key, _ in view.headers)
        if len(twins) != 1 or not twins[0].strip() or "," in twins[0] or not plain:
            return Refusal(problem="bad-request", detail=f"Exactly one {header} header must name the agent.")
        return _askable(Agent(twins[0].strip()))
    assert identify is not None  # noqa: S101 - else nobody asks
    try:
        agent = yield Hook(identify, (view.request,))
    except Exception:
        logger.exception("identify failed; the request is refused")
        return Refusal(problem="misconfigured", detail="The caller could not be identified.")
    if isinstance(agent, NotAnAgent):
        logger.info("passed as not an agent's: %s", printable(str(agent.reason)))
        return agent
    if not isinstance(agent, Agent) or not agent.id:
        logger.warning(
            "refused, nobody was asked: identify returned %s; it returns an Agent with an id, or NotAnAgent(reason)",
            "nothing" if agent is None else type(agent).__name__,
        )
        return Refusal(problem="unknown-agent", detail="The application knows no agent for this request.")
    return _askable(agent)


def _askable(agent: Agent) -> Agent | Refusal:
    """Refuse an id that the authority cannot be asked about: its commands would never come."""
    try:
        fill_path("{agent_id}", agent_id=agent.id)
    except ValidationError as error:
        return Refusal(problem="bad-request", detail=f"{error}.")
    return agent
