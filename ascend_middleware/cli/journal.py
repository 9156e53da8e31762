"""The `journal` command: what waits for the authority on this machine, deliver it, or take it out as JSON lines."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .terminal import FAILED, OK, plain, print_json

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from ..config import Settings

__all__ = ["add_parser"]


def add_parser(commands: Any) -> None:
    """Add the command to the command line."""
    parser = commands.add_parser("journal", help="show, deliver or export what passed actions left to be reported")
    tasks = parser.add_subparsers(title="tasks", metavar="TASK", required=True)
    status = tasks.add_parser("status", help="list the journals: whose process lives, what waits, since when")
    status.set_defaults(run=_status)
    status.add_argument("--json", action="store_true", help="print one JSON object")
    deliver = tasks.add_parser("deliver", help="deliver the journals of processes that ended")
    deliver.set_defaults(run=_deliver)
    deliver.add_argument("--json", action="store_true", help="print one JSON object")
    export = tasks.add_parser("export", help="print the lines as JSON, one a line, and change nothing")
    export.set_defaults(run=_export)
    export.add_argument("--all", action="store_true", help="delivered lines too, as far as they are still there")
    for task in (status, deliver, export):
        task.add_argument("--rules", metavar="FILE", help="the ascend.toml whose [ascend] settings hold")
        task.add_argument("--journal", metavar="DIR", help="the directory, as the setting journal names it")


def _settings(args: argparse.Namespace) -> Settings:
    from ..compose import load_table
    from ..config import Settings

    table = load_table(args.rules) if args.rules else None
    return Settings.load({"journal": args.journal}, file=table.settings if table is not None else {})


def _directories(args: argparse.Namespace) -> list[Path]:
    """Return the directories of all services below the journal's place."""
    from ..journal.journal import place_of

    base = place_of(_settings(args))
    if base is None:
        return []
    return sorted({path.parent for pattern in ("*/*.lock", "*/*.rejected") for path in base.glob(pattern)})


def _status(args: argparse.Namespace) -> int:
    rows = [row for directory in _directories(args) for row in _rows(directory)]
    if args.json:
        print_json({"journals": rows})
        return OK
    if not rows:
        print("no journals")
    for row in rows:
        state = "alive" if row["alive"] else "ended"
        age = "" if row["oldest_seconds"] is None else f", oldest {row['oldest_seconds']:.0f} s"
        aside = f", {row['rejected']} set aside" if row["rejected"] else ""
        print(f"{row['journal']}  {state:<5}  {row['waiting']} waiting{age}, {row['open']} without an outcome{aside}")
    return OK


def _rows(directory: Path) -> Iterator[dict[str, Any]]:
    from ..journal.delivery import decode_line
    from ..journal.lockfile import FileLock
    from ..journal.recovery import names_of
    from ..journal.segments import read_lines

    names = {*names_of(directory), *(path.stem for path in directory.glob("*.rejected"))}
    for name in sorted(names):
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


def _deliver(args: argparse.Namespace) -> int:
    from ..client import ClientCore, open_engine
    from ..journal.journal import directory_of
    from ..journal.recovery import adopt
    from ..journal.worker import LateEngine
    from ..state.stores import open_state

    settings = _settings(args).checked(needs_agent=True)
    directory = directory_of(settings)
    if directory is None or not directory.is_dir():
        delivered, left = 0, 0
    else:
        engine = LateEngine(lambda: open_engine(settings))
        try:
            delivered = adopt(
                directory, core=ClientCore(settings), state=open_state(settings), perform=engine.perform, now=time.time
            )
        finally:
            engine.close()
        left = sum(1 for row in _rows(directory) if not row["alive"] and (row["waiting"] or row["open"]))
    if args.json:
        print_json({"delivered": delivered, "left": left})
    else:
        print(f"delivered the journals of {delivered} processes, {left} left")
    return FAILED if left else OK


def _export(args: argparse.Namespace) -> int:
    from ..journal.delivery import decode_line
    from ..journal.recovery import names_of
    from ..journal.segments import read_lines

    for directory in _directories(args):
        names = {*names_of(directory), *(path.stem for path in directory.glob("*.rejected"))}
        for name in sorted(names):
            lines = [(line, "delivered" if taken else "waiting") for line, taken in read_lines(directory, name)]
            lines += [(line, "set aside") for line in _rejected(directory, name)]
            for line, state in lines:
                record = decode_line(line)
                if state == "delivered" and not args.all:
                    continue
                if record is None:
                    print(f"{plain(name)}: a damaged line", file=sys.stderr)
                    continue
                print(json.dumps({"journal": name, "state": state, **record}))
    return OK
