"""The commands that run an embedded authority: serve it, make and back up its files, try its policies, read its log."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import sys
import threading
import time
from argparse import Namespace
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Final

from ..api.endpoints import EVALUATE_POLICY
from ..authority import Authority, Role, Store, default_database, load_policy, sample_policy
from ..authority.bodies import ApiError
from ..authority.heads import read_heads
from ..authority.keys import DEFAULT_TENANT, operator
from ..authority.server import bind, load_tls, serve, shown_url
from ..authority.store.audit import Head, entries
from ..authority.store.copying import copy
from ..authority.store.database import Database, StorageError
from ..authority.store.findings import DAMAGED, Finding
from ..authority.store.restoring import restore
from ..authority.store.verification import Verification, verify
from ..exceptions import AscendError, ConfigurationError, ValidationError
from ..inspection import FAILED, OK, Result, progress, say
from ..json_logs import JSONFormatter
from ..masking import mask_text
from ..setting_values import flag
from ..text import is_postgres
from .administer import open_store, place_of
from .places import named_database
from .retention import archive, erase
from .schemas import write_beside


def run_task(args: Namespace) -> Result:
    """Serve the authority, or do what is named beside it."""
    if args.task == "init":
        return Result(lines=_init(args))
    if args.task == "backup":
        return _backup(args)
    if args.task == "restore":
        return _restore(args)
    if args.task == "copy":
        return _copy(args)
    if args.task == "archive":
        return archive(args)
    if args.task == "erase":
        return erase(args)
    if args.path is not None:
        raise ConfigurationError(f"unexpected argument {args.path!r}; name the policy file with --policy")
    return _serve(args)


def _serve(args: Namespace) -> Result:
    if hasattr(signal, "SIGHUP"):
        # One that comes before the server obeys it must not end the start; the server looks at the file then anyway.
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    policy = load_policy(args.policy)
    tls = load_tls(args.tls_cert, args.tls_key)
    # Bound before keys are made: they are shown once, by the server that stays.
    listener = bind(args.host, args.port, allow_remote=args.allow_remote or tls is not None)
    with contextlib.ExitStack() as opened:
        opened.enter_context(contextlib.closing(listener))
        store = opened.enter_context(contextlib.closing(Store.open(place_of(args), now=time.time)))
        store.check(pages=True)
        authority = opened.enter_context(contextlib.closing(Authority(store, policy, development=args.development)))
        for line in _first_keys(store):
            say(line)
        with _ends_well_by_sigterm():
            say(f"authority listening on {shown_url(listener, tls=tls)}")
            sys.stdout.flush()
            _log_to_stderr()
            authority.warn()
            serve(
                authority,
                listener,
                tls=tls,
                policy_path=args.policy,
                access_log=not args.no_access_log,
                telemetry=args.telemetry or _traces_asked(),
                open_metrics=args.open_metrics,
            )
    return Result()


def _traces_asked() -> bool:
    try:
        return flag(os.environ.get("ASCEND_TELEMETRY", "no"))
    except ValueError as error:
        raise ConfigurationError(f"ASCEND_TELEMETRY: {error}") from None


def _log_to_stderr() -> None:
    """Send this program's log to stderr; a program that embeds the authority configures its own."""
    handler = logging.StreamHandler(sys.stderr)
    as_json = os.environ.get("ASCEND_LOG_FORMAT") == "json"
    text = logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s")
    handler.setFormatter(JSONFormatter() if as_json else text)
    logging.basicConfig(level=logging.INFO, handlers=[handler])


@contextlib.contextmanager
def _ends_well_by_sigterm() -> Iterator[None]:
    """Make a stop by SIGTERM end in exit code 0: the server, once it has stopped, raises the signal again.

    One that comes before the server listens for signals ends the start.
    """
    again: list[threading.Timer] = []

    def end(*_: object) -> None:
        # What is raised while an object is destroyed is lost: the signal comes again until somebody has heard it.
        again.append(threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM)))
        again[-1].daemon = True
        again[-1].start()
        raise SystemExit(OK)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        for timer in again:
            timer.cancel()
        signal.signal(signal.SIGTERM, before)


