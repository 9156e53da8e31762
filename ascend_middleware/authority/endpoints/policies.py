"""Policies and smart rules over HTTP, and the dry run of a decision.

Both become policies of the organisation and are judged with those of the policy file: where several match, the
strictest wins. Their conditions are checked when they are written; what is wrong is told with its place.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

import msgspec
from msgspec import Struct

from ascend_middleware.api import endpoints
from ascend_middleware.api.bodies import NewPolicy, NewRule, Page, PolicyChange, RuleChange, Trial
from ascend_middleware.exceptions import ConflictError, NotFoundError

from .. import killswitch, orchestration
from ..bodies import ApiError, read_submission
from ..context import Call, Handlers, Reply, check_patterns
from ..pagination import listed
from ..policy.conditions import Condition, compile_condition
from ..policy.policy import RULE_ACTIONS, Policy
from ..policy.risk_score import claimed_risk, risk_level, score_action
from ..store.registry_store import POLICY, SMART_RULE
from .actions import judged_form

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..store.registry_store import Records

__all__ = ["HANDLERS", "kept_policies"]

_MOST: Final = 500


def kept_policies(records: Records, *, tenant: str) -> tuple[Policy, ...]:
    """Return the organisation's enabled policies and smart rules, compiled."""

    def load() -> tuple[Policy, ...]:
        rows = [(kind, row) for kind in (POLICY, SMART_RULE) for row in records.all(kind, tenant=tenant)]
        return tuple(_compiled(kind, row) for kind, row in rows if row["enabled"])

    return records.cached(("policies", tenant), load)


def _compiled(kind: str, row: Mapping[str, Any]) -> Policy:
    rule = kind == SMART_RULE
    source = row["condition"] if rule else row["when"]
    condition = None
    if source is not None:
        found = compile_condition(source)
        # Checked when it was written; what a newer version takes no more must not be skipped, but deny.
        condition = found if isinstance(found, Condition) else Condition(source=source, weight=0, run=lambda _: None)
    return Policy(
        name=row["name"],
        action_types=tuple(word.casefold() for word in row["action_types"]),
        agents=tuple(row["agents"]),
        condition=condition,
        decision=RULE_ACTIONS[row["action"]] if rule else row["decision"],
        risk_score=row["risk_score"],
        reason=row["reason"] or "",
        source="smart rule" if rule else "policy",
    )


def _checked(fields: dict[str, Any], name: str) -> None:
    check_patterns(fields, "action_types", "agents")
    source = fields.get(name)
    if source is None:
        return
    found = compile_condition(source)
    if isinstance(found, Condition):
        return
    first = found[0]
    faults = [
        {"issue": one.message, "hint": one.hint or None, "line": one.line or None, "column": one.column or None}
        for one in found
    ]
    details = {"field": name, "issue": first.message, "line": first.line, "column": first.column, "faults": faults}
    raise ApiError(422, "INVALID_CONDITION", f"{name}: {first}", details=details)


