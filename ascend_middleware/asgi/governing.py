"""One request or handshake in ASGI: build its view, run the guard, pass or refuse."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..client.masking import get_logger
from ..exceptions import AscendError
from ..guard import RequestView, Verdict
from .declaring import VERDICT
from .entrance import line_of
from .messages import Body, refuse, view_of
from .reporting import run_reported, watch_success

if TYPE_CHECKING:
    from ..routing import Resolved
    from ..runner import AsyncRunner
    from .prefix import RootPath
    from .types import Application, Receive, Scope, Send

__all__ = ["JUDGED", "Governor"]

logger = get_logger("ascend_middleware.asgi")

PASSAGE = "ascend_middleware.passage"
# Where a request notes in its scope that a guard has seen it.
JUDGED = "ascend_middleware.judged"


class Governor:
    """Governs the requests of one middleware, wherever in the application they are to be judged.

    Args:
        runner: performs the guard's steps.
        root_path: what the application makes of the server's root path.
    """

    def __init__(self, runner: AsyncRunner, root_path: RootPath) -> None:
        self.runner = runner
        self.passage = f"{PASSAGE}.{id(self)}"
        self._root_path = root_path

    async def govern(
        self, scope: Scope, receive: Receive, send: Send, inner: Application, resolved: Resolved | None
    ) -> None:
        """Decide about one request or handshake and run `inner`, or refuse."""
        scope.setdefault(JUDGED, []).append(True)
        view = view_of(scope, resolved, self._root_path)
        found = self.runner.triage(view)
        if isinstance(found, Verdict):
            if found.passes and found.outcome != "framework":
                self._admit(found, view, scope)
                await inner(scope, receive, send)
            else:
                await self._carry_out(found, view, scope, receive, send, inner)
            return
        body = Body(receive, websocket=scope["type"] == "websocket")
        try:
            verdict = await self.runner.decide(view, found, body)
            await self._carry_out(verdict, view, scope, body.onward(), send, inner)
        finally:
            body.close()

    async def _carry_out(
        self, verdict: Verdict, view: RequestView, scope: Scope, receive: Receive, send: Send, inner: Application
    ) -> None:
        if not verdict.passes:
            if verdict.refusal is not None:
                await refuse(scope, receive, send, verdict, render=self.runner.guard.render)
            return
        self._admit(verdict, view, scope)
        if verdict.outcome == "framework":
            send = watch_success(send, lambda: self.trip(view.verb, view.path, "no route was found for it"))
        if verdict.awaits_outcome:
            await run_reported(inner, scope, receive, send, verdict=verdict, runner=self.runner)
        else:
            await inner(scope, receive, send)

    def _admit(self, verdict: Verdict, view: RequestView, scope: Scope) -> None:
        """Leave the verdict with the request, and what it was about with whoever checks again further in."""
        state = scope.setdefault("state", {})
        if isinstance(state, dict):
            state["ascend"] = verdict
        scope[VERDICT] = verdict
        entered = view.resolved.entered if view.resolved is not None else ()
        scope[self.passage] = line_of(scope), entered

    def trip(self, method: str, path: str, why: str) -> None:
        """Say that a request succeeded without a decision; in strict mode, fail it."""
        logger.error("%r %r succeeded without a decision: %s", method, path[:200], why)
        if self.runner.guard.settings.strict:
            raise AscendError("a success for which no decision was made; see the log")
