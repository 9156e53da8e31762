"""Overwrites the personal data of an action, wherever it stands, so that the audit log still holds.

The entries about the action keep their hashes, which cover what stays of them, and lose the rest. A new entry tells
which, by which a verification tells erased from lost.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from ascend_middleware.exceptions import ConflictError, NotFoundError

from ..keys import Credential
from .audit import canonical_json, digest, entry_hash, lasting, without_comments, without_faults
from .comparison import SUBMITTED
from .database import Row
from .log import Log
from .past import ERASED, Past, archived_upto
from .store import Store

__all__ = ["ERASED_TEXT", "ArchivedError", "Held", "erase", "lost_personal_data_only", "rest_of"]

# What stands where something was.
ERASED_TEXT: Final = "erased"
# What stays of a submission: who did what kind of thing with what, not to whom.
_KEPT: Final = ("agent_id", "action_type", "tool_name", "mcp_server_name", "model_id", "parent_action_id")
_KEPT_TOO: Final = ("orchestration_depth", "risk_level", "risk_score")
# What an answer or a webhook's body shows of an action, and what of it is overwritten.
_SHOWN: Final = ("summary", "resource", "comments", "agent_name", "outcome_error")


@dataclass(slots=True)
class Held:
    """What archives hold of one action, if they do, and what is to stand there once its data is erased.

    `row` is its row, `entries` are the texts of entries about it by their numbers.
    """

    row: dict[str, Any] | None = None
    entries: dict[int, str] = field(default_factory=dict)
    new_row: dict[str, Any] | None = None
    new_entries: dict[int, str] = field(default_factory=dict)


class ArchivedError(ConflictError):
    """Data of the action stands in archives, which have to be read first."""


def erase(
    store: Store,
    action_id: int,
    *,
    reason: str,
    by: Credential,
    more: Mapping[str, Any],
    held: Held | None = None,
) -> bool:
    """Erase an action's personal data in the database; say whether there was any.

    Args:
        store: the database.
        action_id: its number.
        reason: why, for the audit log.
        by: who does it.
        more: what else the audit log tells of that.
        held: what archives hold of it, where they were read; it is told there what is to stand in them.

    Raises:
        NotFoundError: there is no such action in the organisation.
        ArchivedError: archives hold data of it, and were not read.
        ConflictError: somebody still has to decide about it, or an earlier version stored it.
    """
    with store.write():
        row = _row(store, action_id, by.tenant, held)
        submission = json.loads(row["submission"])
        number = store.tip()[0] + 1
        rows = store.rows("SELECT seq, entry FROM audit WHERE action_id = ? ORDER BY seq", (action_id,))
        if held is None and rows and rows[0]["seq"] <= archived_upto(store):
            raise ArchivedError(f"entries about action {action_id} are archived too")
        live = {one["seq"]: one["entry"] for one in rows}
        # Of an erasure that was ended half-way, the archives may hold what is erased here already.
        archived = {} if held is None else held.entries
        entries = {seq: json.loads(text) for seq, text in sorted((live | archived).items())}
        texts = {seq: text for seq, entry in entries.items() if (text := _without(entry, number)) is not None}
        if submission.get(ERASED_TEXT) is True and not texts:
            return False
        columns = _left(row)
        _check_rest(action_id, columns["submission"], entries.values())
        data = {"reason": reason, "entries": {str(seq): digest(text) for seq, text in texts.items()}}
        store.audit(ERASED, tenant=by.tenant, actor=by.name, action_id=action_id, data={**data, **more})
        _erase_answers(store, list(entries), by)
        store.seal()
        # Read first, so that it stands there: the trigger looks for the entry that tells of the erasure.
        store.rows("SELECT seq FROM audit WHERE seq = ?", (number,))
        for seq, text in texts.items():
            if seq in live:
                store.execute("UPDATE audit SET entry = ? WHERE seq = ?", (text, seq))
        if held is not None:
            held.new_entries = {seq: text for seq, text in texts.items() if seq in held.entries}
            if held.row is not None:
                held.new_row = {**held.row, **columns, "approvals": without_comments(held.row["approvals"])}
        assigned = ", ".join(f"{name} = ?" for name in columns)
        store.execute(
            f"UPDATE actions SET {assigned} WHERE id = ?",  # noqa: S608 - names are ours
            (*columns.values(), action_id),
        )
        store.execute("UPDATE approvals SET comments = '' WHERE action_id = ?", (action_id,))
        _erase_deliveries(store, list(entries), by.tenant)
        return True


def _row(store: Store, action_id: int, tenant: str, held: Held | None) -> Row | Mapping[str, Any]:
    try:
        status = store.action(action_id, tenant=tenant)["status"]  # denied, if its time is over
    except NotFoundError:
        if held is not None and held.row is not None and held.row["tenant"] == tenant:
            return held.row
        with store.reading() as reader:
            archived = held is None and Past.read(reader).has_action(action_id)
        if archived:
            raise ArchivedError(
                f"action {action_id} is archived; name the folder of the archives, as archive_to in [retention]"
            ) from None
        raise
    if status == "pending":
        raise ConflictError(f"action {action_id} waits for a person, who has to see it; approve or deny it first")
    return store.rows("SELECT * FROM actions WHERE id = ?", (action_id,))[0]


def rest_of(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return what stays of a submission once its personal data is erased."""
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


