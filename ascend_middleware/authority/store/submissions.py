"""Decided submissions that are stored in one go: the action, its audit entry and the answer kept for a repetition."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, Final, NamedTuple

import msgspec

from ..keys import Credential
from .audit import answer_digest, chained, digest, new_salt
from .key_store import Keys
from .tallies import Counted
from .transaction import Late, Transaction

__all__ = ["Repeatable", "Signature", "Submissions", "Submitted"]

# The columns of rows in the order in which `Store.add_action`, `Log` and `Store.keep_answer` name them.
_ACTIONS: Final = (
    "actions",
    (
        *("id", "tenant", "agent_id", "status", "risk_score", "risk_level", "created_at", "updated_at", "submitted_by"),
        *("submitter", "session", "submission", "salt", "judgement", "expires_at"),
    ),
)
_AUDIT: Final = "audit", ("seq", "entry", "tenant", "action_id", "previous", "hash")
_ANSWERS: Final = "answers", ("key_id", "path", "name", "fingerprint", "status", "body", "at", "seq")
# Seconds between the times at which old answers are forgotten.
_SWEEP_ANSWERS: Final = 60.0
_ASKED_AT_ONCE: Final = 500
_EVENT: Final = "ACTION_SUBMITTED"
_encode: Final = msgspec.json.Encoder().encode


class Submitted(NamedTuple):
    """A submission without a session, approved or denied, as it is to be stored; `texts` are the canonical JSON."""

    submission: Mapping[str, Any]
    judgement: Mapping[str, Any]
    texts: tuple[str, str]
    rest: str  # the digest of what stays of it once it is erased
    risk: tuple[int, str]
    at: str
    seconds: float  # the same time


class Signature(NamedTuple):
    """Who submits, and how an entry spells that."""

    by: Credential
    name: str
    tenant: str

    @classmethod
    def of(cls, by: Credential) -> Signature:
        """Return somebody's."""
        return cls(by, _text(by.name), _text(by.tenant))


class Repeatable(NamedTuple):
    """Under which idempotency key an answer is kept for a repetition of what."""

    name: str
    path: str
    fingerprint: str


