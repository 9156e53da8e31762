"""The guard: from a request to a verdict, and from an outcome to a report."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final, Protocol

from ..client.calls import dice
from ..config import Settings
from ..exceptions import AscendError, ConfigurationError
from ..flow import BodyConsumed, ClientGone
from ..journal.journal import JournalError
from ..killswitch.poller import CommandPoller
from ..killswitch.switch import KillSwitch, unavailable_state
from ..masking import get_logger
from ..routing import Kind
from ..rules import WEBSOCKET, RuleTable
from ..state.base import StateError
from ..text import printable
from ..verdict import Refusal, Run, Verdict
from .approvals import Approvals, Settled
from .cache import Reuse
from .firewall import USUAL_METHODS, Unreadable, inspect, read_whole
from .log import Recorder
from .observations import Observations
from .plan import Asked, Case, Plan, Plans
from .quick import QuickWay
from .refusals import cause_of, refusal_for, refusal_of_findings, unjournalled
from .request import HANDLE_HEADER, Agent, NotAnAgent, agent_of
from .runs import OpenBudget, Runs
from .telemetry import check, open_telemetry

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..api.models import AuthorizationDecision
    from ..client.core import Attempt, ClientCore
    from ..flow import Flow
    from ..journal.journal import Journal
    from ..rules import CompiledRule
    from ..state.base import State
    from .request import RequestView

__all__ = ["Guard"]

logger = get_logger("ascend_middleware.guard")

# So long one such refusal counts; then it is worth a request to see whether it was mended.
_MISCONFIGURED_SECONDS: Final = 30.0
_FRAMEWORK_ANSWERS: Final = frozenset({Kind.NOT_FOUND, Kind.METHOD_NOT_ALLOWED, Kind.REDIRECT, Kind.OPTIONS})
_DISABLED: Final = Verdict(outcome="disabled", passes=True)
_FRAMEWORK: Final = Verdict(outcome="framework", passes=True)


class _Worker(Protocol):
    @property
    def is_running(self) -> bool: ...


class Guard(QuickWay):
    """Decide about requests under one rule table.

    `identify` is called with the framework's request, and returns an `Agent`, `NotAnAgent`, or an awaitable of one;
    `render` with a refusal's status, headers and body, and returns what to answer instead.
    """

    def __init__(
        self,
        *,
        table: RuleTable,
        settings: Settings,
        core: ClientCore,
        state: State,
        journal: Journal | None,
        identify: Callable[[Any], Any] | None = None,
        render: Callable[..., Any] | None = None,
        random: Callable[[], float] = dice,
    ) -> None:
        if identify is not None and settings.agent_header:
            raise ConfigurationError("identify and agent_header both say who the agent is; keep one of them")
        self.table = table
        self.settings = settings
        self.core = core
        self.state = state
        self.journal = journal
        self.render = render
        # Which background worker delivers what is journalled here, where there is one.
        self.worker: _Worker | None = None
        self.key_tried_at = -1e9
        self._identify = identify
        self._clock: Final = core.clock
        self._misconfigured_at = -1e9
        self._agent = Agent(settings.agent_id, settings.agent_name)
        self._asks_who = identify is not None or bool(settings.agent_header)
        # What the guard answers by itself begins with one of these.
        self._own_paths = tuple(filter(None, (f"{settings.approvals_path}/", settings.health_path)))
        self.kill = KillSwitch(
            state,
            own=settings.agent_id,
            kill_file=settings.kill_file,
            max_staleness=settings.max_staleness,
            clock=core.clock,
            now=core.now,
        )
        self.poller = CommandPoller(core, state, self.kill, settings, now=core.now)
        self.approvals = Approvals(state, core, settings, self.kill, table.version, random=random)
        self.reuse = Reuse(core, self.kill, settings, self.approvals, journal)
        self.recorder = Recorder(clock=core.clock, status_path=settings.approvals_path)
        self.log: Final = self.recorder.record
        self.budget = OpenBudget(core, settings, state, self.recorder.repeats)
        observes = settings.mode == "observe" or any(rule.mode == "observe" for rule in table.rules)
        if observes and journal is not None and journal.directory is not None:
            self.recorder.observations = Observations(journal.directory, clock=core.clock, now=core.now)
        self._plans = Plans(table, settings)
        self.runs = Runs(journal, state, self.kill, reports=settings.report_outcomes, now=core.now)
        if settings.telemetry:
            self.recorder.telemetry = open_telemetry(self)
        # Where that is not so, only a flow or telemetry's watch can tell what is to be asked, and about whom.
        self._asks_at_once = settings.enabled and not self._asks_who and self.recorder.telemetry is None
        if not settings.enabled:
            logger.warning("the guard is switched off (enabled = false): every request passes without a decision")

    @property
    def waiters(self) -> int:
        """How many requests are held for a person now."""
        return self.approvals.waiters

    @property
    def fault(self) -> str | None:
        """What is wrong with this service's way to a decision: `key-refused`, `misconfigured` (of late), or nothing."""
        if self.core.key_refused:
            return "key-refused"
        return "misconfigured" if self._clock() - self._misconfigured_at < _MISCONFIGURED_SECONDS else None

    @property
    def worker_runs(self) -> bool:
        """Whether the background worker runs in this process."""
        return self.worker is not None and self.worker.is_running

    # --- what needs no authority

    def screen(self, view: RequestView) -> Verdict | None:
        """Refuse, before anybody has routed the request, a target that no rule permits; None for all others.

        Only where routing comes later than the adapter: `triage` looks again, with what the router found.
        """
        if not self.settings.enabled or (view.is_ordinary and view.method in USUAL_METHODS):
            return None
        # Whether an encoded slash or percent lies in a parameter, the router says.
        findings = [finding for finding in inspect(view) if finding != "encoded-separator"]
        if not findings or self._plans.some_permit(findings):
            return None
        verdict = self._plans.none.refused(refusal_of_findings(findings))
        return None if verdict.passes else verdict

    def triage(self, view: RequestView) -> Verdict | Asked | Flow[Verdict]:
        """Settle what needs no authority; otherwise return what is to be asked at once, or the flow that judges."""
        if not self.settings.enabled:
            return _DISABLED
        if view.path.startswith(self._own_paths) and view.method in ("GET", "HEAD"):
            if view.path.startswith(self._own_paths[0]):
                return self.approvals.tell(view.path.removeprefix(self._own_paths[0]))
            if view.path == self.settings.health_path:
                return check(self)
        findings = [] if view.is_ordinary and view.method in USUAL_METHODS else inspect(view)
        resolved, leaf = view.resolved, None
        if resolved is not None:
            if resolved.kind in _FRAMEWORK_ANSWERS:
                return self._plans.none.refused(refusal_of_findings(findings)) if findings else _FRAMEWORK
            leaf = resolved.leaf
        plan = self._plans.known.get((leaf, view.method)) or self._plans.of(view)
        if plan.problem:
            logger.error("refused, because its rules contradict each other: %s", plan.problem)
            detail = "The rules of this route contradict each other."
            return plan.refused(Refusal(problem="misconfigured", detail=detail))
        if view.other_path is not None and self._plans.of_path(view.method, view.other_path) is not plan:
            findings.append("root-path")
        if findings and not plan.permit.issuperset(findings):
            return plan.refused(refusal_of_findings(findings))
        if plan.settled is not None:
            return plan.settled
        if plan.rule is None:
            return self._unmapped(view, plan)
        return self._pursue(Case(view, plan, plan.rule, self._agent))

    def _pursue(self, case: Case) -> Verdict | Asked | Flow[Verdict]:
        """Ask in one attempt where nothing has to be found out before; else return the flow."""
        plan, telemetry = case.plan, self.recorder.telemetry
        if telemetry is not None:
            return telemetry.watch(self._decide(case), case.view, plan.label)  # type: ignore[no-any-return]
        if plan.encode is None or self._asks_who or not self.kill.is_quiet or self._may_be_on_hold(case):
            return self._decide(case)
        reused = self._reused(case) if plan.reuses else None
        if reused is not None:
            return reused
        if case.describe() is None:
            content = plan.encode(case.action)
            if content is not None:
                attempt = self.core.begin_submit(content, self._agent.id, seconds=self.settings.deadline)
                if attempt is not None:
                    return Asked(plan, case.action, attempt, case)
        return self._decide(case)

    def _reused(self, case: Case) -> Verdict | Flow[Verdict] | None:
        """Pass a request by a decision that is kept; return the flow for one that asks together with others."""
        case.locate()
        ticket = case.ticket = self.reuse.ticket(case)
        kept = None if ticket is None else self.reuse.find(ticket)
        if kept is None:
            return self._decide(case) if case.rule.coalesce or case.view.may_have_body else None
        run = self.runs.enter_at_once(kept.known.action_id, case.plan.cached_entry)
        if run is self.runs.waits:
            return self._decide(case)
        self.reuse.remember(case, kept)
        verdict = kept.verdict(case.rule, run)
        return verdict if self.kill.is_quiet else self._look_last(verdict)

    def _allowed(self, case: Case, decision: AuthorizationDecision, run: Run | None, reuse: str | None) -> Verdict:
        return Verdict(
            outcome="allowed",
            passes=True,
            rule=case.rule,
            action=case.action,
            decision=decision,
            principal=case.agent.principal,
            run=run,
            reuse=reuse,
        )

    def go_on(self, asked: Asked, view: RequestView) -> Flow[Verdict]:
        """Return the flow that goes on from an attempt about which `hear` cannot tell."""
        case, rule = asked.case, asked.plan.rule
        if case is None:
            assert rule is not None  # noqa: S101 - else nobody is asked
            params = None if view.resolved is None else view.resolved.params
            case = Case(view, asked.plan, rule, self._agent, params=params, action=asked.action)
        return self._decide(case, asked.attempt)

    def _may_be_on_hold(self, case: Case) -> bool:
        """Say whether a request names an action on hold, or may be another one for it."""
        # Who only observes holds no request up and keeps nothing on hold, nor asks a person to decide about it.
        if case.plan.observe:
            return False
        hints = self.kill.snapshot.hints
        return hints is None or len(hints) > 0 or (not case.view.is_ordinary and case.view.tells(HANDLE_HEADER))

    def _unmapped(self, view: RequestView, plan: Plan) -> Verdict:
        leaf = view.resolved.leaf if view.resolved is not None else None
        method = "*" if view.method == str(WEBSOCKET) else view.method  # no rule can name it
        match = f"{method} {leaf.template if leaf is not None else view.path[:200]}"
        text = 'no rule covers %r; add [[rule]] match = "%s" with an action_type, exempt or block'
        self.recorder.repeats.say(("unmapped", match), logging.WARNING, text, match, printable(match))
        return plan.refused(Refusal(problem="unmapped-route", detail="No rule covers this method and route."))

    def rule_for(self, view: RequestView) -> CompiledRule | None:
        """Return the rule of the table, or of the handler, that covers a request."""
        if view.resolved is not None and view.resolved.kind in _FRAMEWORK_ANSWERS:
            return None
        return self._plans.rule_of(view)

    # --- what does

    def _decide(self, case: Case, first: Attempt | None = None) -> Flow[Verdict]:
        """Take a request through the stages, ask the authority, and journal what passes.

        With a `first` attempt it was asked already, and what comes before that was done.
        """
        view, plan = case.view, case.plan
        try:
            settled = None
            if first is None:
                if self._asks_who or plan.body is not None or not self.kill.is_quiet:
                    early = yield from self._prepared(case)
                    if early is not None:
                        return early
                refusal = case.describe()
                if refusal is not None:
                    return case.refused(refusal)
                if self._may_be_on_hold(case):
                    settled = yield from self.approvals.begin(case)
            if settled is None:
                settled = yield from self._ask(case, first)
            if case.binding is not None:
                settled = yield from self._resume(case, settled)
            case.decision = settled.decision
            if settled.runs:
                if case.agent is not self._agent:
                    yield from self.kill.see(case.agent.id)
                run = yield from self.runs.enter(case.action, plan.label, settled)
                assert case.decision is not None  # noqa: S101 - what runs was decided
                verdict = self._allowed(case, case.decision, run, settled.reuse)
            else:
                verdict = case.refused(self.approvals.refusal_of(settled, view), reuse=settled.reuse)
        except ClientGone:
            return Verdict(outcome="client-gone", passes=False, rule=case.rule, action=case.action)
        except AscendError as error:
            verdict = yield from self._undecided(case, error)
        return (yield from self._look_last(verdict))

    def _ask(self, case: Case, first: Attempt | None) -> Flow[Settled]:
        """Have it decided, by the authority or by what it decided about an identical request."""
        reuses = case.plan.reuses and first is None
        early = (yield from self.reuse.prepare(case)) if reuses else None
        if early is not None:
            return early
        # From now: what the client, the hooks and the state took before is no time of the authority.
        deadline = self._clock() + self.settings.deadline
        settled = (yield from self.reuse.settle(case, deadline)) if reuses else None
        if settled is None:
            found = yield from self.core.submit(case.action, deadline=deadline, first=first)
            if case.ticket is not None:
                self.reuse.keep(case, found)
            settled = Settled(decision=found, runs=found.is_approved())
        self._misconfigured_at = -1e9
        if settled.decision is not None and settled.decision.is_pending():
            settled = yield from self._hold(case, settled)
        return settled

    def _look_last(self, verdict: Verdict) -> Flow[Verdict]:
        """Look at the kill switch right before the handler: everything that took time lies behind."""
        if not verdict.passes or self.kill.is_quiet:
            return verdict
        try:
            refused = yield from self._look(verdict)
        except GeneratorExit:
            self.runs.give_up(verdict.run)
            raise
        if refused is None:
            return verdict
        why = "the handler did not run: the agent is blocked"
        rest = self.runs.conclude(verdict.run, error=why, unused=True)
        if rest is not None:
            yield from rest
        return refused

    def _prepared(self, case: Case) -> Flow[Verdict | None]:
        """Find out who asks, obey the kill switch, and read the body."""
        if self._asks_who:
            agent = yield from agent_of(case.view, self.settings.agent_header, self._identify)
            if isinstance(agent, NotAnAgent):
                return Verdict(outcome="not-an-agent", passes=True, rule=case.rule)
            if isinstance(agent, Refusal):
                return case.refused(agent)
            case.agent = agent
        stopped = None
        if not self.kill.is_quiet:
            deadline = self._clock() + self.settings.deadline
            stopped = yield from self.kill.obey(case.agent.id, self.poller, deadline=deadline)
        if stopped is None and case.plan.body is not None:
            try:
                case.content = yield from read_whole(case.view, case.rule)
            except BodyConsumed as error:
                logger.error("%s reads the body, but something before the guard has used it up", case.plan.label)
                return case.refused(Refusal(problem="bad-request", detail=str(error)))
            except Unreadable as error:
                return case.refused(error.refusal, firm=error.firm)
            # How long that took was the client's to say.
            stopped = yield from self.kill.blocked(case.agent.id)
        return None if stopped is None else case.refused(stopped)

    def _hold(self, case: Case, settled: Settled) -> Flow[Settled]:
        """Keep what the authority says is pending."""
        assert settled.decision is not None  # noqa: S101 - the caller has it from the authority
        yield from self.kill.see(case.action.agent_id)
        if case.plan.observe:
            return settled
        return (yield from self.approvals.hold(case, settled.decision))

    def _resume(self, case: Case, settled: Settled) -> Flow[Settled]:
        """Wait for a person where the rule says so, and claim the approval."""
        decision, row = settled.decision, settled.row
        if decision is not None and decision.is_pending() and case.plan.waits:
            ended = yield from self.approvals.wait(decision, row, case.rule, case.agent.id)
            if isinstance(ended, Refusal):
                return Settled(refusal=ended)
            decision = ended
            settled = Settled(decision=decision, runs=row is None and decision.is_approved(), row=row)
        resumes = case.plan.waits or case.view.tells(HANDLE_HEADER)
        if row is not None and decision is not None and decision.is_approved() and resumes:
            settled = yield from self.runs.claim(settled)
        return settled

    def _undecided(self, case: Case, error: AscendError) -> Flow[Verdict]:
        """Say that there is no decision; an open rule passes without one where no answer came at all."""
        plan, label = case.plan, case.plan.label
        if isinstance(error, StateError):
            logger.error("refused under %s, the state cannot be used: %s", label, error)
            return case.refused(unavailable_state())
        if isinstance(error, JournalError):
            return case.refused(unjournalled(error))
        refusal, cause = refusal_for(error), cause_of(error)
        if case.is_held:
            # Known to be on hold, or denied, for somebody: nothing opens it but the authority's own word.
            return case.refused(refusal)
        if refusal.problem == "misconfigured" and not self.core.key_refused:
            self._misconfigured_at = self._clock()
        say, level = self.recorder.repeats.say, logging.WARNING
        loud = logging.ERROR if refusal.problem in ("misconfigured", "kill-switch") else level
        say((label, cause), loud, "no decision under %s: %s", label, error)
        if error.unanswered and plan.opens and (yield from self.budget.take()):
            say(("open", label), level, "passed without a decision under %s, because on_failure is open", label)
            yield from self.kill.see(case.agent.id)
            try:
                run = yield from self.runs.enter(case.action, label, None)
            except JournalError as failure:
                return case.refused(unjournalled(failure))
            return Verdict(
                outcome="open",
                passes=True,
                rule=case.rule,
                action=case.action,
                cause=cause,
                principal=case.agent.principal,
                run=run,
            )
        return case.refused(refusal, cause=cause)

    # --- after the decision

    def look(self, verdict: Verdict) -> Flow[Verdict | None] | None:
        """Look again whether the agent is blocked; None where there is no need to."""
        return None if verdict.action is None or self.kill.is_quiet else self._look(verdict)

    def _look(self, verdict: Verdict) -> Flow[Verdict | None]:
        assert verdict.action is not None  # noqa: S101 - the callers check
        stopped = yield from self.kill.blocked(verdict.action.agent_id)
        if stopped is None:
            return None
        plan = self._plans.of_rule(verdict.rule)
        return plan.refused(stopped, action=verdict.action, principal=verdict.principal, decision=verdict.decision)
