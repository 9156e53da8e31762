"""Actions that a person decides about: kept under a handle, resumed by the same request, run once.

A handle is a random key of a row in the state, 256 bits: no row, no run. First the body is read,
for as long as the client takes. Then, in this order, come the kill switch, the current rules, the authority's current
status, the fingerprint, the expiry; then claim and journal entry in one atomic operation (see `runs`); then the
handler runs.
"""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from ..exceptions import AscendError, NotFoundError
from ..flow import BodyConsumed, ClientGone, Watch
from ..killswitch.switch import unavailable_state
from ..state.base import Approval, StateError, step
from ..verdict import UNCONDITIONAL, Refusal, Verdict
from .fingerprint import CREDENTIALS, Binding, tenant_of
from .firewall import Unreadable, declared_length, read_whole
from .refusals import refusal_for
from .request import HANDLE_HEADER

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..api.models import AuthorizationDecision
    from ..client.core import ClientCore
    from ..config import Settings
    from ..flow import Flow
    from ..killswitch.switch import KillSwitch
    from ..rules import CompiledRule
    from ..state.base import State
    from .plan import Case
    from .request import RequestView

__all__ = ["Approvals", "Settled", "denied", "expiry_of", "mismatch", "used"]

_HANDLE = re.compile(r"[A-Za-z0-9_-]{43}", re.ASCII)


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
        reuse: `cached` or `coalesced`, where the decision was made about another request.
    """

    decision: AuthorizationDecision | None = None
    runs: bool = False
    row: Approval | None = None
    number: int = 0
    entry: dict[str, Any] | None = None
    refusal: Refusal | None = None
    reuse: str | None = None


class Approvals:
    """What is on hold, for one guard.

    Attributes:
        waiters: how many requests are held now, until a person has decided; beyond `max_waiters`, none is.
    """

    def __init__(
        self,
        state: State,
        core: ClientCore,
        settings: Settings,
        kill: KillSwitch,
        table: str,
        *,
        random: Callable[[], float],
    ) -> None:
        self.waiters = 0
        self._state = state
        self._core = core
        self._settings = settings
        self._kill = kill
        self._table = table  # the version of the rules
        self._tenant = tenant_of(settings)
        self._credentials = (*CREDENTIALS, *settings.principal_headers)
        self._now = core.now
        self._random = random
        self._asked_at: dict[str, float] = {}

    # --- what a request asks for

    def begin(self, case: Case) -> Flow[Settled | None]:
        """Resume what the request's handle names, or share what an identical one has on hold; None where nothing is."""
        view, binding = case.view, self._binding(case)
        given = view.header(HANDLE_HEADER)
        if given:
            if len(given) != 1:
                return Settled(refusal=Refusal(problem="bad-request", detail="There is more than one approval handle."))
            return (yield from self._resume(case, given[0].strip()))
        hints = self._kill.snapshot.hints
        if hints is not None and (not hints or binding.hint not in hints):
            return None
        case.is_held = True
        if binding.caller is None:
            return None  # whose that is, nobody can tell; this one has an action of its own
        unknown = case.content is None and declared_length(view) is None and view.header("transfer-encoding")
        if unknown and case.rule.on_failure != "open":
            # A stream of unknown length stays one; should it be pending, it finds its row afterwards. Not so where it
            # might pass without an answer: what is known to be pending or denied is no failure.
            return None
        body = yield from self.body(case)
        if not isinstance(body, bytes):
            return body
        row = yield step(self._state, self._state.find_open, binding.sharing(body), now=self._now())
        return None if row is None else (yield from self._continue(case, row))

    def hold(self, case: Case, decision: AuthorizationDecision) -> Flow[Settled]:
        """Keep a pending action, or find the one that an identical request has on hold already."""
        binding, handle = self._binding(case), secrets.token_urlsafe(32)
        body = yield from self.body(case)
        if not isinstance(body, bytes):
            # Nothing that large is bound to an approval, so there is nothing to resume.
            return body or Settled(decision=decision)
        now = self._now()
        row = Approval(
            handle=handle,
            action_id=decision.action_id,
            fingerprint=binding.fingerprint(body),
            sharing=binding.sharing(body, handle=handle),
            hint=binding.hint,
            agent_id=case.agent.id,
            rule=case.rule.label,
            created_at=now,
            expires_at=min(now + self._settings.approval_expiry, expiry_of(decision) or float("inf")),
        )
        for _ in range(2):
            # The time of now: what `_continue` let go of has ended since the row was made.
            kept = yield step(self._state, self._state.hold, row, now=self._now())
            self._kill.expire()  # its snapshot lists what is on hold
            if kept.handle == row.handle:
                break
            found = yield from self._continue(case, kept)
            if found is not None:
                return found
        return Settled(decision=decision, row=row)

    def _continue(self, case: Case, row: Approval) -> Flow[Settled | None]:
        """Say how an action on hold stands; None when it is no longer known."""
        if row.status == "denied":
            return Settled(refusal=denied(row.reason), row=row)
        found = yield from self._heard(row)
        if found is None:
            yield step(self._state, self._state.drop, row.handle, now=self._now())
            return None
        return Settled(refusal=found, row=row) if isinstance(found, Refusal) else Settled(decision=found, row=row)

    def _resume(self, case: Case, handle: str) -> Flow[Settled]:
        row = yield from self._find(handle)
        if row is None:
            return Settled(refusal=mismatch("There is no such approval."))
        body = yield from self.body(case)
        if not isinstance(body, bytes):
            detail = f"A governed body holds at most {case.rule.body_limit} bytes."
            return body or Settled(refusal=Refusal(problem="body-too-large", detail=detail))
        decision = None
        if not row.claimed_by and row.status != "denied":
            found = yield from self._heard(row)
            if found is None or isinstance(found, Refusal):
                # Known to be pending: nothing opens it but the authority's own word.
                return Settled(refusal=found or denied("the authority no longer knows the action"))
            decision = found
        if not secrets.compare_digest(row.fingerprint, self._binding(case).fingerprint(body)):
            return Settled(refusal=mismatch("The approval is for another request."))
        if row.claimed_by:
            return Settled(refusal=used(row), row=row)
        if row.expires_at <= self._now():
            return Settled(refusal=denied("the approval has expired"), row=row)
        if decision is None:
            return Settled(refusal=denied(row.reason), row=row)
        return Settled(decision=decision, row=row)

    def _binding(self, case: Case) -> Binding:
        if case.binding is None:
            case.binding = self.bind(case)
        return case.binding

    def bind(self, case: Case) -> Binding:
        """Return the request with what it is told apart by; not kept with the case, as that of an approval is."""
        return Binding(
            view=case.view,
            rule=case.rule,
            agent=case.agent,
            table=self._table,
            tenant=self._tenant,
            params=case.params,
            credentials=self._credentials,
            single_caller=self._settings.single_caller,
        )

    def _find(self, handle: str) -> Flow[Approval | None]:
        return (yield step(self._state, self._state.find, handle)) if _HANDLE.fullmatch(handle) else None

    def body(self, case: Case) -> Flow[bytes | Settled | None]:
        """Return the body, None if it cannot be bound, or why the request is refused."""
        if case.content is None:
            try:
                case.content = yield from read_whole(case.view, case.rule)
            except BodyConsumed:
                return None
            except Unreadable as error:
                return None if error.refusal.problem == "body-too-large" else Settled(refusal=error.refusal)
            # How long that took was the client's to say.
            stopped = yield from self._kill.blocked(case.agent.id)
            if stopped is not None:
                return Settled(refusal=stopped)
        return case.content

    # --- until a person has decided

    def wait(
        self, decision: AuthorizationDecision, row: Approval | None, rule: CompiledRule, agent_id: str
    ) -> Flow[AuthorizationDecision | Refusal]:
        """Poll until a person has decided, time is up, or agent or client are gone."""
        if self.waiters >= self._settings.max_waiters:
            return decision
        clock = self._core.clock
        self.waiters += 1
        try:
            until = clock() + rule.pending.seconds
            while decision.is_pending():
                left = until - clock()
                if left <= 0:
                    break
                # Jitter keeps many waiters from asking in step.
                pause = min(left, self._settings.poll_interval * (0.5 + self._random() / 2))
                while pause > 0:
                    if (yield Watch(min(pause, 0.5))):
                        raise ClientGone
                    pause -= 0.5
                    stopped = yield from self._kill.blocked(agent_id)
                    if stopped is not None:
                        return stopped
                seconds = min(self._settings.deadline, max(left, 0.5))
                try:
                    decision = yield from self._core.status(
                        decision.action_id, deadline=clock() + seconds, agent=agent_id
                    )
                except AscendError as error:
                    # A known pending action stays pending, whatever becomes of one poll; a kill ends the wait.
                    refusal = refusal_for(error)
                    if refusal.problem in UNCONDITIONAL or refusal.problem == "misconfigured":
                        return refusal
        finally:
            self.waiters -= 1
        if row is not None:
            yield from self._note(row, decision)
        return decision

    def _heard(self, row: Approval) -> Flow[AuthorizationDecision | Refusal | None]:
        """Return the authority's word, None where it has forgotten the action, or a refusal.

        Its time counts from now on: what the client took its time for does not count.
        """
        deadline = self._core.clock() + self._settings.deadline
        try:
            decision = yield from self._core.status(row.action_id, deadline=deadline, agent=row.agent_id)
        except NotFoundError:
            return None
        except AscendError as error:
            return refusal_for(error)
        yield from self._note(row, decision)
        return decision

    def _note(self, row: Approval, decision: AuthorizationDecision) -> Flow[None]:
        """Keep the authority's word on a row, unless it is still pending."""
        status = _word(decision)
        if status not in ("pending", row.status):
            yield step(self._state, self._state.note, row.handle, status=status, reason=decision.reason or "")

    # --- what the client is told

    def tell(self, handle: str) -> Flow[Verdict]:
        """Return the answer to a request for the status URL of a handle."""
        try:
            report = yield from self.report(handle)
        except StateError:
            report = unavailable_state()
        return Verdict(outcome="approval-status", passes=False, refusal=report)

    def report(self, handle: str) -> Flow[Refusal]:
        """Answer the status URL of a handle: `pending`, `approved`, `denied`, `expired`, `used`, `unknown`."""
        row = yield from self._find(handle)
        if row is None:
            return Refusal(problem="approval-status", detail="", report={"state": "unknown"}, status=404)
        if row.claimed_by:
            state = "used"
        elif row.status == "denied":
            state = "denied"
        elif row.expires_at <= self._now():
            state = "expired"
        else:
            state = yield from self._current(row)
        pause = self._settings.poll_interval if state == "pending" else None
        return Refusal(problem="approval-status", detail="", report={"state": state}, retry_after=pause)

    def _current(self, row: Approval) -> Flow[str]:
        """Return the authority's word on a row, asked for at most once in a poll interval."""
        clock = self._core.clock()
        if clock - self._asked_at.get(row.key, -1e9) < self._settings.poll_interval:
            return row.status
        if len(self._asked_at) > 1000:
            self._asked_at.clear()
        self._asked_at[row.key] = clock
        found = yield from self._heard(row)
        return row.status if found is None or isinstance(found, Refusal) else _word(found)

    def refusal_of(self, settled: Settled, view: RequestView) -> Refusal:
        """Return the refusal for what was decided; for an approval that waits for its handle, too."""
        if settled.refusal is not None:
            return settled.refusal
        decision, row = settled.decision, settled.row
        assert decision is not None  # noqa: S101 - one of the two is there
        extra: dict[str, Any] = {"reason": decision.reason} if decision.reason else {}
        if self._settings.expose_risk and decision.risk_score is not None:
            extra["risk_score"] = decision.risk_score
        if decision.status == "requires_modification":
            extra["conditions"] = decision.conditions
            return Refusal(problem="modification-required", detail=decision.reason or "See conditions.", extra=extra)
        if not (decision.is_pending() or decision.is_approved()):
            return Refusal(problem="denied", detail=decision.reason or "The authority denied it.", extra=extra)
        detail = "A person has to approve this action"
        headers: tuple[tuple[str, str], ...] = ()
        if row is None:
            detail += "; the request is too large to be resumed under an approval."
        else:
            detail += "; once it is approved, repeat the request with the header Ascend-Approval."
            url = f"{view.prefix}{self._settings.approvals_path}/{row.handle}"
            extra["approval"] = {
                "handle": row.handle,
                "state": _word(decision),
                "status_url": url,
                "expires_in": max(0, int(row.expires_at - self._now())),
            }
            headers = ((HANDLE_HEADER, row.handle), ("location", url))
        return Refusal(
            problem="approval-required",
            detail=detail,
            retry_after=max(1.0, self._settings.poll_interval),
            extra={**extra, "executed": False},
            status=202 if self._settings.respond_async or _prefers_async(view) else None,
            headers=headers,
        )


