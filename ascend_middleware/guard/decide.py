"""The guard: from a request to a verdict, and from an outcome to a report."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any, Final, Protocol

from ..client.retry import dice
from ..config import Settings
from ..exceptions import AscendError, ConfigurationError
from ..flow import ClientGone
from ..journal.journal import JournalError
from ..killswitch.poller import CommandPoller
from ..killswitch.switch import KillSwitch, unavailable_state
from ..masking import get_logger
from ..routing import Kind
from ..rules import WEBSOCKET, FieldError, RuleTable
from ..state.base import StateError
from ..text import printable
from ..verdict import Refusal, Verdict
from .approval_status import StatusQuery
from .approvals import HANDLE_HEADER, Approvals, Asked, Settled
from .failure import OpenBudget, cause_of, refusal_for
from .fingerprint import CREDENTIALS, Binding, tenant_of
from .firewall import inspect
from .health import HealthQuery, check
from .identity import Agent, NotAnAgent, agent_of
from .kill_check import KillCheck
from .log import Recorder
from .plan import Case, Plan, Plans
from .reading import Unreadable, body_of, fields_of
from .refusals import refusal_of, refusal_of_findings, unjournalled
from .runs import Runs
from .telemetry import open_telemetry
from .waiting import Waiting

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..client.core import ClientCore
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


class Guard:
    """Decide about requests under one rule table.

    Args:
        table: the rules, with the settings' defaults.
        settings: checked settings.
        core: the client's flows, which ask the authority.
        state: what workers share.
        journal: where what runs is kept; None where it is switched off.
        identify: called with the framework's request; returns an `Agent`, `NotAnAgent`, or an awaitable of one.
        render: called with a refusal's status, headers and body; returns what to answer instead.
        clock: monotonic seconds, the same as the core's.
        now: seconds since the epoch.
        random: uniform numbers from [0, 1), for jitter.
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
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
        random: Callable[[], float] = dice,
    ) -> None:
        if identify is not None and settings.agent_header:
            raise ConfigurationError("identify and agent_header both say who the agent is; keep one of them")
        self.table = table
        self.settings = settings
        self.core = core
        self.state = state
        self.journal = journal
        self.now = now
        self.render = render
        self._identify = identify
        self._clock = clock
        self.kill = KillSwitch(
            state, kill_file=settings.kill_file, max_staleness=settings.max_staleness, clock=clock, now=now
        )
        self.poller = CommandPoller(core, state, self.kill, settings, now=now)
        self.kill_check = KillCheck(self.kill, state, self.poller, own=settings.agent_id, clock=clock, now=now)
        self.approvals = Approvals(state, journal, core, settings, self.kill, blocked=self.kill_check.blocked, now=now)
        self._runs: Final = Runs(journal, self.approvals, self.kill, reports=settings.report_outcomes)
        self._tenant: Final = tenant_of(settings)
        self._plans: Final = Plans(table, settings)
        self._agent = Agent(settings.agent_id, settings.agent_name)
        self._asks_who: Final = identify is not None or bool(settings.agent_header)
        # What the guard answers by itself begins with one of these.
        self._own_paths: Final = tuple(filter(None, (f"{settings.approvals_path}/", settings.health_path)))
        self.credentials = (*CREDENTIALS, *settings.principal_headers)
        self._budget = OpenBudget(settings.open_per_minute, state=state, name=settings.agent_id, clock=clock, now=now)
        self._recorder = Recorder(clock=clock, status_path=settings.approvals_path)
        self._misconfigured_at = -1e9
        self.key_tried_at = -1e9
        self._worker: _Worker | None = None
        self._waiting = Waiting(settings, core, self.kill_check, clock=clock, random=random)
        self._telemetry = open_telemetry(self) if settings.telemetry else None
        if not settings.enabled:
            logger.warning("the guard is switched off (enabled = false): every request passes without a decision")

    @property
    def waiters(self) -> int:
        """How many requests are held for a person now."""
        return self._waiting.count

    @property
    def fault(self) -> str | None:
        """What is wrong with this service's way to a decision: `key-refused`, `misconfigured` (of late), or nothing."""
        if self.core.key_refused:
            return "key-refused"
        return "misconfigured" if self._clock() - self._misconfigured_at < _MISCONFIGURED_SECONDS else None

    @property
    def open_passes(self) -> OpenBudget:
        """What open rules let pass without a decision."""
        return self._budget

    @property
    def identifies(self) -> bool:
        """Whether the application says who an agent is, and with that who its principal is."""
        return self._identify is not None

    @property
    def worker_runs(self) -> bool:
        """Whether the background worker runs in this process."""
        return self._worker is not None and self._worker.is_running

    def serve_with(self, worker: _Worker) -> None:
        """Say which background worker delivers what is journalled here; `health` tells whether it runs."""
        self._worker = worker

    # --- what needs no authority

    def screen(self, view: RequestView) -> Verdict | None:
        """Refuse, before anybody has routed the request, a target that no rule permits; None for all others.

        Only where routing comes later than the adapter: `triage` looks again, with what the router found.
        """
        if not self.settings.enabled:
            return None
        findings = inspect(view)
        if not findings:
            return None
        # Whether an encoded slash or percent lies in a parameter, the router says.
        findings = [finding for finding in findings if finding != "encoded-separator"]
        if not findings or self._plans.some_permit(findings):
            return None
        verdict = self._plans.none.refused(refusal_of_findings(findings))
        return None if verdict.passes else verdict

    def triage(self, view: RequestView) -> Verdict | Plan | StatusQuery | HealthQuery:
        """Settle what needs no authority; otherwise return what `decide` takes, most often the plan to submit under."""
        if not self.settings.enabled:
            return _DISABLED
        if view.path.startswith(self._own_paths):
            query = self.approvals.query(view.method, view.path)
            if query is not None:
                return query
            if self.settings.health_path == view.path and view.method in ("GET", "HEAD"):
                return HealthQuery()
        findings = inspect(view)
        if view.resolved is not None and view.resolved.kind in _FRAMEWORK_ANSWERS:
            return self._plans.none.refused(refusal_of_findings(findings)) if findings else _FRAMEWORK
        plan = self._plans.of(view)
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
        return self._unmapped(view, plan) if plan.rule is None else plan

    def _unmapped(self, view: RequestView, plan: Plan) -> Verdict:
        leaf = view.resolved.leaf if view.resolved is not None else None
        method = "*" if view.method == str(WEBSOCKET) else view.method  # no rule can name it
        match = f"{method} {leaf.template if leaf is not None else view.path[:200]}"
        text = 'no rule covers %r; add [[rule]] match = "%s" with an action_type, exempt or block'
        self._recorder.repeats.say(("unmapped", match), logging.WARNING, text, match, printable(match))
        return plan.refused(Refusal(problem="unmapped-route", detail="No rule covers this method and route."))

    def rule_for(self, view: RequestView) -> CompiledRule | None:
        """Return the rule of the table, or of the handler, that covers a request."""
        if view.resolved is not None and view.resolved.kind in _FRAMEWORK_ANSWERS:
            return None
        return self._plans.rule_of(view)

    # --- what does

    def decide(self, view: RequestView, found: Plan | StatusQuery | HealthQuery) -> Flow[Verdict]:
        """Judge a request that `triage` did not settle: ask the authority, and journal what passes."""
        if not isinstance(found, Plan):
            return self._answer(found)
        flow = self._decide(view, found)
        return flow if self._telemetry is None else self._telemetry.watch(flow, view, found.label)

    def _answer(self, query: StatusQuery | HealthQuery) -> Flow[Verdict]:
        if isinstance(query, HealthQuery):
            return Verdict(outcome="health", passes=False, refusal=(yield from check(self)))
        try:
            report: Refusal = yield from self.approvals.report(query)
        except StateError:
            report = unavailable_state()
        return Verdict(outcome="approval-status", passes=False, refusal=report)

    def _decide(self, view: RequestView, plan: Plan) -> Flow[Verdict]:
        """Take a request through the stages; each returns a verdict, or None for the next one."""
        assert plan.rule is not None  # noqa: S101 - `triage` has settled the others
        case = Case(view, plan, plan.rule, self._agent)
        if self._asks_who and (verdict := (yield from self._identified(case))) is not None:
            return verdict
        if not self.kill.is_quiet and (verdict := (yield from self._allowed_to_act(case))) is not None:
            return verdict
        if plan.body is not None and (verdict := (yield from self._read(case))) is not None:
            return verdict
        if (verdict := self._describe(case)) is not None:
            return verdict
        verdict = yield from self._ask(case)
        if not verdict.passes or self.kill.is_quiet:
            return verdict
        # The last look, right before the handler: everything that took time lies behind.
        refused = yield from self._look(verdict)
        if refused is None:
            return verdict
        error = "the handler did not run: the agent is blocked"
        yield from self._runs.conclude(verdict.run, error=error, unused=True)
        return refused

    def _identified(self, case: Case) -> Flow[Verdict | None]:
        agent = yield from agent_of(case.view, self.settings, self._agent, self._identify)
        if isinstance(agent, NotAnAgent):
            return Verdict(outcome="not-an-agent", passes=True, rule=case.rule)
        if isinstance(agent, Refusal):
            return case.plan.refused(agent)
        case.agent = agent
        return None

    def _allowed_to_act(self, case: Case) -> Flow[Verdict | None]:
        try:
            stopped = yield from self.kill_check.obey(case.agent.id, deadline=self._clock() + self.settings.deadline)
        except ClientGone:
            return Verdict(outcome="client-gone", passes=False, rule=case.rule)
        return None if stopped is None else case.plan.refused(stopped)

    def _read(self, case: Case) -> Flow[Verdict | None]:
        try:
            case.content = yield from body_of(case.view, case.rule)
        except ClientGone:
            return Verdict(outcome="client-gone", passes=False, rule=case.rule)
        except Unreadable as error:
            return case.plan.refused(error.refusal, firm=error.firm)
        # How long that took was the client's to say.
        stopped = yield from self.kill_check.blocked(case.agent.id)
        return None if stopped is None else case.plan.refused(stopped)

    def _describe(self, case: Case) -> Verdict | None:
        """Make the action, or refuse a request that holds none."""
        agent, make = case.agent, case.plan.make
        assert make is not None  # noqa: S101 - as for the rule
        try:
            fields = fields_of(case.view, case.rule, case.content)
            case.params = fields.path_params
            case.action = make(fields, agent.id, agent.name or agent.id)
        except (FieldError, ValueError) as error:
            detail = f"The request cannot be judged: {error}"
            return case.plan.refused(Refusal(problem="bad-request", detail=detail))
        return None

    def _ask(self, case: Case) -> Flow[Verdict]:
        """Have a decision, of what is on hold already or of the authority, and journal what passes."""
        plan, rule, action, principal = case.plan, case.rule, case.action, case.agent.principal
        settled = decision = None
        refusal: Refusal | None
        try:
            # Who only observes holds no request up and keeps nothing on hold, nor asks a person to decide about it.
            if not plan.observe and self.approvals.concern(case.view):
                settled = yield from self.approvals.begin(self._asked(case))
            if settled is None:
                # From now: what the client, the hooks and the state took before is no time of the authority.
                found = yield from self.core.submit(action, deadline=self._clock() + self.settings.deadline)
                self._misconfigured_at = -1e9
                settled = Settled(decision=found, runs=found.is_approved())
                if not settled.runs and found.is_pending():
                    settled = yield from self._hold(case, settled)
            if case.asked is not None:
                settled = yield from self._resume(case, case.asked, settled)
            decision = settled.decision
            if settled.runs:
                if case.agent is not self._agent:
                    yield from self.kill_check.see(case.agent.id)
                run = yield from self._runs.enter(action, plan.label, settled)
                return Verdict(
                    outcome="allowed",
                    passes=True,
                    rule=rule,
                    action=action,
                    decision=decision,
                    principal=principal,
                    run=run,
                )
            refusal = refusal_of(settled, case.view, self.approvals, self.settings)
        except ClientGone:
            return Verdict(outcome="client-gone", passes=False, rule=rule, action=action)
        except StateError as error:
            logger.error("refused under %s, the state cannot be used: %s", plan.label, error)
            refusal = unavailable_state()
        except JournalError as error:
            refusal = unjournalled(error)
        except AscendError as error:
            if case.asked is None or not case.asked.is_held:
                return (yield from self._undecided(case, error))
            # Known to be on hold, or denied, for somebody: nothing opens it but the authority's own word.
            refusal = refusal_for(error)
        return plan.refused(refusal, action=action, principal=principal, decision=decision)

    def _asked(self, case: Case) -> Asked:
        binding = Binding(
            view=case.view,
            rule=case.rule,
            agent=case.agent,
            table=self.table.version,
            tenant=self._tenant,
            params=case.params,
            credentials=self.credentials,
            single_caller=self.settings.single_caller,
        )
        case.asked = Asked(binding=binding, content=case.content)
        return case.asked

    def _hold(self, case: Case, settled: Settled) -> Flow[Settled]:
        """Keep what the authority says is pending."""
        assert settled.decision is not None  # noqa: S101 - the caller has it from the authority
        yield from self.kill_check.see(case.action.agent_id)
        if case.plan.observe:
            return settled
        return (yield from self.approvals.hold(case.asked or self._asked(case), settled.decision))

    def _resume(self, case: Case, asked: Asked, settled: Settled) -> Flow[Settled]:
        """Wait for a person where the rule says so, and claim the approval that the handler runs under."""
        decision, row = settled.decision, settled.row
        if decision is not None and decision.is_pending() and case.plan.waits:
            ended = yield from self._waiting.wait(decision, case.rule, case.agent.id)
            if isinstance(ended, Refusal):
                return Settled(refusal=ended)
            decision = ended
            if row is not None:
                yield from self.approvals.note(row, decision)
            settled = Settled(decision=decision, runs=row is None and decision.is_approved(), row=row)
        resumes = case.plan.waits or HANDLE_HEADER in asked.binding.view.header_names
        if row is not None and decision is not None and decision.is_approved() and resumes:
            settled = yield from self.approvals.claim(settled)
        return settled

    def _undecided(self, case: Case, error: AscendError) -> Flow[Verdict]:
        """Say that there is no decision; an open rule passes without one where no answer came at all."""
        plan, label, action, principal = case.plan, case.plan.label, case.action, case.agent.principal
        refusal, cause = refusal_for(error), cause_of(error)
        if refusal.problem == "misconfigured" and not self.core.key_refused:
            self._misconfigured_at = self._clock()
        say, level = self._recorder.repeats.say, logging.WARNING
        loud = logging.ERROR if refusal.problem in ("misconfigured", "kill-switch") else level
        say((label, cause), loud, "no decision under %s: %s", label, error)
        if error.unanswered and plan.opens and (yield from self._may_open()):
            say(("open", label), level, "passed without a decision under %s, because on_failure is open", label)
            yield from self.kill_check.see(case.agent.id)
            try:
                run = yield from self._runs.enter(action, label, None)
            except JournalError as failure:
                return plan.refused(unjournalled(failure), action=action, principal=principal)
            return Verdict(
                outcome="open", passes=True, rule=case.rule, action=action, cause=cause, principal=principal, run=run
            )
        return plan.refused(refusal, cause=cause, action=action, principal=principal)

    def _may_open(self) -> Flow[bool]:
        try:
            if (yield from self._budget.take()):
                return True
            text = "the open_per_minute budget of %d is spent; refusing"
            self._recorder.repeats.say("budget", logging.ERROR, text, self.settings.open_per_minute)
        except StateError as unusable:
            text = "the open_per_minute budget cannot be counted, the state cannot be used; refusing: %s"
            self._recorder.repeats.say("budget", logging.ERROR, text, unusable)
        return False

    # --- after the decision

    def look(self, verdict: Verdict) -> Flow[Verdict | None] | None:
        """Look again whether the agent of a request that was let pass is blocked; None where there is no need to."""
        return None if verdict.action is None or self.kill.is_quiet else self._look(verdict)

    def _look(self, verdict: Verdict) -> Flow[Verdict | None]:
        assert verdict.action is not None  # noqa: S101 - the callers check
        stopped = yield from self.kill_check.blocked(verdict.action.agent_id)
        if stopped is None:
            return None
        plan = self._plans.of_rule(verdict.rule)
        return plan.refused(stopped, action=verdict.action, principal=verdict.principal, decision=verdict.decision)

    def conclude(self, verdict: Verdict, *, error: str | None, duration_ms: int, unused: bool) -> Flow[None]:
        """Journal what became of a passed request, once; an approval of what did not happen is given back.

        Args:
            verdict: what let it pass.
            error: what went wrong, in one sentence, or None.
            duration_ms: how long the handler took.
            unused: whether the action did not happen.
        """
        return self._runs.conclude(verdict.run, error=error, duration_ms=duration_ms, unused=unused)

    def log(self, view: RequestView, verdict: Verdict, *, seconds: float) -> None:
        """Write the one line that every judged request leaves."""
        self._recorder.record(view, verdict, seconds=seconds)
        if self._telemetry is not None:
            self._telemetry.record(verdict, seconds=seconds)
