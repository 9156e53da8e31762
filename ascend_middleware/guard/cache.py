"""Decisions that are used for several requests: an allow kept for a while, and one call for who asks at the same time.

Only where a rule says so, for GET and HEAD, and only between requests that nothing tells apart: agent, principal or
credentials, rule and table, target, the headers that the rule reads, and the body (`Binding.exact`). What is kept is
what the authority allowed by itself; nothing that is denied, pending, or was decided by a person. It ends with its
time, and at once when the kill switch orders anything else, when the authority's policies are known to be others, or
when the authority does not know our key any more. Each use has a journal entry of its own, and the authority is told.
"""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING, Any, Final

import msgspec

from ..api.models import AgentAction, AuthorizationDecision
from ..flow import Shared
from ..fork import ProcessLock, known_id, process_id
from ..masking import get_logger
from ..rules import READING
from ..verdict import Verdict
from .approvals import Settled, expiry_of
from .plan import Ticket
from .recall import Recall

if TYPE_CHECKING:
    from ..client.core import ClientCore
    from ..config import Settings
    from ..flow import Flow
    from ..journal.journal import Journal
    from ..journal.lines import Begun
    from ..killswitch.switch import KillSwitch
    from ..routing import Known
    from ..rules import CompiledRule
    from ..verdict import Run
    from .approvals import Approvals
    from .plan import Case
    from .request import Came

__all__ = ["Reuse"]

logger = get_logger("ascend_middleware.guard")

_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder(dict[str, Any]).decode
_decode_action: Final = msgspec.json.Decoder(AgentAction).decode
_set: Final = msgspec.structs.force_setattr
# Bytes of a decision with its action: callers choose what their requests hold, and must not fill the memory.
_LARGEST: Final = 8192
# By these an answer tells of a person, or of what has to hold before its permission may be used.
_NOT_ALONE: Final = ("approval_request_id", "approved_by", "decided_by", "conditions")


class _Kept(msgspec.Struct, eq=False):
    """A decision and its action, as texts: what an application writes into one, the next does not see.

    It counts `until` then; one that is let go counts no longer for whoever found it before, either.
    """

    known: AuthorizationDecision
    fields: bytes
    action: bytes
    until: float
    generation: int

    def decision(self) -> AuthorizationDecision:
        """Return the decision for one request."""
        return _copy(self.fields, self.known)

    def verdict(self, rule: CompiledRule, run: Run | None) -> Verdict:
        """Return the verdict for one request, whose decision and action are decoded when somebody asks for them."""
        return _KeptVerdict(outcome="allowed", passes=True, rule=rule, run=run, reuse="cached", kept=self)


class _KeptVerdict(Verdict, frozen=True, kw_only=True, eq=False):
    kept: _Kept
    _decision: AuthorizationDecision | None = None
    _action: AgentAction | None = None

    @property  # type: ignore[misc]  # in the place of the field, which stays empty
    def action(self) -> AgentAction:
        """What was submitted, one object for each request."""
        if self._action is None:
            _set(self, "_action", _decode_action(self.kept.action))
        return self._action  # type: ignore[return-value]  # was set

    @property  # type: ignore[misc]  # likewise
    def decision(self) -> AuthorizationDecision:
        """What the authority answered, one object for each request."""
        if self._decision is None:
            _set(self, "_decision", self.kept.decision())
        return self._decision  # type: ignore[return-value]  # was set

    @property
    def action_id(self) -> str:
        """The action's id at the authority."""
        return self.kept.known.action_id


