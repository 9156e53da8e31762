"""A stranger's text as it goes to logs, terminals and messages, and what the name of a host or a database says."""

from __future__ import annotations

import functools
import ipaddress

__all__ = ["is_loopback", "is_postgres", "one_line", "printable"]


def one_line(text: str) -> str:
    """Return a text with a blank for each control character, so that it cannot steer a terminal or end a line."""
    return "".join(char if char.isprintable() else " " for char in text)


def printable(text: str) -> str:
    """Return a text that cannot forge a line of the log: escaped, as a whole, if anything in it cannot be seen."""
    return text if text.isprintable() else ascii(text)


@functools.lru_cache(maxsize=1024)
def is_loopback(host: str) -> bool:
    """Whether a host is this machine itself: `localhost`, or an address that never leaves it."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_postgres(place: str) -> bool:
    """Whether a database is named by a URL of PostgreSQL, and is not a file."""
    return place.startswith(("postgresql:", "postgres:"))
