"""HTTP/1.1 without IO: a request as bytes, an answer of bytes; and whom it is for, by which certificates.

An ordinary answer, with one Content-Length and nothing that changes its meaning, is read here; any other one by h11.
One of the files that import an HTTP library.
"""

from __future__ import annotations

import functools
import os
import re
import ssl
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import h11

from ...exceptions import ConfigurationError
from ...fork import ProcessLock, process_id
from .network import describe, response, too_long
from .transport import MAX_ANSWER_BYTES, ExchangeFailed, Head, Request, Response, Unsendable

if TYPE_CHECKING:
    from ...config import Settings

__all__ = ["MAX_HEAD_BYTES", "Origin", "Reader", "context_of"]

MAX_HEAD_BYTES: Final = 100 * 1024
_REMEMBERED: Final = 64
_MAX_REMEMBERED_BYTES: Final = 2048

# --- an answer

# Of an answer in lower case. Whatever may change where it ends, or what its body is, stands in no line of this kind.
_TOKEN: Final = rb"[!#$%&'*+.^_`|~0-9a-z-]"
_LINE: Final = (
    rb"(?:(?![ct])" + _TOKEN + rb"++:[\t -~]*+\r\n"
    rb"|connection:[ \t]*keep-alive[ \t]*\r\n"
    rb"|(?!connection:|content-length:|content-encoding:|transfer-encoding:)" + _TOKEN + rb"++:[\t -~]*+\r\n)*+"
)
_ORDINARY: Final = re.compile(
    rb"http/1\.1 ((?!204|304)[2-5]\d\d)(?: [\t -~]*+)?\r\n"
    rb"(" + _LINE + rb"content-length:[ \t]*(\d{1,7})[ \t]*\r\n" + _LINE + rb")\r\n"
)
_HEADER: Final = re.compile(r"([^:\n]+):[ \t]*([^\r]*?)[ \t]*\r\n")
# h11 reads an answer only where a request was made; which one does not matter, since nobody asks for HEAD or CONNECT.
_ASKED: Final = h11.Request(method="GET", target="/", headers=[("Host", "h")])


class _Headers(Mapping[str, str]):
    """The headers of an ordinary answer, read when somebody asks for one: of a success nobody does."""

    def __init__(self, lines: bytes) -> None:
        self._lines: Final = lines

    @functools.cached_property
    def _read(self) -> dict[str, str]:
        return {name.lower(): value for name, value in reversed(_HEADER.findall(self._lines.decode("ascii")))}

    def __getitem__(self, name: str) -> str:
        return self._read[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._read)

    def __len__(self) -> int:
        return len(self._read)


# What stands in the last heads that were read, of all connections: a server's change with the second, if at all.
_heads: Final[dict[bytes, tuple[int, _Headers, int]]] = {}


def _read_head(head: bytes) -> tuple[int, _Headers, int] | None:
    """Return status, headers and length of an ordinary answer; None where it is not one."""
    found = _ORDINARY.fullmatch(head.lower())
    length = int(found[3]) if found is not None else 0
    if found is None or length > MAX_ANSWER_BYTES or len(head) > MAX_HEAD_BYTES:
        return None
    read = int(found[1]), _Headers(head[found.start(2) : found.end(2)]), length
    if len(head) <= _MAX_REMEMBERED_BYTES:
        if len(_heads) >= _REMEMBERED:
            _heads.clear()
        _heads[head] = read
    return read


