"""Actions over HTTP: submitted, looked up, listed, decided by a person, and concluded."""

from __future__ import annotations

import hashlib
import logging
import math
from typing import TYPE_CHECKING, Any, Final

from ascend_middleware.api import endpoints
from ascend_middleware.api.bodies import Outcome, Rejection, Verdict

from .. import approvals, killswitch, orchestration
from ..answers import decision_fields, record_fields
from ..bodies import ApiError, missing, read_fields, read_submission
from ..context import Call, Handlers, Reply
from ..management import approval_rules
from ..pagination import page_fields, read_query
from ..policy.approvers import OBSERVED
from ..policy.risk_score import claimed_risk, risk_level, score_action
from ..store.store import canonical_json, iso_time
from ..waiting import read_wait

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["HANDLERS", "check_standing", "judged_form", "submit"]

log = logging.getLogger(__name__)


# What a condition may ask for without `has()`, though the action does not say it.
_BLANK: Final = {
    **dict.fromkeys(
        ("resource_id", "tool_name", "orchestration_session_id", "mcp_server_name", "business_justification"), ""
    ),
    "orchestration_depth": 0,
}


def judged_form(action: Mapping[str, Any]) -> dict[str, Any]:
    """Return an action as the conditions see it."""
    return {**_BLANK, **action}


def submit(call: Call, body: Mapping[str, Any], *, tools: Iterable[str] = ()) -> dict[str, Any]:
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
    if action["agent_id"] == _UNNAMED_AGENT:
        # Clients that were told no agent send this; the key says whose it is.
        action["agent_id"] = call.credential.name
        if action["agent_name"] in (_UNNAMED_AGENT, "Unknown Agent"):
            action["agent_name"] = call.credential.name
    with call.records.steady():
        return _decided(call, action, tools, claimed_risk(body))


_UNNAMED_AGENT: Final = "unknown"


def _decided(call: Call, action: dict[str, Any], tools: Iterable[str], claimed: Mapping[str, int]) -> dict[str, Any]:
    check_standing(call, action["agent_id"], action["action_type"])
    governance = orchestration.check(action, call, tools=tools)
    score = score_action(
        action["action_type"], action["risk_indicators"], action["context"], governance.signals, claimed
    )
    judgement = call.authority.judge(judged_form(action), score, tenant=call.tenant)
    stored = {
        "decision": judgement.decision,
        "reason": judgement.reason,
        "policy_matched": judgement.policy_matched,
        "matched": judgement.matched,
        "factors": judgement.factors,
        "explanation": judgement.explanation,
        "policy_version": call.authority.policy.version,
        "correlation_id": call.request.correlation_id,
        **governance.found,
    }
    if action["context"].get(OBSERVED) is True:
        stored[OBSERVED] = True
    if judgement.faults:
        stored["faults"] = judgement.faults
        for name, fault in judgement.faults.items():
            log.warning(
                "policy %r could not be evaluated for a %s, which denies: %s", name, action["action_type"], fault
            )
    level = risk_level(judgement.risk_score)
    rules = approval_rules(call.records, call.authority.policy.approvals, tenant=call.tenant)
    if OBSERVED not in stored:
        stored |= rules.terms(
            judgement.decision, level, expires_at=lambda seconds: iso_time(call.authority.now() + seconds)
        )
    row = call.store.add_action(action, stored, risk=(judgement.risk_score, level), by=call.credential)
    call.audit(
        "ACTION_SUBMITTED",
        action_id=row["id"],
        at=row["created_at"],
        **{name: value for name, value in stored.items() if name != "explanation"},
        agent_id=action["agent_id"],
        action_type=action["action_type"],
        risk_score=judgement.risk_score,
        parent_action_id=action.get("parent_action_id"),
        submission=hashlib.sha256(canonical_json(action).encode()).hexdigest(),
    )
    return row