def _init(args: Namespace) -> Iterator[str]:
    path = Path(args.path or args.policy)
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(sample_policy())
        write_beside("policy", path)
    except FileExistsError:
        raise AscendError(f"{path} exists already; it was not touched") from None
    except OSError as error:
        with contextlib.suppress(OSError):  # half of a policy may be one, too
            path.unlink()
        raise AscendError(f"{path} cannot be written: {error.strerror}") from None
    yield f"wrote {path}; serve it with: ascend-middleware authority --policy {path}"
    with contextlib.closing(Store.open(named_database(args) or default_database(path), now=time.time)) as store:
        yield from _first_keys(store)


def _first_keys(store: Store) -> Iterator[str]:
    if store.list_keys():
        return
    yield "these keys are shown this once; only their hashes are kept:"
    for role, name in ((Role.ADMIN, "first admin"), (Role.USER, "first user")):
        key = store.issue_key(name=name, role=role, tenant=DEFAULT_TENANT)
        yield f"  {role:<5} {key}"


def _backup(args: Namespace) -> Result:
    if args.path is None:
        raise ConfigurationError("name the file to make: ascend-middleware authority backup PATH")
    with open_store(args) as store:
        size = store.backup(args.path)
    return Result(lines=[f"wrote {args.path}, {size} bytes"])


def _restore(args: Namespace) -> Result:
    if args.path is None:
        raise ConfigurationError("name the backup: ascend-middleware authority restore PATH")
    place = str(place_of(args))
    if is_postgres(place):
        raise ConfigurationError("authority restore is for files; for PostgreSQL use its own means, or `copy`")
    found, kept = restore(Path(args.path), Path(place), now=time.time(), watch=progress)
    old = f"; the file that was there is {kept}" if kept else ""
    lines = [f"{place} is now the backup {args.path}: {found.entries} entries, head {found.head}{old}"]
    return Result(data={"entries": found.entries, "head": str(found.head), "replaced": kept and str(kept)}, lines=lines)


def _copy(args: Namespace) -> Result:
    if not args.source or not args.to:
        raise ConfigurationError("name both: ascend-middleware authority copy --from authority.db --to postgresql://…")
    rows, last = copy(args.source, args.to, watch=progress)
    lines = [f"copied {rows} rows to {mask_text(args.to)}, and verified the copy: the log is whole, head {last}"]
    return Result(data={"rows": rows, "head": str(last)}, lines=lines)


# --- what its policies say


def explain_policy(args: Namespace) -> Result:
    """Decide about an action as the authority would, and store nothing."""
    action = _action(args)
    database = place_of(args)
    policy = load_policy(args.policy)
    # Without a database there is only the policy file to ask, and a dry run makes none.
    there = is_postgres(database) or Path(database).exists()
    store = Store.open(database if there else ":memory:", now=time.time, create=not there)
    with contextlib.closing(store), store.typed(), contextlib.closing(Authority(store, policy)) as authority:
        try:
            answer = authority.ask(EVALUATE_POLICY, operator(args.tenant), body=action)
        except (ApiError, ValidationError) as error:
            raise ConfigurationError(f"the action cannot be judged: {error.message}") from None
    return Result(data=answer, lines=_explained(answer), code=OK if answer["decision"] == "approved" else FAILED)


# What options say of an action, and which of them as JSON.
_OBJECTS: Final = {"action_details": "--details", "context": "--context", "risk_indicators": "--risk-indicators"}
_ACTION: Final = {"action_type", "agent_id", "resource", "tool_name", "mcp_server_name", "model_id", *_OBJECTS}


def _action(args: Namespace) -> dict[str, Any]:
    action: dict[str, Any] = {}
    if args.action is not None:
        try:
            text = sys.stdin.read() if args.action == "-" else Path(args.action).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError(f"--action: {args.action} cannot be read: {error}") from None
        action = _object("--action", text)
    given = {name: value for name, value in vars(args).items() if name in _ACTION and value is not None}
    for name, option in _OBJECTS.items():
        if name in given:
            given[name] = _object(option, given[name])
    if given.get("model_id", "").isdigit():
        given["model_id"] = int(given["model_id"])
    action |= given
    if not action.get("action_type"):
        raise ConfigurationError("name the type of the action, or give the whole action with --action")
    return action


