"""The steps that a guard's flow yields besides sending and sleeping; an adapter performs them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

__all__ = ["Blocking", "BodyConsumed", "BodyTimeout", "BodyTooLarge", "ClientGone", "Hook", "ReadBody", "Watch"]


@dataclass(frozen=True, slots=True)
class ReadBody:
    """Read the whole body, at most `limit` bytes, within `seconds`; the result is bytes.

    Fails with `BodyTooLarge`, `BodyTimeout`, `BodyConsumed` or `ClientGone`.
    """

    limit: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Hook:
    """Call a function of the application; the result is what it returns or, if that is awaitable, what it gives."""

    function: Callable[..., Any]
    arguments: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Blocking:
    """Call a function of ours that may wait for a disk or a network; the result is what it returns.

    Attributes:
        function: what to call, in a thread where there is an event loop.
        arguments: with what.
        inline: whether it never waits, so that no thread is needed.
        abandon: called with the result when whoever asked was cancelled meanwhile; the call itself is never undone.
    """

    function: Callable[..., Any]
    arguments: tuple[Any, ...] = ()
    inline: bool = False
    abandon: Callable[[Any], Any] | None = None


@dataclass(frozen=True, slots=True)
class Watch:
    """Let `seconds` pass or the client leave, whichever comes first; the result is True when the client left."""

    seconds: float


class BodyConsumed(ValueError):  # noqa: N818 - what happened, not an error of ours
    """Something before the guard has read the body and did not keep it."""


class BodyTooLarge(Exception):  # noqa: N818 - what happened, not an error of ours
    """The body is larger than the limit."""


class BodyTimeout(Exception):  # noqa: N818 - what happened, not an error of ours
    """The body did not arrive in time."""


class ClientGone(Exception):  # noqa: N818 - what happened, not an error of ours
    """The client left before its body was whole."""
