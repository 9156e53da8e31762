"""The scripted authority: what its script says, what it was asked, and what it answers."""

from __future__ import annotations

import itertools
import json
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NoReturn

from .. import substitute
from ..client import AscendClient, AsyncAscendClient
from ..client.http.transport import ConnectFailed, DeadlinePassed, Request, Response
from ..config import TEST_SCHEME
from ..exceptions import ConfigurationError
from .answers import NOW, UNSCRIPTED, Answer, Asked, Scripted, decided, error_response, json_response, read_request
from .clients import AsyncScriptedClient, AsyncScriptedEngine, ScriptedClient, ScriptedEngine, open_authorities

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

__all__ = ["ScriptedAuthority"]

_SUBMITS: Final = frozenset({"/api/v1/actions/submit", "/api/v1/mcp/actions/submit"})
# Nothing is left behind on a developer's machine, and no test sees what another one held.
_ENVIRONMENT: Final = {
    "ASCEND_AGENT_ID": "test-agent",
    "ASCEND_STATE": "memory:",
    "ASCEND_JOURNAL": "memory:",
    "ASCEND_KILL_SWITCH": "off",
}
# No test sends a developer's own key anywhere, or writes into what a service of the same machine reads.
_UNSET: Final = (
    "ASCEND_API_URL",
    "ASCEND_API_KEY",
    "ASCEND_KILL_FILE",
    "ASCEND_KILL_QUEUE_URL",
    "OWKAI_API_KEY",
    "OWKAI_API_URL",
)
_PARTS: Final = frozenset({"submit", "status", "outcome", "any"})


@dataclass(slots=True)
class _Line:
    """One line of the script: what is answered, to what, and how often."""

    answer: Answer
    part: str
    action_type: str | None
    left: int | None = None

    def fits(self, part: str, action_type: str) -> bool:
        return (
            self.left != 0
            and self.part in (part, "any")
            and (self.action_type is None or self.action_type == action_type)
        )


@dataclass(slots=True)
class _Held:
    approved: bool | None
    polls: int
    fields: dict[str, Any] = field(default_factory=dict)


