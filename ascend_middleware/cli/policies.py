"""The commands `policy test`, `policy replay` and `policy diff`: what a policy file decides, before it decides."""

from __future__ import annotations

import contextlib
import datetime
import json
import time
import tomllib
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ..api.endpoints import EVALUATE_POLICY
from ..authority import Authority, PolicySet, Store, load_policy
from ..authority.bodies import ApiError
from ..authority.cursors import Cursor
from ..authority.endpoints.actions import judged_form
from ..authority.keys import operator
from ..authority.policy import DECISIONS
from ..authority.policy.risk_score import MAX_SCORE, Score, Signal
from ..authority.store.store import iso_time
from ..exceptions import ConfigurationError, ValidationError
from ..inspection import FAILED, OK, Result, progress
from ..problems import TOML_ERRORS, Report, choice, mapping, text
from .administer import open_store

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Iterator, Mapping

__all__ = ["diff", "replay", "test"]

_CASE: Final = {
    "name": text,
    "action": mapping("fields of an action"),
    "decision": choice(*DECISIONS),
    "reason": text,
    "policy": text,
}
_PAGE: Final = 1000


# --- test


def test(args: Namespace) -> Result:
    """Decide about the actions of cases, and compare."""
    policy = load_policy(args.policy)
    cases = [case for path in _files(args.cases) for case in _cases(path)]
    reached: set[str] = set()
    failures: list[dict[str, Any]] = []
    with contextlib.closing(Authority(Store.open(":memory:", now=time.time), policy)) as authority:
        for case in progress(cases, "cases", len(cases)):
            try:
                answer = authority.ask(EVALUATE_POLICY, operator("default"), body=case["action"])
            except (ApiError, ValidationError) as error:
                raise ConfigurationError(f"{case['where']}: the action cannot be judged: {error.message}") from None
            reached |= {row["name"] for row in answer["explanation"]["policies"]}
            failures += ({"case": case["where"], **one} for one in _unmet(case, answer))
    missed = [one.name for one in policy.policies if one.name not in reached]
    failed = {one["case"] for one in failures}
    return Result(
        data={
            "ok": not failures and not (args.all and missed),
            "cases": len(cases),
            "failures": failures,
            "policies_without_a_case": missed,
        },
        lines=_tested(len(cases), len(failed), failures, missed),
        code=FAILED if failures or (args.all and missed) else OK,
    )


def _files(names: list[str]) -> Iterator[Path]:
    for name in names:
        path = Path(name)
        found = sorted(path.glob("**/*.toml")) if path.is_dir() else [path]
        if not found:
            raise ConfigurationError(f"there is no file *.toml below {name}")
        yield from found


def _cases(path: Path) -> list[dict[str, Any]]:
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, *TOML_ERRORS) as error:
        raise ConfigurationError(f"{path} cannot be read: {error}") from None
    report, found = Report(str(path), "cases"), []
    rows = report.table(table, {"case": lambda value: value}).get("case", [])
    for number, row in enumerate(rows if isinstance(rows, list) else [], 1):
        name = row.get("name") if isinstance(row, dict) else None
        label = name if isinstance(name, str) and name else f"case {number}"
        found.append({**report.table(row, _CASE, label, required=("action", "decision")), "where": f"{path}: {label}"})
    if not report.problems and not found:
        report.add("missing", (), "there is no case", "begin one with [[case]]")
    if report.problems:
        raise ConfigurationError(problems=report.problems)
    return found


