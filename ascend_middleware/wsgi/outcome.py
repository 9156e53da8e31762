"""Watch a response: what became of an allowed action, and successes that nobody decided about."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from ..guard import Outcome

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from ..adapters.runner import SyncRunner
    from ..guard import Verdict

__all__ = ["Passage"]


class Passage:
    """One request on its way through an application: what was decided about it, and how its response ends.

    Attributes:
        verdict: set by the adapter as soon as there is one.
        line: what the verdict was about, for the adapter.
        outcome: what becomes of it; an adapter that can see whether the handler is called says so there.
    """

    __slots__ = ("_concluded", "_on_success", "_runner", "line", "outcome", "verdict")

    def __init__(
        self,
        runner: SyncRunner,
        *,
        verdict: Verdict | None = None,
        on_success: Callable[[Passage], None] | None = None,
    ) -> None:
        self.verdict = verdict
        self.line: Any = None
        self._runner = runner
        self.outcome = Outcome()
        self._on_success = on_success
        self._concluded = False

    def run(self, app: WSGIApplication, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Run the application; report its outcome when its response ends, at the latest when it is closed."""

        def start(status: str, headers: Any, exc_info: Any = None, /) -> Any:
            self.outcome.began(int(status[:3]), headers)
            if self.outcome.status < 300 and self._on_success is not None:
                self._on_success(self)
            return start_response(status, headers) if exc_info is None else start_response(status, headers, exc_info)

        try:
            parts = app(environ, start)
        except BaseException as failure:
            self._conclude(failure)
            raise
        if self.outcome.status and not (self.verdict is not None and self.verdict.awaits_outcome):
            return parts  # nothing to report; the server may know a quicker way to send it
        if isinstance(parts, list | tuple):
            self._conclude(None)
            return parts
        return _Watched(parts, self._conclude)

    def _conclude(self, failure: BaseException | None) -> None:
        if self._concluded or self.verdict is None or not self.verdict.awaits_outcome:
            return
        self._concluded = True
        if failure is None:
            self.outcome.ended()
        elif isinstance(failure, GeneratorExit):
            self.outcome.left()
        else:
            self.outcome.raised(failure)
        self._runner.conclude(self.verdict, self.outcome)


class _Watched:
    """A response's parts; tells `conclude` once how they ended."""

    __slots__ = ("_conclude", "_iterator", "_parts")

    def __init__(self, parts: Iterable[bytes], conclude: Callable[[BaseException | None], None]) -> None:
        self._parts = parts
        self._conclude = conclude
        self._iterator: Iterator[bytes] | None = None

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        try:
            if self._iterator is None:
                self._iterator = iter(self._parts)
            return next(self._iterator)
        except StopIteration:
            self._conclude(None)
            raise
        except BaseException as failure:
            self._conclude(failure)
            raise

    def close(self) -> None:
        close = getattr(self._parts, "close", None)
        try:
            if close is not None:
                close()
        finally:
            # Without effect after the last part: a server comes here first only when its client has left.
            self._conclude(GeneratorExit())
