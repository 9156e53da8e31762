"""The commands `journal` and `report`: what waits on this machine to be delivered, and what was only observed."""

from __future__ import annotations

import datetime
import json
import time
from argparse import Namespace
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

from ..client import ClientCore, open_engine
from ..compose import load_table
from ..config import Settings
from ..fork import FileLock
from ..guard.observations import Observation, observation_files, read_observations
from ..inspection import FAILED, OK, Result, note
from ..journal.files import read_lines
from ..journal.journal import directory_of, place_of
from ..journal.lines import decode_line
from ..journal.recovery import adopt, names_of
from ..journal.worker import LateEngine
from ..routing.suggestion import guess
from ..state import open_state
from ..text import printable

__all__ = ["deliver", "export", "report", "status"]

_MOST_AGENTS: Final = 3
_WAYS: Final = {
    "unmapped-route": "no rule covers it: add one of those below, or exempt it",
    "approval-required": 'a person would have to approve it: see who may, and whether pending = "wait:30s" helps',
    "denied": "the authority denies it: change its policy, or leave it",
    "bad-request": "the request cannot be judged: see the log for what the rule reads and the request lacks",
    "misconfigured": "this service cannot ask: see the log",
    "unavailable": "the authority was away: see docs/outages.md for what a rule can do then",
    "unknown-agent": "identify found no agent",
}


def _settings(args: Namespace) -> Settings:
    """Return the settings that say where the journals are."""
    table = load_table(args.rules) if args.rules else None
    return Settings.load({"journal": args.journal}, file=table.settings if table is not None else {})


def _directories(args: Namespace) -> list[Path]:
    """Return the directories of all services below the journal's place."""
    base = place_of(_settings(args))
    if base is None:
        return []
    return sorted({path.parent for pattern in ("*/*.lock", "*/*.rejected") for path in base.glob(pattern)})


def _names(directory: Path) -> list[str]:
    return sorted({*names_of(directory), *(path.stem for path in directory.glob("*.rejected"))})


def status(args: Namespace) -> Result:
    """List the journals: whose process lives, what waits, since when."""
    rows = [row for directory in _directories(args) for row in _rows(directory)]
    return Result(data={"journals": rows}, lines=[_line(row) for row in rows] or ["no journals"])


def _line(row: dict[str, Any]) -> str:
    state = "alive" if row["alive"] else "ended"
    age = "" if row["oldest_seconds"] is None else f", oldest {row['oldest_seconds']:.0f} s"
    aside = f", {row['rejected']} set aside" if row["rejected"] else ""
    return f"{row['journal']}  {state:<5}  {row['waiting']} waiting{age}, {row['open']} without an outcome{aside}"


def _rows(directory: Path) -> Iterator[dict[str, Any]]:
    for name in _names(directory):
        lock = FileLock.take(directory / f"{name}.lock", create=False)
        there = (directory / f"{name}.lock").exists()
        if lock is not None:
            lock.release()
        waiting, oldest, open_entries = 0, None, set()
        for line, taken in read_lines(directory, name):
            record = decode_line(line)
            if record is None:
                continue
            if record["k"] == "entry":
                open_entries.add(record["n"])
            elif record["k"] == "outcome":
                open_entries.discard(record["n"])
            if not taken:
                waiting += 1
                oldest = record["at"] if oldest is None else oldest
        yield {
            "directory": str(directory),
            "journal": name,
            "alive": there and lock is None,
            "waiting": waiting,
            "oldest_seconds": None if oldest is None else max(0.0, time.time() - oldest),
            "open": len(open_entries),
            "rejected": len(_rejected(directory, name)),
        }


def _rejected(directory: Path, name: str) -> list[bytes]:
    try:
        return (directory / f"{name}.rejected").read_bytes().splitlines(keepends=True)
    except FileNotFoundError:
        return []


def deliver(args: Namespace) -> Result:
    """Deliver the journals of processes that ended."""
    settings = _settings(args).checked(needs_agent=True)
    directory = directory_of(settings)
    delivered, left = 0, 0
    if directory is not None and directory.is_dir():
        engine = LateEngine(lambda: open_engine(settings))
        try:
            delivered = adopt(
                directory, core=ClientCore(settings), state=open_state(settings), perform=engine.perform, now=time.time
            )
        finally:
            engine.close()
        left = sum(1 for row in _rows(directory) if not row["alive"] and (row["waiting"] or row["open"]))
    return Result(
        data={"delivered": delivered, "left": left},
        lines=[f"delivered the journals of {delivered} processes, {left} left"],
        code=FAILED if left else OK,
    )


