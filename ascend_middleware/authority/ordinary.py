"""Ordinary submissions on a straight way: one function from headers and body to the answer.

Nearly all submissions are alike in what they ask of the authority: a key, a body that is written as our own encoder
writes it, no parent, server or model to look for, and a decision that waits for nobody. What is out of the ordinary
goes the thorough way (`core`), which stays the only one that refuses anything; a test holds that both leave the same
answers, rows and audit entries.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from ascend_middleware.api.endpoints import SUBMIT

from . import killswitch, orchestration
from .bodies import Answer, completed, decision_fields, fixed_headers, read_simple
from .context import IDEMPOTENCY_KEY, AuthorityContext, fingerprint
from .endpoints.actions import UNNAMED_AGENT, judged_form, submitted_judgement
from .endpoints.policies import kept_policies
from .judging import QUICK
from .keys import Credential, Window
from .policy import Policies, Policy, PolicySet, Question
from .policy.approvers import OBSERVED
from .policy.evaluation import Shape
from .policy.risk_score import Score, may_claim, risk_level, score_action
from .store.audit import canonical_json, digest, iso_time
from .store.erasure import rest_of
from .store.submissions import Repeatable, Ruling, Signature, Submitted
from .store.transaction import Transaction

__all__ = ["Ordinary"]

_encode: Final = msgspec.json.Encoder().encode
_COUNTED: Final = SUBMIT.counted_as
# Headers that change what is asked for, or who asks.
_ELSE: Final = frozenset({"authorization", "x-api-version", "x-organization-slug"})
# Of what submissions have in common, so much is kept, of all agents together: callers choose what they submit.
_MOST_KNOWN: Final = 4096
# And nothing of those whose indicators and context have more bytes.
_LONGEST: Final = 1024


class _Alike(NamedTuple):
    """What submissions of an agent have in common that are of one type and have the same indicators and context."""

    score: Score
    rest: str  # the digest of what stays of them after an erasure
    # What is told of those about which the same policies hold, by the identities of these; None: not ordinary.
    rulings: dict[tuple[int, ...], Ruling | None]


class _Asker(NamedTuple):
    """What holds of the submissions of a key for an agent, as long as no record, command or policy changes."""

    by: Credential
    policy: PolicySet
    limit: int
    agent_name: str
    more: Policies
    quick_size: int  # of a body: whatever is in it, the policies are evaluated in no time
    signature: Signature
    state: str
    known: dict[tuple[str, str | None, bytes], _Alike]
    rulings: dict[tuple[str, Score], dict[tuple[int, ...], Ruling | None]]


class Ordinary:
    """Answers ordinary submissions of an authority, whose limits of keys `requests` counts."""

    def __init__(self, authority: AuthorityContext, requests: Window) -> None:
        self._authority = authority
        self._store = authority.store
        self._requests = requests
        # Whose rulings are kept; how many these are, and what leads to them.
        self._askers: list[_Asker] = []
        self._count = 0

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
        if found is None:
            return None
        running, one, ruling, kept, limits = found
        content = self._store.add_submitted(running, one, ruling, kept=kept)
        return Answer(SUBMIT.status, {**fixed_headers(one.correlation_id), **limits}, content)

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
    ) -> tuple[Transaction, Submitted, Ruling, Repeatable | None, Mapping[str, str]] | None:
        """Return what is to be stored and told, if all of it is ordinary; nothing was done but counting the request."""
        given = None if may_claim(body) else read_simple(body)
        if given is None or (agent_id := given["agent_id"]) == UNNAMED_AGENT:
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
        if asker is None or asker.policy is not authority.policy:
            return None
        seconds = store.now()
        kept = None
        if name is not None:
            kept = Repeatable(name, SUBMIT.path, fingerprint(given))
            if not store.is_new(running, kept, seconds, by=asker.by):
                return None
        action = completed(given)
        if action["context"].get(OBSERVED):
            return None
        if action["agent_name"] == agent_id:
            action["agent_name"] = asker.agent_name
        alike = self._alike(asker, action)
        question = Question.of(asker.policy, judged_form(action), alike.score, more=asker.more)
        if len(body) > asker.quick_size and not question.is_quick(Shape.of(body), QUICK):
            return None
        held = question.holding()
        if held is None:
            return None
        those = tuple(map(id, held))
        if those not in alike.rulings:
            alike.rulings[those] = _ruling(asker, action, question, held)
            self._note(asker)
        ruling = alike.rulings[those]
        if ruling is None:
            return None
        limits: Mapping[str, str] = {}
        if asker.limit:
            allowance = self._requests.quick((asker.by.key_id, _COUNTED), asker.limit, authority.now())
            if allowance is None or allowance.retry_after:
                return None
            limits = allowance.headers
        one = Submitted(
            text=canonical_json(action),
            resource=action["resource"],
            correlation_id=authority.correlation_id(headers),
            rest=alike.rest,
            at=iso_time(seconds),
            seconds=seconds,
        )
        return running, one, ruling, kept, limits

    def _asker(self, key: str, agent_id: str) -> _Asker | None:
        """Return what holds of a key's submissions for an agent, or None if something out of the ordinary does."""
        store, policy = self._store, self._authority.policy
        by = store.find_key(key)
        if by is None or not by.role.submits or policy.strict or not by.speaks_for(agent_id):
            return None
        # A key's credential stays what it is. The policies stay as long as what is kept of them, so that no others have
        # their identity meanwhile.
        place = ("ordinary", id(policy), by.key_id, agent_id)
        _, asker = store.cached(place, lambda: (policy, self._known(by, agent_id)))
        return asker

    def _known(self, by: Credential, agent_id: str) -> _Asker | None:
        policy, store = self._authority.policy, self._store
        standing = killswitch.standing(store, agent_id, tenant=by.tenant)
        registered = orchestration.registered(store, agent_id, tenant=by.tenant)
        if standing.blocked or standing.max_per_minute is not None or registered.get("model_id") is not None:
            return None
        more = kept_policies(store, tenant=by.tenant)
        store.engine.check((agent_id,))  # of all texts of a submission the only one that is stored as it is
        return _Asker(
            by,
            policy,
            policy.limits_of(by.key_id, by.name).of(_COUNTED),
            orchestration.name_of(agent_id, registered),
            more,
            policy.policies.load.plus(more.load).size_within(QUICK),
            Signature.of(by),
            self._authority.policy_state(),
            {},
            {},
        )

    def _alike(self, asker: _Asker, action: Mapping[str, Any]) -> _Alike:
        """Return what holds of submissions like this one; an agent's are alike."""
        kind, indicators, context = action["action_type"], action["risk_indicators"], action["context"]
        place = kind, action.get("tool_name"), _encode((indicators, context))
        found = asker.known.get(place)
        if found is None:
            self._note(asker)
            score = score_action(kind, indicators, context)
            found = _Alike(score, digest(canonical_json(rest_of(action))), asker.rulings.setdefault((kind, score), {}))
            if len(place[2]) <= _LONGEST:
                asker.known[place] = found
        return found

    def _note(self, asker: _Asker) -> None:
        """Count what is about to be kept with an asker; what is too much is forgotten."""
        if self._count >= _MOST_KNOWN:
            for one in self._askers:
                one.known.clear()
                one.rulings.clear()
            self._askers.clear()
            self._count = 0
        self._count += 1
        if not self._askers or self._askers[-1] is not asker:
            self._askers.append(asker)


def _ruling(asker: _Asker, action: Mapping[str, Any], question: Question, held: Sequence[Policy]) -> Ruling | None:
    """Return what is told of actions about which these policies hold, None where somebody has to decide."""
    judgement = asker.policy.conclude(held, [True] * len(held), question.score)
    if judgement.decision == "pending":
        return None
    score, version = judgement.risk_score, asker.policy.version
    return Ruling(
        asker.signature,
        action["agent_id"],
        action["action_type"],
        risk=(score, risk_level(score)),
        judge=lambda correlation_id: submitted_judgement(judgement, version, correlation_id),
        answer=lambda row: _encode({**decision_fields(row), "policy_state": asker.state}),
    )
