"""Policies: conditions on actions and what they decide, and thresholds for what no policy decides."""

from __future__ import annotations

import operator
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec

from ..keys import ADDRESS_LIMIT, FAILED_SIGN_INS, listed
from ..tokens import TokenKey
from .approvers import ApprovalRules
from .conditions import Condition
from .evaluation import Held, Load, Shape, evaluate, longest_time
from .retention import Retention
from .risk_score import Score

__all__ = [
    "DECISIONS",
    "RULE_ACTIONS",
    "HeadRules",
    "Judgement",
    "Limits",
    "McpServer",
    "Model",
    "Policies",
    "Policy",
    "PolicySet",
    "Question",
    "listed",
    "pattern_issues",
]

# The strictest wins: later words beat earlier ones.
DECISIONS: Final = ("approved", "pending", "denied")
_RANK: Final = {word: number for number, word in enumerate(DECISIONS)}
# What a smart rule calls them.
RULE_ACTIONS: Final[Mapping[str, str]] = {"allow": "approved", "require_approval": "pending", "deny": "denied"}


class Judgement(msgspec.Struct, frozen=True, kw_only=True):
    """What the policies say about one action."""

    decision: str
    reason: str
    risk_score: int
    policy_matched: str = ""
    matched: tuple[str, ...] = ()
    factors: tuple[str, ...] = ()
    explanation: Mapping[str, Any] = {}
    # Why a policy could not be evaluated, by its name; for those who write policies, never for the agent.
    faults: Mapping[str, str] = {}


class _Match(msgspec.Struct, frozen=True):
    """What a policy says of an action, and how that is told."""

    policy: Policy
    decision: str
    reason: str
    fields: Mapping[str, Any]

    @classmethod
    def of(cls, policy: Policy, decision: str, reason: str, *, failed: bool) -> _Match:
        fields = {
            "name": policy.name,
            "source": policy.source,
            "decision": decision or None,
            "risk_score": policy.risk_score,
            "reason": reason,
            "evaluation_failed": failed,
        }
        return cls(policy, decision, reason, fields)


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """One policy, of the file or made through the API.

    `decision` is empty in one that only sets a risk score and leaves it to the thresholds.
    """

    name: str
    action_types: tuple[str, ...] = ()
    agents: tuple[str, ...] = ()
    condition: Condition | None = None
    decision: str = ""
    risk_score: int | None = None
    reason: str = ""
    source: str = "policy file"
    # What it says of an action about which its condition holds; the same each time.
    match: _Match = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        """Work out what it says."""
        reason = self.reason or f"policy {self.name!r}"
        object.__setattr__(self, "match", _Match.of(self, self.decision, reason, failed=False))

    @classmethod
    def of(cls, fields: Mapping[str, Any], condition: Condition | None, *, source: str = "policy file") -> Policy:
        """Return the policy that the fields of a policy or a smart rule describe."""
        return cls(
            name=fields.get("name", ""),
            action_types=tuple(word.casefold() for word in fields.get("action_types", ())),
            agents=tuple(fields.get("agents", ())),
            condition=condition,
            decision=fields.get("decision") or RULE_ACTIONS.get(fields.get("action", ""), ""),
            risk_score=fields.get("risk_score"),
            reason=fields.get("reason") or "",
            source=source,
        )

    @property
    def keys(self) -> list[tuple[str, str]]:
        """Fields of actions, each with a text, of which an action must have one to match; none where any may."""
        if self.condition is not None and self.condition.constant is not None:
            return [self.condition.constant]
        for name, words in (("agent_id", self.agents), ("action_type", self.action_types)):
            if words and not any(word.endswith("*") for word in words):
                return [(name, word) for word in dict.fromkeys(words)]
        return []


_NUMBER: Final = operator.itemgetter(0)
# For so many kinds of actions it is kept which policies are about them.
_MOST_KNOWN: Final = 1024


