"""The commands about what is not kept: what is old is archived, personal data is erased."""

from __future__ import annotations

import dataclasses
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
from ..authority.store.archiver import Archiver, under_hold
from ..authority.store.audit import iso_time
from ..exceptions import ConfigurationError, ConflictError
from ..inspection import FAILED, OK, Result
from .administer import Operator, open_store

# A process that was killed holds its turn for fifteen seconds.
_PATIENCE: Final = 20.0
_PAUSE: Final = 0.2


def archive(args: Namespace) -> Result:
    """Move old actions and audit entries into compressed files."""
    if args.path is not None:
        raise ConfigurationError(f"unexpected argument {args.path!r}; name the folder with --to")
    kept = _retention(args)
    times = _times(args, kept)
    folder = Path(args.to) if args.to else kept.archive_to
    if folder is None:
        raise ConfigurationError("name the folder for the archives with --to, or as archive_to in [retention]")
    with open_store(args) as store:
        archiver = Archiver(store, folder, held=kept.legal_hold)
        found = _patiently(lambda: list(archiver.run(**times)))
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
    data = {"folder": str(folder), "archives": files, "legal_hold": [*kept.legal_hold], "held_from": archiver.held_from}
    lines = lines or ["nothing is old enough"]
    if kept.legal_hold:
        lines.append(under_hold(kept.legal_hold, archiver.held_from))
    return Result(data=data, lines=lines)


def erase(args: Namespace) -> Result:
    """Erase the personal data of one action, or of all actions of an agent or of somebody."""
    match = _matched(args)
    if (args.path is None) == (not match):
        raise ConfigurationError("name either the id of one action or, with --agent or --match, whose actions")
    if not (args.reason or "").strip():
        raise ConfigurationError("say why with --reason; the audit log keeps it")
    kept = _retention(args)
    if args.to:
        kept = dataclasses.replace(kept, archive_to=Path(args.to))
    body: dict[str, Any] = {"reason": args.reason}
    with open_store(args) as store:
        authority = Authority(store, PolicySet(mcp_servers={}, retention=kept))
        by = Operator(authority=authority, by=operator(args.tenant))
        if match:
            found = by.ask(endpoints.ERASE_ACTIONS, body={**body, "match": match})
        else:
            one = by.ask(endpoints.ERASE_ACTION, body=body, id=args.path)
            found = {"erased": [one["action_id"]] if one["erased"] else [], "waiting": [], "refused": {}}
    data = {name: found[name] for name in ("erased", "waiting", "refused")}
    lines = [f"erased the personal data of action {number}" for number in data["erased"]]
    lines += [f"action {number} waits for a person: approve or deny it first" for number in data["waiting"]]
    lines += [f"action {number} was not erased: {words}" for number, words in data["refused"].items()]
    left = data["waiting"] or data["refused"]
    return Result(data=data, lines=lines or ["there was nothing to erase"], code=FAILED if left else OK)


def _retention(args: Namespace) -> Retention:
    """Return what the policy file says; without one nobody knows what is under a legal hold."""
    if not Path(args.policy).exists():
        raise ConfigurationError(
            f"there is no policy file {args.policy}, whose [retention] tells what is under a legal hold; name the "
            "authority's own with --policy"
        )
    return load_policy(args.policy).retention


def _matched(args: Namespace) -> dict[str, str]:
    """Return which values submissions must have, by their places."""
    match = {"agent_id": args.agent} if args.agent is not None else {}
    for given in args.match or ():
        place, sign, text = given.partition("=")
        if not (place and sign and text):
            raise ConfigurationError(f"--match: expected PLACE=TEXT such as context.principal=grace, got {given!r}")
        match[place] = text
    return match


def _times(args: Namespace, kept: Retention) -> dict[str, str | None]:
    """Return before which times actions, entries, and actions without an outcome, are archived."""
    now = time.time()
    if args.before is not None:
        moment = _moment(args.before)
        if moment > iso_time(now):
            raise ConfigurationError(f"--before: {args.before} lies in the future")
        return {"actions": moment, "audit": moment, "without_outcome": moment if args.without_outcome else None}
    if args.without_outcome:
        raise ConfigurationError("--without-outcome goes with --before; [retention] has without_outcome for it")
    if kept.actions is None and kept.audit is None:
        raise ConfigurationError("say what is old with --before DATE, or with actions and audit in [retention]")
    return {name: _ago(now, age) for name, age in kept.ages.items()}


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
