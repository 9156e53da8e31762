"""One webhook delivery: signed, over TLS to the address that was checked, and to no private one.

The signature covers the time and the body: `X-Ascend-Signature: t=1700000000,v1=<hex>`, where the hexadecimal text is
the HMAC-SHA256 of `<t>.<body>` under the subscription's secret.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import http.client
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from ascend_middleware._version import __version__

__all__ = ["Attempt", "deliver", "is_public", "sign", "verify_signature"]

SIGNATURE: Final = "X-Ascend-Signature"
# Seconds that one attempt may take, name resolution, connection, TLS and a slow answer included.
DEADLINE: Final = 10.0
# Seconds by which a signature's time may differ from the receiver's clock.
_TOLERANCE: Final = 300.0
# What no host on the internet has, though some versions of Python take it for global: networks' own assignments, the
# relays of 6to4, and examples.
_NOBODYS: Final = tuple(map(ipaddress.ip_network, ("192.0.0.0/24", "192.88.99.0/24", "3fff::/20", "5f00::/16")))
# Prefixes under which a network's translator reaches IPv4 (RFC 6052, RFC 8215): the address inside counts alone.
_NAT64: Final = (ipaddress.ip_network("64:ff9b::/96"), ipaddress.ip_network("64:ff9b:1::/48"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """What came of one attempt: a status of 200 to 299 is a success; `error` says why there is no status."""

    status: int | None = None
    error: str = ""
    seconds: float = 0.0

    @property
    def delivered(self) -> bool:
        """Whether the receiver has taken it."""
        return self.status is not None and 200 <= self.status < 300

    @property
    def failure(self) -> str:
        """Why the receiver has not taken it, in words; nothing if it has."""
        return "" if self.delivered else self.error or f"status {self.status}"


def sign(secret: str, body: bytes, *, at: int) -> str:
    """Return the signature header of a body that is sent at a time in epoch seconds."""
    digest = hmac.new(secret.encode(), b"%d.%s" % (at, body), hashlib.sha256).hexdigest()
    return f"t={at},v1={digest}"


def verify_signature(
    secret: str, body: bytes, header: str, *, now: float | None = None, tolerance: float = _TOLERANCE
) -> bool:
    """Say whether a received body was signed with the secret, and not long ago; for receivers.

    Args:
        secret: the subscription's.
        body: the raw bytes, before anything decodes them.
        header: the value of `X-Ascend-Signature`.
        now: epoch seconds; the system's clock unless given.
        tolerance: seconds that the signature's time may be off.
    """
    pairs = [part.strip().partition("=")[::2] for part in header.split(",")]
    parts = dict(pairs)
    at = parts.get("t", "")
    if len(parts) != len(pairs) or not (at.isascii() and at.isdigit() and len(at) < 16):
        return False
    expected = sign(secret, body, at=int(at)).encode()
    fresh = abs((time.time() if now is None else now) - int(at)) <= tolerance
    return hmac.compare_digest(expected, f"t={at},v1={parts.get('v1', '')}".encode()) and fresh


def is_public(address: str) -> bool:
    """Say whether an IP address is anybody's on the internet, also where it carries an IPv4 address within."""
    try:
        place = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    places: list[ipaddress.IPv4Address | ipaddress.IPv6Address] = [place]
    if isinstance(place, ipaddress.IPv6Address):
        # A mapped or translated address stands for the inner one alone; the tunnels' own addresses are checked as well.
        if place.ipv4_mapped is not None:
            places = [place.ipv4_mapped]
        elif any(place in prefix for prefix in _NAT64):
            places = [*_translated(place)]
        else:
            places += [] if place.sixtofour is None else [place.sixtofour]  # all of Teredo counts as private
    return all(
        one.is_global
        and not (one.is_multicast or one.is_reserved)
        and not any(one in network for network in _NOBODYS)
        # Withdrawn private addresses that networks may still route; Python takes them for global.
        and not (isinstance(one, ipaddress.IPv6Address) and one.is_site_local)
        for one in places
    )


