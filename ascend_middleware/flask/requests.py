"""A Flask request: its body ahead of the view, and what a decision about it is about."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

from ..guard import BodyTooLarge
from ..wsgi.messages import Body

if TYPE_CHECKING:
    from collections.abc import Callable

    from flask import Request

__all__ = ["is_changed", "line_of", "reader_of"]


def reader_of(request: Request) -> Callable[[int, float], bytes]:
    """Return what reads the whole body and leaves the view the same; see the step `ReadBody`."""
    if "stream" not in vars(request):
        return Body(request.environ).read

    def read(limit: int, seconds: float) -> bytes:
        # Something has begun to read already; what it kept is what the view will get.
        content = request.get_data()
        if len(content) > limit:
            raise BodyTooLarge
        if not content and request.content_length != 0:
            raise ValueError("The body was read before it could be judged.")
        return content

    return read


def line_of(request: Request) -> tuple[str, Any, dict[str, Any]]:
    """Return what a decision is about."""
    return request.method, request.url_rule, dict(request.view_args or {})


def is_changed(before: tuple[str, Any, dict[str, Any]], now: tuple[str, Any, dict[str, Any]]) -> bool:
    """Say whether the application changed what was decided about.

    It may take parameters away, add some, and put an object in the place of what names it.
    """
    plain = (str, int, float, uuid.UUID)
    return (
        before[0] != now[0]
        or before[1] is not now[1]
        or any(
            isinstance(now[2].get(name), plain) and str(now[2][name]) != str(value) for name, value in before[2].items()
        )
    )
