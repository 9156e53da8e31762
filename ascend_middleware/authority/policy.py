"""Policies: a TOML file of conditions in CEL, and thresholds for what no policy decides.

[thresholds]
pending = 60
denied = 90

[[policy]]
name = "large refunds need a person"
action_types = ["transaction"]
when = "action.action_details.amount > 1000"
decision = "pending"
"""

from __future__ import annotations

import hashlib
import re
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ascend_middleware.exceptions import ConfigurationError, Problem
from ascend_middleware.models import AgentAction

from .approvers import ApprovalRules, read_approvals
from .score import MAX_SCORE, Score

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["Judgement", "McpServer", "Model", "Policy", "PolicySet"]

# The strictest wins: later words beat earlier ones.
_STRICTNESS: Final = ("approved", "pending", "denied")
# The CEL library works by recursion, and a stack that overflows in it ends the process; threads may have small stacks.
_MAX_CONDITION: Final = 2048
_MAX_NESTING: Final = 16
_MAX_OPERATORS: Final = 100
_OPERATOR = re.compile(r"[-+*/%?!<>]|==|&&|\|\|")
_ACTION_FIELDS: Final = frozenset(AgentAction.__struct_fields__)
_FUNCTIONS: Final = frozenset(
    [
        "size",
        "contains",
        "startsWith",
        "endsWith",
        "matches",
        "int",
        "uint",
        "double",
        "string",
        "bool",
        "bytes",
        "timestamp",
        "duration",
        "type",
        "dyn",
        "has",
        "max",
        "min",
        "getFullYear",
        "getMonth",
        "getDate",
        "getDayOfMonth",
        "getDayOfWeek",
        "getDayOfYear",
        "getHours",
        "getMinutes",
        "getSeconds",
        "getMilliseconds",
    ]
)
_BOUND = re.compile(r"\.\s*(?:all|exists|exists_one|existsOne|map|filter)\s*\(\s*([A-Za-z_]\w*)\s*,")
_FIELD = re.compile(r"(?<![\w.])action\s*\.\s*([A-Za-z_]\w*)")
_STRING = re.compile(r"'(?:\\.|[^'\\])*'|\"(?:\\.|[^\"\\])*\"")


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What the policies say about one action."""

    decision: str
    reason: str
    risk_score: int
    policy_matched: str = ""
    matched: tuple[str, ...] = ()
    factors: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """One `[[policy]]`; `decision` is empty in one that only sets a risk score and leaves it to the thresholds."""

    name: str
    action_types: tuple[str, ...] = ()
    agents: tuple[str, ...] = ()
    condition: Callable[[Mapping[str, Any]], object] | None = None
    decision: str = ""
    risk_score: int | None = None
    reason: str = ""

    def concerns(self, action: Mapping[str, Any]) -> bool:
        """Say whether the action's type and agent are among those listed."""
        # Without regard to case, or "Transaction" would slip past the policies for "transaction".
        kind = str(action["action_type"]).casefold()
        return _listed(kind, self.action_types) and _listed(action["agent_id"], self.agents)

    def holds(self, action: Mapping[str, Any]) -> bool:
        """Evaluate the condition; raise `ValueError` with the cause if the answer is neither true nor false."""
        if self.condition is None:
            return True
        try:
            answer = self.condition({"action": action})
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # the CEL library's panics are no Exceptions
            cause = f"no field {error}" if isinstance(error, KeyError) else str(error).split("\n", 1)[0][:200]
            raise ValueError(cause) from None
        if not isinstance(answer, bool):
            raise ValueError(f"the condition gave a {type(answer).__name__}, not true or false")
        return answer


