"""What follows a submission: a person's decision, and the report of what became of the action."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from .bodies import ApiError
from .keys import LOCAL, person
from .policy.approvers import requirement

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .keys import Credential
    from .store.store import Store

__all__ = ["conclude", "decide", "is_own", "same_person"]

_MAX_COMMENTS: Final = 4096


def decide(
    store: Store,
    row: Mapping[str, Any],
    body: Mapping[str, Any],
    *,
    approved: bool,
    by: Credential,
    via: str = "api",
) -> dict[str, Any]:
    """Record a person's decision about a pending action and return the action. Every door decides through this.

    One denial denies. An action that needs several approvers stays pending until so many different people approved.

    Args:
        store: the database.
        row: the action.
        body: with `comments` or `reason`, a text.
        approved: whether they approve or deny.
        by: who decides.
        via: by which door: api, page or command line.

    Raises:
        ApiError: 403 with an audit entry for one who may not decide; 409 for an action that is not pending, or that
            this person has approved before; 422 for bad comments.
    """
    comments = next((body[name] for name in ("comments", "reason") if body.get(name) is not None), "")
    if not isinstance(comments, str) or len(comments) > _MAX_COMMENTS:
        message = f"comments must be a text of at most {_MAX_COMMENTS} characters"
        raise ApiError(422, "VALIDATION_ERROR", message, details={"field": "comments"})
    refusal = _refusal(row, by)
    if refusal is not None:
        data = {"code": refusal[0], "key": by.key_id, "approved": approved, "via": via}
        store.audit("DECISION_REFUSED", tenant=by.tenant, actor=by.name, action_id=row["id"], data=data)
        raise ApiError(403, *refusal)
    with store.write():
        row = store.action(row["id"], tenant=by.tenant)  # as it stands now, under the lock
        if row["status"] != "pending":
            raise _not_pending(row)
        given = row["approvals"]
        if approved and any(same_person(by, one["by"], one["key"]) for one in given):
            message = f"{by.name} has approved action {row['id']} before; it waits for somebody else"
            raise ApiError(409, "ALREADY_APPROVED", message, details={"status": "pending"})
        needed = requirement(row)
        if approved and len(given) + 1 < needed.count:
            return store.add_approval(row, by=by, comments=comments, via=via)
        word, event = ("approved", "ACTION_APPROVED") if approved else ("denied", "ACTION_DENIED")
        data = {"by": by.name, "key": by.key_id if by.key_id > 0 else None, "comments": comments, "via": via}
        if given:
            data["approvals"] = given
        store.settle(row["id"], word, tenant=by.tenant, event=event, actor=by.name, data=data)
        return store.action(row["id"], tenant=by.tenant)


def _refusal(row: Mapping[str, Any], by: Credential) -> tuple[str, str] | None:
    """Say why somebody may not decide about an action, as a code and a sentence."""
    if not by.role.administers:
        return "ADMIN_REQUIRED", "only an admin key may decide about a pending action"
    if is_own(row, by):
        return "SELF_APPROVAL", "whoever submitted an action must not decide about it"
    needed = requirement(row)
    if not needed.admits(by.name):
        return "NOT_AN_APPROVER", f"actions of this risk are decided by {', '.join(needed.names)}"
    return None


def is_own(row: Mapping[str, Any], by: Credential) -> bool:
    """Say whether it was the same person who submitted an action, by whatever key or token."""
    return same_person(by, row["submitter"], row["submitted_by"])


def same_person(by: Credential, name: str, key_id: int | None) -> bool:
    """Say whether a credential is that of the person of a name: a second key, or a token, makes nobody a second one.

    `local:` is no person; another who is called so may be one.
    """
    return by.key_id == key_id or (key_id != LOCAL.key_id and person(by.name) == person(name))


def _not_pending(row: Mapping[str, Any]) -> ApiError:
    message = f"action {row['id']} is not pending, it is {row['status']}"
    return ApiError(409, "NOT_PENDING", message, details={"status": row["status"]})


def conclude(
    store: Store,
    row: Mapping[str, Any],
    body: Mapping[str, Any],
    *,
    word: str,
    at: str,
    by: Credential,
) -> None:
    """Record that an approved action was completed or has failed; the same report twice counts once.

    One that failed because it did not happen, and whose approval was given back, is in the audit log and ends later.

    Raises:
        ApiError: 409 for an action that was not approved (with an audit entry), or that ended otherwise.
    """
    duration = body.get("duration_ms")
    if duration is not None and (isinstance(duration, bool) or not isinstance(duration, int | float) or duration < 0):
        message = "duration_ms must be a number, 0 or more"
        raise ApiError(422, "VALIDATION_ERROR", message, details={"field": "duration_ms"})
    known = row["outcome"]
    if known is not None:
        if known["status"] == word:
            return
        message = f"action {row['id']} has been reported {known['status']} before"
        raise ApiError(409, "OUTCOME_CONFLICT", message, details={"outcome": known["status"]})
    # What was never approved must not have run; the report is refused, and remembered.
    if row["status"] != "approved":
        data = {"status": row["status"], "outcome": word, "key": by.key_id}
        store.audit("OUTCOME_REFUSED", tenant=by.tenant, actor=by.name, action_id=row["id"], data=data)
        message = f"action {row['id']} is not approved, it is {row['status']}"
        raise ApiError(409, "NOT_APPROVED", message, details={"status": row["status"]})
    given_back = body.get("given_back")
    if word == "failed" and given_back is not None:
        # It did not happen, so nothing is known yet of what becomes of it.
        data = {name: body[name] for name in ("error", "given_back", "duration_ms") if body.get(name) is not None}
        store.audit("APPROVAL_GIVEN_BACK", tenant=by.tenant, actor=by.name, action_id=row["id"], data=data)
        return
    kept = ("result" if word == "completed" else "error", "duration_ms", f"{word}_at")
    outcome = {"status": word, "at": at, **{name: body[name] for name in kept if body.get(name) is not None}}
    store.conclude(row["id"], outcome, tenant=by.tenant, actor=by.name)
