"""The commands about what is not kept: what is old is archived, personal data is erased."""

from __future__ import annotations

import time
from argparse import Namespace
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from ..api import endpoints
from ..authority import Authority, PolicySet, load_policy
from ..authority.keys import operator
from ..authority.policy.retention import Retention
from ..authority.store.archiver import Archiver
from ..authority.store.audit import iso_time
from ..exceptions import ConfigurationError, ConflictError
from ..inspection import Result
from .administer import Operator, open_store

# A process that was killed holds its turn for fifteen seconds.
_PATIENCE: Final = 20.0
_PAUSE: Final = 0.2


def archive(args: Namespace) -> Result:
    """Move old actions and audit entries into compressed files."""
    if args.path is not None:
        raise ConfigurationError(f"unexpected argument {args.path!r}; name the folder with --to")
    kept = load_policy(args.policy).retention if Path(args.policy).exists() else Retention()
    actions, audit = _times(args, kept)
    folder = Path(args.to) if args.to else kept.archive_to
    if folder is None:
        raise ConfigurationError("name the folder for the archives with --to, or as archive_to in [retention]")
    with open_store(args) as store:
        archiver = Archiver(store, folder)
        found = _patiently(lambda: list(archiver.run(actions=actions, audit=audit)))
    files = [
        {
            "file": one.file,
            "kind": one.kind,
            "first": one.first,
            "last": one.last,
            "rows": one.rows,
            "sha256": one.sha256,
        }
        for one in found
    ]
    words = {"actions": "actions", "audit": "audit entries"}
    lines = [f"{one.file}: {one.rows} {words[one.kind]}, {one.first} to {one.last}" for one in found]
    return Result(data={"folder": str(folder), "archives": files}, lines=lines or ["nothing is old enough"])


def erase(args: Namespace) -> Result:
    """Erase the personal data of one action, or of all actions of an agent."""
    if (args.path is None) == (args.agent is None):
        raise ConfigurationError("name either the id of one action or, with --agent, an agent")
    if not (args.reason or "").strip():
        raise ConfigurationError("say why with --reason; the audit log keeps it")
    with open_store(args) as store:
        by = Operator(authority=Authority(store, PolicySet(mcp_servers={})), by=operator(args.tenant))
        numbers = [args.path] if args.agent is None else _actions_of(by, args.agent)
        body = {"reason": args.reason}
        found = [by.ask(endpoints.ERASE_ACTION, body=body, id=number) for number in numbers]
    erased = [one["action_id"] for one in found if one["erased"]]
    lines = [f"erased the personal data of action {number}" for number in erased]
    return Result(data={"erased": erased}, lines=lines or ["there was nothing to erase"])


def _actions_of(by: Operator, agent: str) -> list[str]:
    """Return the numbers of an agent's actions; those that wait for a person are not among them."""
    numbers: list[str] = []
    query: dict[str, Any] = {"agent_id": agent, "limit": 1000}
    while True:
        page = by.ask(endpoints.LIST_ACTIONS, query=query)
        numbers += [one["action_id"] for one in page["actions"] if one["status"] != "pending"]
        if "next" not in page:
            return numbers
        query["cursor"] = page["next"]


def _times(args: Namespace, kept: Retention) -> tuple[str | None, str | None]:
    """Return before which times actions, and entries, are archived."""
    now = time.time()
    if args.before is not None:
        moment = _moment(args.before)
        if moment > iso_time(now):
            raise ConfigurationError(f"--before: {args.before} lies in the future")
        return moment, moment
    if kept.actions is None and kept.audit is None:
        raise ConfigurationError("say what is old with --before DATE, or with actions and audit in [retention]")
    return _ago(now, kept.actions), _ago(now, kept.audit)


def _ago(now: float, age: float | None) -> str | None:
    return None if age is None else iso_time(now - age)


def _moment(text: str) -> str:
    try:
        found = datetime.fromisoformat(text)
        return iso_time((found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp())
    except (ValueError, OverflowError):
        raise ConfigurationError(f"--before: expected a date such as 2025-01-31, got {text!r}") from None


def _patiently(job: Callable[[], Any]) -> Any:
    """Run a job; where another process does the same, wait for it, since it may have been killed."""
    until = time.monotonic() + _PATIENCE
    while True:
        try:
            return job()
        except ConflictError:
            if time.monotonic() > until:
                raise
        time.sleep(_PAUSE)
