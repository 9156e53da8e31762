"""Measure everything side by side, and write the tables and the chart: `python -m benchmarks`."""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

from . import load
from .bench import Bench
from .chart import ALTERNATIVE, draw
from .report import render
from .sections import BESIDE, SECTIONS

README = load.HERE / "README.md"
FIGURES = load.HERE / "figures.json"
CHART = load.HERE / "chart.svg"


def measure(arguments: argparse.Namespace, keep: Path) -> dict[str, Any]:
    """Measure what there is time for, and keep the figures after each table.

    A table that fails is tried a second time. What fails then is told, and does not keep the others from being measured.
    """
    figures: dict[str, Any] = {
        "when": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"),
        "python": platform.python_version(),
        "rounds": 1 if arguments.quick else arguments.rounds,
        "seconds": arguments.seconds,
        "busy": os.getloadavg()[0],
        "failed": {},
    }
    began = time.monotonic()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder, contextlib.ExitStack() as stack:
        given = {"rounds": figures["rounds"], "seconds": arguments.seconds, "quick": arguments.quick}
        bench = Bench(**given, folder=Path(folder), stack=stack)
        bench.deadline = began + arguments.minutes * 60
        plan = [(name, "") for name in SECTIONS if not arguments.only or name in arguments.only]
        if arguments.python:
            plan += [(name, arguments.python) for name in BESIDE if not arguments.only or name in arguments.only]
        for name, python in plan:
            title = f"{name} with {python}" if python else name
            if time.monotonic() > bench.deadline:
                figures["failed"][title] = f"not measured: {arguments.minutes} minutes have passed"
                continue
            print(title, file=sys.stderr)
            bench.python = python or sys.executable
            place = figures.setdefault("beside", {"python": _version(python)}) if python else figures
            for is_last in (False, True):
                try:
                    place[name] = SECTIONS[name](bench)
                    break
                except (load.BenchmarkError, OSError, ValueError, subprocess.SubprocessError) as error:
                    traceback.print_exc()
                    if is_last or time.monotonic() > bench.deadline:
                        figures["failed"][title] = f"{type(error).__name__}: {str(error)[:300]}"
                        break
            figures["minutes"] = round((time.monotonic() - began) / 60, 1)
            keep.write_text(json.dumps(figures, indent=1) + "\n")
    return figures


def _version(python: str) -> str:
    text = "import platform; print(platform.python_version())"
    return subprocess.run([python, "-c", text], check=True, capture_output=True, text=True).stdout.strip()


def write(figures: dict[str, Any]) -> None:
    """Write the tables into the README here, and the chart beside it, which the project's README shows."""
    _put(README, "figures", render(figures))
    if (chart := draw(figures)) is not None:
        CHART.write_text(chart)
        _put(load.HERE.parent / "README.md", "chart", f"![{ALTERNATIVE}](benchmarks/{CHART.name})\n")


def _put(page: Path, mark: str, text: str) -> None:
    """Put a text between the two marks of a page."""
    head, begin, rest = page.read_text().partition(f"<!-- {mark} -->\n")
    _, end, tail = rest.partition(f"<!-- end of {mark} -->")
    if not begin or not end:
        raise SystemExit(f"{page} has no place for it: <!-- {mark} --> … <!-- end of {mark} -->")
    page.write_text(f"{head}{begin}{text}{end}{tail}")


def main() -> None:
    """Measure; write the tables into README.md and the chart beside it, unless it is a quick run."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=main.__doc__)
    parser.add_argument("--quick", action="store_true", help="one short round of everything, printed and not written")
    parser.add_argument("--rounds", type=int, default=5, help="that count, of the tables that have goals")
    parser.add_argument("--seconds", type=int, default=1, help="the length of one burst, in whole seconds")
    parser.add_argument(
        "--minutes", type=float, default=11, help="begin no further table, and no further round, after so long"
    )
    parser.add_argument("--only", action="append", choices=SECTIONS, help="measure this table; may be repeated")
    parser.add_argument("--python", help="another interpreter with this package, measured beside the running one")
    parser.add_argument("--json", type=Path, help="keep the figures in this file")
    parser.add_argument("--render", action="store_true", help="measure nothing; write tables and chart of kept figures")
    arguments = parser.parse_args()
    if arguments.render:
        write(json.loads((arguments.json or FIGURES).read_text()))
        return
    if problems := load.missing():
        raise SystemExit("missing: " + "; ".join(problems))
    writes = not (arguments.quick or arguments.only)
    with tempfile.TemporaryDirectory() as folder:
        keep = arguments.json or (FIGURES if writes else Path(folder) / "figures.json")
        figures = measure(arguments, keep)
    print(render(figures))
    if writes:
        write(figures)
    if figures["failed"]:
        raise SystemExit("\n".join(f"{name}: {why}" for name, why in figures["failed"].items()))


if __name__ == "__main__":
    main()
