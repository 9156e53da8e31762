"""Decided submissions that are stored in one go: the action, its audit entry and the answer kept for a repetition."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, Final, NamedTuple

import msgspec

from ..keys import Credential
from .audit import answer_digest, canonical_json, chained, digest, new_salt
from .key_store import Keys
from .tallies import HOUR, Counted
from .template import Template
from .transaction import Late, Transaction

__all__ = ["Repeatable", "Ruling", "Signature", "Submissions", "Submitted"]

# The columns of rows in the order in which `Store.add_action`, `Log` and `Store.keep_answer` name them.
_PLACES: Final = (
    (
        "actions",
        (
            *("id", "tenant", "agent_id", "status", "risk_score", "risk_level", "created_at", "updated_at"),
            *("submitted_by", "submitter", "session", "submission", "salt", "judgement", "expires_at"),
        ),
    ),
    ("audit", ("seq", "entry", "tenant", "action_id", "previous", "hash")),
    ("answers", ("key_id", "path", "name", "fingerprint", "status", "body", "at", "seq")),
)
# Seconds between the times at which old answers are forgotten.
_SWEEP_ANSWERS: Final = 60.0
_ASKED_AT_ONCE: Final = 500
_EVENT: Final = "ACTION_SUBMITTED"
_encode: Final = msgspec.json.Encoder().encode


class Signature(NamedTuple):
    """Who submits, and how an entry spells that."""

    by: Credential
    name: str
    tenant: str

    @classmethod
    def of(cls, by: Credential) -> Signature:
        """Return somebody's."""
        return cls(by, _text(by.name), _text(by.tenant))


class Repeatable(msgspec.Struct, frozen=True):
    """Under which idempotency key an answer is kept for a repetition of what."""

    name: str
    path: str
    fingerprint: str


class Submitted(msgspec.Struct, frozen=True, kw_only=True):
    """What varies among submissions without a session that are ruled alike."""

    text: str  # the canonical JSON of what was submitted
    resource: str
    correlation_id: str  # of letters, digits and signs that JSON spells as they are
    rest: str  # the digest of what stays of it once it is erased
    at: str
    seconds: float  # the same time


class Ruling:
    """What submissions of an agent share that are approved or denied for the same reasons: most of what tells of them.

    Args:
        by: who submits.
        agent_id: for which agent.
        kind: the action type.
        risk: score and level.
        judge: returns the judgement upon the request with a correlation id.
        answer: returns the answer about a stored action.
    """

    def __init__(
        self,
        by: Signature,
        agent_id: str,
        kind: str,
        *,
        risk: tuple[int, str],
        judge: Callable[[str], Mapping[str, Any]],
        answer: Callable[[Mapping[str, Any]], bytes],
    ) -> None:
        self.by: Final = by
        self.agent_id: Final = agent_id
        self.risk: Final = risk
        request, judged, submitted, rest, resource, at = (new_salt() for _ in range(6))
        number = secrets.randbits(62) | 1 << 61  # no text of ours holds it by chance
        judgement = judge(request)
        self.decision: Final[str] = judgement["decision"]
        self.judgement: Final = Template(canonical_json(judgement), request)
        # In the order of their names, with a gap where that of the answer stands.
        first = {
            "action_type": kind,
            "agent_id": agent_id,
            "correlation_id": request,
            "decision": self.decision,
            "factors": judgement["factors"],
            "judgement": judged,
        }
        then = {
            "key": by.by.key_id,
            "matched": judgement["matched"],
            "parent_action_id": None,
            "policy_matched": judgement["policy_matched"],
            "policy_version": judgement["policy_version"],
            "reason": judgement["reason"],
            "rest": rest,
            "risk_level": risk[1],
            "risk_score": risk[0],
            "session": None,
            "submission": submitted,
        }
        self.first: Final = Template(_text(first)[:-1], request, judged)
        self.then: Final = Template(_text(then)[1:], rest, submitted)
        row = {"id": number, "judgement": judgement, "submission": {"action_type": kind, "resource": resource}}
        row |= {"status": self.decision, "risk_score": risk[0], "risk_level": risk[1], "approval": None}
        row |= {"created_at": at, "updated_at": at, "expires_at": None}
        self.answer: Final = Template(answer(row).decode(), str(number), request, resource, at)


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

    def add_submitted(self, running: Transaction, one: Submitted, ruling: Ruling, *, kept: Repeatable | None) -> bytes:
        """Store a submission as `add_action`, `audit` and `keep_answer` together would, and return its answer."""
        number, (seq, previous), signature = running.action + 1, running.tip or running.head, ruling.by
        seq += 1
        who, status, (score, level), agent_id = signature.by, ruling.decision, ruling.risk, ruling.agent_id
        salt, judgement = new_salt(), ruling.judgement.fill(one.correlation_id)
        content = ruling.answer.fill(str(number), one.correlation_id, _text(one.resource)[1:-1], one.at).encode()
        first = ruling.first.fill(one.correlation_id, digest(judgement))
        then = ruling.then.fill(one.rest, digest(one.text, salt))
        begin = f'{{"action_id":{number},"actor":{signature.name},"at":"{one.at}","data":'
        end = f'"seq":{seq},"tenant":{signature.tenant}}}'
        # As `audit.written` makes it; what is told in the middle may be erased.
        lasting = f'{begin}{first},{then},"event":"{_EVENT}",'
        if kept is None:
            entry = lasting = f"{lasting}{end}"
        else:
            row = {"key_id": who.key_id, "path": kept.path, "name": kept.name, "fingerprint": kept.fingerprint}
            row |= {"status": 200, "body": content, "at": one.seconds, "seq": seq}
            told = (
                f'{{"answer":"{answer_digest(row)}","key":{who.key_id},"name":{_text(kept.name)},"path":"{kept.path}"}}'
            )
            data, seal_salt = f'{first},"kept":[{told}],{then}', new_salt()
            seal = digest(data, seal_salt)
            entry = f'{begin}{data},"event":"{_EVENT}","salt":"{seal_salt}","sealed":"{seal}",{end}'
            lasting = f'{lasting}"sealed":"{seal}",{end}'
        action = (
            *(number, who.tenant, agent_id, status, score, level, one.at, one.at, who.key_id),
            *(who.name, None, one.text, salt, judgement, None),
        )
        tip = seq, chained(previous, lasting)
        try:
            running.action, running.tip, running.logged = number, tip, True
            if running.straight is None:
                running.straight = tuple([running.late.setdefault(place, Late()) for place in _PLACES])
            actions, audit, answers = running.straight
            actions.rows.append(action)
            audit.rows.append((seq, entry, who.tenant, number, previous, tip[1]))
            if kept is not None:
                answers.rows.append(tuple(row.values()))
                running.note("answers", (who.key_id, kept.path, kept.name), row)
            alike = ruling, one.at[:HOUR]
            counted = running.submitted.get(alike)
            if counted is None:
                counted = Counted(1, who.tenant, one.at, status, level, score, agent_id)
                running.counted.append(counted)
                running.submitted[alike] = counted
                if self.on_entry is not None:
                    running.notices.append(partial(self._tell_submitted, counted))
            else:
                counted.n += 1
                counted.created_at = max(counted.created_at, one.at)
        except BaseException:
            self.engine.rollback()
            raise
        return content

    def _tell_submitted(self, counted: Counted) -> None:
        if self.on_entry is not None:
            self.on_entry(_EVENT, counted.tenant, {"decision": counted.status}, counted.n)


def _text(value: object) -> str:
    return _encode(value).decode()