class _Kind:
    """The endpoints of one of the two kinds."""

    def __init__(
        self, kind: str, *, new: type[Struct], change: type[Struct], condition: str, words: tuple[str, str]
    ) -> None:
        self.kind = kind
        self.new = new
        self.change = change
        self.condition = condition
        self.one, self.many = words
        self.event = kind.upper()

    def list(self, call: Call) -> Reply:
        page = call.query(Page)
        rows, total = call.records.page(self.kind, tenant=call.tenant, limit=page.limit, offset=page.offset)
        return Reply(fields=listed(page, self.many, [self.shown(row) for row in rows], total))

    def get(self, call: Call) -> Reply:
        return Reply(fields=self.shown(self.find(call)))

    def create(self, call: Call) -> Reply:
        fields = msgspec.to_builtins(call.body(self.new))
        _checked(fields, self.condition)
        name = fields.pop("name")
        # Every submission is judged by all of them.
        if call.records.page(self.kind, tenant=call.tenant, limit=1, offset=0)[1] >= _MOST:
            raise ApiError(409, "TOO_MANY", f"an organisation has at most {_MOST} {self.many}")
        try:
            record = call.records.add(self.kind, name, fields, tenant=call.tenant, key_id=call.credential.key_id)
        except ConflictError:
            raise ApiError(409, "CONFLICT", f"a {self.one} {name!r} already exists") from None
        call.audit(f"{self.event}_CREATED", id=record["id"], name=name, **fields)
        shown = self.shown(record)
        message = f"{self.one} created"
        return Reply(fields={**shown, "success": True, self.one: shown, "message": message}, status=201)

    def update(self, call: Call) -> Reply:
        record = self.find(call)
        given = msgspec.structs.asdict(call.body(self.change))
        fields = {name: value for name, value in given.items() if value is not None}
        _checked(fields, self.condition)
        record = call.records.update(record, fields, tenant=call.tenant)
        call.audit(f"{self.event}_CHANGED", id=record["id"], name=record["name"], **fields)
        shown = self.shown(record)
        return Reply(fields={**shown, "success": True, self.one: shown, "message": f"{self.one} changed"})

    def delete(self, call: Call) -> Reply:
        record = self.find(call)
        call.records.remove(record, tenant=call.tenant)
        call.audit(f"{self.event}_REMOVED", id=record["id"], name=record["name"])
        return Reply(fields={"success": True, "id": record["id"], "message": f"{self.one} removed"})

    def find(self, call: Call) -> dict[str, Any]:
        text = call.parameters["id"]
        number = int(text) if text.isascii() and text.isdigit() and len(text) <= 19 else 0
        try:
            return call.records.numbered(self.kind, number, tenant=call.tenant)
        except NotFoundError:
            raise ApiError(404, "NOT_FOUND", f"there is no such {self.one}") from None

    def shown(self, record: Mapping[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in record.items() if name != "key_id"}


_POLICIES: Final = _Kind(POLICY, new=NewPolicy, change=PolicyChange, condition="when", words=("policy", "policies"))
_RULES: Final = _Kind(SMART_RULE, new=NewRule, change=RuleChange, condition="condition", words=("rule", "rules"))


def _evaluate(call: Call) -> Reply:
    """Tell what would be decided; nothing is stored, and no claim of the caller lowers the score."""
    began = time.perf_counter()
    trial = call.body(Trial)
    body = {name: value for name, value in msgspec.structs.asdict(trial).items() if value is not None}
    action = read_submission({"agent_id": "dry-run", **body})
    refusals, findings = orchestration.try_out(action, call)
    standing = killswitch.standing(call.records, trial.agent_id, tenant=call.tenant)
    if standing.blocked:
        refusals.insert(0, f"the kill switch says {standing.word}")
    score = score_action(
        action["action_type"],
        action["risk_indicators"],
        action["context"],
        findings.signals,
        claimed_risk(call.request.read()),
    )
    judgement = call.authority.judge(judged_form(action), score, tenant=call.tenant)
    decision = "denied" if refusals else judgement.decision
    faults = judgement.faults if call.credential.role.administers else {}
    policies = [
        {**row, "fault": faults.get(row["name"], "")} if row["evaluation_failed"] and faults else row
        for row in judgement.explanation["policies"]
    ]
    violations = [*refusals, *(row["reason"] for row in policies if row["decision"] == "denied")]
    if decision == "denied" and not violations:
        violations = [judgement.reason]
    fields = {
        "decision": decision,
        "status": decision,
        "reason": refusals[0] if refusals else judgement.reason,
        "matched_policies": policies,
        "policy_matched": judgement.policy_matched or None,
        "violations": violations,
        "risk_score": judgement.risk_score,
        "risk_level": risk_level(judgement.risk_score),
        "explanation": {**judgement.explanation, "policies": policies},
        "policy_version": call.authority.policy.version,
        "evaluation_time_ms": round((time.perf_counter() - began) * 1000, 3),
        "dry_run": True,
    }
    return Reply(fields=fields, kind="decision")


HANDLERS: Final[Handlers] = {
    endpoints.LIST_RULES: _RULES.list,
    endpoints.CREATE_RULE: _RULES.create,
    endpoints.GET_RULE: _RULES.get,
    endpoints.UPDATE_RULE: _RULES.update,
    endpoints.DELETE_RULE: _RULES.delete,
    endpoints.EVALUATE_POLICY: _evaluate,
    endpoints.LIST_POLICIES: _POLICIES.list,
    endpoints.CREATE_POLICY: _POLICIES.create,
    endpoints.GET_POLICY: _POLICIES.get,
    endpoints.UPDATE_POLICY: _POLICIES.update,
    endpoints.DELETE_POLICY: _POLICIES.delete,
}