def mismatch(detail: str) -> Refusal:
    """Return the refusal of a handle that is not for this request."""
    return Refusal(problem="approval-mismatch", detail=detail)


def used(row: Approval) -> Refusal:
    """Return the refusal of a second use."""
    detail, outcome = "The approval was used; it is good for one run.", row.outcome or "unknown"
    return Refusal(problem="approval-used", detail=detail, extra={"outcome": outcome})


def denied(reason: str) -> Refusal:
    """Return the refusal of what was on hold and is denied, or over."""
    extra = {"reason": reason} if reason else {}
    return Refusal(problem="denied", detail=reason or "The authority denied it.", extra=extra)


def _word(decision: AuthorizationDecision) -> str:
    return "pending" if decision.is_pending() else "approved" if decision.is_approved() else "denied"


def expiry_of(decision: AuthorizationDecision) -> float | None:
    """Return until when the authority lets a decision count, if it says so."""
    value = decision.get("expires_at")
    try:
        return datetime.fromisoformat(value).timestamp() if isinstance(value, str) else None
    except (ValueError, OverflowError):
        return None


def _prefers_async(view: RequestView) -> bool:
    preferences = (
        part.partition(";")[0].strip().lower() for value in view.header("prefer") for part in value.split(",")
    )
    return "respond-async" in preferences