class Policies(tuple[Policy, ...]):
    """Policies in their order, and an index of them: most of many speak of other agents, resources or types."""

    def __init__(self, _: Iterable[Policy] = ()) -> None:
        self._any: list[tuple[int, Policy]] = []
        self._by_key: dict[tuple[str, str], list[tuple[int, Policy]]] = {}
        self._known: dict[tuple[str, str, str | None], tuple[Policy, ...]] = {}
        self.load = Load.of(policy.condition for policy in self)
        for number, policy in enumerate(self):
            for key in policy.keys:
                self._by_key.setdefault(key, []).append((number, policy))
            if not policy.keys:
                self._any.append((number, policy))

    def about(self, action: Mapping[str, Any]) -> tuple[Policy, ...]:
        """Return those whose condition has to be evaluated: the action's type and agent are among those listed."""
        resource: str | None = str(action.get("resource"))
        if ("resource", resource) not in self._by_key:
            resource = None
        place = action["action_type"], action["agent_id"], resource
        found = self._known.get(place)
        if found is None:
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            found = self._known[place] = self._about(*place)
        return found

    def _about(self, kind: str, agent: str, resource: str | None) -> tuple[Policy, ...]:
        # Without regard to case, or "Transaction" would slip past the policies for "transaction".
        kind = str(kind).casefold()
        found, by_key = self._any, self._by_key
        for key in (("agent_id", agent), ("resource", resource), ("action_type", kind)):
            if key in by_key:
                found = found + by_key[key]
        if found is not self._any:
            found.sort(key=_NUMBER)
        return tuple(
            policy
            for _, policy in found
            if (not policy.action_types or listed(kind, policy.action_types))
            and (not policy.agents or listed(agent, policy.agents))
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class McpServer:
    """A server that actions may name; `tool_risks` are scores that an action with the tool does not fall below."""

    name: str
    active: bool = True
    blocked_tools: tuple[str, ...] = ()
    tool_risks: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A model that actions may name by number or by name; without a tenant, of every organisation."""

    id: int
    name: str = ""
    compliance_status: str = "approved"
    tenant: str = ""


# At least, and for each submission.
_PER_SUBMISSION: Final = {"report": (3000, 3), "read": (12_000, 12)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Requests a minute for one key; 0 means without limit (contract §2.5 for the first three).

    `report` is for outcomes, acknowledgements and whatever else a user's key may change, `read` for one thing, such as
    an action's status or an agent's commands, `list` for lists. None is what goes with `submit`: each submission may be
    followed by some of them.
    """

    submit: int = 1000
    analytics: int = 100
    admin: int = 50
    report: int | None = None
    read: int | None = None
    list: int = 300

    def of(self, name: str) -> int:
        """Return a limit by its name."""
        given: int | None = getattr(self, name)
        if given is None:
            least, each = _PER_SUBMISSION[name]
            return max(least, each * self.submit) if self.submit else 0
        return given


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadRules:
    """Where the audit log's head is told to: a file, if any, and how many seconds lie between two times."""

    file: Path | None = None
    every: float = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicySet:
    """A whole policy file. `version` is a hash of its text.

    `strict` also requires a description and a tool's name of each submission; `strict_depth` that the orchestration
    depth is one more than the parent's, and 0 without a parent.
    """

    policies: Policies = field(default_factory=Policies)
    pending: int = 60
    denied: int = 90
    mcp_servers: Mapping[str, McpServer]
    models: tuple[Model, ...] = ()
    approvals: ApprovalRules = field(default_factory=ApprovalRules)
    limits: Limits = field(default_factory=Limits)
    failed_sign_ins: int = FAILED_SIGN_INS
    address_limit: int = ADDRESS_LIMIT
    strict: bool = False
    strict_depth: bool = False
    key_limits: Mapping[str, Limits] = field(default_factory=dict)
    token_key: TokenKey | None = None
    classifications: tuple[Mapping[str, Any], ...] = ()
    heads: HeadRules = field(default_factory=HeadRules)
    retention: Retention = field(default_factory=Retention)
    version: str = ""

    def limits_of(self, key_id: int, name: str) -> Limits:
        """Return the limits of a key, named in the policy file by its name or its number."""
        return self.key_limits.get(f"#{key_id}") or self.key_limits.get(name) or self.limits

    def judge(self, action: Mapping[str, Any], score: Score, *, more: Policies | None = None) -> Judgement:
        """Decide about an action: the strictest policy that matches, also of `more`, else the thresholds on the score.

        The action is as the conditions see it.
        """
        return Question.of(self, action, score, more=more).judge()

    def conclude(self, policies: Iterable[Policy], held: Iterable[Held], score: Score) -> Judgement:
        """Decide by what the conditions of the policies about an action gave."""
        matched: list[_Match] = []
        faults: dict[str, str] = {}
        value, decider = score.value, None
        factors = [*score.factors]
        for policy, one in zip(policies, held, strict=True):
            if one is False:
                continue
            match = policy.match
            if one is not True:
                faults[policy.name] = one
                reason = f"policy {policy.name!r} could not be evaluated for this action"
                match = _Match.of(policy, "denied", reason, failed=True)
            matched.append(match)
            if policy.risk_score is not None:
                value = max(value, policy.risk_score)
                factors.append(f"policy {policy.name}: {policy.risk_score}")
            if match.decision and (decider is None or _RANK[match.decision] > _RANK[decider.decision]):
                decider = match
        name, threshold = "", None
        if decider is not None:
            decision, reason, name = decider.decision, decider.reason, decider.policy.name
            if decider.policy.risk_score is not None:
                value = decider.policy.risk_score
        else:
            decision, reason, threshold = self._by_threshold(value)
        explanation = {
            "signals": [{"signal": name, "points": points, "source": source} for name, points, source in score.signals],
            "policies": [row.fields for row in matched],
            "thresholds": {"pending": self.pending, "denied": self.denied},
            "decided_by": "threshold" if decider is None else "policy",
            "policy": None if decider is None else name,
            "threshold": threshold,
            "risk_score": value,
        }
        return Judgement(
            decision=decision,
            reason=reason,
            risk_score=value,
            policy_matched=name,
            matched=tuple([row.policy.name for row in matched]),
            factors=tuple(factors),
            explanation=explanation,
            faults=faults,
        )

    def _by_threshold(self, value: int) -> tuple[str, str, int]:
        """Return decision, reason and the threshold that was compared with."""
        if value >= self.denied:
            return "denied", f"risk score {value} reaches the threshold for denial, {self.denied}", self.denied
        decision, compared = ("pending", "reaches") if value >= self.pending else ("approved", "is below")
        reason = f"risk score {value} {compared} the threshold for a person's decision, {self.pending}"
        return decision, reason, self.pending


class Question(msgspec.Struct, frozen=True):
    """What is asked about one action: whoever answers it needs no database, and nothing that was read in a transaction.

    Two are the same where the same policies are asked about the same action.
    """

    rules: PolicySet
    action: Mapping[str, Any]
    score: Score
    more: Policies | None
    about: tuple[Policy, ...]

    @classmethod
    def of(cls, rules: PolicySet, action: Mapping[str, Any], score: Score, *, more: Policies | None = None) -> Question:
        """Ask a policy file, and `more` policies, about an action as the conditions see it."""
        about = rules.policies.about(action)
        return cls(rules, action, score, more, about + more.about(action) if more else about)

    def is_as(self, other: Question) -> bool:
        """Say whether an answer to the other one answers this."""
        mine, others = (self.about, self.action, self.score), (other.about, other.action, other.score)
        return self.rules is other.rules and mine == others

    def is_quick(self, shape: Shape, seconds: float) -> bool:
        """Say whether the answer surely takes no more than some seconds of processor time."""
        load = self.rules.policies.load if not self.more else self.rules.policies.load.plus(self.more.load)
        if not load.macros and load.seconds(shape) <= seconds:
            return True
        return longest_time(self._conditions, self.action, shape) <= seconds

    @property
    def sources(self) -> list[str | None]:
        """What the conditions are, as `evaluate_sources` takes them."""
        return [None if one is None else one.source for one in self._conditions]

    @property
    def _conditions(self) -> list[Condition | None]:
        return [policy.condition for policy in self.about]

    def holding(self) -> tuple[Policy, ...] | None:
        """Return the policies that hold, by which it is answered; None if one cannot be evaluated. It must be quick."""
        try:
            return tuple([one for one in self.about if one.condition is None or one.condition.holds(self.action)])
        except ValueError:
            return None

    def judge(self, held: Sequence[Held] | None = None, *, quick: bool = False) -> Judgement:
        """Answer it, by what the conditions gave where that is known; `quick` if it surely takes no time."""
        held = evaluate(self._conditions, self.action, bounded=not quick) if held is None else held
        return self.rules.conclude(self.about, held, self.score)


# Longer than any name of an action.
_MAX_PATTERN: Final = 255
# Signs of other pattern languages; no type of an action, agent or tool is written with them.
_SIGNS: Final = re.compile(r"[?\[\]^$\\]")
# Of other pattern languages; ids of agents may hold any of these.
_FOREIGN: Final = re.compile(r"^[!~]|^/.+/$|^(?:re|regexp?|glob):|%|[^+]\+$|\.\+|[{}<>]|\([^)]*\|", re.IGNORECASE)
_FIELDS: Final = {"action_types": "action_type", "agents": "agent_id"}


def pattern_issues(fields: Mapping[str, Any], *keys: str) -> Iterator[tuple[str, str, str]]:
    """Yield each list with an entry that can match nothing, why it cannot, and what is meant."""
    for key in keys:
        for issue in filter(None, (_issue(pattern, key) for pattern in fields.get(key) or ())):
            yield key, *issue


def _issue(pattern: str, key: str) -> tuple[str, str] | None:
    head = pattern.removesuffix("*")
    if pattern != pattern.strip():
        return f"{pattern!r} can match nothing: no name has blanks at its ends", f"write {pattern.strip()!r}"
    if not pattern.isprintable():
        seen = "".join(char for char in pattern if char.isprintable())
        return f"{pattern!r} can match nothing: it holds what cannot be seen", f"write {seen!r}"
    if len(head) > _MAX_PATTERN:
        return f"it can match nothing: no name has more than {_MAX_PATTERN} characters", ""
    if key != "agents" and _FOREIGN.search(pattern):
        return f"{pattern!r} can match nothing: the only sign is a * at the end, for any rest", _instead(pattern, key)
    between = r"[,;|]" if key == "action_types" else r"[,;]"
    if re.search(between, head):
        words = ", ".join(f'"{word.strip()}"' for word in re.split(between, pattern) if word.strip())
        return f"{pattern!r} is one word of the list and can match nothing", f"write each by itself: {words}"
    if "*" in head or _SIGNS.search(head):
        return f"{pattern!r} can match nothing: the only sign is a * at the end, for any rest", _instead(pattern, key)
    return None


def _instead(pattern: str, key: str) -> str:
    """Return what to write for a pattern of another language."""
    if key in _FIELDS and (meant := re.fullmatch(r"(?:regexp?|re):([^']+)|/([^']+)/", pattern, re.IGNORECASE)):
        return f"list the names one by one, or use a condition: action.{_FIELDS[key]}.matches('{meant[1] or meant[2]}')"
    pattern = pattern.replace("%", "*")  # SQL's sign
    if key not in _FIELDS or not re.fullmatch(r"[\w:/@ *-]+", pattern):
        return "list the names one by one"
    place = "action." + _FIELDS[key]
    return f"list the names one by one, or use a condition: {place}.matches('(?i)^{pattern.replace('*', '.*')}$')"
