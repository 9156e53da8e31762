"""A Flask request: its body ahead of the view, and what a decision about it is about."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any, NamedTuple

from flask import current_app

from ..guard import BodyTooLarge
from ..wsgi.messages import Body

if TYPE_CHECKING:
    from collections.abc import Callable

    from flask import Request

__all__ = ["Subject", "is_changed", "reader_of", "subject_of"]


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


class Subject(NamedTuple):
    """What a decision is about: what Flask found, and the function that it calls for it."""

    method: str
    rule: Any
    params: dict[str, Any]
    view: Any


def subject_of(request: Request) -> Subject:
    """Return what a decision is about."""
    rule = request.url_rule
    view = None if rule is None else current_app.view_functions.get(rule.endpoint)
    return Subject(request.method, rule, dict(request.view_args or {}), view)


def is_changed(before: Subject, now: Subject) -> bool:
    """Say whether the application changed what was decided about.

    It may take parameters away, add some, and put an object in the place of what names it.
    """
    plain = (str, int, float, uuid.UUID)
    return (
        before.method != now.method
        or before.rule is not now.rule
        or before.view is not now.view
        or any(
            isinstance(now.params.get(name), plain) and str(now.params[name]) != str(value)
            for name, value in before.params.items()
        )
    )
