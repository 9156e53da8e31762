"""Ordinary submissions on a straight way: one function from headers and body to the answer.

Nearly all submissions are alike in what they ask of the authority: a key, a body that is written as our own encoder
writes it, no parent, server or model to look for, and a decision that waits for nobody. What is out of the ordinary
goes the thorough way (`core`), which stays the only one that refuses anything; a test holds that both leave the same
answers, rows and audit entries.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

import msgspec

from ascend_middleware.api.endpoints import SUBMIT

from . import killswitch, orchestration
from .bodies import Answer, decision_fields, fixed_headers, read_plain, read_simple_submission
from .context import IDEMPOTENCY_KEY, AuthorityContext, fingerprint
from .endpoints.actions import UNNAMED_AGENT, judged_form, submitted_judgement
from .endpoints.policies import kept_policies
from .judging import QUICK
from .keys import Credential, Window
from .policy import Policies, PolicySet, Question
from .policy.approvers import OBSERVED
from .policy.evaluation import Shape
from .policy.risk_score import Score, may_claim, risk_level, score_action
from .store.audit import canonical_json, digest, iso_time
from .store.erasure import rest_of
from .store.submissions import Repeatable, Signature, Submitted
from .store.transaction import Transaction

__all__ = ["Ordinary"]

_encode: Final = msgspec.json.Encoder().encode
_COUNTED: Final = SUBMIT.counted_as
# Headers that change what is asked for, or who asks.
_ELSE: Final = frozenset({"authorization", "x-api-version", "x-organization-slug"})


class _Asker(NamedTuple):
    """What holds of the submissions of a key for an agent, as long as a transaction lasts."""

    by: Credential
    policy: PolicySet
    limit: int
    agent_name: str
    more: Policies
    signature: Signature
    # Scores, and digests of what stays after an erasure, by what they are made of: an agent's submissions are alike.
    known: dict[tuple[str, str | None, bytes], tuple[Score, str]]


class Ordinary:
    """Answers ordinary submissions of an authority, whose limits of keys `requests` counts."""

    def __init__(self, authority: AuthorityContext, requests: Window) -> None:
        self._authority = authority
        self._store = authority.store
        self._requests = requests

    def answer(self, method: str, path: str, query: str, headers: Mapping[str, str], body: bytes) -> Answer | None:
        """Answer one submission within a group, durable once that is; None for anything else: then nothing was done."""
        if path != SUBMIT.path or method != SUBMIT.method or query or not _ELSE.isdisjoint(headers):
            return None
        key, name = headers.get("x-api-key"), headers.get("idempotency-key")
        if not key or (name is not None and not IDEMPOTENCY_KEY.fullmatch(name)):
            return None
        try:
            found = self._decided(key, name, headers, body)
        except Exception:  # the thorough way meets it too, and says so
            return None
        return None if found is None else self._stored(*found)

    def alone(self, method: str, path: str, query: str, headers: Mapping[str, str], body: bytes) -> Answer | None:
        """Do the same also where no group is running: then in one of its own."""
        if self._store.grouped:
            return self.answer(method, path, query, headers, body)
        if path != SUBMIT.path or not headers.get("x-api-key"):
            return None
        with self._store.group():
            return self.answer(method, path, query, headers, body)

    def _decided(
        self, key: str, name: str | None, headers: Mapping[str, str], body: bytes
    ) -> tuple[Transaction, _Asker, Submitted, Repeatable | None, dict[str, str]] | None:
        """Return what is to be stored and told, if all of it is ordinary; nothing was done but counting the request."""
        given = read_plain(body)
        if given is None or may_claim(body):
            return None
        action = read_simple_submission(given)
        if action is None or (agent_id := action["agent_id"]) == UNNAMED_AGENT:
            return None
        store, authority = self._store, self._authority
        if store.memo is None and not store.is_worth_a_transaction(key):
            return None
        running = store.joined()
        if running is None:
            return None
        place = ("ordinary", key, agent_id)
        if place not in running.memo:
            running.memo[place] = self._asker(key, agent_id)
        asker: _Asker | None = running.memo[place]
        if asker is None or asker.policy is not authority.policy or action["context"].get(OBSERVED):
            return None
        seconds = store.now()
        kept = None
        if name is not None:
            kept = Repeatable(name, SUBMIT.path, fingerprint(given))
            if not store.is_new(running, kept, seconds, by=asker.by):
                return None
        if action["agent_name"] == agent_id:
            action["agent_name"] = asker.agent_name
        indicators, context = action["risk_indicators"], action["context"]
        alike = action["action_type"], action.get("tool_name"), _encode((indicators, context))
        if alike not in asker.known:
            score = score_action(action["action_type"], indicators, context)
            asker.known[alike] = score, digest(canonical_json(rest_of(action)))
        score, rest = asker.known[alike]
        question = Question.of(asker.policy, judged_form(action), score, more=asker.more)
        if not question.is_quick(Shape.of(body), QUICK):
            return None
        judgement = question.judge(quick=True)
        if judgement.faults or judgement.decision == "pending":
            return None
        limits: dict[str, str] = {}
        if asker.limit:
            allowance = self._requests.quick((asker.by.key_id, _COUNTED), asker.limit, authority.now())
            if allowance is None or allowance.retry_after:
                return None
            limits = allowance.headers
        stored = submitted_judgement(judgement, asker.policy.version, authority.correlation_id(headers))
        one = Submitted(
            submission=action,
            judgement=stored,
            texts=(canonical_json(action), canonical_json(stored)),
            rest=rest,
            risk=(judgement.risk_score, risk_level(judgement.risk_score)),
            at=iso_time(seconds),
            seconds=seconds,
        )
        return running, asker, one, kept, limits

    def _asker(self, key: str, agent_id: str) -> _Asker | None:
        """Return what holds of a key's submissions for an agent, or None if something out of the ordinary does."""
        by, policy, store = self._store.find_key(key), self._authority.policy, self._store
        if by is None or not by.role.submits or policy.strict or not by.speaks_for(agent_id):
            return None
        standing = killswitch.standing(store, agent_id, tenant=by.tenant)
        registered = orchestration.registered(store, agent_id, tenant=by.tenant)
        if standing.blocked or standing.max_per_minute is not None or registered.get("model_id") is not None:
            return None
        limit = policy.limits_of(by.key_id, by.name).of(_COUNTED)
        name = orchestration.name_of(agent_id, registered)
        return _Asker(by, policy, limit, name, kept_policies(store, tenant=by.tenant), Signature.of(by), {})

    def _stored(
        self,
        running: Transaction,
        asker: _Asker,
        one: Submitted,
        kept: Repeatable | None,
        limits: dict[str, str],
    ) -> Answer:
        state = self._authority.policy_state()

        def answer(number: int) -> bytes:
            row = {"id": number, "judgement": one.judgement, "submission": one.submission}
            row |= {"status": one.judgement["decision"], "risk_score": one.risk[0], "risk_level": one.risk[1]}
            row |= {"created_at": one.at, "updated_at": one.at, "approval": None, "expires_at": None}
            return _encode({**decision_fields(row), "policy_state": state})

        content = self._store.add_submitted(running, one, by=asker.signature, kept=kept, answer=answer)
        return Answer(SUBMIT.status, {**fixed_headers(one.judgement["correlation_id"]), **limits}, content)