def check_standing(call: Call, agent_id: str, action_type: str) -> None:
    """Refuse what a blocked agent submits (403), and what exceeds the limit that a command set (429)."""
    standing = killswitch.standing(call.records, agent_id, tenant=call.tenant)
    if standing.blocked and standing.command is not None:
        command = standing.command
        call.audit(
            "BLOCKED_AGENT_REFUSED",
            agent_id=agent_id,
            code=standing.code,
            command_id=command["command_id"],
            action_type=action_type,
        )
        message = f"agent {agent_id!r} is {standing.word}: {command['reason']}"
        details = {"agent_id": agent_id, "command_id": command["command_id"], "standing": standing.word}
        raise ApiError(403, standing.code, message, details=details)
    wait = killswitch.rate_excess(call.records, agent_id, standing, tenant=call.tenant, now=call.authority.now())
    if wait > 0:
        call.audit("LIMITED_AGENT_REFUSED", agent_id=agent_id, max_per_minute=standing.max_per_minute)
        raise ApiError(
            429,
            "AGENT_RATE_LIMITED",
            f"agent {agent_id!r} may do {standing.max_per_minute} actions a minute, by command",
            headers={"retry-after": str(max(1, math.ceil(wait)))},
        )


def _submit(call: Call) -> Reply:
    return Reply(fields=decision_fields(submit(call, call.request.read())), kind="decision")


def _status(call: Call) -> Reply:
    read_wait(call.request.query, call.request.headers)  # the door holds the request; here it is only checked
    return Reply(fields=decision_fields(call.action()), kind="decision")


def _details(call: Call) -> Reply:
    row = call.action()
    record = record_fields(row)
    record["audit_trail"] = [
        {**entry, "data": call.shown(entry["data"])} for entry in call.store.audit_trail(row["id"], tenant=call.tenant)
    ]
    return Reply(fields=record, kind="decision")


def _list(call: Call) -> Reply:
    return _page(call, read_query(call.request.query))


def _pending(call: Call) -> Reply:
    query = read_query(call.request.query)
    query["equal"]["status"] = "pending"
    return _page(call, query)


def _page(call: Call, query: dict[str, Any]) -> Reply:
    rows, total = call.store.actions(tenant=call.tenant, **query)
    records = [record_fields(row) for row in rows]
    return Reply(fields=page_fields(records, total, query["limit"], query["offset"]), kind="page")


def _approve(call: Call) -> Reply:
    body = call.request.read()
    return _decide(call, body, approved=read_fields(body, Verdict).approved is not False)


def _reject(call: Call) -> Reply:
    body = call.request.read()
    if read_fields(body, Rejection).approved is True:
        raise ApiError(422, "VALIDATION_ERROR", "a rejection cannot approve", details={"field": "approved"})
    return _decide(call, body, approved=False)


def _decide(call: Call, body: Mapping[str, Any], *, approved: bool) -> Reply:
    via = "command line" if call.credential.is_operator else "api"
    row = approvals.decide(call.store, call.action(), body, approved=approved, by=call.credential, via=via)
    return Reply(fields=decision_fields(row), kind="decision")


def _approval(call: Call) -> Reply:
    """Tell of an approval in the words of the software development kit (contract §3.2)."""
    read_wait(call.request.query, call.request.headers)
    row = call.action()
    fields, approval = decision_fields(row), row["approval"] or {}
    denied = fields["status"] not in ("approved", "pending")
    fields = {
        **fields,
        "approval_request_id": str(row["id"]),
        "approved_by": approval.get("by") if fields["status"] == "approved" else None,
        "rejected_by": approval.get("by") if denied else None,
        "decided_at": approval.get("at"),
        "rejection_reason": fields["reason"] if denied else None,
    }
    return Reply(fields=fields, kind="decision")


def _complete(call: Call) -> Reply:
    return _conclude(call, "completed")


def _fail(call: Call) -> Reply:
    return _conclude(call, "failed")


def _conclude(call: Call, word: str) -> Reply:
    body = call.request.read()
    read_fields(body, Outcome)
    row = call.action()
    approvals.conclude(call.store, row, body, word=word, at=call.records.now(), by=call.credential)
    return Reply(fields={"success": True, "action_id": str(row["id"]), "outcome": word})


HANDLERS: Final[Handlers] = {
    endpoints.SUBMIT: _submit,
    endpoints.ACTION_STATUS: _status,
    endpoints.APPROVE: _approve,
    endpoints.REJECT: _reject,
    endpoints.GET_ACTION: _details,
    endpoints.LIST_ACTIONS: _list,
    endpoints.LIST_ACTIVITY: _list,
    endpoints.LIST_PENDING: _pending,
    endpoints.DECIDE_WORKFLOW: _approve,
    endpoints.APPROVAL_STATUS: _approval,
    endpoints.COMPLETE_ACTION: _complete,
    endpoints.FAIL_ACTION: _fail,
}
