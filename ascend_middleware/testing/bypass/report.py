"""The report of the bypass pack for auditors: routes, attacks, answers, handlers that ran; as JSON and as Markdown."""

from __future__ import annotations

import json
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..._version import __version__
from .attacks import corpus

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .trial import Trial

__all__ = ["write"]


def write(name: str, trial: Trial, found: list[dict[str, Any]]) -> None:
    """Write `name.json` and `name.md`."""
    routes = [one for one in found if "answers" in one]
    late = [one for row in found for one in row.get("late", ())]
    holes = sum(len(one["ran"]) for one in routes) + len(late)
    proven = not holes and all(one["met"] and one["watched"] for one in routes)
    report = {
        "application": trial.app,
        "framework": trial.framework,
        "server": trial.server or "default",
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "ascend_middleware": __version__,
        "result": "no governed handler ran undecided" if proven else "not proven",
        "ran_undecided": holes,
        "attacks": [{"name": one.name, "about": one.about} for one in corpus()],
        "routes": routes,
        "late": late,
        "exempt": [one["route"] for one in trial.routes if one["exempt"]],
    }
    Path(f"{name}.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    Path(f"{name}.md").write_text("\n".join(_lines(report)) + "\n", encoding="utf-8")


def _lines(report: dict[str, Any]) -> Iterator[str]:
    yield from (f"# Bypass report of {report['application']}", "")
    yield f"Result: **{report['result']}**. The authority denied everything, so that no governed handler may have run."
    yield from ("", f"- made: {report['made']}, ascend-middleware {report['ascend_middleware']}")
    yield from (f"- framework: {report['framework']}", f"- server: `{report['server']}`")
    yield from (
        "",
        "| route | standing | path | requests | answers | guard met | handlers run |",
        "|---|---|---|---|---|---|---|",
    )
    for one in report["routes"]:
        counts = ", ".join(f"{count} × {answer}" for answer, count in Counter(one["answers"].values()).most_common())
        met = "yes" if one["met"] else "**no**"
        run = f"**{len(one['ran'])}**" if one["ran"] else "0" if one["watched"] else "not seen"
        path = f"`{one['path']}`" if one["path"] else "none found"
        yield f"| `{one['route']}` | {one['standing']} | {path} | {len(one['answers'])} | {counts} | {met} | {run} |"
    holes = [(row, one) for row in report["routes"] for one in row["ran"]]
    if holes or report["late"]:
        yield from ("", "## Handlers that ran undecided", "")
        yield from (
            f"- `{row['route']}`: {one['attack']} ran `{one['handler']}`, answered {one['answer']}: "
            f"`{one['request']!r}`"
            for row, one in holes
        )
        yield from (f"- later: `{one}`" for one in report["late"])
    yield from ("", "## Exempt routes, which may run", "")
    yield from [f"- `{one}`" for one in report["exempt"]] or ["None."]
    yield from ("", "## Attacks", "")
    yield from (f"- {one['name']}: {one['about']}" for one in report["attacks"])
