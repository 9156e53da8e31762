"""The policy file: TOML, read with every problem told at once."""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, TypeAlias

from ascend_middleware.exceptions import ConfigurationError
from ascend_middleware.json_schema import either, schema_of, takes
from ascend_middleware.problems import (
    TOML_ERRORS,
    BadValueError,
    Parser,
    Report,
    choice,
    duration,
    flag,
    mapping,
    text,
    texts,
    toml_problem,
    whole,
)

from ..approvals import STATUSES
from ..keys import ADDRESS_LIMIT, FAILED_SIGN_INS
from ..tokens import TokenKey, public_key_issue
from . import DECISIONS, RULE_ACTIONS, HeadRules, Limits, McpServer, Model, Policies, Policy, PolicySet, pattern_issues
from .approvers import APPROVALS, read_approvals
from .conditions import compile_condition
from .retention import RETENTION, read_retention
from .risk_score import MAX_SCORE

__all__ = ["ONE_OF", "ROWS", "TABLES", "load_policy", "parse_policy", "sample_policy"]


def load_policy(path: str | Path) -> PolicySet:
    """Read a policy file.

    Raises:
        ConfigurationError: it cannot be read, or something in it is wrong; with every problem found.
    """
    try:
        content = Path(path).read_text(encoding="utf-8-sig")
    except OSError as error:
        hint = f"; write a first one with: ascend-middleware authority init {path}"
        missing = hint if isinstance(error, FileNotFoundError) else ""
        raise ConfigurationError(f"the policy file {path} cannot be read: {error.strerror}{missing}") from None
    except UnicodeDecodeError:
        raise ConfigurationError(f"the policy file {path} is not UTF-8 text") from None
    return parse_policy(content, name=str(path), folder=Path(path).parent)


def sample_policy() -> str:
    """Return a commented policy file to start from."""
    return (Path(__file__).parent / "sample.toml").read_text(encoding="utf-8")


def parse_policy(content: str, *, name: str = "policy.toml", folder: Path | None = None) -> PolicySet:
    """Parse a policy file's text; see `load`. Paths in it are relative to `folder`."""
    try:
        table = tomllib.loads(content)
    except TOML_ERRORS as error:
        raise ConfigurationError(problems=[toml_problem("policy.not-toml", name, content, error)]) from None
    report = Report(name, "policy")
    read = report.table(table, dict.fromkeys(TABLES, lambda value: value))
    pending, denied = _thresholds(report, read.get("thresholds", {}))
    submissions = report.table(read.get("submissions", {}), TABLES["submissions"][0], "submissions")
    approvals = read_approvals(read.get("approvals", {}), report)
    policies = [_policy(report, *row) for kind in ("policy", "smart_rule") for row in _rows(report, read, kind)]
    servers = [_server(report, *row) for row in _rows(report, read, "mcp_server")]
    models = tuple(Model(**{"id": 0, **given}) for given, _ in _rows(report, read, "model"))
    bounds = report.table(read.get("limits", {}), TABLES["limits"][0], "limits")
    failures = bounds.pop("failed_sign_ins", FAILED_SIGN_INS)
    address_limit = bounds.pop("address", ADDRESS_LIMIT)
    limits = Limits(**bounds)
    key_limits = _key_limits(report, read, least=limits)
    heads = _heads(report, read.get("audit", {}), folder or Path())
    token_key = _token_key(report, read["jwt"], folder or Path()) if "jwt" in read else None
    retention = read_retention(read.get("retention", {}), report, folder or Path())
    kinds = tuple(_classification(given) for given, _ in _rows(report, read, "resource_classification"))
    for kind, names in (("policy", [p.name for p in policies]), ("mcp_server", [s.name for s in servers])):
        for twice in sorted({item for item in names if item and names.count(item) > 1}):
            report.add("duplicate-name", (f"{kind} {twice!r}",), "the name is used twice")
    if report.problems:
        raise ConfigurationError(problems=report.problems)
    return PolicySet(
        policies=Policies(policies),
        pending=pending,
        denied=denied,
        approvals=approvals,
        mcp_servers={server.name: server for server in servers},
        models=models,
        limits=limits,
        failed_sign_ins=failures,
        address_limit=address_limit,
        **submissions,
        key_limits=key_limits,
        token_key=token_key,
        classifications=kinds,
        heads=heads,
        retention=retention,
        version=hashlib.sha256(content.encode()).hexdigest()[:16],
    )


