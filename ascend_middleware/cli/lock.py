"""The commands `lock` and `diff`: what becomes of every route, kept in a file, and what a change made of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from ..exceptions import ConfigurationError
from ..inspection.terminal import FAILED, OK, Result
from ..routing.coverage import cover
from ..routing.lock import Direction, Lock, compare, dump, load, lock_of
from .applications import load_application

if TYPE_CHECKING:
    import argparse

    from ..inspection.about import Application
    from ..routing.lock import Change

__all__ = ["diff", "lock", "lock_of_application"]

_SETTINGS: Final = ("enabled", "mode", "unmapped", "strict", "kill_switch")
_HEADINGS: Final = {Direction.LOOSER: "Looser:", Direction.TIGHTER: "Tighter:", Direction.OTHER: "Also changed:"}


def lock_of_application(application: Application, name: str, rules: str | None = None) -> Lock:
    """Return the lock of an application.

    Raises:
        ConfigurationError: its routes cannot be listed.
    """
    if application.routes is None:
        raise ConfigurationError(f"{name} is no application of a framework whose routes can be listed")
    table, settings = application.governed(rules)
    coverage = cover(application.routes, table, unmapped=settings.unmapped)
    guarded = application.installed is not None
    return lock_of(coverage, {"guarded": guarded} | {name: getattr(settings, name) for name in _SETTINGS})


def lock(args: argparse.Namespace) -> Result:
    """Write the lock file of an application."""
    found = lock_of_application(load_application(args), args.app, args.rules)
    Path(args.lock).write_text(dump(found), encoding="utf-8")
    count = len(found.routes)
    return Result(
        data={"lock": args.lock, "routes": count},
        lines=[f"{args.lock}: {count} {'route' if count == 1 else 'routes'} with their methods"],
    )


def diff(args: argparse.Namespace) -> Result:
    """Tell what has changed since the lock file was written."""
    path = Path(args.lock)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigurationError(f"there is no {path}; write it with: ascend-middleware lock {args.app}") from None
    now = lock_of_application(load_application(args), args.app, args.rules)
    changes = compare(load(text, str(path)), now)
    looser = [one for one in changes if one.direction is Direction.LOOSER]
    if args.accept and changes:
        path.write_text(dump(now), encoding="utf-8")
    return Result(
        data={
            "ok": not looser or args.accept,
            "lock": args.lock,
            "changes": [{"direction": str(one.direction), "route": one.route, "text": one.text} for one in changes],
        },
        lines=_annotations(changes, text, args.lock) if args.github else _lines(changes),
        code=FAILED if looser and not args.accept else OK,
    )


def _lines(changes: list[Change]) -> list[str]:
    lines: list[str] = []
    for direction, heading in _HEADINGS.items():
        found = [one for one in changes if one.direction is direction]
        if found:
            lines += ["", heading, *(f"  {_told(one)}" for one in found)]
    return lines[1:] or ["nothing has changed"]


def _annotations(changes: list[Change], text: str, name: str) -> list[str]:
    """Return what GitHub shows beside the lines of a change."""
    lines = text.splitlines()
    found = []
    for one in changes:
        start = f'"{one.route}" = ' if one.route else f"{one.text.partition(' ')[0]} = "
        line = next((number for number, each in enumerate(lines, 1) if each.startswith(start)), 1)
        kind = "error" if one.direction is Direction.LOOSER else "notice"
        told = _told(one).replace("%", "%25")
        found.append(f"::{kind} file={name},line={line},title={one.direction}::{told}")
    return found


def _told(change: Change) -> str:
    return f"{change.route} {change.text}" if change.route else change.text
