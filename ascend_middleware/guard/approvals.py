"""Actions that a person decides about: kept under a handle, resumed by the same request, run once.

A handle is a random key of a row in the state, 256 bits: no row, no run. First the body is read,
for as long as the client takes. Then, in this order, come the kill switch, the current rules, the authority's current
status, the fingerprint, the expiry; then claim and journal entry in one atomic operation; then the handler runs.
"""

from __future__ import annotations

import functools
import re
import secrets
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

import msgspec

from ..exceptions import AscendError, NotFoundError
from ..flow import Blocking, BodyConsumed, BodyTimeout, BodyTooLarge
from ..state.base import Approval
from ..verdict import Refusal
from .approval_status import StatusQuery, StatusReport
from .failure import refusal_for
from .reading import declared_length, read_whole

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..api.models import AuthorizationDecision
    from ..client.core import ClientCore
    from ..config import Settings
    from ..flow import Flow
    from ..journal.journal import Journal
    from ..killswitch.switch import KillSwitch
    from ..rules import Method
    from ..state.base import State
    from .fingerprint import Binding
    from .request import RequestView

__all__ = ["HANDLE_HEADER", "MOST_GIVEN_BACK", "Approvals", "Asked", "Settled"]

HANDLE_HEADER: Final = "ascend-approval"
# How often an approval is given back; a handler that fails in the same way again and again is not run for ever.
MOST_GIVEN_BACK: Final = 3
_HANDLE = re.compile(r"[A-Za-z0-9_-]{43}", re.ASCII)
_encode: Final = msgspec.json.Encoder().encode


@dataclass(slots=True, kw_only=True)
class Asked:
    """A request that is about to be decided, as far as approvals are concerned.

    Attributes:
        binding: what an approval of it is bound to.
        content: its body, or None while that was not read.
        is_held: whether such a request is on hold already, of a caller who may be another one.
    """

    binding: Binding
    content: bytes | None
    is_held: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """What was decided about a request; exactly one of `refusal` and `decision` is there.

    Attributes:
        decision: the authority's word.
        runs: whether the handler runs: it is approved, and claimed where it was on hold.
        row: the row that it is about, if it was on hold.
        number: the journal's number of the claimed run.
        entry: what the journal keeps of it.
        refusal: why the handler does not run, where the decision does not say it.
    """

    decision: AuthorizationDecision | None = None
    runs: bool = False
    row: Approval | None = None
    number: int = 0
    entry: dict[str, Any] | None = None
    refusal: Refusal | None = None