@dataclass(frozen=True, slots=True, kw_only=True)
class McpServer:
    """One `[[mcp_server]]`: a server that actions may name."""

    name: str
    active: bool = True
    blocked_tools: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """One `[[model]]`: a model that actions may name by id or by name."""

    id: int
    name: str = ""
    compliance_status: str = "approved"


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicySet:
    """A whole policy file. `version` is a hash of its text."""

    policies: tuple[Policy, ...] = ()
    pending: int = 60
    denied: int = 90
    mcp_servers: Mapping[str, McpServer]
    models: tuple[Model, ...] = ()
    approvals: ApprovalRules = field(default_factory=ApprovalRules)
    version: str = ""

    @classmethod
    def load(cls, path: str | Path) -> PolicySet:
        """Read a policy file.

        Raises:
            ConfigurationError: it cannot be read, or something in it is wrong; with every problem found.
        """
        try:
            text = Path(path).read_text(encoding="utf-8")
        except OSError as error:
            hint = f"; write a first one with: ascend-middleware authority init {path}"
            missing = hint if isinstance(error, FileNotFoundError) else ""
            raise ConfigurationError(f"the policy file {path} cannot be read: {error.strerror}{missing}") from None
        except UnicodeDecodeError:
            raise ConfigurationError(f"the policy file {path} is not UTF-8 text") from None
        return cls.from_text(text, name=str(path))

    @classmethod
    def from_text(cls, text: str, *, name: str = "policy.toml") -> PolicySet:
        """Parse a policy file's text; see `load`."""
        try:
            table = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise ConfigurationError(f"{name} is not TOML: {error}") from None
        reader = _Reader(name)
        reader.known(table, ("thresholds", "approvals", "policy", "mcp_server", "model"), "")
        pending, denied = reader.thresholds(table.get("thresholds", {}))
        approvals = read_approvals(
            table.get("approvals", {}),
            lambda where, message, hint: reader.say("policy.bad-value", where, message, hint),
        )
        policies = tuple(reader.policy(row, where) for row, where in reader.rows(table, "policy"))
        servers = [reader.server(row, where) for row, where in reader.rows(table, "mcp_server")]
        models = tuple(reader.model(row, where) for row, where in reader.rows(table, "model"))
        for kind, names in (("policy", [p.name for p in policies]), ("mcp_server", [s.name for s in servers])):
            for twice in sorted({item for item in names if item and names.count(item) > 1}):
                reader.say("policy.duplicate-name", f"{kind} {twice!r}", "the name is used twice")
        if reader.problems:
            raise ConfigurationError(problems=reader.problems)
        return cls(
            policies=policies,
            pending=pending,
            denied=denied,
            approvals=approvals,
            mcp_servers={server.name: server for server in servers},
            models=models,
            version=hashlib.sha256(text.encode()).hexdigest()[:16],
        )

    def judge(self, action: Mapping[str, Any], score: Score) -> Judgement:
        """Decide about an action: the strictest policy that matches, else the thresholds on the score."""
        matched: list[tuple[int, str, Policy, str]] = []
        for policy in self.policies:
            if not policy.concerns(action):
                continue
            try:
                if policy.holds(action):
                    matched.append((_rank(policy.decision), policy.decision, policy, policy.reason))
            except ValueError as error:
                reason = f"policy {policy.name!r} could not be evaluated: {error}"
                matched.append((_rank("denied"), "denied", policy, reason))
        value = max([score.value, *(row[2].risk_score or 0 for row in matched)])
        names = tuple(row[2].name for row in matched)
        factors = (
            *score.factors,
            *(f"policy {row[2].name}: {row[2].risk_score}" for row in matched if row[2].risk_score is not None),
        )
        rank, decision, decider, reason = max(matched, key=lambda row: row[0], default=(-1, "", None, ""))
        if rank >= 0 and decider is not None:
            return Judgement(
                decision=decision,
                reason=reason or f"policy {decider.name!r}",
                risk_score=value if decider.risk_score is None else decider.risk_score,
                policy_matched=decider.name,
                matched=names,
                factors=factors,
            )
        decision, reason = self._by_threshold(value)
        return Judgement(decision=decision, reason=reason, risk_score=value, matched=names, factors=factors)

    def _by_threshold(self, value: int) -> tuple[str, str]:
        if value >= self.denied:
            return "denied", f"risk score {value} reaches the threshold for denial, {self.denied}"
        if value >= self.pending:
            return "pending", f"risk score {value} reaches the threshold for a person's decision, {self.pending}"
        return "approved", f"risk score {value} is below the threshold for a person's decision, {self.pending}"