# --- the tables


@takes({**schema_of(texts), "minItems": 1})
def _named(value: object) -> tuple[str, ...]:
    found = texts(value)
    if not found:
        raise BadValueError("the list is empty", "leave the key out to mean all")  # it would read as "none"
    return found


@takes(either(schema_of(text), {"type": "integer"}))
def _limited_key(value: object) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return f"#{value}"  # no name begins so by accident: see limits_of
    if not isinstance(value, str) or not value.strip():
        raise ValueError("expected the name or the number of a key")
    return value


_score: Final = whole(0, MAX_SCORE)
_threshold: Final = whole(0, MAX_SCORE + 1)
_count: Final = whole(0, 1_000_000)
_JUDGING: Final = {"name": text, "action_types": _named, "agents": _named, "risk_score": _score, "reason": text}
_LIMITS: Final = dict.fromkeys(("submit", "report", "read", "list", "analytics", "admin"), _count)
_TOKEN_KEY: Final = dict.fromkeys(
    ("public_key", "public_key_file", "issuer", "audience", "name_claim", "role_claim", "tenant_claim"), text
)
_DESCRIBED: Final = {"description": text}
Fields: TypeAlias = tuple[Mapping[str, Parser], tuple[str, ...]]
# What the rows of each kind say, and what they must say.
ROWS: Final[Mapping[str, Fields]] = {
    "policy": ({**_JUDGING, "when": text, "decision": choice(*DECISIONS), **_DESCRIBED}, ("name",)),
    "smart_rule": (
        {**_JUDGING, "condition": text, "action": choice(*RULE_ACTIONS), **_DESCRIBED},
        ("name", "condition", "action"),
    ),
    "mcp_server": (
        {
            "name": text,
            "active": flag,
            "blocked_tools": texts,
            "tool_risks": mapping("tools and scores", schema_of(_score)),
            **_DESCRIBED,
        },
        ("name",),
    ),
    "model": (
        {"id": whole(0, 2**53), "name": text, "compliance_status": choice(*STATUSES), "tenant": text, **_DESCRIBED},
        ("id",),
    ),
    "key_limit": ({"key": _limited_key, **_LIMITS}, ("key",)),
    "resource_classification": (
        {"resource_id": text, "resource_type": text, "sensitivity_level": text, "compliance_tags": _named},
        ("resource_type", "sensitivity_level"),
    ),
}
# Every table, the arrays of rows too.
TABLES: Final[Mapping[str, Fields]] = {
    "thresholds": ({"pending": _threshold, "denied": _threshold}, ()),
    "submissions": ({"strict": flag, "strict_depth": flag}, ()),
    "approvals": (APPROVALS, ()),
    "limits": ({**_LIMITS, "failed_sign_ins": _count, "address": _count}, ()),
    "jwt": (_TOKEN_KEY, ("issuer", "audience")),
    "audit": ({"head_file": text, "head_interval": duration}, ()),
    "retention": (RETENTION, ()),
    **ROWS,
}
# Of which a table needs one.
ONE_OF: Final[Mapping[str, tuple[str, ...]]] = {
    "policy": ("decision", "risk_score"),
    "jwt": ("public_key", "public_key_file"),
}


def _places(report: Report, tables: Mapping[str, Any], key: str) -> Iterator[tuple[dict[str, Any], str]]:
    """Yield the tables of an array, and what problems call each."""
    rows = tables.get(key, [])
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        report.add("bad-value", (key,), f"expected [[{key}]] tables")
        return
    for number, row in enumerate(rows, start=1):
        name = row.get("name")
        yield row, f"{key} {number} ({name!r})" if isinstance(name, str) else f"{key} {number}"


