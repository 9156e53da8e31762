"""The corpus of `attacks.toml`: from an attack and a route to the bytes of a connection."""

from __future__ import annotations

import functools
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["PLAIN", "Attack", "corpus", "wire_form"]

PLAIN: Final = "plain"
_HANDSHAKE: Final = (
    "Upgrade: websocket",
    "Connection: Upgrade",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
)
_BODIES: Final = frozenset({"POST", "PUT", "PATCH"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Attack:
    """One row of the corpus; texts with braces are templates.

    Attributes:
        name: how reports call it.
        about: what it tries.
        cut: whether the client stops sending where the bytes end.
        raw: all bytes of the connection, instead of what the other fields make.
    """

    name: str
    about: str
    method: str = "{method}"
    target: str = "{path}"
    headers: tuple[str, ...] = ()
    body: str = ""
    version: str = "HTTP/1.1"
    websocket: bool = False
    cut: bool = False
    raw: str = ""


@functools.cache
def corpus() -> tuple[Attack, ...]:
    """Return every attack, in order; the first is the request as it should be."""
    table = tomllib.loads((Path(__file__).parent / "attacks.toml").read_text(encoding="utf-8"))
    return tuple(Attack(**{**row, "headers": tuple(row.get("headers", ()))}) for row in table["attack"])


def wire_form(
    attack: Attack, *, method: str, path: str, exempt: str, host: str = "localhost", headers: tuple[str, ...] = ()
) -> bytes:
    """Return the bytes of a connection.

    Args:
        attack: what is tried.
        method: the route's; `WEBSOCKET` for a handshake.
        path: one that leads to the route, quoted.
        exempt: the path of an exempt route.
        host: at which the route is.
        headers: `name: value`, added to the first request.
    """
    handshake = method == "WEBSOCKET"
    known = variables("GET" if handshake else method, path, exempt)
    if attack.raw:
        first, _, rest = attack.raw.format(**known).replace("localhost", host).partition("\n")
        ends = "\r\n" if first.endswith("\r") else "\n"
        return "".join((first, "\n", *(f"{one}{ends}" for one in headers if rest.strip()), rest)).encode("latin-1")
    lines = [one.format(**known) for one in attack.headers]
    body = "" if handshake else attack.body.format(**known)
    verb = attack.method.format(**known)
    if not any(one.startswith("Host:") for one in lines):
        lines.insert(0, f"Host: {host}")
    if handshake or attack.websocket:
        lines += _HANDSHAKE
    else:
        lines.append(f"Connection: {'Upgrade, HTTP2-Settings, ' if attack.name == 'h2c' else ''}close")
    if body or verb.upper() in _BODIES:
        lines.append(f"Content-Length: {len(body)}")
    start = f"{verb} {attack.target.format(**known)} {attack.version}"
    return "\r\n".join((start, *headers, *lines, "", body)).encode("latin-1")


def variables(method: str, path: str, exempt: str) -> dict[str, str | int]:
    """Return what templates of the corpus may name."""
    parent, _, last = path.rpartition("/")
    first, _, tail = path[1:].partition("/")
    embedded = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    return {
        "method": method,
        "other": "POST" if method == "GET" else "GET",
        "lower": method.lower(),
        "mixed": method[:1].lower() + method[1:],
        "path": path,
        "bare": path.rstrip("/") or "/",
        "rest": path[1:],
        "first": f"/{first}",
        "exempt": exempt.rstrip("/") or "/",
        "upper": path.upper(),
        "letter": _first_letter(path, lambda char: f"%{ord(char):02x}"),
        "letters": "".join(f"%{ord(char):02x}" if char.isalnum() else char for char in path),
        "fullwidth": _first_letter(
            path, lambda char: "".join(f"%{one:02X}" for one in chr(ord(char) + 0xFEE0).encode())
        ),
        "long_s": path.replace("s", "%C5%BF", 1),
        "encoded_slash": f"{parent}%2F{last}",
        "twice_encoded_slash": f"{parent}%252F{last}",
        "double_slash": f"{parent}//{last}",
        "dot": f"{parent}/./{last}",
        "encoded_dot": f"{parent}/%2e/{last}",
        "backslash": f"{parent}\\{last}",
        "inner_parameter": f"/{first};x=1/{tail}" if tail else f"/;x=1{path}",
        "embedded": embedded,
        "embedded_length": len(embedded),
        "chunked_length": len(embedded) + 5,
    }


def _first_letter(path: str, change: Callable[[str], str]) -> str:
    """Return a path with its first letter changed; one inside an escape is none."""
    for at, char in enumerate(path):
        if char.isascii() and char.isalpha() and "%" not in path[max(0, at - 2) : at]:
            return path[:at] + change(char) + path[at + 1 :]
    return path