def _rank(decision: str) -> int:
    return _STRICTNESS.index(decision) if decision else -1


def _listed(value: str, patterns: tuple[str, ...]) -> bool:
    """Match a value against words, where a trailing `*` stands for any rest; no words at all match everything."""
    return not patterns or any(
        value.startswith(pattern[:-1]) if pattern.endswith("*") else value == pattern for pattern in patterns
    )


class _Reader:
    """Reads the tables of one file and collects what is wrong with them."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.problems: list[Problem] = []

    def say(self, code: str, where: str, message: str, hint: str = "") -> None:
        self.problems.append(Problem(code, f"{self.name}: {where}" if where else self.name, message, hint))

    def known(self, table: Mapping[str, object], keys: tuple[str, ...], where: str) -> None:
        for key in table:
            if key not in keys:
                place = f"{where}: {key}" if where else key
                self.say("policy.unknown-key", place, "no such key", f"known: {', '.join(keys)}")

    def rows(self, table: Mapping[str, Any], key: str) -> list[tuple[dict[str, Any], str]]:
        rows = table.get(key, [])
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            self.say("policy.bad-value", key, f"expected [[{key}]] tables")
            return []
        return [
            (row, f"{key} {number} ({row['name']!r})" if isinstance(row.get("name"), str) else f"{key} {number}")
            for number, row in enumerate(rows, start=1)
        ]

    def thresholds(self, table: object) -> tuple[int, int]:
        if not isinstance(table, dict):
            self.say("policy.bad-value", "thresholds", "expected a table")
            return 60, 90
        self.known(table, ("pending", "denied"), "thresholds")
        pending = self.whole(table, "pending", "thresholds", high=MAX_SCORE + 1)
        denied = self.whole(table, "denied", "thresholds", high=MAX_SCORE + 1)
        pending, denied = 60 if pending is None else pending, 90 if denied is None else denied
        if pending > denied:
            self.say("policy.bad-value", "thresholds", f"pending ({pending}) must not exceed denied ({denied})")
        return pending, denied

    def policy(self, row: dict[str, Any], where: str) -> Policy:
        keys = ("name", "action_types", "agents", "when", "decision", "risk_score", "reason", "description")
        self.known(row, keys, where)
        decision = self.text(row, "decision", where)
        if decision and decision not in _STRICTNESS:
            hint = "expected approved, pending or denied"
            self.say("policy.bad-value", f"{where}: decision", f"no such decision: {decision!r}", hint)
            decision = ""
        score = self.whole(row, "risk_score", where, high=MAX_SCORE)
        if "decision" not in row and "risk_score" not in row:
            self.say("policy.missing-key", where, "decides nothing", "give it a decision or a risk_score")
        when = self.text(row, "when", where)
        return Policy(
            name=self.text(row, "name", where, required=True),
            action_types=tuple(word.casefold() for word in self.texts(row, "action_types", where)),
            agents=self.texts(row, "agents", where),
            condition=self.condition(when, f"{where}: when") if "when" in row else None,
            decision=decision,
            risk_score=score,
            reason=self.text(row, "reason", where),
        )

    def condition(self, source: str, where: str) -> Callable[[Mapping[str, Any]], object] | None:
        import cel  # an extra: only the authority needs it

        if not source:
            return None  # told already
        if len(source) > _MAX_CONDITION:
            self.say("policy.condition", where, f"the condition is longer than {_MAX_CONDITION} characters")
            return None
        plain = _STRING.sub("''", source)
        if _nesting(plain) > _MAX_NESTING or len(_OPERATOR.findall(plain)) > _MAX_OPERATORS:
            hint = f"at most {_MAX_NESTING} brackets deep and {_MAX_OPERATORS} operators; split it into two policies"
            self.say("policy.condition", where, "the condition is too complicated", hint)
            return None
        try:
            program = cel.compile(source)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # the CEL library's panics are no Exceptions
            self.say("policy.condition", where, _parse_error(str(error)))
            return None
        bound = set(_BOUND.findall(plain))
        for variable in sorted(set(program.variables()) - bound - {"action"}):
            self.say("policy.condition", where, f"unknown name {variable!r}", "the only one is action")
        for function in sorted(set(program.functions()) - _FUNCTIONS):
            if function.isidentifier() and not function.startswith("_"):
                self.say("policy.condition", where, f"unknown function {function!r}", "see the CEL standard functions")
        for unknown in sorted(set(_FIELD.findall(plain)) - _ACTION_FIELDS):
            hint = (
                f"the agent's own parameters are in action.action_details; known: {', '.join(sorted(_ACTION_FIELDS))}"
            )
            self.say("policy.condition", where, f"an action has no field {unknown!r}", hint)
        return lambda variables: program.execute(dict(variables))

    def server(self, row: dict[str, Any], where: str) -> McpServer:
        self.known(row, ("name", "active", "blocked_tools", "description"), where)
        active = row.get("active", True)
        if not isinstance(active, bool):
            self.say("policy.bad-value", f"{where}: active", "expected true or false")
        name = self.text(row, "name", where, required=True)
        return McpServer(name=name, active=active is True, blocked_tools=self.texts(row, "blocked_tools", where))

    def model(self, row: dict[str, Any], where: str) -> Model:
        self.known(row, ("id", "name", "compliance_status", "description"), where)
        number = self.whole(row, "id", where, high=2**53)
        if "id" not in row:
            self.say("policy.missing-key", f"{where}: id", "is required")
        status = self.text(row, "compliance_status", where) or "approved"
        return Model(id=number or 0, name=self.text(row, "name", where), compliance_status=status)

    def text(self, row: Mapping[str, Any], key: str, where: str, *, required: bool = False) -> str:
        value = row.get(key, "")
        if not isinstance(value, str) or (key in row and not value.strip()):
            self.say("policy.bad-value", f"{where}: {key}", "expected a text that is not empty")
            return ""
        if required and key not in row:
            self.say("policy.missing-key", f"{where}: {key}", "is required")
        return value

    def texts(self, row: Mapping[str, Any], key: str, where: str) -> tuple[str, ...]:
        value = row.get(key, [])
        # An empty list would read as "none" and act as "all".
        if not isinstance(value, list) or not all(isinstance(item, str) and item for item in value):
            self.say("policy.bad-value", f"{where}: {key}", "expected a list of texts")
            return ()
        if key in row and not value and key != "blocked_tools":
            self.say("policy.bad-value", f"{where}: {key}", "the list is empty", "leave the key out to mean all")
        return tuple(value)

    def whole(self, row: Mapping[str, Any], key: str, where: str, *, high: int) -> int | None:
        value = row.get(key)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= high:
            self.say("policy.bad-value", f"{where}: {key}", f"expected a whole number from 0 to {high}")
            return None
        return value


def _nesting(source: str) -> int:
    depth = deepest = 0
    for char in source:
        depth += (char in "([{") - (char in ")]}")
        deepest = max(deepest, depth)
    return deepest


def _parse_error(text: str) -> str:
    """Shorten the parser's message to its place and cause: `1:4: Syntax error: …`."""
    match = re.search(r"<input>:(\d+):(\d+): (.*)", text)
    return f"line {match[1]}, column {match[2]}: {match[3][:200]}" if match else text.split("\n", 1)[0][:200]