def _unmet(case: Mapping[str, Any], answer: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    if answer["decision"] != case["decision"]:
        yield {"expected": case["decision"], "got": answer["decision"], "why": answer["reason"]}
    elif case.get("reason", "") not in answer["reason"]:
        yield {"expected": f"a reason with {case['reason']!r}", "got": answer["reason"], "why": ""}
    elif case.get("policy", answer["policy_matched"]) != answer["policy_matched"]:
        got = answer["policy_matched"]
        yield {"expected": f"policy {case['policy']!r}", "got": f"policy {got!r}" if got else "a threshold", "why": ""}


def _tested(cases: int, failed: int, failures: list[dict[str, Any]], missed: list[str]) -> Iterator[str]:
    for one in failures:
        why = f" ({one['why']})" if one["why"] else ""
        yield f"{one['case']}: expected {one['expected']}, got {one['got']}{why}"
    for name in missed:
        yield f"no case reaches the policy {name!r}"
    yield f"{cases - failed} of {cases} cases as expected"


# --- replay


def replay(args: Namespace) -> Result:
    """Decide anew about actions that were submitted, and tell what would be another decision."""
    policy, since = load_policy(args.policy), _since(args.since)
    counts: dict[str, int] = {}
    changed: list[dict[str, Any]] = []
    total = 0
    with open_store(args) as store:
        authority = Authority(store, policy)
        for row in progress(_submitted(store, since, args.tenant), "actions"):
            total += 1
            submission, before = row["submission"], row["judgement"]
            judgement = authority.question(judged_form(submission), _score(before), tenant=args.tenant).judge()
            if judgement.decision == before["decision"]:
                continue
            turn = f"{before['decision']} to {judgement.decision}"
            counts[turn] = counts.get(turn, 0) + 1
            changed.append(
                {
                    "action_id": row["id"],
                    "agent_id": submission["agent_id"],
                    "action_type": submission["action_type"],
                    "resource": submission["resource"],
                    "at": row["created_at"],
                    "was": before["decision"],
                    "would_be": judgement.decision,
                    "reason": judgement.reason,
                }
            )
    return Result(
        data={"actions": total, "since": since, "changed": changed, "counts": counts},
        lines=_replayed(total, since, counts, changed, args.limit),
        code=FAILED if changed and args.exit_code else OK,
    )


def _submitted(store: Store, since: str, tenant: str) -> Iterator[dict[str, Any]]:
    cursor: Cursor | None = None
    while True:
        found = store.actions(tenant=tenant, since=since, descending=False, limit=_PAGE, cursor=cursor)
        yield from found.rows
        cursor = found.next
        if cursor is None:
            return


def _score(judgement: Mapping[str, Any]) -> Score:
    """Return the score that the action had before policies had a say: it does not depend on them."""
    found = judgement.get("explanation", {}).get("signals", [])
    signals = tuple(Signal(one["signal"], one["points"], one["source"]) for one in found)
    return Score(min(sum(one.points for one in signals), MAX_SCORE), signals)


def _since(given: str) -> str:
    try:
        moment = datetime.datetime.fromisoformat(given)
    except ValueError:
        raise ConfigurationError(f"--since: expected a date such as 2026-11-01, got {given!r}") from None
    return iso_time((moment if moment.tzinfo else moment.replace(tzinfo=datetime.UTC)).timestamp())


def _replayed(
    total: int, since: str, counts: Mapping[str, int], changed: list[dict[str, Any]], limit: int
) -> Iterator[str]:
    yield f"{total} actions since {since}; {len(changed)} would be decided otherwise"
    for turn, count in sorted(counts.items(), key=lambda item: -item[1]):
        yield f"  {count}  {turn}"
    for one in changed[:limit]:
        yield (
            f"act_{one['action_id']}  {one['was']} → {one['would_be']}  {one['agent_id']}  {one['action_type']}  "
            f"{one['resource']}  ({one['reason']})"
        )
    if len(changed) > limit:
        yield f"and {len(changed) - limit} more; --limit shows more, --json all"


# --- diff


def diff(args: Namespace) -> Result:
    """Tell what differs between two policy files."""
    changes = list(_changes(load_policy(args.before), load_policy(args.after)))
    lines = [f"{one['what']}: {one['change']}" for one in changes] or ["nothing has changed"]
    return Result(data={"changes": changes}, lines=lines, code=FAILED if changes and args.exit_code else OK)


def _changes(before: PolicySet, after: PolicySet) -> Iterator[dict[str, str]]:
    old, new = ({one.name: _fields(one) for one in policy.policies} for policy in (before, after))
    for name in {**old, **new}:
        what = f"policy {name!r}"
        if name not in new:
            yield {"what": what, "change": "is gone"}
        elif name not in old:
            yield {"what": what, "change": f"is new: {_said(new[name])}"}
        else:
            for key in new[name]:
                if old[name][key] != new[name][key]:
                    was, now = _said(old[name][key]), _said(new[name][key])
                    yield {"what": what, "change": f"{key} was {was} and is {now}"}
    for name in ("pending", "denied", "strict", "strict_depth", "failed_sign_ins"):
        was, now = getattr(before, name), getattr(after, name)
        if was != now:
            yield {"what": f"threshold {name}" if name in ("pending", "denied") else name,
                   "change": f"was {_said(was)} and is {_said(now)}"}  # fmt: skip
    for name in ("approvals", "limits", "key_limits", "mcp_servers", "models", "classifications", "token_key"):
        was, now = getattr(before, name), getattr(after, name)
        if was != now:
            yield {"what": name, "change": f"was {_said(was)} and is {_said(now)}"}


def _fields(policy: Any) -> dict[str, Any]:
    condition = policy.condition.source if policy.condition is not None else None
    return {
        "action_types": list(policy.action_types),
        "agents": list(policy.agents),
        "when": condition,
        "decision": policy.decision,
        "risk_score": policy.risk_score,
        "reason": policy.reason,
    }


def _said(value: Any) -> str:
    if hasattr(value, "__dataclass_fields__"):
        value = asdict(value)
    return json.dumps(value, default=str, ensure_ascii=False)