def _rows(report: Report, tables: Mapping[str, Any], kind: str) -> Iterator[tuple[dict[str, Any], str]]:
    """Yield what the rows of a kind say, and their places."""
    fields, required = ROWS[kind]
    for row, where in _places(report, tables, kind):
        given = report.table(row, fields, where, required=required)
        if kind == "policy" and row.keys().isdisjoint(ONE_OF[kind]):
            report.add("missing-key", (where,), "decides nothing", "give it a decision or a risk_score")
        given.pop("description", None)
        yield given, where


def _thresholds(report: Report, table: object) -> tuple[int, int]:
    given = report.table(table, TABLES["thresholds"][0], "thresholds")
    pending, denied = given.get("pending", 60), given.get("denied", 90)
    if pending > denied:
        report.add("bad-value", ("thresholds",), f"pending ({pending}) must not exceed denied ({denied})")
    return pending, denied


def _policy(report: Report, given: dict[str, Any], where: str) -> Policy:
    _check_patterns(report, given, where, "action_types", "agents")
    key = "when" if "when" in given else "condition"
    found = compile_condition(given[key]) if key in given else None
    if isinstance(found, list):
        for fault in found:
            report.add("condition", (where, key), str(fault), fault.hint)
        found = None
    return Policy.of(given, found)


def _check_patterns(report: Report, given: Mapping[str, Any], where: str, *keys: str) -> None:
    """Report each pattern that can match nothing: its rule would let everything through."""
    for key, message, hint in pattern_issues(given, *keys):
        report.add("never-matches", (where, key), message, hint)


def _server(report: Report, given: dict[str, Any], where: str) -> McpServer:
    name, risks = given.setdefault("name", ""), given.get("tool_risks", {})
    if name != name.strip() or not name.isprintable():
        report.add("never-matches", (where, "name"), f"no action can name {name!r}", f"write {name.strip()!r}")
    _check_patterns(report, given, where, "tool_risks", "blocked_tools")
    scores = report.table(risks, dict.fromkeys(risks, _score), where, "tool_risks")
    return McpServer(**{**given, "tool_risks": tuple(scores.items())})


def _key_limits(report: Report, tables: Mapping[str, Any], *, least: Limits) -> dict[str, Limits]:
    found: dict[str, Limits] = {}
    for row, where in _places(report, tables, "key_limit"):
        given = report.table({"key": "", **row}, ROWS["key_limit"][0], where)
        key = given.pop("key", "")
        if key in found:
            report.add("duplicate-name", (where, "key"), "the key is named twice")
        if key:
            found[key] = replace(least, **given)
    return found


def _heads(report: Report, table: object, folder: Path) -> HeadRules:
    given = report.table(table, TABLES["audit"][0], "audit")
    file, every = given.get("head_file"), given.get("head_interval", HeadRules().every)
    if every < 1:
        report.add("bad-value", ("audit", "head_interval"), "is less than a second", 'write "1s" or more')
    if file is not None and not (folder / file).parent.is_dir():
        report.add("bad-value", ("audit", "head_file"), f"there is no folder {(folder / file).parent}")
    return HeadRules(file=None if file is None else folder / file, every=every)


def _token_key(report: Report, table: object, folder: Path) -> TokenKey | None:
    given = report.table(table, _TOKEN_KEY, "jwt", required=TABLES["jwt"][1])
    if not isinstance(table, dict):
        return None
    if ("public_key" in table) == ("public_key_file" in table):
        report.add("missing-key", ("jwt",), "needs either public_key or public_key_file")
        return None
    key, file = given.get("public_key", ""), given.pop("public_key_file", ".")
    if "public_key_file" in table:
        path = folder / file
        try:
            key = path.read_text(encoding="ascii")
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is no ASCII text"
            report.add("bad-value", ("jwt", "public_key_file"), f"{path} cannot be read: {reason}")
            return None
    issue = public_key_issue(key)
    if issue:
        report.add("bad-value", ("jwt", "public_key"), issue, "expected an RSA public key in PEM form")
        return None
    return TokenKey(**{"issuer": "", "audience": "", **given, "public_key": key})


def _classification(given: dict[str, Any]) -> dict[str, Any]:
    tags = list(given.get("compliance_tags", ()))
    return {"resource_id": given.get("resource_type"), **given, "compliance_tags": tags, "metadata": {}}
