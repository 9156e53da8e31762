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
from ...fork import ProcessLock
from .transport import MAX_ANSWER_BYTES, ExchangeFailed, Request, Response, Unsendable, describe, response, too_long

if TYPE_CHECKING:
    from ...config import Settings

__all__ = ["MAX_HEAD_BYTES", "Origin", "Reader", "context_of"]

MAX_HEAD_BYTES: Final = 100 * 1024
_REMEMBERED: Final = 64

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


class Reader:
    """Reads the answers on one connection, each of them after its request was sent.

    Attributes:
        has_surplus: whether more has arrived than the answer.
        ends: whether, after an answer, the connection is done with.
    """

    __slots__ = ("_body", "_headers", "_left", "_other", "_status", "ends", "has_surplus")

    def __init__(self) -> None:
        self._body: list[bytes] = []  # of an answer that has begun
        self._left = 0
        self._other: _OtherAnswer | None = None
        self.has_surplus = self.ends = False

    def feed(self, data: bytes) -> Response | None:
        """Take bytes that arrived, none at the end of the connection; return the answer when it is whole.

        Raises:
            ExchangeFailed: what arrived is not HTTP, or the connection ended in the middle.
            ProtocolError: the answer is too long, or came compressed.
        """
        if not self._body:
            found = None if self._other is not None else _ORDINARY.match(data.lower())
            length = int(found[3]) if found is not None else 0
            if found is None or length > MAX_ANSWER_BYTES or found.end() > MAX_HEAD_BYTES:
                return self._feed_other(data)
            self._status, self._headers = int(found[1]), _Headers(data[found.start(2) : found.end(2)])
            data = data[found.end() :]
            self._left = length
        elif not data:
            raise ExchangeFailed("the authority closed the connection in the middle of its answer")
        self._body.append(data)
        self._left -= len(data)
        if self._left > 0:
            return None
        content = b"".join(self._body)
        if self._left < 0:
            self.has_surplus = self.ends = True
            content = content[: self._left]
        self._body = []
        return Response(self._status, self._headers, content)

    def _feed_other(self, data: bytes) -> Response | None:
        other = self._other = self._other or _OtherAnswer()
        heard = other.feed(data)
        if heard is not None:
            self._other = None
            self.has_surplus, self.ends = other.has_surplus, other.ends
        return heard


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
                if event is h11.NEED_DATA:
                    if not data:
                        raise ExchangeFailed("the authority closed the connection without an answer")
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
                elif not isinstance(event, h11.InformationalResponse) or event.status_code == 101:
                    raise ExchangeFailed("the authority closed the connection, or speaks another protocol")
        except h11.RemoteProtocolError as error:
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
        # The beginnings of requests, as lines; they hold the key, and end with this.
        self._fixed: Final[dict[tuple[Any, ...], str]] = {}

    def encode(self, request: Request) -> bytes:
        """Return the whole request as bytes; its URL's path and query are sent as they stand.

        Raises:
            Unsendable: it is not HTTP.
        """
        method, content, headers = request.method, request.content, request.headers
        # All headers but the last two are the same in nearly all requests.
        fixed = method, request.url, headers[:-2]
        lines, more = self._fixed.get(fixed) or self._begin(*fixed), _lines(headers[-2:])
        if lines is None or more is None:
            del headers, fixed, lines, more  # they hold the key, and reporters of errors show locals
            raise Unsendable("the request cannot be sent: a header or the target is not HTTP")
        length = f"Content-Length: {len(content)}\r\n" if content or method != "GET" else ""
        return f"{lines}{more}{length}\r\n".encode("ascii") + content

    def _begin(self, method: str, url: str, headers: tuple[tuple[str, str], ...]) -> str | None:
        target, lines = url[url.index("/", url.index("//") + 2) :], _lines(headers)
        if lines is None or not re.fullmatch(r"(?:GET|POST|PUT|PATCH|DELETE) /[!-~]*", f"{method} {target}"):
            return None
        if len(self._fixed) >= _REMEMBERED:
            self._fixed.clear()
        begin = self._fixed[method, url, headers] = f"{method} {target} HTTP/1.1\r\nHost: {self.header}\r\n{lines}"
        return begin


def _lines(headers: tuple[tuple[str, str], ...]) -> str | None:
    lines = ""
    for name, value in headers:
        # A value with a line break would make one line more.
        if not (value.isascii() and value.isprintable() and _is_name(name)):
            return None
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
            return _read(named, settings.trust_env, versions, os.getpid(), ssl.SSLContext)
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