def _object(option: str, text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise ConfigurationError(f"{option}: not JSON: {error}") from None
    if not isinstance(value, dict):
        raise ConfigurationError(f"{option}: expected a JSON object")
    return value


def _explained(answer: dict[str, Any]) -> Iterator[str]:
    explanation = answer["explanation"]
    yield f"{answer['decision']}: {answer['reason']}"
    yield f"risk score {answer['risk_score']} ({answer['risk_level']})"
    for one in explanation["signals"]:
        yield f"  {one['points']:>+4}  {one['signal']}  from {one['source']}"
    for policy in explanation["policies"]:
        says = policy["decision"] or f"risk score {policy['risk_score']}"
        failed = f", could not be evaluated: {policy['fault']}" if policy["evaluation_failed"] else ""
        yield f"{policy['source']} {policy['name']!r} says {says}{failed}"
    if explanation["decided_by"] == "threshold":
        pending, denied = explanation["thresholds"]["pending"], explanation["thresholds"]["denied"]
        yield f"no policy decides; thresholds: a person from {pending}, denied from {denied}"
    for violation in answer["violations"]:
        yield f"violation: {violation}"


# --- the audit log


def verify_audit(args: Namespace) -> Result:
    """Read the audit log and name every entry that was changed, removed or reordered afterwards."""
    heads = tuple(head for text in args.head for head in _heads(text))
    start = _noted("--from", args.start) if args.start else None
    with Database.evidence(place_of(args)) as database:
        found = _verified(database, args, heads, start)
    findings = [{name: value for name, value in asdict(one).items() if value != ""} for one in found.findings]
    why = "it is archived" if found.archived else "an earlier version stored them"
    damaged = [one.kind for one in found.findings] == [DAMAGED]
    state = "the log is whole" if found.whole else "the database is damaged" if damaged else "the log was tampered with"
    return Result(
        data={
            "whole": found.whole,
            "entries": found.entries,
            "archived": found.archived,
            "erased": found.erased,
            "head": str(found.head),
            "untold": found.untold,
            "findings": findings,
        },
        lines=[
            *(f"{one.kind}: {one.message}" for one in found.findings),
            *([f"the log does not tell all of {found.untold} rows: {why}"] if found.untold else ()),
            f"{state}: {found.entries} entries, head {found.head}",
            *(
                [f"entries 1 to {found.archived} are archived and were not read; --archive DIR reads them"]
                if found.archived
                else ()
            ),
            *([f"text of {found.erased} entries was erased, as the log tells"] if found.erased else ()),
        ],
        code=OK if found.whole else FAILED,
    )


def _verified(database: Database, args: Namespace, heads: tuple[Head, ...], start: Head | None) -> Verification:
    folder = Path(args.archive) if args.archive else None
    if folder is not None and not folder.is_dir():
        raise ConfigurationError(f"--archive: there is no folder {folder}")
    try:
        problem = database.engine.damage()
        found = verify(database, known=heads, start=start, archive=folder, watch=progress)
    except StorageError as error:
        raise AscendError(f"the database {place_of(args)} is damaged: {error}. {database.engine.advice()}") from None
    if not problem:
        return found
    return replace(found, findings=(Finding(0, DAMAGED, f"{problem}. {database.engine.advice()}"), *found.findings))


def _heads(text: str) -> tuple[Head, ...]:
    """Return the head that an option gives, or those of the file that it names."""
    if not Path(text).is_file():
        if ":" not in text:
            raise ConfigurationError(f"--head: {text} is neither a file nor NUMBER:HASH, as `audit verify` prints it")
        return (_noted("--head", text),)
    try:
        return read_heads(text)
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"--head: {text} cannot be read: {error}") from None


def _noted(option: str, text: str) -> Head:
    try:
        return Head.parse(text)
    except ValueError as error:
        raise ConfigurationError(f"{option}: {error}") from None


def export_audit(args: Namespace) -> Result:
    """Print the entries of the audit log as JSON lines, oldest first."""
    return Result(lines=_entries(args))


def _entries(args: Namespace) -> Iterator[str]:
    changed: list[int] = []
    with Database.evidence(place_of(args)) as database:
        try:
            for entry in entries(database, after=args.after, tenant=args.tenant, on_changed=changed.append):
                yield json.dumps(entry, separators=(",", ":"))
        except (ValueError, TypeError, RecursionError) as error:
            raise AscendError(f"an entry is no JSON any more ({error}); see `audit verify`") from None
        problem = database.engine.damage() or database.end_problem() or database.misfit()
    sys.stdout.flush()
    if changed and not problem:
        more = f", and {len(changed) - 1} more" if len(changed) > 1 else ""
        raise AscendError(
            f"entry {changed[0]} was changed{more}; all was printed as it stands there. See `audit verify`"
        )
    if problem:
        raise AscendError(
            f"the database is damaged ({problem}): what it holds was printed, the last entries may be missing"
        )
