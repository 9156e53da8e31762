"""Govern one request: have it decided about, and run what comes next, or refuse."""

from __future__ import annotations

import functools
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final

import msgspec

from ..adapters.decorator import VERDICT
from ..adapters.outcome import HandledRequest, report_undecided
from ..guard import Asked, PermittedVerdict, Recalled, Verdict, are_ordinary_headers, is_ordinary_target
from ..masking import get_logger
from .install import AdmittedRequest
from .messages import Body, RootPath, ScopeView, as_it_came, is_connected, refuse
from .passed import passed

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ..adapters.runner import AsyncRunner
    from ..flow import Flow
    from ..guard import Guard
    from ..routing import Resolved
    from .messages import Application, Message, Receive, Scope, Send

__all__ = ["JUDGED", "Governor", "judging"]

logger = get_logger("ascend_middleware.asgi")

# Where a request keeps in its scope the outcomes of the guards that saw it.
JUDGED: Final = "ascend_middleware.judged"
# Likewise, the governors that watch its answer.
_WATCHING: Final = "ascend_middleware.watching"
judging: ContextVar[list[str] | None] = ContextVar("ascend_middleware.judging", default=None)
# What nobody decided about, though a guard saw it.
_UNDECIDED: Final = frozenset({"framework"})


class Governor:
    """Governs the requests of one middleware, wherever in the application they are to be judged."""

    def __init__(self, runner: AsyncRunner, root_path: RootPath) -> None:
        self.runner = runner
        self._root_path = root_path
        self._alone = (self,)

    def govern(
        self, scope: Scope, receive: Receive, send: Send, inner: Application, resolved: Resolved | None
    ) -> Awaitable[None]:
        """Decide about one request or handshake and run `inner`, or refuse."""
        guard = self.runner.start()
        known = None if resolved is None else resolved.known
        ordinary = are_ordinary_headers(scope.get("headers", ()))
        # What was ordinary before is so again.
        target = scope["path"], scope.get("raw_path")
        if ordinary and (known is None or known.target != target):
            ordinary = is_ordinary_target(*target)
            if ordinary and known is not None:
                known.target = target
        judged = scope[JUDGED] if JUDGED in scope else _judged(scope)
        if judging.get() is not None:
            judging.set(None)  # what a handler asks of an application by itself is another request
        # What is known is an HTTP request with no place on its way that is to be looked at again.
        if ordinary and resolved is not None and (known or (scope["type"] == "http" and not resolved.entered)):
            found: Verdict | Asked | Flow[Verdict] | None = None
            if known is not None and type(known.told) is Recalled:
                found = guard.recall(known, as_it_came(scope))
            else:
                found = guard.at_once(resolved, scope["method"])
            if isinstance(found, Asked):
                judged.append("")
                return self._ask(found, guard, judged, scope, receive, send, inner, resolved)
            if isinstance(found, Verdict):
                judged.append(found.outcome)
                self.runner.note(found)
                return self._run(found, scope, receive, send, inner)
            if found is not None:
                judged.append("")
                view = ScopeView(scope, resolved, self._root_path, is_ordinary=True)
                return self._judge(view, found, judged, scope, receive, send, inner)
        judged.append("")  # until it is known: what goes wrong here is no success of somebody else's
        view = ScopeView(scope, resolved, self._root_path, is_ordinary=ordinary)
        return self._govern(view, guard, judged, scope, receive, send, inner)

    async def _ask(
        self,
        asked: Asked,
        guard: Guard,
        judged: list[str],
        scope: Scope,
        receive: Receive,
        send: Send,
        inner: Application,
        resolved: Resolved,
    ) -> None:
        """Govern a request that `Guard.at_once` knows; whatever is not permitted at once, `_judge` goes on with."""
        runner, attempt = self.runner, asked.attempt
        try:
            engine = runner.engine
            begun = engine.begin(attempt.request, attempt.timeout)
            if begun is None:
                attempt.answer = await engine.send(attempt.request, attempt.timeout)
            else:
                try:
                    attempt.answer = await begun.answer
                finally:
                    begun.done()
        except Exception as error:
            attempt.answer = error
        found = guard.hear(asked)
        if not isinstance(found, PermittedVerdict):
            view = ScopeView(scope, resolved, self._root_path, is_ordinary=True)
            await self._judge(view, found or guard.go_on(asked, view), judged, scope, receive, send, inner)
            return
        judged[-1] = "allowed"
        if found.run is not None:
            runner.note(found)
        if not guard.recorder.is_idle:
            view = ScopeView(scope, resolved, self._root_path, is_ordinary=True)
            guard.log(view, found, seconds=guard.core.clock() - attempt.began)
        if not is_connected(receive):
            await self._pass(found, Body(receive), scope, send, inner, resolved, ahead=True)
            return
        await self._run(found, scope, receive, send, inner)

    async def _govern(
        self,
        view: ScopeView,
        guard: Guard,
        judged: list[str],
        scope: Scope,
        receive: Receive,
        send: Send,
        inner: Application,
    ) -> None:
        found = self.runner.triage(view, guard)
        if not isinstance(found, Verdict):
            await self._judge(view, found, judged, scope, receive, send, inner)
            return
        judged[-1] = found.outcome
        await self._carry_out(found, scope, receive, send, inner, view.resolved)

    async def _judge(
        self,
        view: ScopeView,
        found: Asked | Flow[Verdict],
        judged: list[str],
        scope: Scope,
        receive: Receive,
        send: Send,
        inner: Application,
    ) -> None:
        """Have decided what `triage` did not settle."""
        body = Body(receive, websocket=scope["type"] == "websocket")
        try:
            verdict = await self.runner.decide(view, found, body)
            judged[-1] = verdict.outcome
        except BaseException:
            body.stop()
            raise
        if not verdict.passes:
            body.stop()
            await self._carry_out(verdict, scope, receive, send, inner, view.resolved)
            return
        # Who expects to be told to continue is told so by the first receive: only the handler may do that.
        ahead = not view.tells("expect")
        await self._pass(verdict, body, scope, send, inner, view.resolved, ahead=ahead)

    async def _pass(
        self,
        verdict: Verdict,
        body: Body,
        scope: Scope,
        send: Send,
        inner: Application,
        resolved: Resolved | None,
        *,
        ahead: bool,
    ) -> None:
        """Let a request pass whose client has not left while it was decided about."""
        try:
            try:
                onward = body.onward_at_once() or await body.onward(ahead=ahead)
            except BaseException:
                self.runner.guard.runs.give_up(verdict.run)
                raise
            if onward is None:
                handled = HandledRequest(self.runner, verdict)
                handled.ran = False
                handled.left()
                await handled.conclude_async()
                return
            await self._carry_out(verdict, scope, onward, send, inner, resolved)
        finally:
            body.stop()

    def _carry_out(
        self,
        verdict: Verdict,
        scope: Scope,
        receive: Receive,
        send: Send,
        inner: Application,
        resolved: Resolved | None,
    ) -> Awaitable[None]:
        """Refuse, or run what passes; with the verdict, and for the gates on its way with what it was about."""
        if not verdict.passes:
            return refuse(scope, receive, send, verdict, render=self.runner.guard.render)
        came = None
        if resolved is not None and resolved.entered and verdict.outcome not in ("disabled", "observed"):
            admitted = AdmittedRequest(scope, resolved.entered)
            came, inner = admitted.close, functools.partial(admitted.run, inner)
        return self._run(verdict, scope, receive, send, inner, came)

    def _run(
        self,
        verdict: Verdict,
        scope: Scope,
        receive: Receive,
        send: Send,
        inner: Application,
        came: Callable[[], bool] | None = None,
    ) -> Awaitable[None]:
        """Run what passes, with the verdict."""
        # For whoever comes next.
        state = scope.setdefault("state", {})
        if isinstance(state, dict):
            state["ascend"] = verdict
        scope[VERDICT] = verdict
        if verdict.run is None:
            return inner(scope, receive, send)
        return passed(self.runner, verdict, scope, receive, send, came).run(inner, scope)

    def watch(self, scope: Scope, send: Send) -> Send:
        """Return a `send` that reports a success for which no guard decided anything, and in strict mode fails it.

        Of several of this governor, the first watches.
        """
        if scope.get("method") == "OPTIONS":
            return send  # what answers it is often a middleware
        watching = scope.get(_WATCHING)
        if watching is None:
            scope[_WATCHING] = self._alone
        elif self in watching:
            return send
        else:
            scope[_WATCHING] = (*watching, self)
        judged = scope[JUDGED] if JUDGED in scope else _judged(scope)

        return _Watched(self.runner, scope, send, judged)


class _Watched(msgspec.Struct, eq=False):
    """A `send` that is watched; one object, of which the garbage collector sees less than of a closure."""

    runner: AsyncRunner
    scope: Scope
    send: Send
    judged: list[str]

    # Every message comes through here, so that no coroutine of its own stands between.
    def __call__(self, message: Message) -> Awaitable[None]:
        """Send a message."""
        judged = self.judged
        if _UNDECIDED.issuperset(judged):  # of most requests, something else is known by now
            scope, kind = self.scope, message["type"]
            is_success = (kind == "http.response.start" and message["status"] < 300) or kind == "websocket.accept"
            if is_success and (guard := self.runner.guard).settings.enabled:
                why = "no route was found for it" if judged else "a middleware answered it before the guard saw it"
                judged.append("tripped")  # said once, however many watch
                name = f"{scope.get('method') or scope['type']!r} {scope['path'][:200]!r}"
                report_undecided(guard, logger, name, why)
        return self.send(message)


def _judged(scope: Scope) -> list[str]:
    """Return what the guards of a request came to: a list, because a middleware may hand on a copy of the scope."""
    known = judging.get()  # where one makes a scope of its own
    found: list[str] = [] if known is None else known
    scope[JUDGED] = found
    return found
