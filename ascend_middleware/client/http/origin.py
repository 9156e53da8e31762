"""Where the authority is and how it is reached: what the pools of event loops and of threads share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from .common import is_distrusted, is_exhausted
from .http1 import authority_of
from .http1_h11 import H11

try:
    from .http1_httptools import Httptools as Fastest
except ImportError:
    Fastest = H11  # type: ignore[assignment,misc] # the same, slower

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

    from .http1 import HTTP1

__all__ = ["Origin", "worse"]


class Origin:
    """One authority, reached without a proxy.

    Args:
        url: its base URL.
        context: the certificates to trust; not used for plain HTTP.
        protocol: reads answers; httptools where it is installed, else h11.

    Attributes:
        header: the Host header.
        host: its name or address.
        port: its port.
        context: None for plain HTTP.
        protocol: makes a connection's protocol.
    """

    def __init__(
        self, url: str, context: ssl.SSLContext | None = None, protocol: Callable[[], HTTP1] | None = None
    ) -> None:
        self.header, self.host, self.port, tls = authority_of(url)
        self.context: Final = context if tls else None
        self.protocol: Final = protocol or Fastest


def worse(before: OSError | None, error: OSError, *, is_last: bool) -> OSError:
    """Return which of the failures at two addresses tells more.

    One that answered wrongly says most; then that the time ran out at the last one. A lack of files says least, since
    it may be over for the next one. Of others the first counts: those after it may be of a family that is switched off.
    """
    if before is None:
        return error
    if is_distrusted(before):
        return before
    if is_distrusted(error):
        return error
    return error if is_exhausted(before) or (is_last and isinstance(error, TimeoutError)) else before
