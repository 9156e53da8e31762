"""The guard: from a request to a verdict, and from an outcome to a report."""

from __future__ import annotations

import logging
import random as random_module
import time
from typing import TYPE_CHECKING, Any

from ..client.masking import get_logger
from ..config import Settings
from ..exceptions import AscendError, ConfigurationError
from ..routing import Kind
from ..rules import FieldError, RequestFields, RuleTable
from .body import parse_form, parse_json
from .failure import OpenBudget, refusal_for
from .firewall import FINDINGS, inspect
from .identity import Agent, NotAnAgent
from .steps import BodyTimeout, BodyTooLarge, ClientGone, Hook, ReadBody, Watch
from .verdicts import UNCONDITIONAL, Refusal, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..client.core import ClientCore
    from ..flow import Flow
    from ..models import AuthorizationDecision
    from ..routing import Leaf
    from ..rules import CompiledRule, RouteRules
    from .view import RequestView

__all__ = ["Guard"]

logger = get_logger("ascend_middleware.guard")

_FRAMEWORK_ANSWERS = frozenset({Kind.NOT_FOUND, Kind.METHOD_NOT_ALLOWED, Kind.REDIRECT})


class Guard:
    """Decide about requests under one rule table.

    Args:
        table: the rules, with the settings' defaults.
        settings: checked settings.
        core: the client's flows, which ask the authority.
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
        identify: Callable[[Any], Any] | None = None,
        render: Callable[..., Any] | None = None,
        clock: Callable[[], float] = time.monotonic,
        random: Callable[[], float] = random_module.random,
    ) -> None:
        if identify is not None and settings.agent_header:
            raise ConfigurationError("identify and agent_header both say who the agent is; keep one of them")
        self.table = table
        self.settings = settings
        self.core = core
        self.render = render
        self._identify = identify
        self._clock = clock
        self._random = random
        self._routes: dict[Leaf, RouteRules] = {}
        self._agent = Agent(settings.agent_id, settings.agent_name)
        self._budget = OpenBudget(settings.open_per_minute, clock=clock)
        self._waiters = 0
        if not settings.enabled:
            logger.warning("the guard is switched off (enabled = false): every request passes without a decision")

    # --- before the handler

    def triage(self, view: RequestView) -> Verdict | CompiledRule:
        """Settle what needs no authority; otherwise return the rule to submit the request under."""
        if not self.settings.enabled:
            return Verdict(outcome="disabled", passes=True)
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
        permitted = rule.permit if rule is not None else ()
        if findings and not (permitted and set(findings) <= set(permitted)):
            return self._refuse_findings(findings, rule)
        if rule is None:
            if self.settings.unmapped == "by-method":
                return self.table.by_method_rule(view.method)
            return self._refuse_unmapped(view)
        if rule.block is not None:
            return self._refused(Refusal(problem="blocked", detail=rule.block), rule)
        if rule.exempt:
            return Verdict(outcome="exempt", passes=True, rule=rule)
        return rule

    def decide(self, view: RequestView, rule: CompiledRule) -> Flow[Verdict]:
        """Ask the authority about a request that `triage` found to be governed."""
        agent = yield from self._who(view, rule)
        if isinstance(agent, Verdict):
            return agent
        content = yield from self._read(view, rule)
        if isinstance(content, Verdict):
            return content
        try:
            fields = self._fields(view, rule, content)
            action = rule.action(fields, agent_id=agent.id, agent_name=agent.name or agent.id)
        except (FieldError, ValueError) as error:
            return self._refused(Refusal(problem="bad-request", detail=f"The request cannot be judged: {error}"), rule)
        deadline = self._clock() + self.settings.deadline
        try:
            decision = yield from self.core.submit(action, deadline=deadline)
            # Who only observes does not hold requests up.
            if decision.is_pending() and rule.pending.waits and self._mode(rule) != "observe":
                decision = yield from self._wait(decision, rule)
        except ClientGone:
            return Verdict(outcome="client-gone", passes=False, rule=rule, action=action)
        except AscendError as error:
            verdict = self._failed(error, rule)
        else:
            verdict = self._judged(decision, rule, respond_async=self.settings.respond_async or _prefers_async(view))
            verdict.decision = decision
        verdict.action = action
        verdict.principal = agent.principal
        return verdict

    def _rules_of(self, leaf: Leaf) -> RouteRules:
        rules = self._routes.get(leaf)
        if rules is None:
            rules = self.table.for_route(leaf.template, endpoint=leaf.endpoint, declared=leaf.declared)
            self._routes[leaf] = rules
        return rules

    def _rule(self, view: RequestView, rules: RouteRules | None) -> CompiledRule | None:
        resolved = view.resolved
        if rules is None or resolved is None or resolved.leaf is None:
            return self.table.lookup(view.method, view.path)
        found = rules.select(view.method, view.path)
        if resolved.leaf.kind is not Kind.OPAQUE or found is None or found.block is not None:
            return found
        # Nobody knows what a path runs inside a foreign application, so it is one unit: only what covers it all counts.
        return rules.select(view.method, "")

    def _who(self, view: RequestView, rule: CompiledRule) -> Flow[Agent | Verdict]:
        name = self.settings.agent_header
        if name:
            twins = [value for key, value in view.headers if key.replace("_", "-") == name]
            if len(twins) != 1 or not twins[0].strip() or len(view.header(name)) != 1:
                return self._refused(
                    Refusal(problem="bad-request", detail=f"Exactly one {name} header must name the agent."), rule
                )
            return Agent(twins[0].strip())
        if self._identify is None:
            return self._agent
        try:
            agent = yield Hook(self._identify, (view.request,))
        except Exception:
            logger.exception("identify failed; the request is refused")
            return self._refused(Refusal(problem="misconfigured", detail="The caller could not be identified."), rule)
        if isinstance(agent, NotAnAgent):
            logger.info("passed as not an agent's: %s", agent.reason)
            return Verdict(outcome="not-an-agent", passes=True, rule=rule)
        if not isinstance(agent, Agent) or not agent.id:
            return self._refused(Refusal(problem="denied", detail="The caller is no known agent."), rule)
        return agent

    def _read(self, view: RequestView, rule: CompiledRule) -> Flow[bytes | Verdict | None]:
        if rule.body is None:
            return None
        limit = rule.body_limit
        declared = _declared_length(view)
        if declared is not None and declared > limit:
            return self._too_large(limit, rule)
        seconds = rule.body_timeout
        try:
            content: bytes = yield ReadBody(limit, seconds)
        except BodyTooLarge:
            return self._too_large(limit, rule)
        except BodyTimeout:
            detail = f"The body did not arrive within {seconds:g} seconds."
            return self._refused(Refusal(problem="body-timeout", detail=detail), rule, firm=True)
        except ClientGone:
            return Verdict(outcome="client-gone", passes=False, rule=rule)
        if declared is not None and declared != len(content):
            detail = "The body is not as long as its content-length says."
            return self._refused(Refusal(problem="bad-request", detail=detail), rule, firm=True)
        return content

    def _fields(self, view: RequestView, rule: CompiledRule, content: bytes | None) -> RequestFields:
        resolved = view.resolved
        params = resolved.params if resolved is not None else rule.path_params(view.path)
        template = resolved.leaf.template if resolved is not None and resolved.leaf is not None else view.path
        values: dict[str, Any] = {}
        if rule.body == "json":
            values["body"] = parse_json(view, content or b"")
        elif rule.body == "form":
            values["form"] = parse_form(view, content or b"")
        return RequestFields(
            method=view.method,
            template=template,
            path_params=params,
            query=view.query_pairs if view.query else (),
            headers=view.headers,
            **values,
        )

    def _wait(self, decision: AuthorizationDecision, rule: CompiledRule) -> Flow[AuthorizationDecision]:
        """Poll until a person has decided, the time is up, or the client has left."""
        if self._waiters >= self.settings.max_waiters:
            return decision
        self._waiters += 1
        try:
            until = self._clock() + rule.pending.seconds
            while decision.is_pending():
                left = until - self._clock()
                if left <= 0:
                    break
                # Jitter keeps many waiters from asking in step.
                pause = min(left, self.settings.poll_interval * (0.5 + self._random() / 2))
                while pause > 0:
                    gone = yield Watch(min(pause, 0.5))
                    if gone:
                        raise ClientGone
                    pause -= 0.5
                try:
                    decision = yield from self.core.status(
                        decision.action_id, deadline=self._clock() + min(self.settings.deadline, max(left, 0.5))
                    )
                except AscendError as error:
                    # A known pending action stays pending, whatever becomes of one poll; a kill ends the wait.
                    refusal, _ = refusal_for(error)
                    if refusal.problem in UNCONDITIONAL or refusal.problem == "misconfigured":
                        raise
        finally:
            self._waiters -= 1
        return decision

    # --- verdicts

    def _judged(self, decision: AuthorizationDecision, rule: CompiledRule, *, respond_async: bool) -> Verdict:
        if decision.is_approved():
            return Verdict(outcome="allowed", passes=True, rule=rule)
        extra: dict[str, Any] = {"reason": decision.reason} if decision.reason else {}
        if self.settings.expose_risk and decision.risk_score is not None:
            extra["risk_score"] = decision.risk_score
        if decision.is_pending():
            refusal = Refusal(
                problem="approval-required",
                detail="A person has to approve this action; repeat the request once it is approved.",
                retry_after=max(1.0, self.settings.poll_interval),
                extra={**extra, "executed": False},
                status=202 if respond_async else None,
            )
        elif decision.status == "requires_modification":
            extra["conditions"] = decision.conditions
            refusal = Refusal(problem="modification-required", detail=decision.reason or "See conditions.", extra=extra)
        else:
            refusal = Refusal(problem="denied", detail=decision.reason or "The authority denied it.", extra=extra)
        return self._refused(refusal, rule)

    def _failed(self, error: AscendError, rule: CompiledRule) -> Verdict:
        refusal, may_open = refusal_for(error)
        log = logger.error if refusal.problem in ("misconfigured", "kill-switch") else logger.warning
        log("no decision under %s: %s: %s", rule.label, type(error).__name__, error)
        if may_open and rule.on_failure == "open":
            if self._budget.take():
                logger.warning("passed without a decision under %s, because on_failure is open", rule.label)
                return Verdict(outcome="open", passes=True, rule=rule)
            logger.error("the open_per_minute budget of %d is spent; refusing", self.settings.open_per_minute)
        return self._refused(refusal, rule)

    def _too_large(self, limit: int, rule: CompiledRule) -> Verdict:
        detail = f"A governed body holds at most {limit} bytes."
        return self._refused(Refusal(problem="body-too-large", detail=detail), rule)

    def _refuse_findings(self, findings: list[str], rule: CompiledRule | None) -> Verdict:
        text = "; ".join(FINDINGS[finding] for finding in findings)
        return self._refused(
            Refusal(problem="bad-request", detail=f"Refused: {text}.", extra={"findings": findings}), rule
        )

    def _refuse_unmapped(self, view: RequestView) -> Verdict:
        leaf = view.resolved.leaf if view.resolved is not None else None
        match = f"{view.method} {leaf.template if leaf is not None else view.path}"
        logger.warning(
            'no rule covers %r; add [[rule]] match = "%s" with an action_type, exempt or block',
            match,
            _printable(match),
        )
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
        if not logger.isEnabledFor(logging.INFO):
            return
        template = view.resolved.leaf.template if view.resolved and view.resolved.leaf else view.path
        logger.info(
            "%s %s: %s%s (%s, %.1f ms)",
            view.method,
            _printable(template[:200]),
            verdict.outcome,
            f", would be {verdict.would}" if verdict.would else "",
            verdict.rule.label if verdict.rule is not None else "no rule",
            seconds * 1000,
            extra={"ascend_outcome": verdict.outcome, "ascend_action_id": verdict.action_id},
        )


def _declared_length(view: RequestView) -> int | None:
    """Return what the one content-length says; servers refuse the ill-formed, and the body's own size counts anyway."""
    texts = set(view.header("content-length"))
    text = texts.pop() if len(texts) == 1 else ""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 18 else None


def _prefers_async(view: RequestView) -> bool:
    preferences = (
        part.partition(";")[0].strip().lower() for value in view.header("prefer") for part in value.split(",")
    )
    return "respond-async" in preferences


def _printable(text: str) -> str:
    """Return a stranger's text so that it cannot forge a line of the log."""
    return text if text.isprintable() else ascii(text)
