"""What became of a handler: adapters tell what they see of its response, and it is recorded once."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import msgspec

from ..exceptions import AscendError
from ..guard import Refusal, Verdict

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator
    from logging import Logger, LoggerAdapter

    from ..guard import Guard

# By these an application says that it did nothing, provided that it says when to come again, too.
_LATER = frozenset({429, 503})


class HandledRequest(msgspec.Struct, eq=False):
    """One request on its way through an application: what was decided about it, and what becomes of it.

    The adapter sets the verdict and tells what it sees of the response; the runner records the outcome, once.

    Attributes:
        came: tells whether the handler was called, where only that can be seen.
        subject: what the decision was about, for the adapter.
        ran: whether the handler was called; None where nobody can see that.
        status: the response's, 0 before it began.
        is_whole: whether the response was given in full; set by the adapter.
        is_reported: whether a success without a decision was reported already.
    """

    runner: Any
    verdict: Verdict | None = None
    came: Callable[[], bool] | None = None
    subject: Any = None
    ran: bool | None = None
    status: int = 0
    is_whole: bool = False
    is_reported: bool = False
    _later: bool = False
    _left: bool = False
    _interrupted: bool = False
    _failure: BaseException | None = None
    _started: float = msgspec.field(default_factory=time.monotonic)

    __repr__ = object.__repr__  # what it holds is for nobody's debug page

    @property
    def is_undecided(self) -> bool:
        """Whether nobody has decided about it as about something of the application."""
        return self.verdict is None or self.verdict.outcome == "framework"

    @property
    def is_awaited(self) -> bool:
        """Whether somebody is still to be told the outcome."""
        run = self.verdict.run if self.verdict is not None else None
        return run is not None and not run.concluded

    def began(self, status: int, headers: Iterable[tuple[Any, Any]]) -> None:
        """A response begins, or another one in its place; names of headers are texts or bytes, in any letter case."""
        self.status = status
        self._later = status in _LATER and any(name.lower() in ("retry-after", b"retry-after") for name, _ in headers)

    def left(self) -> None:
        """The client is gone; without effect after something raised, of which that may be the consequence."""
        self._left = self._left or (self._failure is None and not self._interrupted)

    def raised(self, error: BaseException) -> None:
        """Something raised; what is no `Exception` is a request that was cancelled, or a server that stops."""
        if isinstance(error, Exception):
            self._failure = error
        else:
            self._interrupted = True

    def conclude(self) -> Awaitable[None] | None:
        """Record the outcome, unless that was done or nobody awaits it; what is returned is to be awaited."""
        verdict = self.verdict
        if verdict is None or verdict.run is None or verdict.run.concluded:
            return None
        if self.came is not None:
            self.ran = self.came()
        error, unused = None, False
        # Of most there is nothing more to say.
        if not self.is_whole or self.status >= 400 or self._failure is not None or self.ran is False:
            error, unused = self._what_became()
        milliseconds = int((time.monotonic() - self._started) * 1000)
        flow = self.runner.runs.conclude(verdict.run, error, milliseconds, unused)
        return None if flow is None else self.runner.record(flow)

    async def conclude_async(self) -> None:
        """The same, awaited."""
        if (recording := self.conclude()) is not None:
            await recording

    def _what_became(self) -> tuple[str | None, bool]:
        """Return what went wrong, and whether nothing happened, so that an approval for it is given back."""
        is_whole, status = self.is_whole, self.status
        error = self._what_went_wrong()
        if self.ran is False:
            error = f"the handler did not run: {error or f'the application answered {status}'}"
        # Where something else answered with success instead of the handler, it may have done what the handler does.
        is_success = is_whole and status < 300
        return error, (self.ran is False and not is_success) or (self._later and is_whole)

    def _what_went_wrong(self) -> str | None:
        """Return it in one sentence; None where the application answered, with a redirect too."""
        if self._left and not self.is_whole:
            return "the client left" + (f" ({type(self._failure).__name__})" if self._failure is not None else "")
        if self._failure is not None and not (self.is_whole and 0 < self.status < 500):
            what = f"{'the application' if self.ran is False else 'the handler'} raised {type(self._failure).__name__}"
            return f"the stream broke: {what}" if self.status and not self.is_whole else what
        if self._interrupted and not self.is_whole:
            return f"the {'request' if self.ran is False else 'handler'} was interrupted"
        if self.status >= 400:
            return f"{'the handler' if self.ran else 'the application'} answered {self.status}"
        if self.is_whole:
            return None
        return "the stream broke" if self.status else "the handler gave no answer"


class WatchedParts:
    """A response's parts; sees how they end, at the latest when they are closed, and concludes then."""

    __slots__ = ("_conclude", "_handled", "_iterator", "_parts")

    def __init__(
        self, parts: Iterable[bytes], handled: HandledRequest, conclude: Callable[[], object] | None = None
    ) -> None:
        self._parts = parts
        self._handled = handled
        self._conclude = conclude or handled.conclude
        self._iterator: Iterator[bytes] | None = None

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        try:
            if self._iterator is None:
                self._iterator = iter(self._parts)
            return next(self._iterator)
        except BaseException as failure:
            if isinstance(failure, StopIteration):
                self._handled.is_whole = True
            else:
                self._handled.raised(failure)
            self._conclude()
            raise

    def close(self) -> None:
        """Close the parts; a server does so last."""
        close = getattr(self._parts, "close", None)
        try:
            if close is not None:
                close()
        finally:
            # A server comes here before the last part only when its client has left.
            if not self._handled.is_whole:
                self._handled.left()
                self._conclude()


def changed_request() -> Verdict:
    """Return the refusal of a request that something of the application changed after the decision."""
    detail = "The request was changed after it was decided about."
    return Verdict(outcome="misconfigured", passes=False, refusal=Refusal(problem="misconfigured", detail=detail))


def report_undecided(guard: Guard, logger: Logger | LoggerAdapter[Any], request: str, why: str) -> None:
    """Report that a request succeeded without a decision, and why.

    Raises:
        AscendError: the settings are strict.
    """
    logger.error("%s succeeded without a decision: %s", request, why)
    if guard.settings.strict:
        raise AscendError("a success for which no decision was made; see the log")