class Reuse:
    """The decisions of one guard, in one process, that may be used for several requests."""

    def __init__(
        self, core: ClientCore, kill: KillSwitch, settings: Settings, approvals: Approvals, journal: Journal | None
    ) -> None:
        self._core: Final = core
        self._kill: Final = kill
        self._most: Final = settings.cache_entries
        self._approvals: Final = approvals
        # Without a journal, or without reports, no use of a decision would be told.
        self._journal: Final = journal if settings.report_outcomes else None
        self._passes_full: Final = settings.journal_full == "pass"
        self._kept: dict[bytes, _Kept] = {}
        self._again: Final[Recall[tuple[_Kept, CompiledRule, Begun]]] = Recall(settings.cache_entries)
        # What the requests of a rule have in common, by whether a principal is known.
        self._rules: dict[tuple[CompiledRule, bool], tuple[bytes, frozenset[str]]] = {}
        self._lock: Final = ProcessLock()
        self._seen: tuple[object, ...] = ()
        self._generation = 0
        self._is_told = False

    @property
    def entries(self) -> int:
        """How many decisions are kept now."""
        return len(self._kept)

    # --- what identifies a request

    def ticket(self, case: Case) -> Ticket | None:
        """Return what a request shares decisions under; None for one that shares none, or whose body may be unread."""
        if case.view.method not in READING or self._is_untold():
            return None
        if case.content is None and case.view.may_have_body:
            return None
        binding, kind = self._approvals.bind(case), (case.rule, case.agent.principal is None)
        try:
            known = self._rules.get(kind)
            if known is None:
                known = self._rules[kind] = binding.ruled(), binding.telling()
            key = binding.exact(*known, case.content or b"")
        except ValueError:
            return None
        return Ticket(key, self._current(), self._core.clock())

    def _is_untold(self) -> bool:
        """Say whether a use might not be in the journal: it would be told to nobody."""
        journal = self._journal
        return journal is None or (journal.limits.when_full == "pass" and journal.is_full)

    def prepare(self, case: Case) -> Flow[Settled | None]:
        """Find out what the request shares decisions under, with its body if it has one; or say why it is refused."""
        if case.ticket is None:
            if case.content is None and case.view.may_have_body:
                body = yield from self._approvals.body(case)
                if not isinstance(body, bytes):
                    return body
            case.ticket = self.ticket(case)
        return None

    def _basis(self) -> tuple[object, ...]:
        """Return what decisions depend on; what was kept under something else is no decision any more."""
        core = self._core
        # A forked child keeps nothing of its parent: each process tells of its own decisions.
        return core.policy_state, self._kill.changes, core.key_refused, known_id[0] or process_id()

    def _current(self) -> int:
        """Return the present generation; what is kept of an earlier one is forgotten."""
        now = self._basis()
        if now != self._seen:
            with self._lock:
                # The first word of the policies is no change of them.
                if self._seen and not (self._seen[0] is None and self._seen[1:] == now[1:]):
                    self._generation += 1
                    self._kept.clear()
                    self._again.forget()
                self._seen = now
        return self._generation

    # --- what is kept

    def find(self, ticket: Ticket) -> _Kept | None:
        """Return what an identical request was allowed by, if it may be used still."""
        kept = self._kept.get(ticket.key)
        if kept is None or self._core.key_refused:
            return None
        if ticket.began >= kept.until:
            self._kept.pop(ticket.key, None)
            return None
        return kept

    def recall(self, known: Known, came: Came) -> tuple[_Kept, CompiledRule, Begun] | None:
        """Return what `find` would find for an ordinary request that came before, its rule, and its journal entry."""
        found = self._again.find(known, came)
        if found is None:
            return None
        kept, core = found[0], self._core
        if kept.generation != self._generation or core.clock() >= kept.until or self._basis() != self._seen:
            return None
        return None if core.key_refused or (self._passes_full and self._is_untold()) else found

    def remember(self, case: Case, kept: _Kept) -> None:
        """Let `recall` find what was found for a request, where all that tells such requests apart is known."""
        view, resolved = case.view, case.view.resolved
        came, known = view.came, None if resolved is None or resolved.entered else resolved.known
        if came is not None and known is not None and view.is_ordinary and case.agent.principal is None:
            _, telling = self._rules[case.rule, True]
            self._again.keep(case.rule, known, came, telling, (kept, case.rule, case.plan.cached_entry))

    def keep(self, case: Case, decision: AuthorizationDecision) -> None:
        """Keep what the authority answered about a request, if its rule says so and if it may be used again."""
        ticket, seconds = case.ticket, case.rule.cache
        if ticket is None or not decision.is_approved():
            return
        if not self._takes_uses(case.rule) or not seconds or not _stands_alone(decision):
            return
        until = ticket.began + seconds
        if decision.get("expires_at") is not None:
            ends = expiry_of(decision)
            # What cannot be read may be over already.
            until = -math.inf if ends is None else min(until, self._core.clock() + ends - self._core.now())
        if until <= self._core.clock() or self._current() != ticket.generation:
            return
        fields, action = _encode(decision), _encode(case.action)
        if len(fields) + len(action) > _LARGEST:
            return
        with self._lock:
            if self._generation == ticket.generation:
                self._let_go(ticket.key)
                while len(self._kept) >= self._most:
                    self._let_go(next(iter(self._kept)))  # the oldest
                self._kept[ticket.key] = _Kept(_copy(fields, decision), fields, action, until, ticket.generation)

    def _let_go(self, key: bytes) -> None:
        kept = self._kept.pop(key, None)
        if kept is not None:
            kept.until = -math.inf  # for `recall`, which finds it under something else

    def _takes_uses(self, rule: CompiledRule) -> bool:
        """Say whether the authority takes reports of uses, once it has answered; and once, if it does not."""
        if self._core.policy_state:
            return True
        self._core.policy_state = ""
        if not self._is_told:
            self._is_told = True
            logger.warning(
                "%s says cache or coalesce, and the authority takes no reports of uses: each request is asked about",
                rule.label,
            )
        return False

    # --- what is decided

    def settle(self, case: Case, deadline: float) -> Flow[Settled | None]:
        """Use what is kept, or ask together with others; None where the request is to be asked about by itself.

        Asking ends at the deadline of who began it, which is no later than the one of who joins.
        """
        ticket = case.ticket
        if ticket is None:
            return None
        kept = self.find(ticket)
        if kept is not None:
            return Settled(decision=kept.decision(), runs=True, reuse="cached")
        if not case.rule.coalesce or self._core.policy_state == "":
            return None
        call = functools.partial(self._core.submit, case.action, deadline=deadline)
        found = yield Shared((ticket.key, ticket.generation), call, max(0.0, deadline - self._core.clock()))
        if found is None:
            return None
        decision, is_first = found
        if is_first:
            self.keep(case, decision)
            return Settled(decision=decision, runs=decision.is_approved())
        if decision.is_approved() and not (self._takes_uses(case.rule) and _stands_alone(decision)):
            return None
        if decision.is_pending() and self._approvals.bind(case).caller is None:
            return None  # whose that is, nobody can tell: a person's approval is handed to nobody else
        return Settled(decision=_copy(_encode(decision), decision), runs=decision.is_approved(), reuse="coalesced")


def _stands_alone(decision: AuthorizationDecision) -> bool:
    """Say whether the authority permits it by itself, and under which policies, with nothing else that has to hold."""
    told = decision.is_approved() and isinstance(decision.get("policy_state"), str)
    return told and not any(decision.get(name) for name in _NOT_ALONE)


def _copy(fields: bytes, known: AuthorizationDecision) -> AuthorizationDecision:
    """Return a decision of its own for each request: what an application writes into one, the next does not see."""
    return AuthorizationDecision(
        _decode(fields), action_id=known.action_id, decision=known.decision, status=known.status
    )