class ScriptedAuthority:
    """Answers by a script, and remembers what it was asked; safe between threads.

    What nobody scripted is denied, so that a test says what it allows. Of several lines that fit a request, the one
    written last counts; a line with `times` is used up.

        with ScriptedAuthority() as authority:
            authority.approve()
            authority.hold("transaction", then="approve")
            client = authority.client()
            assert client.evaluate_action("transaction", "refund").is_approved()
            assert authority.asked[0].resource == "refund"

    Args:
        name: the rest of its URL, `test:<name>`, with which anything in this process finds it while it is open.

    Attributes:
        number: changes whenever it begins anew.
        asked: the submissions, in order.
        requests: every request, in order.
        outcomes: what was reported of each action, by its id: `completed` or `failed`.
        actions: each action as it stands, by its id.
        time: seconds that its own clients have waited.
    """

    _numbers: Final = itertools.count(1)

    def __init__(self, name: str | None = None) -> None:
        self.name: Final = name or f"authority-{next(self._numbers)}"
        self._lock: Final = threading.RLock()
        self.begin_anew()

    def begin_anew(self) -> None:
        """Forget the script, the actions and what was asked."""
        self.number = next(self._numbers)
        self.requests: list[Asked] = []
        self.asked: list[Asked] = []
        self.outcomes: dict[str, str] = {}
        self.time = 0.0
        self._script: list[_Line] = []
        self.actions: dict[str, dict[str, Any]] = {}
        self._held: dict[str, _Held] = {}
        self._killed: str | None = None

    def __enter__(self) -> Self:
        if self.name in open_authorities:
            raise ConfigurationError(f"there is already a scripted authority called {self.name!r}")
        open_authorities[self.name] = self
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        open_authorities.pop(self.name, None)

    @contextmanager
    def standing_in(self) -> Iterator[Self]:
        """Begin anew, and stand in for every authority of this process until the end of the `with` block.

        Guards ask this one, whenever they were made and whatever URL they were given, and know nothing of before.
        Clients ask it that take their URL from the environment.
        """
        environ = {name: os.environ.pop(name, None) for name in (*_ENVIRONMENT, *_UNSET)}
        outer = substitute.current
        self.begin_anew()
        with self:
            os.environ.update({"ASCEND_API_URL": self.api_url, **_ENVIRONMENT})
            substitute.current = inner = substitute.Substitute(f"{self.api_url}:{self.number}")
            try:
                yield self
            finally:
                for end in inner.at_end:
                    end()
                substitute.current = outer
                for name, value in environ.items():
                    if value is None:
                        os.environ.pop(name, None)
                    else:
                        os.environ[name] = value

    @property
    def api_url(self) -> str:
        """What to put into `ASCEND_API_URL` or `api_url`; found only in this process and while it is open."""
        return f"{TEST_SCHEME}:{self.name}"

    # --- the script

    def approve(self, action_type: str | None = None, *, times: int | None = None, **fields: Any) -> None:
        """Approve actions, of one type or of every.

        Args:
            action_type: which actions; every one when None.
            times: for how many actions; all when None.
            fields: go into the answer (`risk_score=5`).
        """
        self._write("submit", action_type, times, decided("approved", fields))

    def deny(
        self,
        action_type: str | None = None,
        *,
        reason: str = "denied by the test",
        times: int | None = None,
        **fields: Any,
    ) -> None:
        """Deny actions.

        Args:
            action_type: which actions; every one when None.
            reason: why, for the answer.
            times: for how many actions; all when None.
            fields: go into the answer (`risk_score=80`).
        """
        self._write("submit", action_type, times, decided("denied", {"reason": reason, **fields}))

    def hold(
        self,
        action_type: str | None = None,
        *,
        then: str | None = None,
        polls: int = 1,
        times: int | None = None,
        **fields: Any,
    ) -> None:
        """Hold actions for a person.

        Args:
            action_type: which; every one when None.
            then: `"approve"` or `"deny"`: what the person decides; None leaves it to `decide`.
            polls: which question about the action is the first to be answered with that decision.
            times: for how many actions; all when None.
            fields: go into the answer.
        """
        if then not in (None, "approve", "deny"):
            raise ValueError(f"then must be 'approve', 'deny' or None, not {then!r}")
        approved = None if then is None else then == "approve"

        def answer(authority: Scripted, asked: Asked, action: dict[str, Any] | None) -> Response:
            response = decided("pending", fields)(authority, asked, action)
            self._held[json.loads(response.content)["action_id"]] = _Held(approved, polls)
            return response

        self._write("submit", action_type, times, answer)

    def time_out(self, action_type: str | None = None, *, on: str = "submit", times: int | None = None) -> None:
        """Let deadlines pass, at once.

        Args:
            action_type: which actions; every one when None.
            on: `submit`, `status` (polls), `outcome` (reports) or `any`.
            times: for how many requests; all when None.
        """

        def answer(authority: Scripted, asked: Asked, action: dict[str, Any] | None) -> NoReturn:
            raise DeadlinePassed("the deadline passed before the authority answered")

        self._write(on, action_type, times, answer)

    def refuse_connections(
        self, action_type: str | None = None, *, on: str = "submit", times: int | None = None
    ) -> None:
        """Be unreachable.

        Args:
            action_type: which actions; every one when None.
            on: `submit`, `status` (polls), `outcome` (reports) or `any`.
            times: for how many requests; all when None.
        """

        def answer(authority: Scripted, asked: Asked, action: dict[str, Any] | None) -> NoReturn:
            raise ConnectFailed("no connection to the authority: refused by the test")

        self._write(on, action_type, times, answer)

    def fail(
        self,
        status: int = 500,
        action_type: str | None = None,
        *,
        code: str = "SCRIPTED",
        message: str = "failed by the test",
        headers: Mapping[str, str] | None = None,
        on: str = "submit",
        times: int | None = None,
    ) -> None:
        """Answer an HTTP error.

        Args:
            status: the HTTP status.
            action_type: which actions; every one when None.
            code: the error's code.
            message: the error's text.
            headers: of the answer; Retry-After is 0 where they have none, so that retries cost no time.
            on: `submit`, `status` (polls), `outcome` (reports) or `any`.
            times: for how many requests; all when None.
        """
        sent = {"retry-after": "0", **{name.lower(): value for name, value in (headers or {}).items()}}
        self._write(on, action_type, times, lambda *_: error_response(status, code, message, sent))

    def garbage(
        self,
        content: bytes = b"<html>It works!</html>",
        action_type: str | None = None,
        *,
        status: int = 200,
        on: str = "submit",
        times: int | None = None,
    ) -> None:
        """Answer something that is no decision.

        Args:
            content: the body.
            action_type: which actions; every one when None.
            status: the HTTP status.
            on: `submit`, `status` (polls), `outcome` (reports) or `any`.
            times: for how many requests; all when None.
        """
        self._write(on, action_type, times, lambda *_: Response(status, {}, content))

    def kill(self, reason: str = "killed by the test") -> None:
        """Block the agent, as the kill switch does, until `revive`.

        Args:
            reason: why, for the answer.
        """
        self._killed = reason

    def revive(self) -> None:
        """Lift `kill`."""
        self._killed = None

    def decide(self, action_id: str | int | None = None, *, approved: bool = True, by: str = "a person") -> None:
        """Decide about a held action.

        Args:
            action_id: which; the last one when None.
            approved: whether the person approves.
            by: who decides, for the answer.

        Raises:
            LookupError: there is no such action, or it is not held.
        """
        with self._lock:
            waiting = [known for known, action in self.actions.items() if action["status"] == "pending"]
            wanted = str(action_id) if action_id is not None else (waiting[-1] if waiting else "")
            if wanted not in waiting:
                raise LookupError(f"action {wanted or '(none)'} is not held; held: {', '.join(waiting) or 'none'}")
            self._settle(wanted, approved=approved, by=by)

    def _write(self, part: str, action_type: str | None, times: int | None, answer: Answer) -> None:
        if part not in _PARTS:
            raise ValueError(f"on must be one of {', '.join(sorted(_PARTS))}, not {part!r}")
        with self._lock:
            self._script.append(_Line(answer, part, action_type, times))

    # --- what to ask it with

    def client(self, **options: Any) -> AscendClient:
        """Return a blocking client of this authority; whatever it waits for, no time passes but `time`.

        Args:
            options: the arguments of `AscendClient`.
        """
        return ScriptedClient(self, options)

    def async_client(self, **options: Any) -> AsyncAscendClient:
        """Return a client for event loops; see `client`."""
        return AsyncScriptedClient(self, options)

    @property
    def engine(self) -> ScriptedEngine:
        """An engine object for `AscendClient(engine=…)`."""
        return ScriptedEngine(lambda: self)

    @property
    def async_engine(self) -> AsyncScriptedEngine:
        """An engine object for `AsyncAscendClient(engine=…)`."""
        return AsyncScriptedEngine(lambda: self)

    # --- answering

    def answer(self, request: Request) -> Response:
        """Answer one request; raises the `EngineError` that the script says.

        Args:
            request: as the engine was given it.
        """
        with self._lock:
            return self._answered(read_request(request, self.api_url))

    def _answered(self, asked: Asked) -> Response:
        self.requests.append(asked)
        parts = [part for part in asked.path.split("/") if part]
        if asked.path in _SUBMITS:
            self.asked.append(asked)
            if self._killed is not None:
                return error_response(403, "AGENT_BLOCKED", self._killed, {})
            line = self._line("submit", asked.action_type)
            return line.answer(self, asked, None) if line else decided("denied", UNSCRIPTED)(self, asked, None)
        if parts[:3] == ["api", "v1", "actions"] and len(parts) >= 4:
            return self._about(asked, self.actions.get(parts[3]))
        if parts[:2] == ["api", "agent-action"] and len(parts) == 4:
            return self._ended(asked, self.actions.get(parts[2]), parts[3])
        return self._other(asked)

    def _line(self, part: str, action_type: str) -> _Line | None:
        for line in reversed(self._script):
            if line.fits(part, action_type):
                if line.left is not None:
                    line.left -= 1
                return line
        return None

    def _about(self, asked: Asked, action: dict[str, Any] | None) -> Response:
        line = self._line("status", "" if action is None else action["action_type"])
        if line is not None:
            return line.answer(self, asked, action)
        if action is None:
            return error_response(404, "NOT_FOUND", "there is no such action", {})
        held = self._held.get(action["action_id"])
        if held is not None and held.approved is not None and action["status"] == "pending":
            held.polls -= 1
            if held.polls <= 0:
                self._settle(action["action_id"], approved=held.approved, by="a person")
        return json_response(200, action)

    def _settle(self, action_id: str, *, approved: bool, by: str) -> None:
        word = "approved" if approved else "denied"
        reason = f"{word} by {by}"
        self.actions[action_id].update(
            status=word,
            decision=word,
            execution_allowed=approved,
            success=approved,
            requires_approval=False,
            reason=reason,
            decided_by=by,
        )
        self.actions[action_id].pop("enforcement_decision", None)

    def _ended(self, asked: Asked, action: dict[str, Any] | None, word: str) -> Response:
        line = self._line("outcome", "" if action is None else action["action_type"])
        if line is not None:
            return line.answer(self, asked, action)
        if action is None or word not in ("complete", "fail"):
            return error_response(404, "NOT_FOUND", "there is no such action", {})
        if action["status"] != "approved":
            return error_response(409, "NOT_APPROVED", f"the action is {action['status']}", {})
        self.outcomes[action["action_id"]] = "completed" if word == "complete" else "failed"
        return json_response(200, {"success": True, "action_id": action["action_id"]})

    def _other(self, asked: Asked) -> Response:
        blocked = self._killed is not None
        if asked.path == "/health":
            return json_response(200, {"status": "healthy", "server_time": NOW})
        if asked.path == "/api/deployment-info":
            return json_response(200, {"version": "scripted", "environment": "test", "server_time": NOW})
        if asked.path == "/api/sdk/kill-switch/status":
            return json_response(
                200, {"blocked": blocked, "active": blocked, "is_active": blocked, "reason": self._killed}
            )
        if asked.method == "GET" and asked.path.endswith("/commands"):
            return json_response(200, {"commands": []})
        if asked.path == "/api/v1/actions":
            rows = list(self.actions.values())
            return json_response(
                200, {"actions": rows, "total": len(rows), "limit": len(rows), "offset": 0, "has_more": False}
            )
        return error_response(
            501, "NOT_SCRIPTED", f"the scripted authority does not serve {asked.method} {asked.path}", {}
        )