def lost_personal_data_only(kind: str, old: Mapping[str, Any] | None, new: Mapping[str, Any] | None) -> bool:
    """Say whether a line of one archive is that of another one, or what an erasure leaves of it."""
    if old is None or new is None:
        return False
    if old == new:
        return True
    if kind == "audit":
        # Its hash proves all that stays.
        place = {name: value for name, value in old.items() if name != "entry"}
        return {**place, "entry": new["entry"]} == new and entry_hash(new["previous"], new["entry"]) == new["hash"]
    return new == {**old, **_left(old), "approvals": without_comments(old["approvals"])}


def _left(row: Row | Mapping[str, Any]) -> dict[str, Any]:
    """Return the columns of an action that an erasure changes, as it leaves them."""
    left: dict[str, Any] = {"submission": canonical_json(rest_of(json.loads(row["submission"])))}
    judgement = json.loads(row["judgement"])
    if judgement.get("faults"):
        left["judgement"] = canonical_json(without_faults(judgement))
    for name in ("approval", "outcome"):
        left[name] = row[name] and canonical_json(lasting(json.loads(row[name])))
    return {**left, "salt": "", "session": None}


def _without(entry: Mapping[str, Any], number: int) -> str | None:
    """Return an entry without personal data, and without what would confirm a guess of it; None where it has none."""
    data = lasting(entry["data"])
    # What stays of the answers, an erasure tells itself.
    if data == entry["data"] or entry["event"] == ERASED:
        return None
    if "sealed" not in entry:
        raise _too_old(entry["action_id"])
    left = {name: value for name, value in entry.items() if name != "salt"}
    return canonical_json({**left, "data": data, ERASED_TEXT: number})


def _check_rest(action_id: int, rest: str, entries: Iterable[Mapping[str, Any]]) -> None:
    """Refuse to leave what the log would not know: it was told with the submission what may stay of it."""
    said = next((entry["data"].get("rest") for entry in entries if entry["event"] == SUBMITTED), None)
    if said is None:
        raise _too_old(action_id)
    if digest(rest) != said:
        raise ConflictError(f"action {action_id} is not what the log says, nothing was erased; see `audit verify`")


def _too_old(action_id: int) -> ConflictError:
    return ConflictError(
        f"an earlier version stored action {action_id}, and its audit entries would prove nothing without their text;"
        " to be rid of them, archive them and delete the archive"
    )


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
