"""The plan of a rule: what becomes of its requests, as far as it does not depend on them; made once and kept.

A route whose rules look at the method only has one plan for each method; others choose among the plans of their rules
by the path.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from ..api.values import is_plain
from ..journal.journal import begin_entry
from ..journal.lines import Begun
from ..routing import Kind
from ..rules import FieldError, RequestFields
from ..verdict import UNCONDITIONAL, Refusal, Verdict
from .firewall import USUAL_METHODS, parse_form, parse_json

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..api.models import AgentAction, AuthorizationDecision
    from ..client.core import Attempt
    from ..config import Settings
    from ..routing import Leaf
    from ..rules import CompiledRule, Method, RouteRules, RuleTable
    from .fingerprint import Binding
    from .request import Agent, RequestView

__all__ = ["Asked", "Case", "Plan", "Plans"]

# What is checked, or written otherwise, when it is submitted.
_NOT_AS_GIVEN: Final = frozenset({"parent_action_id", "orchestration_depth", "model_id"})
_encode: Final = msgspec.json.Encoder().encode


class Plan(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """What becomes of the requests of one rule, or of those that no rule covers.

    Attributes:
        rule: None for what no rule covers.
        label: how messages, the journal and metrics call the rule.
        observe: whether nothing is refused but what is refused unconditionally.
        permit: the firewall findings that do not refuse.
        settled: the verdict where nobody is asked, because the rule exempts or blocks.
        make: makes the action of a request; see `CompiledRule.action`.
        make_of_path: likewise, of its path parameters alone; see `CompiledRule.path_action_maker`.
        encode: encodes such an action as it is submitted; None where only `submit` can say how.
        entry: what the journal's entry of a permission begins with, for the service's own agent.
        cached_entry: likewise, of one that rests on a decision that is kept.
        body: what the rule reads of the body: None, `json` or `form`.
        opens: whether a request passes where no answer came at all.
        waits: whether requests are held while a person decides.
        reuses: whether a decision may be used for several requests.
        problem: why no rule can be chosen: rules of equal rank contradict each other.
    """

    rule: CompiledRule | None
    label: str
    observe: bool
    permit: frozenset[str] = frozenset()
    settled: Verdict | None = None
    make: Callable[..., AgentAction] | None = None
    make_of_path: Callable[..., AgentAction | None] | None = None
    encode: Callable[[AgentAction], bytes | None] | None = None
    entry: Begun = Begun(b"", 0)
    cached_entry: Begun = Begun(b"", 0)
    body: str | None = None
    opens: bool = False
    waits: bool = False
    reuses: bool = False
    problem: str = ""

    def refused(self, refusal: Refusal, *, firm: bool = False, **known: Any) -> Verdict:
        """Return the refusal, or in observe mode a pass that tells what would have been answered.

        One that is `firm` holds in observe mode too: the request is not whole, so there is nothing to pass on.
        """
        observed = self.observe and not firm and refusal.problem not in UNCONDITIONAL
        return Verdict(
            outcome="observed" if observed else refusal.problem,
            passes=observed,
            refusal=None if observed else refusal,
            rule=self.rule,
            would=refusal.problem if observed else None,
            **known,
        )


class Ticket(msgspec.Struct, frozen=True, eq=False):
    """What a request shares decisions under.

    Attributes:
        key: the digest of the request.
        generation: of which this was at the beginning; what is decided is not kept where that is over.
        began: when it was asked for.
    """

    key: bytes
    generation: int
    began: float


class Case(msgspec.Struct, eq=False):
    """One request that is being decided about: what the stages find out one after the other."""

    view: RequestView
    plan: Plan
    rule: CompiledRule
    agent: Agent
    content: bytes | None = None
    params: Any = None
    action: Any = None
    binding: Binding | None = None
    ticket: Ticket | None = None
    # Whether such a request is on hold already, of a caller who may be another one.
    is_held: bool = False
    decision: AuthorizationDecision | None = None

    def refused(self, refusal: Refusal, **known: Any) -> Verdict:
        """Return what `Plan.refused` makes of a refusal, with all that was found out."""
        known |= {"action": self.action, "decision": self.decision, "principal": self.agent.principal}
        return self.plan.refused(refusal, **known)

    def locate(self) -> None:
        """Find the parameters of the path."""
        resolved = self.view.resolved
        self.params = self.rule.path_params(self.view.path) if resolved is None else resolved.params

    def describe(self) -> Refusal | None:
        """Make the action of what the rule reads, or refuse a request that holds none."""
        view, recipe, agent, make = self.view, self.rule.recipe, self.agent, self.plan.make
        assert make is not None  # noqa: S101 - `triage` has settled what is not submitted
        of_path, routed = self.plan.make_of_path, view.resolved
        if of_path is not None and routed is not None and routed.leaf is not None:
            resource = f"{view.verb} {routed.leaf.template}"
            self.params, self.action = routed.params, of_path(routed.params, resource, agent.id, agent.name or agent.id)
            if self.action is not None:
                return None
        read: dict[str, Any] = {}
        try:
            if recipe.body == "json":
                read["body"] = parse_json(view, self.content or b"")
            elif recipe.body == "form":
                read["form"] = parse_form(view, self.content or b"")
            self.locate()
            leaf = None if view.resolved is None else view.resolved.leaf
            fields = RequestFields(
                method=view.verb,
                template=view.path if leaf is None else leaf.template,
                path_params=self.params,
                # What nobody reads may be written as it likes.
                query=view.query_pairs if view.query and recipe.reads_query else (),
                headers=view.headers if recipe.reads_headers else (),
                **read,
            )
            self.action = make(fields, agent.id, agent.name or agent.id)
        except (FieldError, ValueError) as error:
            return Refusal(problem="bad-request", detail=f"The request cannot be judged: {error}")
        return None


class Asked(msgspec.Struct, eq=False):
    """A request about which the authority is to be asked, in one attempt outside of any flow: the good case.

    Who has sent it gives `attempt.answer` to `Guard.hear`. There is no `case` where `Guard.at_once` needed none.
    """

    plan: Plan
    action: AgentAction
    attempt: Attempt
    case: Case | None = None


class Plans:
    """The plans of one guard.

    Attributes:
        none: of what no rule covers.
        known: by route and method, where nothing else has to be looked at.
        exempt: likewise, of those that a rule exempts.
        plain: likewise, of those that are asked about with nothing but their path's parameters, and are told apart by
            nothing: the plan, and the resource of a rule that names none.
    """

    def __init__(self, table: RuleTable, settings: Settings) -> None:
        self._table: Final = table
        self._by_method: Final = settings.unmapped == "by-method"
        self._agent_id: Final = settings.agent_id
        self._permitted: Final = {frozenset(rule.permit) for rule in table.rules if rule.permit}
        if self._by_method:
            self._permitted.add(frozenset(settings.unmapped_permit))
        self._routes: dict[Leaf, RouteRules] = {}
        self.known: Final[dict[tuple[Leaf | None, Method], Plan]] = {}
        self.exempt: Final[dict[tuple[Leaf | None, Method], Plan]] = {}
        self.plain: Final[dict[tuple[Leaf | None, Method], tuple[Plan, str]]] = {}
        self.none: Final = Plan(rule=None, label="no rule", observe=settings.mode == "observe")
        self._of_rules: dict[CompiledRule, Plan] = {}

    def of(self, view: RequestView) -> Plan:
        """Return the plan for a request whose plan is not `known`."""
        leaf = view.resolved.leaf if view.resolved is not None else None
        return self.of_path(view.method, view.path) if leaf is None else self._choose(leaf, view)

    def of_path(self, method: Method, path: str) -> Plan:
        """Return the plan for a request by its path, where no router can be asked."""
        rule = self._table.lookup(method, path)
        known = None if rule is None else self._of_rules.get(rule)
        return self._of(rule, method) if known is None else known

    def of_rule(self, rule: CompiledRule | None) -> Plan:
        """Return the plan of a rule."""
        if rule is None:
            return self.none
        found = self._of_rules.get(rule)
        if found is None:
            # Threads get the same one, which is compared.
            found = self._of_rules.setdefault(rule, _plan(rule, self._agent_id))
        return found

    def some_permit(self, findings: list[str]) -> bool:
        """Say whether the requests of some rule may have all these findings of the firewall."""
        return any(permit.issuperset(findings) for permit in self._permitted)

    def rule_of(self, view: RequestView) -> CompiledRule | None:
        """Return the rule that covers a request; one by the method covers none."""
        resolved = view.resolved
        if resolved is None or resolved.leaf is None:
            return self._table.lookup(view.method, view.path)
        rules = self._rules_of(resolved.leaf)
        return rules.select(view.method, view.path, whole=resolved.leaf.kind is Kind.OPAQUE)

    def _of(self, rule: CompiledRule | None, method: Method) -> Plan:
        return self.of_rule(self._table.by_method_rule(method) if rule is None and self._by_method else rule)

    def _rules_of(self, leaf: Leaf) -> RouteRules:
        rules = self._routes.get(leaf)
        if rules is None:
            rules = self._routes[leaf] = self._table.for_route(
                leaf.template, endpoint=leaf.endpoint, declared=leaf.declared, files=leaf.kind is Kind.STATIC
            )
        return rules

    def _choose(self, leaf: Leaf, view: RequestView) -> Plan:
        rules = self._rules_of(leaf)
        if rules.problem is not None:
            plan = Plan(rule=None, label="no rule", observe=self.none.observe, problem=str(rules.problem))
        else:
            plan = self._of(self.rule_of(view), view.method)
            first = next(rules.parts(view.method, whole=leaf.kind is Kind.OPAQUE))
            if not first.covers:
                return plan  # another path of the route may have another rule
        if view.method in USUAL_METHODS:  # others are a caller's to make up
            self.known[leaf, view.method] = plan
            if plan.settled is not None and plan.settled.outcome == "exempt":
                self.exempt[leaf, view.method] = plan
            elif plan.make_of_path is not None and plan.encode is not None and not (plan.reuses or plan.observe):
                self.plain[leaf, view.method] = plan, f"{view.verb} {leaf.template}"
        return plan


def _plan(rule: CompiledRule, agent_id: str) -> Plan:
    given: dict[str, Any] = {
        "rule": rule,
        "label": rule.label,
        "observe": rule.mode == "observe",
        "permit": frozenset(rule.permit),
    }
    bare = Plan(**given)
    if rule.block is not None:
        return Plan(**given, settled=bare.refused(Refusal(problem="blocked", detail=rule.block)))
    if rule.exempt:
        return Plan(**given, settled=Verdict(outcome="exempt", passes=True, rule=rule))
    return Plan(
        **given,
        make=rule.action_maker(),
        make_of_path=rule.path_action_maker(),
        entry=begin_entry(how="allowed", rule=rule.label, agent=agent_id),
        cached_entry=begin_entry(how="cached", rule=rule.label, agent=agent_id),
        encode=None if rule.body is not None else _encoder(rule),
        body=rule.body,
        opens=rule.on_failure == "open",
        waits=rule.pending.waits,
        # Who only observes uses no decision a second time, so that each request is seen.
        reuses=bool(rule.reuse) and rule.mode != "observe",
    )


def _encoder(rule: CompiledRule) -> Callable[[AgentAction], bytes | None] | None:
    """Return what encodes the rule's actions as `submit` does, where their values are texts and plain objects."""
    if not _NOT_AS_GIVEN.isdisjoint(name for name, _ in rule.recipe.texts):
        return None
    maps = {"action_details" if name == "details" else name for name, _ in rule.recipe.maps}
    if rule.mode == "observe":
        maps.add("context")

    def encode_texts(action: AgentAction) -> bytes | None:
        try:
            return _encode(action)
        except ValueError:
            return None  # a text that is none

    def encode(action: AgentAction) -> bytes | None:
        for name in maps:
            value = getattr(action, name)
            if value is not None and not is_plain(value):
                return None
        return encode_texts(action)

    return encode if maps else encode_texts
