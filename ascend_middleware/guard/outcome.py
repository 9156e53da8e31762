"""What became of one passed request, without IO: adapters tell what they see, and here is found what to call it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["Outcome"]

# By these an application says that it did nothing, provided that it says when to come again, too.
_LATER = frozenset({429, 503})


class Outcome:
    """How a request ends that was let pass.

    Attributes:
        ran: whether the handler was called; None where nobody can see that.
        status: the response's, 0 before it began.
    """

    __slots__ = ("_failure", "_gone", "_interrupted", "_later", "_started", "_whole", "ran", "status")

    def __init__(self, *, ran: bool | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self.ran = ran
        self.status = 0
        self._later = False
        self._whole = False
        self._gone = False
        self._interrupted = False
        self._failure: BaseException | None = None
        self._started = clock()

    def began(self, status: int, headers: Iterable[tuple[Any, Any]]) -> None:
        """A response begins, or another one in its place; names of headers are texts or bytes, in any letter case."""
        self.status = status
        self._later = status in _LATER and any(name.lower() in ("retry-after", b"retry-after") for name, _ in headers)

    def ended(self) -> None:
        """The response was given in full."""
        self._whole = True

    def left(self) -> None:
        """The client is gone; without effect after something raised, of which that may be the consequence."""
        self._gone = self._gone or (self._failure is None and not self._interrupted)

    def raised(self, error: BaseException) -> None:
        """Something raised; what is no `Exception` is a request that was cancelled, or a server that stops."""
        if isinstance(error, Exception):
            self._failure = error
        else:
            self._interrupted = True

    @property
    def is_whole(self) -> bool:
        """Whether the response was given in full."""
        return self._whole

    @property
    def error(self) -> str | None:
        """What went wrong, in one sentence; None where the handler ran and answered, with a redirect too."""
        what = self._what()
        if self.ran is False:
            return f"the handler did not run: {what or f'the application answered {self.status}'}"
        return what

    def _what(self) -> str | None:
        if self._gone and not self._whole:
            return "the client left" + (f" ({type(self._failure).__name__})" if self._failure is not None else "")
        if self._failure is not None and not (self._whole and 0 < self.status < 500):
            what = f"{'the application' if self.ran is False else 'the handler'} raised {type(self._failure).__name__}"
            return f"the stream broke: {what}" if self.status and not self._whole else what
        if self._interrupted and not self._whole:
            return f"the {'request' if self.ran is False else 'handler'} was interrupted"
        if self.status >= 400:
            return f"{'the handler' if self.ran else 'the application'} answered {self.status}"
        if self._whole:
            return None
        return "the stream broke" if self.status else "the handler gave no answer"

    @property
    def is_unused(self) -> bool:
        """Whether the action did not happen, so that an approval for it is still good.

        Where something else answered with success instead of the handler, it may have done what the handler does.
        """
        succeeded = self._whole and self.status < 300
        return (self.ran is False and not succeeded) or (self._later and self._whole)

    @property
    def duration_ms(self) -> int:
        """Milliseconds since the request was let pass."""
        return int((time.monotonic() - self._started) * 1000)
