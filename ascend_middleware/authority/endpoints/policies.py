"""Policies and smart rules over HTTP, and the dry run of a decision.

Both become policies of the organisation and are judged with those of the policy file: where several match, the
strictest wins. Their conditions are checked when they are written; what is wrong is told with its place.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from ascend_middleware.api import endpoints
from ascend_middleware.api.bodies import Page
from ascend_middleware.api.endpoint import given
from ascend_middleware.exceptions import ConflictError

from .. import killswitch, orchestration
from ..bodies import ApiError, read_submission
from ..context import Call, Fields, answers, check_patterns
from ..judging import Apart, Task
from ..paging import listed
from ..policy import Policies, Policy
from ..policy.conditions import compile_condition
from ..policy.evaluation import condition_of, not_compiled
from ..policy.risk_score import claimed_risk, risk_level, score_action
from ..store.registry_store import POLICY, SMART_RULE, Records
from .actions import judged_form

__all__ = ["kept_policies"]

_MOST: Final = 500
# To compile one takes a tenth of a millisecond.
_COMPILED_AT_ONCE: Final = 10


def kept_policies(records: Records, *, tenant: str) -> Policies:
    """Return the organisation's enabled policies and smart rules, compiled.

    Raises:
        Apart: within a transaction, if many have to be compiled first.
    """

    def load() -> Policies:
        rows = [row for kind in (POLICY, SMART_RULE) for row in records.all(kind, tenant=tenant) if row["enabled"]]
        if records.memo is not None:
            fresh = not_compiled(source for row in rows if (source := _source(row)) is not None)
            if len(fresh) > _COMPILED_AT_ONCE:
                raise Apart(Task(tenant, sources=fresh))
        return Policies(map(_compiled, rows))

    return records.cached(("policies", tenant), load)


def _source(row: Mapping[str, Any]) -> str | None:
    source: str | None = row.get("condition", row.get("when"))
    return source


def _compiled(row: Mapping[str, Any]) -> Policy:
    source = _source(row)
    condition = None if source is None else condition_of(source)
    return Policy.of(row, condition, source="smart rule" if "action" in row else "policy")


def _check(fields: Mapping[str, Any], kind: _Kind) -> None:
    check_patterns(fields, "action_types", "agents")
    source = fields.get(kind.condition)
    faults = compile_condition(source) if source is not None else None
    if not isinstance(faults, list):
        return
    first = faults[0]
    rows = [
        {"issue": one.message, "hint": one.hint or None, "line": one.line or None, "column": one.column or None}
        for one in faults
    ]
    details = {"issue": first.message, "line": first.line, "column": first.column, "faults": rows}
    message = f"{kind.condition}: {first}"
    raise ApiError(422, "INVALID_CONDITION", message, details={"field": kind.condition, **details})


class _Kind(NamedTuple):
    """One of the two kinds: its record, the field of its condition, and what messages call one and many."""

    record: str
    condition: str
    one: str
    many: str


_RULES: Final = _Kind(SMART_RULE, "condition", "rule", "rules")
_POLICIES: Final = _Kind(POLICY, "when", "policy", "policies")


def _kind(call: Call) -> _Kind:
    return _RULES if call.endpoint.path.startswith(endpoints.LIST_RULES.path) else _POLICIES


@answers(endpoints.LIST_RULES, endpoints.LIST_POLICIES)
def _list(call: Call) -> Fields:
    kind, page = _kind(call), call.query(Page)
    return listed(kind.many, page, call.page(kind.record, page).of(_shown))


@answers(endpoints.GET_RULE, endpoints.GET_POLICY)
def _get(call: Call) -> Fields:
    return _shown(_find(call))


@answers(endpoints.CREATE_RULE, endpoints.CREATE_POLICY)
def _create(call: Call) -> Fields:
    kind, fields = _kind(call), call.fields()
    _check(fields, kind)
    name = fields.pop("name")
    # Every submission is judged by all of them.
    if call.store.page(kind.record, tenant=call.tenant, limit=1).total >= _MOST:
        raise ApiError(409, "TOO_MANY", f"an organisation has at most {_MOST} {kind.many}")
    try:
        record = call.store.add(kind.record, name, fields, tenant=call.tenant, key_id=call.credential.key_id)
    except ConflictError:
        raise ApiError(409, "CONFLICT", f"a {kind.one} {name!r} already exists") from None
    return _told(call, record, "created", **fields)


@answers(endpoints.UPDATE_RULE, endpoints.UPDATE_POLICY)
def _update(call: Call) -> Fields:
    record, fields = _find(call), given(**call.fields())
    _check(fields, _kind(call))
    return _told(call, call.store.update(record, fields, tenant=call.tenant), "changed", **fields)


@answers(endpoints.DELETE_RULE, endpoints.DELETE_POLICY)
def _delete(call: Call) -> Fields:
    record = _find(call)
    call.store.remove(record, tenant=call.tenant)
    told = _told(call, record, "removed")
    return {name: told[name] for name in ("success", "id", "message")}


def _told(call: Call, record: dict[str, Any], done: str, **fields: Any) -> Fields:
    """Note what was done to a policy or rule, and return the answer that tells it."""
    kind, shown = _kind(call), _shown(record)
    call.audit(f"{kind.record}_{done}".upper(), id=record["id"], name=record["name"], **fields)
    return {**shown, "success": True, kind.one: shown, "message": f"{kind.one} {done}"}


def _find(call: Call) -> Fields:
    text, kind = call.parameters["id"], _kind(call)
    number = int(text) if text.isascii() and text.isdigit() and len(text) <= 19 else 0
    return call.found(kind.one, lambda: call.store.numbered(kind.record, number, tenant=call.tenant))


def _shown(record: Mapping[str, Any]) -> Fields:
    return {name: value for name, value in record.items() if name != "key_id"}


@answers(endpoints.EVALUATE_POLICY)
def _evaluate(call: Call) -> Fields:
    """Tell what would be decided; nothing is stored, and no claim of the caller lowers the score."""
    began = time.perf_counter()
    body = given(**call.fields())
    action = read_submission({"agent_id": "dry-run", **body})
    refusals, findings = orchestration.try_out(action, call)
    standing = killswitch.standing(call.store, body.get("agent_id"), tenant=call.tenant)
    if standing.blocked:
        refusals.insert(0, f"the kill switch says {standing.word}")
    kind, claimed = action["action_type"], claimed_risk(call.request.read())
    score = score_action(kind, action["risk_indicators"], action["context"], findings.signals, claimed)
    judgement = call.judge(judged_form(action), score)
    decision = "denied" if refusals else judgement.decision
    faults = judgement.faults if call.credential.role.administers else {}
    policies = [
        {**row, "fault": faults.get(row["name"], "")} if row["evaluation_failed"] and faults else row
        for row in judgement.explanation["policies"]
    ]
    violations = [*refusals, *(row["reason"] for row in policies if row["decision"] == "denied")]
    if decision == "denied" and not violations:
        violations = [judgement.reason]
    return {
        **dict.fromkeys(("decision", "status"), decision),
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
