"""The authority that stands in for every other one while a test runs. Only `ascend_middleware.testing` sets it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

__all__ = ["Substitute", "as_at_import", "current", "fallback", "late"]


class Substitute:
    """What all guards ask, whatever they were told, while it is `current`; each test has one of its own.

    Attributes:
        api_url: where it is.
        at_end: called before it no longer stands in.
    """

    __slots__ = ("api_url", "at_end")

    def __init__(self, api_url: str) -> None:
        self.api_url = api_url
        self.at_end: list[Callable[[], None]] = []


current: Substitute | None = None

# Settings of what is made with neither a URL nor a key: a test run imports applications before a test names a fixture.
fallback: Mapping[str, Any] = {}

# The same during tests, for what begins anew there, or is made at the first request as Django's middleware is.
late: Mapping[str, Any] = {}


@contextmanager
def as_at_import() -> Iterator[None]:
    """Make something within a test as if a module had made it at import."""
    global fallback
    before, fallback = fallback, fallback or late
    try:
        yield
    finally:
        fallback = before
