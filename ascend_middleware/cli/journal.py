"""The `journal` command: what waits for the authority on this machine, deliver it, or take it out as JSON lines."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

from ..client import ClientCore, open_engine
from ..compose import load_table
from ..config import Settings
from ..fork import FileLock
from ..inspection.terminal import FAILED, OK, Result, note
from ..journal.delivery import adopt, names_of
from ..journal.journal import directory_of, place_of
from ..journal.segments import decode_line, read_lines
from ..journal.worker import LateEngine
from ..state.stores import open_state

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["deliver", "export", "settings_of", "status"]


def settings_of(args: argparse.Namespace) -> Settings:
    """Return the settings that say where the journals are."""
    table = load_table(args.rules) if args.rules else None
    return Settings.load({"journal": args.journal}, file=table.settings if table is not None else {})


def _directories(args: argparse.Namespace) -> list[Path]:
    """Return the directories of all services below the journal's place."""
    base = place_of(settings_of(args))
    if base is None:
        return []
    return sorted({path.parent for pattern in ("*/*.lock", "*/*.rejected") for path in base.glob(pattern)})


def _names(directory: Path) -> list[str]:
    return sorted({*names_of(directory), *(path.stem for path in directory.glob("*.rejected"))})


def status(args: argparse.Namespace) -> Result:
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


def deliver(args: argparse.Namespace) -> Result:
    """Deliver the journals of processes that ended."""
    settings = settings_of(args).checked(needs_agent=True)
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


def export(args: argparse.Namespace) -> Result:
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
