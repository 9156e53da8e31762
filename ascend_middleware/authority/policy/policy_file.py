"""The policy file: TOML, read with every problem told at once.

[thresholds]
pending = 60
denied = 90

[[policy]]
name = "large refunds need a person"
action_types = ["transaction"]
when = "number(action.action_details.amount) > 1000"
decision = "pending"
"""

from __future__ import annotations

import hashlib
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ascend_middleware.exceptions import ConfigurationError, Problem, toml_problem

from ..limits import FAILED_SIGN_INS
from ..management import STATUSES
from ..tokens import TokenKey, public_key_issue
from .approvers import read_approvals
from .conditions import Condition, compile_condition
from .policy import DECISIONS, RULE_ACTIONS, Limits, McpServer, Model, Policy, PolicySet, pattern_issue
from .risk_score import MAX_SCORE

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["TABLES", "load_policy", "parse_policy"]

_ACTIONS: Final = "allow, require_approval or deny"
TABLES: Final = (
    "thresholds",
    "submissions",
    "approvals",
    "policy",
    "smart_rule",
    "mcp_server",
    "model",
    "limits",
    "key_limit",
    "jwt",
    "resource_classification",
)


def load_policy(path: str | Path) -> PolicySet:
    """Read a policy file.

    Raises:
        ConfigurationError: it cannot be read, or something in it is wrong; with every problem found.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except OSError as error:
        hint = f"; write a first one with: ascend-middleware authority init {path}"
        missing = hint if isinstance(error, FileNotFoundError) else ""
        raise ConfigurationError(f"the policy file {path} cannot be read: {error.strerror}{missing}") from None
    except UnicodeDecodeError:
        raise ConfigurationError(f"the policy file {path} is not UTF-8 text") from None
    return parse_policy(text, name=str(path), folder=Path(path).parent)


def parse_policy(text: str, *, name: str = "policy.toml", folder: Path | None = None) -> PolicySet:
    """Parse a policy file's text; see `load`. Paths in it are relative to `folder`."""
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(problems=[toml_problem("policy.not-toml", name, text, error)]) from None
    reader = Reader(name)
    reader.known(table, TABLES, "")
    pending, denied = reader.thresholds(table.get("thresholds", {}))
    strict, strict_depth = reader.submissions(table.get("submissions", {}))
    approvals = read_approvals(
        table.get("approvals", {}), lambda where, message, hint: reader.say("policy.bad-value", where, message, hint)
    )
    policies = [reader.policy(row, where) for row, where in reader.rows(table, "policy")]
    policies += [reader.smart_rule(row, where) for row, where in reader.rows(table, "smart_rule")]
    servers = [reader.server(row, where) for row, where in reader.rows(table, "mcp_server")]
    models = tuple(reader.model(row, where) for row, where in reader.rows(table, "model"))
    limits = reader.limits(table.get("limits", {}), "limits", least=Limits())
    failures = reader.failed_sign_ins(table.get("limits", {}))
    key_limits = reader.key_limits(reader.rows(table, "key_limit"), least=limits)
    token_key = reader.token_key(table["jwt"], folder or Path()) if "jwt" in table else None
    kinds = [reader.classification(row, where) for row, where in reader.rows(table, "resource_classification")]
    for kind, names in (("policy", [p.name for p in policies]), ("mcp_server", [s.name for s in servers])):
        for twice in sorted({item for item in names if item and names.count(item) > 1}):
            reader.say("policy.duplicate-name", f"{kind} {twice!r}", "the name is used twice")
    if reader.problems:
        raise ConfigurationError(problems=reader.problems)
    return PolicySet(
        policies=tuple(policies),
        pending=pending,
        denied=denied,
        approvals=approvals,
        mcp_servers={server.name: server for server in servers},
        models=models,
        limits=limits,
        failed_sign_ins=failures,
        strict=strict,
        strict_depth=strict_depth,
        key_limits=key_limits,
        token_key=token_key,
        classifications=tuple(kinds),
        version=hashlib.sha256(text.encode()).hexdigest()[:16],
    )


