"""The authority that stands in for every other one while a test runs. Only `ascend_middleware.testing` sets it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["Substitute", "current", "fallback"]


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