class Submissions(Keys):
    """Keys, and what stores an ordinary submission."""

    _answers_swept = 0.0

    @property
    def grouped(self) -> bool:
        """Whether this thread is within a group."""
        return self._owner == threading.get_ident()

    def joined(self) -> Transaction | None:
        """Return what the running group writes, begun if need be; None where there is none, or a part is running.

        Nothing that joins it like that can be undone alone: what fails after its first change takes the group with it.
        """
        if not self.grouped or self._inside:
            return None
        running = self._begun()
        return running if running.entry is None and not running.stored else None

    def is_new(self, running: Transaction, one: Repeatable, seconds: float, *, by: Credential) -> bool:
        """Say whether no answer stands under an idempotency key, and none has to be forgotten now."""
        place = (by.key_id, one.path, one.name)
        if place not in running.known.get("answers", ()):
            self.look_up_answers([place])
        return running.known["answers"][place] is None and not self._sweeps(seconds)

    def _sweeps(self, seconds: float) -> bool:
        return not 0 <= seconds - self._answers_swept < _SWEEP_ANSWERS

    def look_up_answers(self, places: Iterable[tuple[int, str, str]]) -> None:
        """Read the answers that were given under these keys, paths and idempotency keys; only within `write`.

        `answer_for` has them then without another question, as long as the transaction lasts.
        """
        running, named = self._running(), dict[tuple[int, str], list[str]]()
        for key_id, path, name in places:
            if (key_id, path, name) not in running.known.get("answers", ()):
                named.setdefault((key_id, path), []).append(name)
        for (key_id, path), names in named.items():
            for first in range(0, len(names), _ASKED_AT_ONCE):
                some = names[first : first + _ASKED_AT_ONCE]
                # Few lengths, so that the statement is prepared seldom.
                asked = some + some[-1:] * ((1 << (len(some) - 1).bit_length()) - len(some))
                where = f"key_id = ? AND path = ? AND name IN ({', '.join('?' * len(asked))})"
                statement = f"SELECT name, fingerprint, status, body, at FROM answers WHERE {where}"  # noqa: S608 - places
                found = {row["name"]: dict(row) for row in self.rows(statement, (key_id, path, *asked), settled=True)}
                for name in some:
                    running.note("answers", (key_id, path, name), found.get(name))

    def add_submitted(
        self,
        running: Transaction,
        one: Submitted,
        *,
        by: Signature,
        kept: Repeatable | None,
        answer: Callable[[int], bytes],
    ) -> bytes:
        """Store a submission as `add_action`, `audit` and `keep_answer` together would, and return its answer.

        `answer` makes it of the action's number.
        """
        number, head, who = running.action + 1, running.tip or running.head, by.by
        content = answer(number)
        salt, judgement, (score, level) = new_salt(), one.judgement, one.risk
        agent_id, kind = one.submission["agent_id"], one.submission["action_type"]
        action = (
            *(number, who.tenant, agent_id, judgement["decision"], score, level, one.at, one.at, who.key_id),
            *(who.name, None, one.texts[0], salt, one.texts[1], None),
        )
        row: dict[str, Any] = {}
        told = ""
        if kept is not None:
            row = {"key_id": who.key_id, "path": kept.path, "name": kept.name, "fingerprint": kept.fingerprint}
            row |= {"status": 200, "body": content, "at": one.seconds}
            named = {"answer": answer_digest(row), "key": who.key_id, "name": kept.name, "path": kept.path}
            told = f',"kept":[{_text(named)}]'
            row["seq"] = head[0] + 1
        # In the order of their names, with a gap where that of the answer stands.
        first = {
            "action_type": kind,
            "agent_id": agent_id,
            "correlation_id": judgement["correlation_id"],
            "decision": judgement["decision"],
            "factors": judgement["factors"],
            "judgement": digest(one.texts[1]),
        }
        then = {
            "key": who.key_id,
            "matched": judgement["matched"],
            "parent_action_id": None,
            "policy_matched": judgement["policy_matched"],
            "policy_version": judgement["policy_version"],
            "reason": judgement["reason"],
            "rest": one.rest,
            "risk_level": level,
            "risk_score": score,
            "session": None,
            "submission": digest(one.texts[0], salt),
        }
        before, after = _text(first)[:-1], _text(then)[1:]
        entry = self._entry(head, number, one.at, by, (before, told, after))
        late = [(_ACTIONS, action), (_AUDIT, entry)]
        if kept is not None:
            late.append((_ANSWERS, tuple(row.values())))
        # Of all these texts the only one that is neither JSON nor of the database.
        self.engine.check((agent_id,))
        try:
            running.action, running.tip, running.logged = number, (entry[0], entry[5]), True
            for place, values in late:
                waiting = running.late.get(place)
                if waiting is None:
                    waiting = running.late[place] = Late()
                waiting.rows.append(values)
            if kept is not None:
                running.note("answers", (who.key_id, kept.path, kept.name), row)
            status = judgement["decision"]
            running.counted.append(Counted(1, who.tenant, one.at, status, level, score, agent_id))
            alike = who.tenant, status
            if alike not in running.submitted and self.on_entry is not None:
                running.notices.append(partial(self._tell_submitted, running.submitted, *alike))
            running.submitted[alike] = running.submitted.get(alike, 0) + 1
        except BaseException:
            self.engine.rollback()
            raise
        return content

    def _tell_submitted(self, submitted: Mapping[tuple[str, str], int], tenant: str, decision: str) -> None:
        if self.on_entry is not None:
            self.on_entry(_EVENT, tenant, {"decision": decision}, submitted[tenant, decision])

    @staticmethod
    def _entry(
        head: tuple[int, str], number: int, at: str, by: Signature, data: tuple[str, str, str]
    ) -> tuple[int, str, str, int, str, str]:
        """Return the row of an audit entry as `audit.written` makes it; what is told in the middle may be erased."""
        seq, previous = head[0] + 1, head[1]
        begin = f'{{"action_id":{number},"actor":{by.name},"at":"{at}","data":'
        end = f'"seq":{seq},"tenant":{by.tenant}}}'
        lasts = data[0] + "," + data[2]
        if not data[1]:
            text = f'{begin}{lasts},"event":"{_EVENT}",{end}'
            return seq, text, by.by.tenant, number, previous, chained(previous, text)
        whole, salt = f"{data[0]}{data[1]},{data[2]}", new_salt()
        seal = digest(whole, salt)
        text = f'{begin}{whole},"event":"{_EVENT}","salt":"{salt}","sealed":"{seal}",{end}'
        lasting = f'{begin}{lasts},"event":"{_EVENT}","sealed":"{seal}",{end}'
        return seq, text, by.by.tenant, number, previous, chained(previous, lasting)


def _text(value: object) -> str:
    return _encode(value).decode()