class Reader:
    """Reads the answers on one connection, each of them after its request was sent.

    Attributes:
        has_surplus: whether more has arrived than the answer.
        ends: whether, after an answer, the connection is done with.
    """

    __slots__ = ("_body", "_head", "_left", "_other", "ends", "has_surplus")

    def __init__(self) -> None:
        self._body: list[bytes] = []  # of an answer that has begun
        self._head: tuple[int, _Headers, int] | None = None
        self._left = 0
        self._other: _OtherAnswer | None = None
        self.has_surplus = self.ends = False

    def feed(self, data: bytes) -> Response | None:
        """Take bytes that arrived, none at the end of the connection; return the answer when it is whole.

        Raises:
            ExchangeFailed: what arrived is not HTTP, or the connection ended in the middle.
            ProtocolError: the answer is too long, or came compressed.
        """
        if self._head is not None:
            return self._feed_more(data)
        end = data.find(b"\r\n\r\n") + 4
        head = data[:end]
        found = None if self._other is not None else _heads.get(head) or _read_head(head)
        if found is None:
            return self._feed_other(data)
        status, headers, length = found
        content = data[end:]
        if len(content) == length:
            return Response(status, headers, content)
        self._head, self._left = found, length
        return self._feed_more(content, begins=True)

    def _feed_more(self, data: bytes, *, begins: bool = False) -> Response | None:
        if not data and not begins:
            raise ExchangeFailed("the authority closed the connection in the middle of its answer")
        self._body.append(data)
        self._left -= len(data)
        if self._left > 0 or self._head is None:
            return None
        content = b"".join(self._body)
        if self._left < 0:
            self.has_surplus = self.ends = True
            content = content[: self._left]
        status, headers, _ = self._head
        self._body, self._head = [], None
        return Response(status, headers, content)

    def _feed_other(self, data: bytes) -> Response | None:
        other = self._other = self._other or _OtherAnswer()
        heard = other.feed(data)
        if heard is not None:
            self._other = None
            self.has_surplus, self.ends = other.has_surplus, other.ends
        return heard


def _unanswered() -> ExchangeFailed:
    return ExchangeFailed("the authority closed the connection without an answer")


class _OtherAnswer:
    """An answer that h11 reads: of an untold length, in chunks, in small pieces, with an early word before it."""

    def __init__(self) -> None:
        self._state: Final = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD_BYTES)
        self._state.send(_ASKED)
        self._state.send(h11.EndOfMessage())
        self._head: h11.Response | None = None
        self._body = bytearray()

    def feed(self, data: bytes) -> Response | None:
        state = self._state
        try:
            state.receive_data(data)
            while True:
                event = state.next_event()
                if event is h11.NEED_DATA:  # at the end of the connection h11 raises instead
                    return None
                if isinstance(event, h11.Data):
                    self._body += event.data
                    if len(self._body) > MAX_ANSWER_BYTES:
                        raise too_long()
                elif isinstance(event, h11.Response):
                    self._head = event
                elif isinstance(event, h11.EndOfMessage) and self._head is not None:
                    pairs = ((name.decode("latin-1"), value.decode("latin-1")) for name, value in self._head.headers)
                    return response(self._head.status_code, pairs, bytes(self._body))
                elif not isinstance(event, h11.InformationalResponse):
                    raise ExchangeFailed("the authority closed the connection, or speaks another protocol")
        except h11.RemoteProtocolError as error:
            if not data and self._head is None:
                raise _unanswered() from None
            raise ExchangeFailed(f"the exchange with the authority broke: {describe(error)}") from None

    @property
    def has_surplus(self) -> bool:
        return bool(self._state.trailing_data[0])

    @property
    def ends(self) -> bool:
        state = self._state
        return state.our_state is not h11.DONE or state.their_state is not h11.DONE or any(state.trailing_data)


# --- whom it is for


