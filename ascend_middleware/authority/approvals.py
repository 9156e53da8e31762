"""What follows a submission: a person's decision, and the report of what became of the action."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from ascend_middleware.exceptions import ConflictError

from .forms import ApiError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .keys import Credential
    from .store import Store

__all__ = ["conclude", "decide"]

_MAX_COMMENTS: Final = 4096


def decide(
    store: Store, row: Mapping[str, Any], body: Mapping[str, Any], *, approved: bool, by: Credential
) -> dict[str, Any]:
    """Record a person's decision about a pending action and return the action.

    Raises:
        ApiError: 403 with an audit entry for a key that may not decide, 409 for an action that is not pending.
    """
    comments = next((body[name] for name in ("comments", "reason") if body.get(name) is not None), "")
    if not isinstance(comments, str) or len(comments) > _MAX_COMMENTS:
        message = f"comments must be a text of at most {_MAX_COMMENTS} characters"
        raise ApiError(422, "VALIDATION_ERROR", message, details={"field": "comments"})
    refusal = None
    if not by.role.administers:
        refusal = ("ADMIN_REQUIRED", "only an admin key may decide about a pending action")
    elif row["submitted_by"] == by.key_id:
        refusal = ("SELF_APPROVAL", "the key that submitted an action must not decide about it")
    if refusal is not None:
        data = {"code": refusal[0], "key": by.key_id, "approved": approved}
        store.audit("DECISION_REFUSED", tenant=by.tenant, actor=by.name, action_id=row["id"], data=data)
        raise ApiError(403, *refusal)
    try:
        return store.decide(
            row["id"], tenant=by.tenant, approved=approved, actor=by.name, key_id=by.key_id, comments=comments
        )
    except ConflictError as error:
        raise ApiError(409, "NOT_PENDING", error.message, details={"status": row["status"]}) from None


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
    kept = ("result" if word == "completed" else "error", "duration_ms", f"{word}_at")
    outcome = {"status": word, "at": at, **{name: body[name] for name in kept if body.get(name) is not None}}
    store.conclude(row["id"], outcome, tenant=by.tenant, actor=by.name)