def _translated(place: ipaddress.IPv6Address) -> list[ipaddress.IPv4Address]:
    """Return every IPv4 address that a translator could take an address for."""
    packed = place.packed
    whole = packed[12:]
    if place in _NAT64[0]:
        return [ipaddress.IPv4Address(whole)]
    # Under the local-use prefix each network chooses a length: 48, 56, 64 or 96 bits. Byte 8 is none of the address.
    # Behind the address stand zeros: where others do, the prefix is longer.
    shorter = [(packed[6:8] + packed[9:11], 11), (packed[7:8] + packed[9:12], 12), (packed[9:13], 13)]
    found = [inner for inner, end in shorter if not any(packed[end:])] + ([whole] if any(whole) else [])
    return [ipaddress.IPv4Address(inner) for inner in found]


def _resolve(host: str, port: int) -> list[tuple[Any, ...]]:
    return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)


class _Pinned(http.client.HTTPConnection):
    """Connects to addresses that were checked, never asks for the name again, and can be cut off at any moment."""

    def __init__(
        self, host: str, port: int, places: list[tuple[Any, ...]], context: ssl.SSLContext | None, until: float
    ) -> None:
        super().__init__(host, port)
        if context is not None:
            self.default_port = http.client.HTTPS_PORT  # else the Host header would name it
        self._places = places
        self._context = context
        self._until = until

    def connect(self) -> None:
        failure: OSError | None = None
        for family, kind, protocol, _, address in self._places:
            left = self._until - time.monotonic()
            if left <= 0:
                raise TimeoutError("timed out")
            self.sock = socket.socket(family, kind, protocol)
            try:
                self.sock.settimeout(left)
                self.sock.connect(address)
                if self._context is not None:
                    self.sock = self._context.wrap_socket(
                        self.sock, server_hostname=self.host, do_handshake_on_connect=False
                    )
                    self.sock.do_handshake()
                return
            except OSError as error:
                self.sock.close()
                failure = error
        raise failure or OSError("the name has no address")


def deliver(
    url: str,
    body: bytes,
    headers: dict[str, str],
    *,
    secret: str,
    at: float,
    private: bool = False,
    deadline: float = DEADLINE,
    resolve: Callable[[str, int], Iterable[tuple[Any, ...]]] = _resolve,
    context: ssl.SSLContext | None = None,
) -> Attempt:
    """Send one body to one subscriber; never raises for what the network or the subscriber does.

    The name is resolved once, every address that it has must be public, and the connection goes to one of those: a name
    that changes its address between a check and a connection leads nowhere. Redirects are not followed.

    Plain http and private addresses are only allowed with `private`, for development. `at` is in epoch seconds.
    """
    started = time.monotonic()

    def ended(**fields: Any) -> Attempt:
        return Attempt(seconds=time.monotonic() - started, **fields)

    try:
        parts = urlsplit(url)
        host, secure = parts.hostname, parts.scheme == "https"
        port = parts.port or (443 if secure else 80)
    except ValueError:
        return ended(error="the target is no URL")
    if not host or not (secure or (private and parts.scheme == "http")):
        return ended(error="the target is no https URL")
    try:
        places = list(resolve(host, port))
    except (OSError, UnicodeError) as error:
        return ended(error=f"{host} cannot be resolved: {_words(error)}")
    if not private and not all(is_public(place[4][0]) for place in places):
        return ended(error=f"{host} has a private address")
    if secure and context is None:
        context = ssl.create_default_context()
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    connection = _Pinned(host, port, places, context if secure else None, started + deadline)
    # Each reading of a slow answer would have the timeout of its own; this ends the whole.
    watchdog = threading.Timer(max(0.0, deadline - (time.monotonic() - started)), _cut, (connection,))
    watchdog.daemon = True
    watchdog.start()
    try:
        sent = {
            **headers,
            "Content-Type": "application/json",
            "User-Agent": f"ascend-middleware/{__version__}",
            SIGNATURE: sign(secret, body, at=int(at)),
        }
        connection.request("POST", target, body, sent)
        status, failure = connection.getresponse().status, ""
    except (OSError, http.client.HTTPException, ValueError) as error:
        status, failure = None, _words(error)
    finally:
        watchdog.cancel()
        connection.close()
    if time.monotonic() - started >= deadline:  # what was read of an answer that was cut off is none
        return ended(error=f"no answer within {deadline:g} s")
    return ended(status=status, error=failure)


def _cut(connection: http.client.HTTPConnection) -> None:
    """End whatever another thread is waiting for on a connection."""
    link = connection.sock
    if link is not None:
        with contextlib.suppress(OSError):
            link.shutdown(socket.SHUT_RDWR)


def _words(error: BaseException) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not valid: {error.verify_message}"
    words = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return (words or type(error).__name__)[:200]