class Origin:
    """One authority, reached without a proxy.

    Args:
        url: its base URL.
        context: the certificates to trust; not used for plain HTTP.

    Attributes:
        header: the Host header.
        host: its name or address.
        port: its port.
        context: None for plain HTTP.
    """

    def __init__(self, url: str, context: ssl.SSLContext | None = None) -> None:
        parts = urlsplit(url)
        tls = parts.scheme == "https"
        self.header: Final = parts.netloc
        self.host: Final = parts.hostname or ""
        self.port: Final = parts.port or (443 if tls else 80)
        self.context: Final = context if tls else None
        # Of requests that come without; they hold the key.
        self._heads: Final[dict[tuple[Any, ...], Head]] = {}

    def encode(self, request: Request) -> bytes:
        """Return the whole request as bytes; its URL's path and query are sent as they stand.

        Raises:
            Unsendable: it is not HTTP.
        """
        head, content = request.head, request.content
        if head is not None:
            varying = request.own
        else:
            head = self._head_of(request)
            varying = request.own[len(head.headers) :]
        lines = (head.lines or self._begin(head)) and self._lines(head.lines + request.lines, varying)
        if not lines:
            del head, lines, varying  # they hold the key, and reporters of errors show locals
            raise Unsendable("the request cannot be sent: a header or the target is not HTTP")
        if content or request.method != "GET":
            return f"{lines}Content-Length: {len(content)}\r\n\r\n".encode("ascii") + content
        return f"{lines}\r\n".encode("ascii")

    def _head_of(self, request: Request) -> Head:
        """Return what a request has in common with others: all headers but the last two."""
        key = method, url, headers = request.method, request.url, request.own[:-2]
        head = self._heads.get(key)
        if head is None:
            if len(self._heads) >= _REMEMBERED:
                self._heads.clear()
            head = self._heads[key] = Head(method, url, headers)
        return head

    def _begin(self, head: Head) -> str:
        """Return the beginning of requests as lines, and keep it with their head; nothing where it is not HTTP."""
        method, url = head.method, head.url
        target = url[url.index("/", url.index("//") + 2) :]
        if not re.fullmatch(r"(?:GET|POST|PUT|PATCH|DELETE) /[!-~]*", f"{method} {target}"):
            return ""
        head.lines = self._lines(f"{method} {target} HTTP/1.1\r\nHost: {self.header}\r\n", head.headers)
        return head.lines

    @staticmethod
    def _lines(lines: str, headers: tuple[tuple[str, str], ...]) -> str:
        """Return the lines with those of headers behind them; nothing where one is not HTTP."""
        for name, value in headers:
            # A value with a line break would make one line more.
            if not (value.isascii() and value.isprintable() and _is_name(name)):
                return ""
            lines += f"{name}: {value}\r\n"
        return lines


@functools.lru_cache(maxsize=64)
def _is_name(text: str) -> bool:
    return re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", text) is not None


_reading: Final = ProcessLock()


def context_of(settings: Settings) -> ssl.SSLContext | None:
    """Return a context that trusts the issuers in `ca_file` and no others, else the usual ones; not to be changed.

    None where none is needed: for plain HTTP. To read one takes some 40 ms, so the process shares it; it is read anew
    when a file that it was read from has changed.

    Raises:
        ConfigurationError: `ca_file`, or with `trust_env` what SSL_CERT_FILE or SSL_CERT_DIR names, cannot be read.
    """
    if not settings.ca_file and settings.api_url.startswith("http:"):
        return None
    named: tuple[tuple[str, str], ...] = ()
    if settings.ca_file:
        named = (("ca_file", settings.ca_file),)
    elif settings.trust_env:
        variables = ("SSL_CERT_FILE", "SSL_CERT_DIR")
        named = tuple((name, place) for name in variables if (place := os.environ.get(name)))
    places = ", ".join(f"{name} {place!r}" for name, place in named)
    if not all(_is_there(name, place) for name, place in named):
        raise ConfigurationError(f"{places}: there is no such file or directory of certificates")
    versions = tuple(_version(place) for _, place in named)
    try:
        with _reading:
            # A server may patch its workers after the fork, whose connections of another class wait as they should.
            return _read(named, settings.trust_env, versions, process_id(), ssl.SSLContext)
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{places or 'the certificates'} cannot be read as certificates: {error}") from None


@functools.lru_cache(maxsize=16)
def _read(named: tuple[tuple[str, str], ...], trust_env: bool, *_versions: object) -> ssl.SSLContext:
    if named and named[0][0] == "ca_file":
        context = ssl.create_default_context(cafile=named[0][1])
    else:
        import httpx2  # takes as long as all the rest of the client, and plain HTTP needs nothing of it

        context = httpx2.create_ssl_context(trust_env=trust_env)
    context.set_alpn_protocols(["http/1.1"])  # as httpcore2 sets it, at each connection
    return context


def _is_there(name: str, place: str) -> bool:
    if name == "SSL_CERT_DIR":  # OpenSSL takes several
        return any(os.path.isdir(part) for part in place.split(os.pathsep))
    return os.path.isfile(place)


def _version(place: str) -> object:
    try:
        found = os.stat(place)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
