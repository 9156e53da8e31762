"""Which certificates are trusted: a context is read once for the process, since that takes some 40 ms, and shared."""

from __future__ import annotations

import functools
import os
import ssl
from typing import TYPE_CHECKING, Final, NamedTuple

from ...exceptions import ConfigurationError
from ...fork import ProcessLock

if TYPE_CHECKING:
    from ...config import Settings

__all__ = ["context_of"]

_VARIABLES: Final = ("SSL_CERT_FILE", "SSL_CERT_DIR")
_reading: Final = ProcessLock()


def context_of(settings: Settings) -> ssl.SSLContext | None:
    """Return a context that trusts the issuers in `ca_file` and no others, else the usual ones; not to be changed.

    None where none is needed: for plain HTTP. It is read anew when a file that it was read from has changed.

    Raises:
        ConfigurationError: `ca_file`, or with `trust_env` what SSL_CERT_FILE or SSL_CERT_DIR names, cannot be read.
    """
    if not settings.ca_file and settings.api_url.startswith("http:"):
        return None
    named: tuple[tuple[str, str], ...] = ()
    if settings.ca_file:
        named = (("ca_file", settings.ca_file),)
    elif settings.trust_env:
        named = tuple((name, place) for name in _VARIABLES if (place := os.environ.get(name)))
    places = ", ".join(f"{name} {place!r}" for name, place in named)
    if not all(_is_there(name, place) for name, place in named):
        raise ConfigurationError(f"{places}: there is no such file or directory of certificates")
    # A monkey-patched process has another class, whose connections wait for others as they should.
    source = _Source(os.getpid(), ssl.SSLContext, named, settings.trust_env, tuple(_version(each) for _, each in named))
    try:
        with _reading:
            return _read(source)
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{places or 'the certificates'} cannot be read as certificates: {error}") from None


class _Source(NamedTuple):
    """What a context was made of.

    Attributes:
        process: an application server may patch its workers after the fork.
        named: settings or variables, and the places that they name.
        versions: of those places, which tell when a file was replaced.
    """

    process: int
    kind: type[ssl.SSLContext]
    named: tuple[tuple[str, str], ...]
    trust_env: bool
    versions: tuple[object, ...]


@functools.lru_cache(maxsize=16)
def _read(source: _Source) -> ssl.SSLContext:
    if source.named and source.named[0][0] == "ca_file":
        context = ssl.create_default_context(cafile=source.named[0][1])
    else:
        import httpx2  # takes as long as all the rest of the client, and plain HTTP needs nothing of it

        context = httpx2.create_ssl_context(trust_env=source.trust_env)
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
