"""Read a request's body whole, or say why not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .steps import BodyTooLarge, ReadBody

if TYPE_CHECKING:
    from ..flow import Flow
    from .view import RequestView

__all__ = ["declared_length", "read_whole"]


def declared_length(view: RequestView) -> int | None:
    """Return what the one content-length says; servers refuse the ill-formed, and the body's own size counts anyway."""
    texts = set(view.header("content-length"))
    text = texts.pop() if len(texts) == 1 else ""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 18 else None


def read_whole(view: RequestView, limit: int, seconds: float) -> Flow[bytes]:
    """Return the whole body.

    Raises:
        BodyTooLarge: it holds more than `limit` bytes, or says so.
        BodyTimeout: it did not arrive within `seconds`.
        ClientGone: the client left.
        ValueError: it is not as long as it says.
    """
    declared = declared_length(view)
    if declared is not None and declared > limit:
        raise BodyTooLarge
    content: bytes = yield ReadBody(limit, seconds)
    if declared is not None and declared != len(content):
        raise ValueError("The body is not as long as its content-length says.")
    return content
