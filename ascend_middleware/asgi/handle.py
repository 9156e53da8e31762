"""One request or handshake in ASGI: build its view, run the guard, pass or refuse."""

from __future__ import annotations

import functools
import sys
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final

from ..adapters.decorator import VERDICT
from ..adapters.outcome import HandledRequest, report_undecided
from ..guard import RequestView, Verdict
from ..masking import get_logger
from .install import AdmittedRequest
from .messages import Body, ScopeView, refuse
from .outcome import run_reported

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from ..adapters.runner import AsyncRunner
    from ..routing import Resolved
    from .messages import Application, Message, Receive, RootPath, Scope, Send

__all__ = ["JUDGED", "Governor", "Tripwire"]

logger = get_logger("ascend_middleware.asgi")

# Where a request keeps in its scope the outcomes of the guards that saw it.
JUDGED: Final = "ascend_middleware.judged"
_judging: ContextVar[list[str] | None] = ContextVar("ascend_middleware.judging", default=None)
# What nobody decided about, though a guard saw it.
_UNDECIDED: Final = frozenset({"framework"})


class Governor:
    """Governs the requests of one middleware, wherever in the application they are to be judged.

    Args:
        runner: performs the guard's steps.
        root_path: what the application makes of the server's root path.
    """

    def __init__(self, runner: AsyncRunner, root_path: RootPath) -> None:
        self.runner = runner
        self._root_path = root_path

    async def govern(
        self, scope: Scope, receive: Receive, send: Send, inner: Application, resolved: Resolved | None
    ) -> None:
        """Decide about one request or handshake and run `inner`, or refuse."""
        view = ScopeView(scope, resolved, self._root_path)
        judged = scope.get(JUDGED)
        if judged is None:
            judged = _judged(scope)
        if _judging.get() is not None:
            _judging.set(None)  # what a handler asks of an application by itself is another request
        judged.append("")  # until it is known: what goes wrong here is no success of somebody else's
        found = self.runner.triage(view)
        if isinstance(found, Verdict):
            judged[-1] = found.outcome
            if found.passes and found.outcome != "framework":
                admitted = self._admit(found, view, scope)
                await (inner if admitted is None else functools.partial(admitted.run, inner))(scope, receive, send)
            else:
                await self._carry_out(found, view, scope, receive, send, inner)
            return
        body = Body(receive, websocket=scope["type"] == "websocket")
        try:
            verdict = await self.runner.decide(view, found, body)
            judged[-1] = verdict.outcome
            # Who expects to be told to continue is told so by the first receive: only the handler may do that.
            if verdict.passes and await body.look(ahead="expect" not in view.header_names):
                await self._forget(verdict)
                return
            await self._carry_out(verdict, view, scope, body.onward(), send, inner)
        finally:
            body.close()

    async def _forget(self, verdict: Verdict) -> None:
        """Conclude what passed and does not run, because its client has left meanwhile."""
        handled = HandledRequest(self.runner, verdict)
        handled.ran = False
        handled.left()
        await handled.conclude_async()

    async def _carry_out(
        self, verdict: Verdict, view: RequestView, scope: Scope, receive: Receive, send: Send, inner: Application
    ) -> None:
        if not verdict.passes:
            if verdict.refusal is not None:
                await refuse(scope, receive, send, verdict, render=self.runner.guard.render)
            return
        admitted = self._admit(verdict, view, scope)
        if admitted is not None:
            inner = functools.partial(admitted.run, inner)
        if verdict.run is not None:
            handled = HandledRequest(self.runner, verdict, None if admitted is None else admitted.close)
            await run_reported(handled, inner, scope, receive, send)
        else:
            await inner(scope, receive, send)

    def _admit(self, verdict: Verdict, view: RequestView, scope: Scope) -> AdmittedRequest | None:
        """Leave the verdict with the request, and what it was about for the gates, if there are any on its way."""
        state = scope.setdefault("state", {})
        if isinstance(state, dict):
            state["ascend"] = verdict
        scope[VERDICT] = verdict
        entered = view.resolved.entered if view.resolved is not None else ()
        if not entered or verdict.outcome in ("disabled", "observed"):
            return None
        admitted = AdmittedRequest(scope, entered)
        admitted.attach(scope)
        return admitted

    def watch(self, scope: Scope, send: Send) -> Send:
        """Return a `send` that reports a success for which no guard decided anything, and in strict mode fails it."""
        if not self.runner.guard.settings.enabled:
            return send
        judged = scope.get(JUDGED)
        if judged is None:
            judged = _judged(scope)

        # Every message comes through here, so that no coroutine of its own stands between.
        def watched(message: Message) -> Awaitable[None]:
            kind = message["type"]
            is_success = (kind == "http.response.start" and message["status"] < 300) or kind == "websocket.accept"
            if is_success and _UNDECIDED.issuperset(judged):
                why = "no route was found for it" if judged else "a middleware answered it before the guard saw it"
                judged.append("tripped")  # said once, however many watch
                name = f"{scope.get('method') or scope['type']!r} {scope['path'][:200]!r}"
                report_undecided(self.runner.guard, logger, name, why)
            return send(message)

        return watched


def _judged(scope: Scope) -> list[str]:
    """Return what the guards of a request came to: a list, because a middleware may hand on a copy of the scope."""
    if JUDGED not in scope:
        known = _judging.get()  # where one makes a scope of its own
        scope[JUDGED] = [] if known is None else known
    found: list[str] = scope[JUDGED]
    return found


class Tripwire:
    """Around every middleware of a Starlette application: sees successes that no guard decided about.

    Args:
        app: what is watched.
        governor: the guard's.
    """

    def __init__(self, app: Application, governor: Governor) -> None:
        self.app = app
        self.governor = governor

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Watch the answer; OPTIONS is often answered by a middleware."""
        if scope["type"] not in ("http", "websocket") or scope.get("method") == "OPTIONS":
            await self.app(scope, receive, send)
            return
        token = _judging.set(scope.setdefault(JUDGED, []))
        send = self.governor.watch(scope, send)
        try:
            await self.app(scope, receive, send)
        finally:
            _judging.reset(token)

    @classmethod
    def install(cls, owner: Any, guard: Application, governor: Governor) -> None:
        """Install one inside of what answers an application's errors, unless the guard is the outermost itself."""
        holder, name = owner, "middleware_stack"
        if isinstance(getattr(holder, name, None), sys.modules["starlette.middleware.errors"].ServerErrorMiddleware):
            holder, name = holder.middleware_stack, "app"
        outermost = found = getattr(holder, name, None)
        while isinstance(found, cls) and found.governor is not governor:
            found = found.app
        if outermost is not None and found is not guard and not isinstance(found, cls):
            setattr(holder, name, cls(outermost, governor))
