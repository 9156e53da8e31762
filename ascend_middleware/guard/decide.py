"""The guard: from a request to a verdict, and from an outcome to a report."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any, Final

from ..client.retry import dice
from ..config import Settings
from ..exceptions import AscendError, ConfigurationError
from ..findings import FINDINGS
from ..flow import ClientGone
from ..journal.journal import JournalError
from ..killswitch.switch import unavailable_state
from ..masking import get_logger
from ..routing import Kind
from ..rules import WEBSOCKET, FieldError, RuleTable
from ..state.base import StateError
from ..text import printable
from ..verdict import UNCONDITIONAL, Refusal, Verdict
from .approval_status import StatusQuery
from .approvals import HANDLE_HEADER, Asked, Settled
from .failure import OpenBudget, cause_of, refusal_for
from .fingerprint import CREDENTIALS, Binding
from .firewall import inspect
from .health import HealthQuery, check
from .identity import Agent, NotAnAgent, agent_of
from .log import Recorder
from .reading import Unreadable, body_of, fields_of
from .refusals import refusal_of, unjournalled
from .telemetry import open_telemetry
from .waiting import Waiting

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ..api.models import AgentAction, AuthorizationDecision
    from ..client.core import ClientCore
    from ..flow import Flow
    from ..routing import Leaf
    from ..rules import CompiledRule, RouteRules
    from .duties import Duties
    from .outcome import Outcome
    from .request import RequestView

__all__ = ["Guard"]

logger = get_logger("ascend_middleware.guard")

# So long one such refusal counts; then it is worth a request to see whether it was mended.
_MISCONFIGURED_SECONDS: Final = 30.0
_FRAMEWORK_ANSWERS = frozenset({Kind.NOT_FOUND, Kind.METHOD_NOT_ALLOWED, Kind.REDIRECT, Kind.OPTIONS})


class Guard:
    """Decide about requests under one rule table.

    Args:
        table: the rules, with the settings' defaults.
        settings: checked settings.
        core: the client's flows, which ask the authority.
        duties: the kill switch, approvals and the journal.
        identify: called with the framework's request; returns an `Agent`, `NotAnAgent`, or an awaitable of one.
        render: called with a refusal's status, headers and body; returns what to answer instead.
        clock: monotonic seconds, the same as the core's.
        random: uniform numbers from [0, 1), for jitter.
    """

    def __init__(
        self,
        *,
        table: RuleTable,
        settings: Settings,
        core: ClientCore,
        duties: Duties,
        identify: Callable[[Any], Any] | None = None,
        render: Callable[..., Any] | None = None,
        clock: Callable[[], float] = time.monotonic,
        random: Callable[[], float] = dice,
    ) -> None:
        if identify is not None and settings.agent_header:
            raise ConfigurationError("identify and agent_header both say who the agent is; keep one of them")
        self.table = table
        self.settings = settings
        self.core = core
        self.duties = duties
        self.render = render
        self._identify = identify
        self._clock = clock
        self._random = random
        self._routes: dict[Leaf, RouteRules] = {}
        self._permitted = [frozenset(rule.permit) for rule in table.rules if rule.permit]
        if settings.unmapped == "by-method":
            self._permitted.append(frozenset(settings.unmapped_permit))
        self._agent = Agent(settings.agent_id, settings.agent_name)
        self.credentials = (*CREDENTIALS, *settings.principal_headers)
        self._budget = OpenBudget(
            settings.open_per_minute, state=duties.state, name=settings.agent_id, clock=clock, now=duties.now
        )
        self._recorder = Recorder(clock=clock, status_path=settings.approvals_path)
        self._misconfigured_at = -1e9
        self.key_tried_at = -1e9
        self._waiting = Waiting(settings, core, duties, clock=clock, random=random)
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

    # --- before the handler

    def screen(self, view: RequestView) -> Verdict | None:
        """Refuse, before anybody has routed the request, a target that no rule permits; None for all others.

        Only where routing comes later than the adapter: `triage` looks again, with what the router found.
        """
        if not self.settings.enabled:
            return None
        # Whether an encoded slash or percent lies in a parameter, the router says.
        findings = [finding for finding in inspect(view) if finding != "encoded-separator"]
        if not findings or any(set(findings) <= permitted for permitted in self._permitted):
            return None
        verdict = self._refuse_findings(findings, None)
        return None if verdict.passes else verdict

    def triage(self, view: RequestView) -> Verdict | CompiledRule | StatusQuery | HealthQuery:
        """Settle what needs no authority; otherwise return what `decide` takes, most often the rule to submit under."""
        if not self.settings.enabled:
            return Verdict(outcome="disabled", passes=True)
        query = self.duties.approvals.query(view.method, view.path)
        if query is not None:
            return query
        if self.settings.health_path == view.path and view.method in ("GET", "HEAD"):
            return HealthQuery()
        findings = inspect(view)
        resolved = view.resolved
        if resolved is not None and resolved.kind in _FRAMEWORK_ANSWERS:
            if findings:
                return self._refuse_findings(findings, None)
            return Verdict(outcome="framework", passes=True)
        rules = self._rules_of(resolved.leaf) if resolved is not None and resolved.leaf is not None else None
        if rules is not None and rules.problem is not None:
            logger.error("refused, because its rules contradict each other: %s", rules.problem)
            detail = "The rules of this route contradict each other."
            return self._refused(Refusal(problem="misconfigured", detail=detail), None)
        rule = self._rule(view, rules)
        if view.other_path is not None and self.table.lookup(view.method, view.other_path) is not rule:
            findings.append("root-path")
        if rule is None and self.settings.unmapped == "by-method":
            rule = self.table.by_method_rule(view.method)
        if findings:
            permitted = rule.permit if rule is not None else ()
            if not (permitted and set(findings) <= set(permitted)):
                return self._refuse_findings(findings, rule)
        if rule is None:
            return self._refuse_unmapped(view)
        if rule.block is not None:
            return self._refused(Refusal(problem="blocked", detail=rule.block), rule)
        if rule.exempt:
            return Verdict(outcome="exempt", passes=True, rule=rule)
        return rule

    def decide(self, view: RequestView, found: CompiledRule | StatusQuery | HealthQuery) -> Flow[Verdict]:
        """Judge a request that `triage` did not settle: ask the authority, and journal what passes."""
        flow = self._decide(view, found)
        if self._telemetry is None or isinstance(found, StatusQuery | HealthQuery):
            return flow
        return self._telemetry.watch(flow, view, found)

    def _decide(self, view: RequestView, found: CompiledRule | StatusQuery | HealthQuery) -> Flow[Verdict]:
        if isinstance(found, HealthQuery):
            report = yield from check(self)
            return Verdict(outcome="health", passes=False, refusal=report)
        if isinstance(found, StatusQuery):
            return (yield from self._report(found))
        rule = found
        agent = yield from agent_of(view, self.settings, self._agent, self._identify)
        if isinstance(agent, NotAnAgent):
            return Verdict(outcome="not-an-agent", passes=True, rule=rule)
        if isinstance(agent, Refusal):
            return self._refused(agent, rule)
        try:
            stopped = yield from self.duties.obey(agent.id, deadline=self._clock() + self.settings.deadline)
        except ClientGone:
            return Verdict(outcome="client-gone", passes=False, rule=rule)
        if stopped is not None:
            return self._refused(stopped, rule)
        content = yield from self._read(view, rule)
        if isinstance(content, Verdict):
            return content
        if content is not None:
            # How long that took was the client's to say.
            stopped = yield from self.duties.blocked(agent.id)
            if stopped is not None:
                return self._refused(stopped, rule)
        try:
            fields = fields_of(view, rule, content)
            action = rule.action(fields, agent_id=agent.id, agent_name=agent.name or agent.id)
        except (FieldError, ValueError) as error:
            return self._refused(Refusal(problem="bad-request", detail=f"The request cannot be judged: {error}"), rule)
        settled = Settled()
        try:
            settled = yield from self._ask(view, rule, agent, action, content, fields.path_params)
            verdict = self._judged(settled, rule, view)
        except ClientGone:
            return Verdict(outcome="client-gone", passes=False, rule=rule, action=action)
        except StateError as error:
            logger.error("refused under %s, the state cannot be used: %s", rule.label, error)
            verdict = self._refused(unavailable_state(), rule)
        except JournalError as error:
            verdict = self._refused(unjournalled(error), rule)
        except AscendError as error:
            verdict = yield from self._failed(error, rule)
        verdict.action = action
        verdict.principal = agent.principal
        if verdict.outcome in ("allowed", "open"):
            verdict = yield from self._enter(verdict, settled, rule)
        if not verdict.passes:
            return verdict
        # The last look, right before the handler: everything that took time lies behind.
        refused = yield from self._look(verdict)
        if refused is None:
            return verdict
        yield from self.duties.conclude(verdict, error="the handler did not run: the agent is blocked", unused=True)
        return refused

    def look(self, verdict: Verdict) -> Flow[Verdict | None] | None:
        """Look again whether the agent of a request that was let pass is blocked; None where there is no agent."""
        return None if verdict.action is None else self._look(verdict)

    def _look(self, verdict: Verdict) -> Flow[Verdict | None]:
        assert verdict.action is not None  # noqa: S101 - the callers check
        stopped = yield from self.duties.blocked(verdict.action.agent_id)
        if stopped is None:
            return None
        refused = self._refused(stopped, verdict.rule)
        refused.action, refused.principal, refused.decision = verdict.action, verdict.principal, verdict.decision
        return refused

    def conclude(self, verdict: Verdict, outcome: Outcome) -> Flow[None]:
        """Journal what became of a passed request, once; an approval of what did not happen is given back."""
        yield from self.duties.conclude(
            verdict, error=outcome.error, duration_ms=outcome.duration_ms, unused=outcome.is_unused
        )

    def _ask(
        self,
        view: RequestView,
        rule: CompiledRule,
        agent: Agent,
        action: AgentAction,
        content: bytes | None,
        params: Mapping[str, Any],
    ) -> Flow[Settled]:
        """Have a decision, of what is on hold already or of the authority; claim the approval that it runs under."""
        if self._mode(rule) == "observe":
            # Who only observes holds no request up and keeps nothing on hold, nor asks a person to decide about it.
            action.context = {**(action.context or {}), "observed": True}
            return Settled(decision=(yield from self._submit(action)))
        approvals = self.duties.approvals
        binding = Binding(
            view=view,
            rule=rule,
            agent=agent,
            table=self.table.version,
            tenant=self.duties.tenant,
            params=params,
            credentials=self.credentials,
            single_caller=self.settings.single_caller,
        )
        asked = Asked(binding=binding, content=content)
        settled = yield from approvals.begin(asked)
        if settled is None:
            try:
                decision = yield from self._submit(action)
            except AscendError as error:
                if not asked.is_held:
                    raise
                # Known to be on hold, or denied, for somebody: nothing opens it but the authority's own word.
                return Settled(refusal=refusal_for(error))
            settled = Settled(decision=decision)
            if decision.is_pending():
                settled = yield from approvals.hold(asked, decision)
        if settled.decision is not None and settled.decision.is_pending() and rule.pending.waits:
            ended = yield from self._waiting.wait(settled.decision, rule, agent.id)
            if isinstance(ended, Refusal):
                return Settled(refusal=ended)
            settled.decision = ended
            if settled.row is not None:
                yield from approvals.note(settled.row, ended)
        approved = settled.decision is not None and settled.decision.is_approved()
        if settled.row is not None and approved and (view.header(HANDLE_HEADER) or rule.pending.waits):
            settled = yield from approvals.claim(settled)
        return settled

    def _submit(self, action: AgentAction) -> Flow[AuthorizationDecision]:
        # From now: what the client, the hooks and the state took before is no time of the authority.
        decision = yield from self.core.submit(action, deadline=self._clock() + self.settings.deadline)
        self._misconfigured_at = -1e9
        if decision.is_pending():
            yield from self.duties.see(action.agent_id)
        return decision

    def _enter(self, verdict: Verdict, settled: Settled, rule: CompiledRule) -> Flow[Verdict]:
        """Journal a pass before its handler runs; without an entry it does not run."""
        if verdict.action is not None:
            yield from self.duties.see(verdict.action.agent_id)
        try:
            yield from self.duties.enter(verdict, settled, rule)
        except JournalError as error:
            refused = self._refused(unjournalled(error), rule)
            refused.action, refused.principal, refused.decision = verdict.action, verdict.principal, verdict.decision
            return refused
        return verdict

    def _report(self, query: StatusQuery) -> Flow[Verdict]:
        try:
            report: Refusal = yield from self.duties.approvals.report(query)
        except StateError:
            report = unavailable_state()
        return Verdict(outcome="approval-status", passes=False, refusal=report)

    def rule_for(self, view: RequestView) -> CompiledRule | None:
        """Return the rule of the table, or of the handler, that covers a request."""
        resolved = view.resolved
        if resolved is not None and resolved.kind in _FRAMEWORK_ANSWERS:
            return None
        leaf = resolved.leaf if resolved is not None else None
        return self._rule(view, self._rules_of(leaf) if leaf is not None else None)

    def _rules_of(self, leaf: Leaf) -> RouteRules:
        rules = self._routes.get(leaf)
        if rules is None:
            rules = self.table.for_route(
                leaf.template, endpoint=leaf.endpoint, declared=leaf.declared, files=leaf.kind is Kind.STATIC
            )
            self._routes[leaf] = rules
        return rules

    def _rule(self, view: RequestView, rules: RouteRules | None) -> CompiledRule | None:
        resolved = view.resolved
        if rules is None or resolved is None or resolved.leaf is None:
            return self.table.lookup(view.method, view.path)
        select = rules.select_whole if resolved.leaf.kind is Kind.OPAQUE else rules.select
        return select(view.method, view.path)

    def _read(self, view: RequestView, rule: CompiledRule) -> Flow[bytes | Verdict | None]:
        try:
            return (yield from body_of(view, rule))
        except ClientGone:
            return Verdict(outcome="client-gone", passes=False, rule=rule)
        except Unreadable as error:
            return self._refused(error.refusal, rule, firm=error.firm)

    # --- verdicts

    def _judged(self, settled: Settled, rule: CompiledRule, view: RequestView) -> Verdict:
        decision, row = settled.decision, settled.row
        if settled.refusal is not None:
            return self._refused(settled.refusal, rule)
        assert decision is not None  # noqa: S101 - one of the two is there
        if decision.is_approved() and (row is None or settled.entry is not None):
            handle = None if row is None else row.handle
            claim = "" if row is None else row.claimed_by
            return Verdict(outcome="allowed", passes=True, rule=rule, decision=decision, approval=handle, claim=claim)
        verdict = self._refused(refusal_of(decision, row, view, self.duties.approvals, self.settings), rule)
        verdict.decision = decision
        return verdict

    def _failed(self, error: AscendError, rule: CompiledRule) -> Flow[Verdict]:
        refusal = refusal_for(error)
        cause = cause_of(error)
        if refusal.problem == "misconfigured" and not self.core.key_refused:
            self._misconfigured_at = self._clock()
        say, level = self._recorder.repeats.say, logging.WARNING
        loud = logging.ERROR if refusal.problem in ("misconfigured", "kill-switch") else level
        say((rule.label, cause), loud, "no decision under %s: %s", rule.label, error)
        if error.unanswered and rule.on_failure == "open":
            try:
                if (yield from self._budget.take()):
                    text = "passed without a decision under %s, because on_failure is open"
                    say(("open", rule.label), level, text, rule.label)
                    return Verdict(outcome="open", passes=True, rule=rule, cause=cause)
                limit = self.settings.open_per_minute
                say("budget", logging.ERROR, "the open_per_minute budget of %d is spent; refusing", limit)
            except StateError as unusable:
                text = "the open_per_minute budget cannot be counted, the state cannot be used; refusing: %s"
                say("budget", logging.ERROR, text, unusable)
        verdict = self._refused(refusal, rule)
        verdict.cause = cause
        return verdict

    def _refuse_findings(self, findings: list[str], rule: CompiledRule | None) -> Verdict:
        text = "; ".join(FINDINGS[finding] for finding in findings)
        return self._refused(
            Refusal(problem="bad-request", detail=f"Refused: {text}.", extra={"findings": findings}), rule
        )

    def _refuse_unmapped(self, view: RequestView) -> Verdict:
        leaf = view.resolved.leaf if view.resolved is not None else None
        method = "*" if view.method == str(WEBSOCKET) else view.method  # no rule can name it
        match = f"{method} {leaf.template if leaf is not None else view.path[:200]}"
        text = 'no rule covers %r; add [[rule]] match = "%s" with an action_type, exempt or block'
        self._recorder.repeats.say(("unmapped", match), logging.WARNING, text, match, printable(match))
        return self._refused(Refusal(problem="unmapped-route", detail="No rule covers this method and route."), None)

    def _refused(self, refusal: Refusal, rule: CompiledRule | None, *, firm: bool = False) -> Verdict:
        """Return the refusal, or in observe mode a pass that tells what would have been answered.

        A `firm` refusal holds in observe mode too: the request is not whole, so there is nothing to pass on.
        """
        if self._mode(rule) == "observe" and not firm and refusal.problem not in UNCONDITIONAL:
            return Verdict(outcome="observed", passes=True, rule=rule, would=refusal.problem)
        return Verdict(outcome=refusal.problem, passes=False, rule=rule, refusal=refusal)

    def _mode(self, rule: CompiledRule | None) -> str:
        return self.settings.mode if rule is None else rule.mode

    def log(self, view: RequestView, verdict: Verdict, *, seconds: float) -> None:
        """Write the one line that every judged request leaves."""
        self._recorder.record(view, verdict, seconds=seconds)
        if self._telemetry is not None:
            self._telemetry.record(verdict, seconds=seconds)
