"""Overwrites the personal data of an action, wherever it stands, so that the audit log still holds.

The entries about the action keep their hashes and lose text. A new entry tells which, and the hash of what stands there
now, by which a verification tells erased from changed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from ascend_middleware.exceptions import ConflictError, NotFoundError

from ..keys import Credential
from .audit import canonical_json, digest
from .database import Row
from .log import Log
from .past import ERASED, Past
from .store import Store

__all__ = ["ERASED_TEXT", "erase"]

# What stands where something was.
ERASED_TEXT: Final = "erased"
# What stays of a submission: who did what kind of thing with what, not to whom.
_KEPT: Final = ("agent_id", "action_type", "tool_name", "mcp_server_name", "model_id", "parent_action_id")
_KEPT_TOO: Final = ("orchestration_depth", "risk_level", "risk_score")
# What people or programs wrote, in entries and in what is kept of a decision and an outcome.
_WRITTEN: Final = ("error", "kept", "result")
# What an answer or a webhook's body shows of an action, and what of it is overwritten.
_SHOWN: Final = ("summary", "resource", "comments", "agent_name", "outcome_error")


def erase(store: Store, action_id: int, *, reason: str, by: Credential, more: Mapping[str, Any]) -> bool:
    """Erase an action's personal data; say whether there was any.

    Args:
        store: the database.
        action_id: its number.
        reason: why, for the audit log.
        by: who does it.
        more: what else the audit log tells of that.

    Raises:
        NotFoundError: there is no such action in the organisation.
        ConflictError: somebody still has to decide about it, or it is archived.
    """
    with store.write():
        row = _row(store, action_id, by.tenant)
        submission = json.loads(row["submission"])
        if submission.get(ERASED_TEXT) is True:
            return False
        entries = store.rows("SELECT seq, entry FROM audit WHERE action_id = ? ORDER BY seq", (action_id,))
        number = store.tip()[0] + 1
        texts = {one["seq"]: _without(one["entry"], number) for one in entries}
        columns = {"submission": canonical_json(_submission(submission))}
        judgement = json.loads(row["judgement"])
        if judgement.get("faults"):
            columns["judgement"] = canonical_json({**judgement, "faults": dict.fromkeys(judgement["faults"], "")})
        data = {
            "reason": reason,
            "entries": {str(seq): digest(text) for seq, text in texts.items()},
            "columns": {name: digest(text) for name, text in columns.items()},
        }
        store.audit(ERASED, tenant=by.tenant, actor=by.name, action_id=action_id, data={**data, **more})
        _erase_answers(store, list(texts), by)
        store.seal()
        # Read first, so that it stands there: the trigger looks for the entry that tells of the erasure.
        store.rows("SELECT seq FROM audit WHERE seq = ?", (number,))
        for seq, text in texts.items():
            store.execute("UPDATE audit SET entry = ? WHERE seq = ?", (text, seq))
        for name in ("approval", "outcome"):
            columns[name] = row[name] and canonical_json(_kept(json.loads(row[name])))
        assigned = ", ".join(f"{name} = ?" for name in columns)
        store.execute(
            f"UPDATE actions SET {assigned}, salt = '', session = NULL WHERE id = ?",  # noqa: S608 - names are ours
            (*columns.values(), action_id),
        )
        store.execute("UPDATE approvals SET comments = '' WHERE action_id = ?", (action_id,))
        _erase_deliveries(store, list(texts), by.tenant)
        return True


def _row(store: Store, action_id: int, tenant: str) -> Row:
    try:
        status = store.action(action_id, tenant=tenant)["status"]  # denied, if its time is over
    except NotFoundError:
        with store.reading() as reader:
            archived = Past.read(reader).has_action(action_id)
        if archived:
            raise ConflictError(
                f"action {action_id} is archived: its data stands in the archives, not in the database"
            ) from None
        raise
    if status == "pending":
        raise ConflictError(f"action {action_id} waits for a person, who has to see it; approve or deny it first")
    return store.rows("SELECT * FROM actions WHERE id = ?", (action_id,))[0]


def _submission(given: Mapping[str, Any]) -> dict[str, Any]:
    kept = {name: given[name] for name in (*_KEPT, *_KEPT_TOO) if name in given}
    indicators = given.get("risk_indicators") or {}
    return {
        **kept,
        "agent_name": given["agent_id"],
        "resource": ERASED_TEXT,
        "description": ERASED_TEXT,
        "action_details": {},
        "context": {},
        "risk_indicators": {name: value for name, value in indicators.items() if isinstance(value, bool)},
        ERASED_TEXT: True,
    }


def _without(text: str, number: int) -> str:
    """Return an entry without personal data, and without what would confirm a guess of it."""
    entry = json.loads(text)
    entry.pop("salt", None)
    return canonical_json({**entry, "data": _kept(entry["data"]), ERASED_TEXT: number})


def _kept(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return what stays of what an entry tells, or of the same in the action's row."""
    kept = {name: value for name, value in data.items() if name not in _WRITTEN}
    if "comments" in kept:
        kept["comments"] = ""
    if "session" in kept:
        kept["session"] = None
    if "faults" in kept:
        kept["faults"] = dict.fromkeys(kept["faults"], "")
    if isinstance(kept.get("approvals"), list):
        kept["approvals"] = [{**one, "comments": ""} for one in kept["approvals"]]
    return kept


def _erase_answers(store: Log, seqs: Sequence[int], by: Credential) -> None:
    """Overwrite the answers that are kept for their repetition; one is refused then, as one with another body."""
    places = ", ".join("?" * len(seqs))
    for row in store.rows(f"SELECT * FROM answers WHERE seq IN ({places})", seqs):  # noqa: S608 - places
        body = json.loads(bytes(row["body"]))
        shown = body["data"] if isinstance(body.get("data"), dict) else body
        shown |= _blank(shown)
        changed = {**dict(row), "body": canonical_json(body).encode(), "fingerprint": ERASED_TEXT}
        number = store.tell_answer(changed, by=by)
        store.execute(
            "UPDATE answers SET body = ?, fingerprint = ?, seq = ? WHERE key_id = ? AND path = ? AND name = ?",
            (changed["body"], ERASED_TEXT, number, row["key_id"], row["path"], row["name"]),
        )


def _erase_deliveries(store: Log, seqs: Sequence[int], tenant: str) -> None:
    for seq in seqs:
        first = f"evt_{seq}_"
        for row in store.rows(
            "SELECT id, body FROM deliveries WHERE tenant = ? AND name >= ? AND name < ?",
            (tenant, first, f"{first[:-1]}`"),
        ):
            body = json.loads(row["body"])
            body["data"] |= _blank(body["data"])
            store.execute("UPDATE deliveries SET body = ? WHERE id = ?", (canonical_json(body), row["id"]))


def _blank(shown: Mapping[str, Any]) -> dict[str, Any]:
    """Return what to write over what is shown of an action."""
    blank = {name: ERASED_TEXT for name in _SHOWN if shown.get(name)}
    # A person's words stand in it.
    if shown.get("comments") and shown.get("reason"):
        blank["reason"] = f"{shown['status']} by {shown['decided_by']}" if "decided_by" in shown else ERASED_TEXT
    return blank