class Approvals:
    """What is on hold, for one guard.

    Args:
        state: where the rows are.
        journal: whose numbers and process id go into claims; None where nothing is journalled.
        core: the client's flows.
        settings: `approval_expiry`, `approvals_path`, `poll_interval`.
        kill: its snapshot tells whether anything is on hold.
        blocked: tells why an agent may not act now.
        now: seconds since the epoch.
    """

    def __init__(
        self,
        state: State,
        journal: Journal | None,
        core: ClientCore,
        settings: Settings,
        kill: KillSwitch,
        *,
        blocked: Callable[[str], Flow[Refusal | None]],
        now: Callable[[], float],
        token: Callable[[], str] = lambda: secrets.token_urlsafe(32),
    ) -> None:
        self._state = state
        self._journal = journal
        self._core = core
        self._settings = settings
        self._kill = kill
        self._blocked = blocked
        self._now = now
        self._token = token
        self._asked_at: dict[str, float] = {}

    # --- what a request asks for

    def concern(self, view: RequestView) -> bool:
        """Whether anything may be on hold for a request: it names a handle, or something is on hold for somebody."""
        return HANDLE_HEADER in view.header_names or self._kill.snapshot.hints != frozenset()

    def begin(self, asked: Asked) -> Flow[Settled | None]:
        """Resume what the request's handle names, or share what an identical request has on hold.

        Returns:
            None when there is nothing, so that the action is to be submitted.

        Raises:
            StateError: the state cannot be used.
            ClientGone: the client left while its body was read.
        """
        given = asked.binding.view.header(HANDLE_HEADER)
        if given:
            if len(given) != 1:
                return Settled(refusal=Refusal(problem="bad-request", detail="There is more than one approval handle."))
            return (yield from self._resume(asked, given[0].strip()))
        hints = self._kill.snapshot.hints
        if hints is not None and (not hints or asked.binding.hint not in hints):
            return None
        asked.is_held = True
        if asked.binding.caller is None:
            return None  # whose that is, nobody can tell; this one has an action of its own
        view = asked.binding.view
        unknown = asked.content is None and declared_length(view) is None and view.header("transfer-encoding")
        if unknown and asked.binding.rule.on_failure != "open":
            # A stream of unknown length stays one; should it be pending, it finds its row afterwards. Not so where it
            # might pass without an answer: what is known to be pending or denied is no failure.
            return None
        body = yield from self._body(asked)
        if isinstance(body, Settled):
            return body
        if body is None:
            return None
        row = yield self._blocking(self._state.find_open, asked.binding.sharing(body), now=self._now())
        return None if row is None else (yield from self._continue(asked, row))

    def hold(self, asked: Asked, decision: AuthorizationDecision) -> Flow[Settled]:
        """Keep a pending action, or find the one that an identical request has on hold already.

        Raises: as `begin`.
        """
        body = yield from self._body(asked)
        if isinstance(body, Settled):
            return body
        if body is None:
            # Nothing that large is bound to an approval, so there is nothing to resume.
            return Settled(decision=decision)
        now = self._now()
        binding, handle = asked.binding, self._token()
        row = Approval(
            handle=handle,
            action_id=decision.action_id,
            fingerprint=binding.fingerprint(body),
            sharing=binding.sharing(body, handle=handle),
            hint=binding.hint,
            agent_id=binding.agent.id,
            rule=binding.rule.label,
            created_at=now,
            expires_at=min(now + self._settings.approval_expiry, _expiry(decision) or float("inf")),
        )
        for _ in range(2):
            # The time of now: what `_continue` let go of has ended since the row was made.
            kept = yield self._blocking(self._state.hold, row, now=self._now())
            self._kill.expire()  # its snapshot lists what is on hold
            if kept.handle == row.handle:
                break
            found = yield from self._continue(asked, kept)
            if found is not None:
                return found
        return Settled(decision=decision, row=row)

    def _continue(self, asked: Asked, row: Approval) -> Flow[Settled | None]:
        """Say how it stands with an action that an identical request has on hold; None when it is no longer known."""
        if row.status == "denied":
            return Settled(refusal=_denied(row.reason), row=row)
        try:
            decision = yield from self._status(row)
        except NotFoundError:
            yield self._blocking(self._state.drop, row.handle, now=self._now())
            return None
        except AscendError as error:
            refusal = refusal_for(error)
            return Settled(refusal=refusal, row=row)
        yield from self.note(row, decision)
        return Settled(decision=decision, row=row)

    def _resume(self, asked: Asked, handle: str) -> Flow[Settled]:
        row = None
        if _HANDLE.fullmatch(handle):
            row = yield self._blocking(self._state.find, handle)
        if row is None:
            return Settled(refusal=_mismatch("There is no such approval."))
        body = yield from self._body(asked)
        if isinstance(body, Settled):
            return body
        if body is None:
            limit = asked.binding.rule.body_limit
            return Settled(
                refusal=Refusal(problem="body-too-large", detail=f"A governed body holds at most {limit} bytes.")
            )
        decision = None
        if not row.claimed_by and row.status != "denied":
            try:
                decision = yield from self._status(row)
            except NotFoundError:
                return Settled(refusal=_denied("the authority no longer knows the action"))
            except AscendError as error:
                # Known to be pending: nothing opens it but the authority's own word.
                refusal = refusal_for(error)
                return Settled(refusal=refusal)
            yield from self.note(row, decision)
        if not secrets.compare_digest(row.fingerprint, asked.binding.fingerprint(body)):
            return Settled(refusal=_mismatch("The approval is for another request."))
        if row.claimed_by:
            return Settled(refusal=_used(row), row=row)
        if row.expires_at <= self._now():
            return Settled(refusal=_denied("the approval has expired"), row=row)
        if decision is None:
            return Settled(refusal=_denied(row.reason), row=row)
        return Settled(decision=decision, row=row)

    def note(self, row: Approval, decision: AuthorizationDecision) -> Flow[None]:
        """Keep the authority's word on a row, unless it is still pending."""
        if decision.is_pending():
            return
        status = "approved" if decision.is_approved() else "denied"
        if status != row.status:
            yield self._blocking(self._state.note, row.handle, status=status, reason=decision.reason or "")

    # --- the one run

    def claim(self, settled: Settled) -> Flow[Settled]:
        """Claim an approved row for this request; the journal's entry is kept with the claim.

        Returns:
            The same with `number` and `entry`, or a refusal, because the one run was somebody else's.

        Raises:
            StateError: the state cannot be used.
            JournalError: there is no journal to write the run to.
        """
        row, decision = settled.row, settled.decision
        assert row is not None  # noqa: S101 - the caller checks
        assert decision is not None  # noqa: S101 - likewise
        process, number = "", 0
        if self._journal is not None:
            # Opened before, so that the lock is there whose release proves this process's death.
            _ = self._journal.log
            process, number = self._journal.process, self._journal.next_number()
        entry = {"id": row.action_id, "how": "approval", "rule": row.rule, "agent": row.agent_id}
        token = secrets.token_hex(8)

        def given_back(claimed: Approval | None) -> None:
            # The client left while the claim was under way: nothing ran.
            ours = claimed is not None and claimed.claimed_by == token
            if ours and not self._state.give_back(row.handle, by=token, most=MOST_GIVEN_BACK):
                self._state.settle(row.handle, outcome="failed")

        claimed = yield self._blocking(
            self._state.claim,
            row.handle,
            abandon=given_back,
            by=token,
            process=process,
            entry=_encode({"n": number, **entry}).decode(),
            now=self._now(),
        )
        if claimed is None:
            return Settled(refusal=_mismatch("There is no such approval."))
        if claimed.claimed_by != token:
            refusal = _used(claimed) if claimed.claimed_by else _denied(claimed.reason or "the approval has expired")
            return Settled(refusal=refusal, row=claimed)
        return Settled(decision=decision, runs=True, row=claimed, number=number, entry=entry)

    def settle(self, handle: str, *, outcome: str) -> Blocking:
        """Return the step that records what became of a run."""
        return self._blocking(self._state.settle, handle, outcome=outcome)

    def give_back(self, handle: str, claim: str) -> Blocking:
        """Return the step that lets an approval be used again whose action did not happen.

        Its result is how often that was done so far; 0 where it stays used, because that was often enough.
        """
        return self._blocking(self._state.give_back, handle, by=claim, most=MOST_GIVEN_BACK)

    # --- the status URL

    def query(self, method: Method, path: str) -> StatusQuery | None:
        """Return what the status URL is asked for, or None for any other path."""
        prefix = self._settings.approvals_path
        if not path.startswith(prefix) or path[len(prefix) : len(prefix) + 1] != "/" or method not in ("GET", "HEAD"):
            return None
        return StatusQuery(path[len(prefix) + 1 :])

    def report(self, query: StatusQuery) -> Flow[StatusReport]:
        """Tell the state of an approval: `pending`, `approved`, `denied`, `expired`, `used`, `unknown`.

        Raises:
            StateError: the state cannot be used.
        """
        row = None
        if _HANDLE.fullmatch(query.handle):
            row = yield self._blocking(self._state.find, query.handle)
        if row is None:
            return StatusReport(problem="approval-status", detail="", state="unknown", status=404)
        if row.claimed_by:
            return StatusReport(problem="approval-status", detail="", state="used")
        if row.status == "denied":
            return StatusReport(problem="approval-status", detail="", state="denied")
        if row.expires_at <= self._now():
            return StatusReport(problem="approval-status", detail="", state="expired")
        status = yield from self._asked(row)
        pause = self._settings.poll_interval if status == "pending" else None
        return StatusReport(problem="approval-status", detail="", state=status, retry_after=pause)

    def _asked(self, row: Approval) -> Flow[str]:
        """Return the authority's word on a row, asked for at most once in a poll interval."""
        clock = self._core.clock()
        if clock - self._asked_at.get(row.key, -1e9) < self._settings.poll_interval:
            return row.status
        if len(self._asked_at) > 1000:
            self._asked_at.clear()
        self._asked_at[row.key] = clock
        try:
            decision = yield from self._status(row)
        except AscendError:
            return row.status
        yield from self.note(row, decision)
        return "pending" if decision.is_pending() else "approved" if decision.is_approved() else "denied"

    # --- parts

    def _status(self, row: Approval) -> Flow[AuthorizationDecision]:
        """Ask the authority, whose time counts from now on: what the client took its time for does not count."""
        deadline = self._core.clock() + self._settings.deadline
        return self._core.status(row.action_id, deadline=deadline, agent=row.agent_id)

    def offer(self, row: Approval, prefix: str) -> dict[str, Any]:
        """Return what a problem body says about a row that its client may resume."""
        return {
            "handle": row.handle,
            "state": row.status,
            "status_url": f"{prefix}{self._settings.approvals_path}/{row.handle}",
            "expires_in": max(0, int(row.expires_at - self._now())),
        }

    def _body(self, asked: Asked) -> Flow[bytes | Settled | None]:
        """Return the body, None if it cannot be bound (too large, used up), or why the request is refused."""
        if asked.content is None:
            binding = asked.binding
            try:
                asked.content = yield from read_whole(binding.view, binding.rule.body_limit, binding.rule.body_timeout)
            except (BodyTooLarge, BodyConsumed):
                return None
            except BodyTimeout:
                detail = f"The body did not arrive within {binding.rule.body_timeout:g} seconds."
                return Settled(refusal=Refusal(problem="body-timeout", detail=detail))
            except ValueError as error:
                return Settled(refusal=Refusal(problem="bad-request", detail=str(error)))
            # How long that took was the client's to say.
            stopped = yield from self._blocked(binding.agent.id)
            if stopped is not None:
                return Settled(refusal=stopped)
        return asked.content

    def _blocking(
        self, function: Callable[..., Any], *arguments: Any, abandon: Callable[[Any], Any] | None = None, **named: Any
    ) -> Blocking:
        call = functools.partial(function, **named)
        return Blocking(call, arguments, inline=not self._state.blocks, abandon=abandon)


def _mismatch(detail: str) -> Refusal:
    return Refusal(problem="approval-mismatch", detail=detail)


def _used(row: Approval) -> Refusal:
    outcome = row.outcome or "unknown"
    return Refusal(
        problem="approval-used", detail="The approval was used; it is good for one run.", extra={"outcome": outcome}
    )


def _denied(reason: str) -> Refusal:
    extra = {"reason": reason} if reason else {}
    return Refusal(problem="denied", detail=reason or "The authority denied it.", extra=extra)


def _expiry(decision: AuthorizationDecision) -> float | None:
    """Return when the authority lets the pending action expire, if it says so."""
    value = decision.get("expires_at")
    try:
        return datetime.fromisoformat(value).timestamp() if isinstance(value, str) else None
    except (ValueError, OverflowError):
        return None
