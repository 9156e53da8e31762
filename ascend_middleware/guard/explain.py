"""Explain what a guard would do with one request: the rule, the rules that lost, and what would be sent.

The guard's own flow runs, with a body at hand and without state; it is stopped where it would ask the authority, and
what it was about to send is what is shown.
"""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..client.core import Send
from ..flow import Blocking, BodyTooLarge, Hook, ReadBody, drive
from ..routing import Kind
from ..rules import parse_route, redact
from ..setting_values import FINDINGS
from ..verdict import REFUSALS, Verdict
from .firewall import inspect
from .plan import Asked

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ..rules import CompiledRule, Method, RuleTable
    from .decide import Guard
    from .request import RequestView

__all__ = ["Explanation", "Loser", "explain"]


@dataclass(frozen=True, slots=True)
class Loser:
    """A rule that speaks of the request, too, and why it does not govern it."""

    rule: CompiledRule
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """What becomes of a request; its `payload` is what the authority would be sent, and nothing in it is secret.

    The `outcome` is `ask` where the authority decides, or as in `Verdict.outcome`; `status` is what a refusal answers.
    `permitted` says whether the rule permits all that the firewall found; `losers` match, too, and do not govern.
    """

    outcome: str
    detail: str
    status: int | None
    kind: Kind | None
    template: str
    endpoint: str | None
    params: Mapping[str, Any]
    findings: Mapping[str, str]
    permitted: bool
    rule: CompiledRule | None
    losers: Sequence[Loser]
    payload: Mapping[str, Any] | None


def explain(guard: Guard, view: RequestView, body: bytes) -> Explanation:
    """Run the flow of a guard that keeps nothing up to the question, and tell what it came to."""
    found = guard.triage(view)
    verdict: Verdict | None = None
    payload = None
    rule = guard.rule_for(view)
    if isinstance(found, Verdict):
        verdict = found
    elif isinstance(found, Asked):
        payload = json.loads(found.attempt.request.content)
    else:
        try:
            verdict = drive(found, functools.partial(_perform, body))
        except _Asks as asked:
            payload = json.loads(asked.content)
        rule = rule or (verdict.rule if verdict is not None else guard.table.by_method_rule(view.method))
    resolved = view.resolved
    leaf = resolved.leaf if resolved is not None else None
    names = inspect(view)
    refusal = verdict.refusal if verdict is not None else None
    outcome = verdict.outcome if verdict is not None else "ask"
    if verdict is not None and verdict.would:
        outcome = f"{verdict.outcome}, would be {verdict.would}"
    return Explanation(
        outcome=outcome,
        detail=refusal.detail if refusal is not None else "",
        status=None if refusal is None else refusal.status or REFUSALS[refusal.problem][0],
        kind=resolved.kind if resolved is not None else None,
        template=view.template,
        endpoint=leaf.endpoint if leaf is not None else None,
        params=redact(dict(resolved.params), guard.table.defaults.secrets) if resolved is not None else {},
        findings={name: FINDINGS[name] for name in names},
        permitted=bool(names) and rule is not None and set(names) <= set(rule.permit),
        rule=rule,
        losers=tuple(_losers(guard.table, view, rule)),
        payload=payload,
    )


class _Asks(BaseException):
    """The flow would ask the authority now, with this body; no flow catches it."""

    def __init__(self, content: bytes) -> None:
        self.content = content


def _perform(body: bytes, step: Any) -> Any:
    if isinstance(step, Send):
        raise _Asks(step.request.content)
    if isinstance(step, ReadBody):
        if len(body) > step.limit:
            raise BodyTooLarge
        return body
    assert isinstance(step, Blocking | Hook)  # noqa: S101 - there are no others before the question
    return step.function(*step.arguments)


# --- the rules that lost


def _losers(table: RuleTable, view: RequestView, winner: CompiledRule | None) -> list[Loser]:
    leaf = view.resolved.leaf if view.resolved is not None else None
    endpoint = leaf.endpoint if leaf is not None else None
    decider = winner or _decider(table, view)
    found = []
    for rule in table.rules:
        speaks = rule.template.matches(view.path) if rule.endpoint is None else rule.endpoint == endpoint
        if speaks and rule is not winner:
            found.append(Loser(rule, _why(rule, decider, view)))
    return found


def _decider(table: RuleTable, view: RequestView) -> CompiledRule | None:
    """Return a rule of the template that decided that the method is unmapped."""
    rules = (rule for rule in table.rules if rule.endpoint is None and rule.block is None)
    matching = [rule for rule in rules if rule.template.matches(view.path)]
    return next((rule for rule in matching if all(other.template.covers(rule.template) for other in matching)), None)


def _why(rule: CompiledRule, decider: CompiledRule | None, view: RequestView) -> str:
    leaf = view.resolved.leaf if view.resolved is not None else None
    method = view.method
    if leaf is None and view.resolved is not None:
        return "no handler runs, so rules are not looked at"
    if not _lists(rule, method):
        return f"it does not list {method}"
    if decider is not None and decider.block is not None:
        return f"{decider.short_label} blocks, and a block beats everything that it covers"
    if leaf is not None and leaf.kind is Kind.OPAQUE and not rule.template.covers(parse_route(leaf.template)):
        return f"{leaf.template} is one unit, and this covers a part of it"
    if decider is None:
        return "the request is settled before rules are looked at"
    if decider.declaration is not None or (decider.endpoint is not None and rule.endpoint is None):
        where = "stands at the handler" if decider.declaration is not None else "names the endpoint"
        return f"{decider.short_label} {where}"
    if rule.template == decider.template:
        return f"{decider.short_label} lists fewer methods"
    more = f"{decider.match.partition(' ')[2]} is more specific"
    return more if _lists(decider, method) else f"{more}, and an unlisted method is unmapped"


def _lists(rule: CompiledRule, method: Method) -> bool:
    return bool(rule.methods & {method, "*"}) or (method == "HEAD" and "GET" in rule.methods)
