"""Serve the authority on a socket."""

from __future__ import annotations

import ipaddress
import os
import socket
from typing import TYPE_CHECKING

from ascend_middleware.exceptions import AscendError, ConfigurationError

if TYPE_CHECKING:
    from .core import Authority

__all__ = ["bind", "serve", "shown_url"]


def bind(host: str, port: int, *, allow_remote: bool = False) -> socket.socket:
    """Return a socket bound to the address.

    Raises:
        ConfigurationError: the address is not this machine's own loopback and that was not asked for.
        AscendError: the port is taken, or the address cannot be used.
    """
    if not allow_remote and not _is_loopback(host):
        raise ConfigurationError(
            f"{host} can be reached from other machines and the authority speaks plain HTTP; "
            "put a TLS proxy in front of 127.0.0.1, or pass --allow-remote"
        )
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise AscendError(f"cannot listen on {host}: {error.strerror or error}") from None
    try:
        if os.name == "posix":  # elsewhere the option would let two servers share a port
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(128)
    except OSError as error:
        listener.close()
        raise AscendError(
            f"cannot listen on {host} port {port}: {error.strerror or error}; choose another --port"
        ) from None
    return listener


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def shown_url(listener: socket.socket) -> str:
    """Return the URL under which a bound socket can be reached."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def serve(authority: Authority, listener: socket.socket) -> None:
    """Serve until the process is told to stop."""
    import uvicorn

    from .http import create_app

    config = uvicorn.Config(
        create_app(authority),
        log_config=None,  # logging is the caller's
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=5,
    )
    uvicorn.Server(config).run(sockets=[listener])