def export(args: Namespace) -> Result:
    """Print the lines of the journals as JSON, one a line, and change nothing."""
    return Result(lines=(text for directory in _directories(args) for text in _exported(directory, every=args.all)))


def _exported(directory: Path, *, every: bool) -> Iterator[str]:
    for name in _names(directory):
        lines = [(line, "delivered" if taken else "waiting") for line, taken in read_lines(directory, name)]
        lines += [(line, "set aside") for line in _rejected(directory, name)]
        for line, state in lines:
            if state == "delivered" and not every:
                continue
            record = decode_line(line)
            if record is None:
                note(f"{name}: a damaged line")
                continue
            yield json.dumps({"journal": name, "state": state, **record})


# --- what was observed


def report(args: Namespace) -> Result:
    """Tell what was observed."""
    place = place_of(_settings(args))
    found = [] if place is None else list(read_observations(place))
    rows = _observed(found)
    missing = sorted({(row["method"], row["route"]) for row in rows if row["would"] == "unmapped-route"})
    data = {
        "requests": sum(one.count for one in found),
        "first": min((one.first for one in found), default=None),
        "last": max((one.last for one in found), default=None),
        "refused": rows,
        "rules": [_rule(method, route) for method, route in missing],
    }
    if args.forget and place is not None:
        for path in observation_files(place):
            path.unlink(missing_ok=True)
    return Result(data=data, lines=_report_lines(data))


def _observed(found: Iterable[Observation]) -> list[dict[str, Any]]:
    """Return what would have been refused, the most frequent first; of each route, out of how many requests."""
    totals: dict[tuple[str, str], int] = {}
    rows: dict[tuple[str, ...], dict[str, Any]] = {}
    for one in found:
        totals[one.method, one.route] = totals.get((one.method, one.route), 0) + one.count
        if not one.would:
            continue
        row = rows.setdefault(
            (one.method, one.route, one.rule, one.would),
            {"method": one.method, "route": one.route, "rule": one.rule, "would": one.would, "reason": "", "count": 0,
             "of": 0, "agents": {}},
        )  # fmt: skip
        row["count"] += one.count
        row["reason"] = one.reason or row["reason"]
        row["agents"][one.agent] = row["agents"].get(one.agent, 0) + one.count
    for row in rows.values():
        row["of"] = totals[row["method"], row["route"]]
        row["agents"] = dict(sorted(row["agents"].items(), key=lambda item: -item[1]))
    return sorted(rows.values(), key=lambda row: -row["count"])


def _report_lines(data: dict[str, Any]) -> Iterator[str]:
    if not data["requests"]:
        yield (
            'nothing was observed: run the application with mode = "observe", and with a journal on this machine '
            "(--rules and --journal say where it is); it writes every few seconds what it saw"
        )
        return
    yield f"{data['requests']} requests from {_moment(data['first'])} to {_moment(data['last'])}"
    if not data["refused"]:
        yield "None would have been refused."
        return
    yield "Would have been refused:"
    for row in data["refused"]:
        yield ""
        rule = row["rule"] or "no rule"
        yield f"  {row['count']} of {row['of']}  {printable(row['method'])} {printable(row['route'])}  ({rule})"
        reason = f": {printable(row['reason'])}" if row["reason"] else ""
        yield f"    {row['would']}{reason}"
        agents = [f"{printable(name) or 'not asked'} {count}" for name, count in row["agents"].items()]
        more = f" and {len(agents) - _MOST_AGENTS} more" if len(agents) > _MOST_AGENTS else ""
        yield f"    for {', '.join(agents[:_MOST_AGENTS])}{more}"
        if row["would"] in _WAYS:
            yield f"    {_WAYS[row['would']]}"
    if data["rules"]:
        yield ""
        yield "Rules to start from:"
        for text in data["rules"]:
            yield ""
            yield from text.splitlines()


def _rule(method: str, route: str) -> str:
    guessed = guess(route, (method,))
    treated = "exempt = true" if guessed is None else f'action_type = "{guessed}"'
    return f'[[rule]]\nmatch = "{printable(method)} {printable(route)}"\n{treated}'


def _moment(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
