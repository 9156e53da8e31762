"""A request's body, read ahead of the view."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any

from django.core.exceptions import RequestDataTooBig
from django.http.request import RawPostDataException, UnreadablePostError

from ..guard import BodyConsumed, BodyTooLarge, ClientGone

if TYPE_CHECKING:
    from django.http import HttpRequest

__all__ = ["Body"]


class Body:
    """Read the body ahead of the view; Django keeps it, and the view gets the same bytes."""

    def __init__(self, request: HttpRequest) -> None:
        self._request: Any = request

    def read_now(self, limit: int, seconds: float) -> bytes:
        """Return the whole body; see the step `ReadBody`. How long it may take is the server's to say."""
        request = self._request
        if not hasattr(request, "_body"):
            # On ASGI Django has received the whole body before; one without a length is measured where it lies.
            stream = request._stream
            if getattr(stream, "seekable", bool)() and not request._read_started:
                size = stream.seek(0, os.SEEK_END)
                stream.seek(0)
                if size > limit:
                    raise BodyTooLarge
        try:
            content: bytes = request.body
        except RequestDataTooBig:
            raise BodyTooLarge from None
        except RawPostDataException:
            raise BodyConsumed("The body was used up before it could be judged.") from None
        except UnreadablePostError as error:
            raise ClientGone from error
        if len(content) > limit:
            raise BodyTooLarge
        return content

    async def read(self, limit: int, seconds: float) -> bytes:
        """Return the whole body, which Django has received already."""
        return self.read_now(limit, seconds)

    async def watch(self, seconds: float, *, limit: int) -> bool:
        """Let time pass; when the client leaves, Django cancels the request."""
        await asyncio.sleep(seconds)
        return False
