"""Actions over HTTP: submitted, looked up, listed, decided by a person, and concluded."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Iterable, Mapping
from http import HTTPStatus
from typing import Any, Final

from ascend_middleware.api import endpoints
from ascend_middleware.api.batches import Outcome, Outcomes, ReportedOutcome
from ascend_middleware.api.bodies import Page, Rejection, Verdict
from ascend_middleware.api.decode import encode_json
from ascend_middleware.api.endpoint import fill_path

from .. import approvals, killswitch, orchestration
from ..bodies import (
    ApiError,
    decision_fields,
    missing,
    read_fields,
    read_submission,
    read_wait,
    record_fields,
)
from ..context import Call, Fields, answers, fingerprint, repeated_otherwise
from ..paging import in_order, listed, read_query
from ..policy import Judgement
from ..policy.approvers import OBSERVED
from ..policy.risk_score import claimed_risk, risk_level, score_action
from ..store.audit import digest, without_faults
from ..store.erasure import rest_of
from ..store.store import canonical_json, iso_time

__all__ = ["UNNAMED_AGENT", "check_standing", "judged_form", "submit", "submitted_judgement"]

log = logging.getLogger(__name__)


# What a condition may ask for without `has()`, though the action does not say it.
_BLANK: Final = {
    **dict.fromkeys(
        ("resource_id", "tool_name", "orchestration_session_id", "mcp_server_name", "business_justification"), ""
    ),
    "orchestration_depth": 0,
}
# What clients that were told no agent send; the key says whose it is.
UNNAMED_AGENT: Final = "unknown"
# Of the policies that fail alike, the log names so many.
_MOST_NAMED: Final = 5
# Of an action's uses, so many of the last stand in its audit trail.
_MOST_USES: Final = 100
_OF_A_USE: Final[tuple[str, ...]] = ("use", "how", "outcome", "used_at", "error", "duration_ms")


def judged_form(action: Mapping[str, Any]) -> Fields:
    """Return an action as the conditions see it."""
    return {**_BLANK, **action}


def submit(call: Call, body: Mapping[str, Any], *, tools: Iterable[str] = ()) -> Fields:
    """Decide about a submission, store it with its audit entry, and return the stored action.

    Args:
        call: whose submission it is.
        body: what was submitted.
        tools: names of the tool besides those that the submission gives.

    Raises:
        ApiError: the submission is malformed, the agent is blocked, or a claim in it does not hold.
    """
    if call.authority.policy.strict:
        for name in ("description", "tool_name"):
            if body.get(name) in (None, ""):
                raise missing(name)
    action = read_submission(body)
    if action["agent_id"] == UNNAMED_AGENT:
        action["agent_id"] = call.credential.name
        if action["agent_name"] in (UNNAMED_AGENT, "Unknown Agent"):
            action["agent_name"] = call.credential.name
    call.speak_for(action["agent_id"])
    return _decided(call, action, tools, claimed_risk(body))


def _decided(call: Call, action: dict[str, Any], tools: Iterable[str], claimed: Mapping[str, int]) -> Fields:
    policy, kind = call.authority.policy, action["action_type"]
    check_standing(call, action["agent_id"], kind)
    governance = orchestration.check(action, call, tools=tools)
    score = score_action(kind, action["risk_indicators"], action["context"], governance.signals, claimed)
    judgement = call.judge(judged_form(action), score)
    stored = {**submitted_judgement(judgement, policy.version, call.request.correlation_id), **governance.found}
    if judgement.faults:
        stored["faults"] = judgement.faults
        for fault in dict.fromkeys(judgement.faults.values()):
            names = [name for name, one in judgement.faults.items() if one == fault]
            told = ", ".join(map(repr, names[:_MOST_NAMED])) + ("" if len(names) <= _MOST_NAMED else ", …")
            log.warning("policy %s could not be evaluated for a %s, which denies: %s", told, kind, fault)
    level = risk_level(judgement.risk_score)
    if action["context"].get(OBSERVED) is True:
        stored[OBSERVED] = True
    elif judgement.decision == "pending":
        # The terms of an action stay what they were when it was submitted, whatever the policy file says later.
        rules = approvals.approval_rules(call.store, policy.approvals, tenant=call.tenant)
        stored["approval"] = {**rules.terms(level), "expires_at": iso_time(call.authority.now() + rules.expires_after)}
    texts = canonical_json(action), canonical_json(stored)
    row = call.store.add_action(action, stored, risk=(judgement.risk_score, level), by=call.credential, texts=texts)
    call.audit(
        "ACTION_SUBMITTED",
        action_id=row["id"],
        at=row["created_at"],
        **{name: value for name, value in stored.items() if name != "explanation"},
        agent_id=action["agent_id"],
        action_type=kind,
        risk_score=judgement.risk_score,
        risk_level=level,
        session=row["session"],
        parent_action_id=action.get("parent_action_id"),
        submission=digest(texts[0], row["salt"]),
        judgement=digest(canonical_json(without_faults(stored)) if judgement.faults else texts[1]),
        rest=digest(canonical_json(rest_of(action))),
    )
    return row


def submitted_judgement(judgement: Judgement, version: str, correlation_id: str) -> Fields:
    """Return what is stored of every judgement: made by which version of the policies, upon which request."""
    return {
        "decision": judgement.decision,
        "reason": judgement.reason,
        "policy_matched": judgement.policy_matched,
        "matched": judgement.matched,
        "factors": judgement.factors,
        "explanation": judgement.explanation,
        "policy_version": version,
        "correlation_id": correlation_id,
    }


def check_standing(call: Call, agent_id: str, action_type: str) -> None:
    """Refuse what a blocked agent submits (403), and what exceeds the limit that a command set (429)."""
    standing = killswitch.standing(call.store, agent_id, tenant=call.tenant)
    if standing.blocked and standing.command is not None:
        command_id, code = standing.command["command_id"], standing.code
        call.audit(
            "BLOCKED_AGENT_REFUSED", agent_id=agent_id, code=code, command_id=command_id, action_type=action_type
        )
        message = f"agent {agent_id!r} is {standing.word}: {standing.command['reason']}"
        details = {"agent_id": agent_id, "command_id": command_id, "standing": standing.word}
        raise ApiError(403, code, message, details=details)
    wait = killswitch.rate_excess(call.store, agent_id, standing, tenant=call.tenant, now=call.authority.now())
    if wait > 0:
        call.authority.limited("agent")
        call.audit("LIMITED_AGENT_REFUSED", agent_id=agent_id, max_per_minute=standing.max_per_minute)
        message = f"agent {agent_id!r} may do {standing.max_per_minute} actions a minute, by command"
        raise ApiError(429, "AGENT_RATE_LIMITED", message, headers={"retry-after": str(max(1, math.ceil(wait)))})


@answers(endpoints.SUBMIT)
def _submit(call: Call) -> Fields:
    return {**decision_fields(submit(call, call.request.read())), "policy_state": call.authority.policy_state()}


@answers(endpoints.ACTION_STATUS)
def _status(call: Call) -> Fields:
    read_wait(call.request.query, call.request.headers)  # the door holds the request; here it is only checked
    return decision_fields(call.action())


@answers(endpoints.GET_ACTION)
def _details(call: Call) -> Fields:
    row = call.action()
    trail = call.store.audit_trail(row["id"], tenant=call.tenant, uses=_MOST_USES)
    shown = [{**entry, "data": call.shown(entry["data"])} for entry in trail]
    uses = call.store.count_uses(row["id"], tenant=call.tenant)
    return {**record_fields(row), "uses": uses, "audit_trail": shown}


@answers(endpoints.LIST_ACTIONS, endpoints.LIST_ACTIVITY, endpoints.LIST_PENDING)
def _list(call: Call) -> Fields:
    query = read_query(call.request.query)
    if call.endpoint is endpoints.LIST_PENDING:
        query["equal"]["status"] = "pending"
    found = in_order(lambda: call.store.actions(tenant=call.tenant, **query))
    return listed("actions", Page(limit=query["limit"], offset=query["offset"]), found.of(record_fields))


@answers(endpoints.APPROVE, endpoints.DECIDE_WORKFLOW)
def _approve(call: Call) -> Fields:
    return _decide(call, approved=call.body(Verdict).approved is not False)


@answers(endpoints.REJECT)
def _reject(call: Call) -> Fields:
    if call.body(Rejection).approved is True:
        raise ApiError(422, "VALIDATION_ERROR", "a rejection cannot approve", details={"field": "approved"})
    return _decide(call, approved=False)


def _decide(call: Call, *, approved: bool) -> Fields:
    via = "command line" if call.credential.is_operator else "api"
    body = call.request.read()
    return decision_fields(
        approvals.decide(call.store, call.action(), body, approved=approved, by=call.credential, via=via)
    )


@answers(endpoints.APPROVAL_STATUS)
def _approval(call: Call) -> Fields:
    """Tell of an approval in the words of the software development kit (contract §3.2)."""
    read_wait(call.request.query, call.request.headers)
    row = call.action()
    fields, approval = decision_fields(row), row["approval"] or {}
    denied = fields["status"] not in ("approved", "pending")
    return {
        **fields,
        "approval_request_id": str(row["id"]),
        "approved_by": approval.get("by") if fields["status"] == "approved" else None,
        "rejected_by": approval.get("by") if denied else None,
        "decided_at": approval.get("at"),
        "rejection_reason": fields["reason"] if denied else None,
    }


@answers(endpoints.COMPLETE_ACTION, endpoints.FAIL_ACTION)
def _conclude(call: Call) -> Fields:
    word = "completed" if call.endpoint is endpoints.COMPLETE_ACTION else "failed"
    call.body(Outcome)
    return _concluded(call, call.action(), call.request.read(), word)


def _concluded(call: Call, row: Mapping[str, Any], body: Mapping[str, Any], word: str) -> Fields:
    call.speak_for(row["agent_id"])
    approvals.conclude(call.store, row, body, word=word, at=call.store.moment(), by=call.credential)
    return {"success": True, "action_id": str(row["id"]), "outcome": word}


@answers(endpoints.REPORT_OUTCOMES)
def _conclude_many(call: Call) -> Fields:
    outcomes = [_one_of_many(call, report) for report in call.body(Outcomes).outcomes]
    success = all(one["status"] == HTTPStatus.OK for one in outcomes)
    return {"success": success, "outcomes": outcomes, "policy_state": call.authority.policy_state()}


def _one_of_many(call: Call, report: dict[str, Any]) -> Fields:
    """Take one outcome of a batch as if it were reported alone; its audit entries stay where it is refused, too."""
    try:
        told = read_fields(report, ReportedOutcome)
        body = {name: value for name, value in report.items() if name != "idempotency_key"}
        row = call.action(told.action_id)
        if told.status == "used":
            found = _used_once(call, row, body, told)
        elif told.given_back is not None and told.idempotency_key is not None:
            # The only report that is not told from its repetition by what is stored of the action.
            found = _given_back_once(call, row, body, told.status, told.idempotency_key)
        else:
            found = _concluded(call, row, body, told.status)
    except ApiError as error:
        refusal = {"code": error.code, "message": error.message, "details": error.details}
        return {"action_id": report.get("action_id"), "status": error.status, "error": refusal}
    return {**found, "status": HTTPStatus.OK}


def _given_back_once(call: Call, row: Mapping[str, Any], body: Fields, word: str, key: str) -> Fields:
    """Conclude under an idempotency key, which holds for the report by itself as well."""
    endpoint = endpoints.COMPLETE_ACTION if word == "completed" else endpoints.FAIL_ACTION
    path = fill_path(endpoint.path, id=body["action_id"])
    return _once(call, body, key, path, lambda: _concluded(call, row, body, word))


def _used_once(call: Call, row: Mapping[str, Any], body: Fields, told: ReportedOutcome) -> Fields:
    """Record that the decision about an action let a further request pass; the same report again counts once."""
    call.speak_for(row["agent_id"])
    for name in ("outcome", "use", "how"):
        if body.get(name) is None:
            raise missing(name)
    use = {name: body[name] for name in _OF_A_USE if name in body}

    def recorded() -> Fields:
        approvals.use(call.store, row, use, by=call.credential)
        return {"success": True, "action_id": str(row["id"]), "outcome": "used"}

    key = told.idempotency_key or f"use-{told.use}"
    return _once(call, body, key, f"{endpoints.REPORT_OUTCOMES.path}/used", recorded)


def _once(call: Call, body: Fields, key: str, path: str, answer: Callable[[], Fields]) -> Fields:
    found, by = fingerprint(body), call.credential
    kept = call.store.answer_for(key, key_id=by.key_id, path=path)
    if kept is not None:
        if kept[0] != found:
            raise repeated_otherwise()
        return json.loads(kept[2])  # type: ignore[no-any-return]  # what was answered
    given = answer()
    call.store.keep_answer(key, found, HTTPStatus.OK, encode_json(given), by=by, path=path)
    return given