class Reader:
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

    def submissions(self, table: object) -> tuple[bool, bool]:
        if not isinstance(table, dict):
            self.say("policy.bad-value", "submissions", "expected a table")
            return False, False
        self.known(table, ("strict", "strict_depth"), "submissions")
        for key in ("strict", "strict_depth"):
            if not isinstance(table.get(key, False), bool):
                self.say("policy.bad-value", f"submissions: {key}", "expected true or false")
        return table.get("strict") is True, table.get("strict_depth") is True

    def policy(self, row: dict[str, Any], where: str) -> Policy:
        keys = ("name", "action_types", "agents", "when", "decision", "risk_score", "reason", "description")
        self.known(row, keys, where)
        decision = self.text(row, "decision", where)
        if decision and decision not in DECISIONS:
            hint = "expected approved, pending or denied"
            self.say("policy.bad-value", f"{where}: decision", f"no such decision: {decision!r}", hint)
            decision = ""
        score = self.whole(row, "risk_score", where, high=MAX_SCORE)
        if "decision" not in row and "risk_score" not in row:
            self.say("policy.missing-key", where, "decides nothing", "give it a decision or a risk_score")
        when = self.text(row, "when", where)
        return Policy(
            name=self.text(row, "name", where, required=True),
            action_types=tuple(word.casefold() for word in self.patterns(row, "action_types", where)),
            agents=self.patterns(row, "agents", where),
            condition=self.condition(when, f"{where}: when") if "when" in row else None,
            decision=decision,
            risk_score=score,
            reason=self.text(row, "reason", where),
        )

    def smart_rule(self, row: dict[str, Any], where: str) -> Policy:
        keys = ("name", "condition", "action", "action_types", "agents", "risk_score", "reason", "description")
        self.known(row, keys, where)
        action = self.text(row, "action", where, required=True)
        if action and action not in RULE_ACTIONS:
            self.say("policy.bad-value", f"{where}: action", f"no such action: {action!r}", f"expected {_ACTIONS}")
        return Policy(
            name=self.text(row, "name", where, required=True),
            action_types=tuple(word.casefold() for word in self.patterns(row, "action_types", where)),
            agents=self.patterns(row, "agents", where),
            condition=self.condition(self.text(row, "condition", where, required=True), f"{where}: condition"),
            decision=RULE_ACTIONS.get(action, ""),
            risk_score=self.whole(row, "risk_score", where, high=MAX_SCORE),
            reason=self.text(row, "reason", where),
        )

    def condition(self, source: str, where: str) -> Condition | None:
        if not source:
            return None  # told already
        found = compile_condition(source)
        if isinstance(found, Condition):
            return found
        for fault in found:
            self.say("policy.condition", where, str(fault), fault.hint)
        return None

    def server(self, row: dict[str, Any], where: str) -> McpServer:
        self.known(row, ("name", "active", "blocked_tools", "tool_risks", "description"), where)
        active = row.get("active", True)
        if not isinstance(active, bool):
            self.say("policy.bad-value", f"{where}: active", "expected true or false")
        name = self.text(row, "name", where, required=True)
        if name != name.strip() or not name.isprintable():
            self.say(
                "policy.never-matches", f"{where}: name", f"no action can name {name!r}", f"write {name.strip()!r}"
            )
        risks = row.get("tool_risks", {})
        if not isinstance(risks, dict):
            self.say("policy.bad-value", f"{where}: tool_risks", "expected a table of tools and scores")
            risks = {}
        for tool in risks:
            self.pattern(tool, "tool_risks", where)
        scores = {tool: self.whole(risks, tool, f"{where}: tool_risks", high=MAX_SCORE) for tool in risks}
        return McpServer(
            name=name,
            active=active is True,
            blocked_tools=self.patterns(row, "blocked_tools", where),
            tool_risks=tuple((tool, score) for tool, score in scores.items() if score is not None),
        )

    def model(self, row: dict[str, Any], where: str) -> Model:
        self.known(row, ("id", "name", "compliance_status", "tenant", "description"), where)
        number = self.whole(row, "id", where, high=2**53)
        if "id" not in row:
            self.say("policy.missing-key", f"{where}: id", "is required")
        status = self.text(row, "compliance_status", where) or "approved"
        if status not in STATUSES:
            self.say("policy.bad-value", f"{where}: compliance_status", f"expected one of {', '.join(STATUSES)}")
        return Model(
            id=number or 0,
            name=self.text(row, "name", where),
            compliance_status=status,
            tenant=self.text(row, "tenant", where),
        )

    def limits(self, table: object, where: str, *, least: Limits) -> Limits:
        if not isinstance(table, dict):
            self.say("policy.bad-value", where, "expected a table")
            return least
        names = ("submit", "report", "read", "list", "analytics", "admin")
        self.known(table, (*names, "failed_sign_ins" if where == "limits" else "key"), where)
        given = {name: self.whole(table, name, where, high=1_000_000) for name in names}
        return replace(least, **{name: value for name, value in given.items() if value is not None})

    def failed_sign_ins(self, table: object) -> int:
        given = self.whole(table, "failed_sign_ins", "limits", high=1_000_000) if isinstance(table, dict) else None
        return FAILED_SIGN_INS if given is None else given

    def key_limits(self, rows: list[tuple[dict[str, Any], str]], *, least: Limits) -> dict[str, Limits]:
        found: dict[str, Limits] = {}
        for row, where in rows:
            key = row.get("key")
            if isinstance(key, int) and not isinstance(key, bool):
                key = f"#{key}"  # no name begins so by accident: see limits_of
            if not isinstance(key, str) or not key.strip():
                self.say("policy.bad-value", f"{where}: key", "expected the name or the number of a key")
                continue
            if key in found:
                self.say("policy.duplicate-name", f"{where}: key", "the key is named twice")
            found[key] = self.limits(row, where, least=least)
        return found

    def token_key(self, table: object, folder: Path) -> TokenKey | None:
        where = "jwt"
        if not isinstance(table, dict):
            self.say("policy.bad-value", where, "expected a table")
            return None
        keys = ("public_key", "public_key_file", "issuer", "audience", "name_claim", "role_claim", "tenant_claim")
        self.known(table, keys, where)
        if ("public_key" in table) == ("public_key_file" in table):
            self.say("policy.missing-key", where, "needs either public_key or public_key_file")
            return None
        text = self.text(table, "public_key", where)
        if "public_key_file" in table:
            path = folder / (self.text(table, "public_key_file", where) or ".")
            try:
                text = path.read_text(encoding="ascii")
            except (OSError, UnicodeDecodeError) as error:
                reason = getattr(error, "strerror", None) or "it is no ASCII text"
                self.say("policy.bad-value", f"{where}: public_key_file", f"{path} cannot be read: {reason}")
                return None
        issue = public_key_issue(text)
        if issue:
            self.say("policy.bad-value", f"{where}: public_key", issue, "expected an RSA public key in PEM form")
            return None
        return TokenKey(
            public_key=text,
            issuer=self.text(table, "issuer", where, required=True),
            audience=self.text(table, "audience", where, required=True),
            name_claim=self.text(table, "name_claim", where) or "sub",
            role_claim=self.text(table, "role_claim", where) or "role",
            tenant_claim=self.text(table, "tenant_claim", where) or "tenant",
        )

    def classification(self, row: dict[str, Any], where: str) -> dict[str, Any]:
        self.known(row, ("resource_id", "resource_type", "sensitivity_level", "compliance_tags"), where)
        kind = self.text(row, "resource_type", where, required=True)
        return {
            "resource_id": self.text(row, "resource_id", where) or kind,
            "resource_type": kind,
            "sensitivity_level": self.text(row, "sensitivity_level", where, required=True),
            "compliance_tags": list(self.texts(row, "compliance_tags", where)),
            "metadata": {},
        }

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

    def patterns(self, row: Mapping[str, Any], key: str, where: str) -> tuple[str, ...]:
        """Return a list of patterns; one that can match nothing would be a rule that lets everything through."""
        found = self.texts(row, key, where)
        for pattern in found:
            self.pattern(pattern, key, where)
        return found

    def pattern(self, pattern: str, key: str, where: str) -> None:
        issue = pattern_issue(pattern, key)
        if issue is not None:
            self.say("policy.never-matches", f"{where}: {key}", *issue)

    def whole(self, row: Mapping[str, Any], key: str, where: str, *, high: int) -> int | None:
        value = row.get(key)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= high:
            self.say("policy.bad-value", f"{where}: {key}", f"expected a whole number from 0 to {high}")
            return None
        return value
