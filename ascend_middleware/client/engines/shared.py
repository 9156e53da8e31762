"""What all engines share: failures that tell nothing secret, answers of a bounded size, certificates, proxies."""

from __future__ import annotations

import asyncio
import ssl
import urllib.request
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from ...exceptions import ConfigurationError, ProtocolError
from .. import masking
from ..exchange import DeadlinePassed, Response

if TYPE_CHECKING:
    from ...config import Settings

__all__ = [
    "KEEPALIVE_SECONDS",
    "MAX_ANSWER_BYTES",
    "deadline_passed",
    "describe",
    "has_surplus",
    "proxy_url",
    "response",
    "running_loop",
    "surplus",
    "too_long",
    "trusted_file",
]

MAX_ANSWER_BYTES: Final = 4 * 1024 * 1024
KEEPALIVE_SECONDS: Final = 30.0


def describe(error: BaseException) -> str:
    """Name an error of a library, masked and bounded: it may quote a header, and a header may be the key."""
    text = masking.mask_text(getattr(error, "message", None) or str(error))[:200]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def deadline_passed(*, sent: bool) -> DeadlinePassed:
    """Return the failure for a deadline; `sent` says whether the authority may have the request."""
    return DeadlinePassed("the deadline passed before the authority answered", sent=sent)


def too_long() -> ProtocolError:
    """Return the failure for an answer that does not end."""
    return ProtocolError(f"the authority's answer is longer than {MAX_ANSWER_BYTES} bytes")


def has_surplus(stream: Any) -> bool:
    """Say whether more has arrived on the connection of an answer than the answer.

    The library would keep it and take it for the answer to the next request. It tells about it only within: where its
    parts are called otherwise one day, this says False, and a test fails.
    """
    for _ in range(8):
        state = getattr(stream, "_h11_state", None)
        if state is not None:
            return bool(state.trailing_data[0])
        parts = (getattr(stream, name, None) for name in ("_stream", "_httpcore_stream", "_connection"))
        stream = next((part for part in parts if part is not None), None)
    return False


def surplus() -> ProtocolError:
    """Return the failure for an answer with something behind it."""
    return ProtocolError("the authority sent more than one answer to one request")


def response(status: int, headers: Iterable[tuple[str, str]], content: bytes) -> Response:
    """Return the answer, of each header the first value; refuse one that came compressed unasked."""
    lowered: dict[str, str] = {}
    for name, value in headers:
        lowered.setdefault(name.lower(), value)
    if lowered.get("content-encoding", "identity").strip().lower() not in ("", "identity"):
        raise ProtocolError("the authority's answer is compressed although that was not asked for")
    return Response(status, lowered, content)


def trusted_file(settings: Settings) -> ssl.SSLContext:
    """Return a context that trusts the authorities in `ca_file` and no others."""
    try:
        return ssl.create_default_context(cafile=settings.ca_file)
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"ca_file {settings.ca_file!r} cannot be read as certificates: {error}") from None


def proxy_url(settings: Settings) -> str | None:
    """Return the proxy to use: the setting, else the environment's, but only when it is to be trusted."""
    proxy = settings.proxy
    if not proxy and settings.trust_env:
        parts = urlsplit(settings.api_url)
        if not urllib.request.proxy_bypass(parts.netloc):
            found = urllib.request.getproxies()
            proxy = found.get(parts.scheme) or found.get("all") or ""
            proxy = f"http://{proxy}" if proxy and "://" not in proxy else proxy
    if not proxy:
        return None
    if urlsplit(proxy).scheme not in ("http", "https", "socks5", "socks5h") or not urlsplit(proxy).hostname:
        raise ConfigurationError("proxy must be a URL such as http://proxy.example:3128")
    return proxy


def running_loop() -> Any:
    """Return the running asyncio loop; None in another kind of loop, which then shares one pool."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
