"""The figures as Markdown; a table that was not measured is left out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from . import authority, goals

NAMES = {
    "bare": "no governance (bare)",
    "no-op": "no-op pure ASGI middleware",
    "sdk": "`ascend-ai-sdk` 2.7.1 in a sync dependency",
    "auto": "ours",
    "auto+reports": "ours, `report_outcomes = true`",
    "httpx2": "ours, engine `httpx2`",
    "tls": "ours, TLS to the authority",
    "cached": 'ours, `cache = "60s"` on the rule, `report_outcomes = true`',
    "coalesced": "ours, `coalesce = true` on the rule, `report_outcomes = true`",
    "flask": "no governance (bare)",
    "flask-sdk": "`ascend-ai-sdk` 2.7.1 in `before_request`",
    "flask-auto": "ours",
    "flask-auto+reports": "ours, `report_outcomes = true`",
    "django": "no governance (bare)",
    "django-sdk": "`ascend-ai-sdk` 2.7.1 in a middleware",
    "django-auto": "ours",
    "django-auto+reports": "ours, `report_outcomes = true`",
    "django-async": "no governance (bare)",
    "django-async-auto": "ours",
    "django-async-auto+reports": "ours, `report_outcomes = true`",
    "cached in process": "a cached decision, journal on",
    "instant": "governed, an engine that answers at once, journal off",
    "instant+journal": "the same, journal on (a directory)",
    "instant elsewhere": "governed at a server that does not say whether a client has left, journal off",
    "instant+journal elsewhere": "the same, journal on (a directory)",
    "exempt-bare": "10 routes, no governance",
    "exempt-no-op": "10 routes, no-op middleware",
    "exempt": "10 routes, exempt",
}


def render(figures: dict[str, Any]) -> str:
    """Return the tables."""
    busy = f"Load average at the start: {figures['busy']:.1f} (0 is an idle machine)."
    lines = [
        f"Measured {figures['when']} with Python {figures['python']}: medians of {figures['rounds']} rounds (fewer for some "
        f"tables) of bursts of {figures['seconds']} s. {busy}",
    ]
    for name, table in _TABLES.items():
        if name in figures:
            lines += ["", *table(figures[name])]
    if "beside" in figures:
        lines += ["", *_beside(figures)]
    lines += ["", *goals.table(figures)]
    lines += [f"\nNot measured: {name} ({why.splitlines()[0]})." for name, why in figures["failed"].items()]
    return "\n".join([*lines, ""])


def _head(*cells: str) -> list[str]:
    return [_row(*cells), "|---" * len(cells) + "|"]


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _levels(title: str) -> Callable[[dict[str, Any]], list[str]]:
    def table(found: dict[str, Any]) -> list[str]:
        levels = list(found)
        names = list(found[levels[0]])
        base = names[0]
        ours = next((name for name in names if name.endswith("auto")), names[-1])

        def row(name: str, cell: Callable[[dict[str, Any]], str]) -> str:
            return _row(name, *(cell(found[level]) for level in levels))

        lines = _head(f"{title}, requests per second / CPU per request, × bare", *(f"c={level}" for level in levels))
        for name in names:
            lines.append(row(NAMES[name], lambda at, name=name: f"{at[name]['rate']:.2f} / {at[name]['cpu']:.2f}"))  # type: ignore[misc]
        bare = row("*bare, absolute*", lambda at: f"{at[base]['per second']:.0f}/s, {_micro(at[base]['cpu seconds'])}")
        lines += [
            bare,
            row("*ours, lowest and highest round*", lambda at: f"{at[ours]['low']:.2f}–{at[ours]['high']:.2f}"),
        ]
        told = f"{ours}+reports"
        if told in names:
            lines.append(row("*outcomes delivered while under load*", lambda at: f"{at[told]['delivered']:.0%}"))
            lines.append(row("*processor time of their delivery per request*", lambda at: _micro(at[told]["worker"])))
        return lines

    return table


def _micro(seconds: float) -> str:
    return f"{seconds * 1e6:.0f} µs"


def _governed(found: dict[str, Any]) -> list[str]:
    lines = _levels("FastAPI under uvicorn, httptools and uvloop")(found["levels"])
    if "open loop" in found:
        lines += ["", *_head("the same, 500 requests per second at fixed times, ms", "p50", "p99")]
        for name, times in found["open loop"].items():
            note = f" ({times['failed']:.0f} failed)" if times["failed"] else ""
            lines.append(_row(NAMES[name] + note, f"{times['p50']:.2f}", f"{times['p99']:.2f}"))
    return lines


def _in_process(found: dict[str, float]) -> list[str]:
    lines = _head("FastAPI in process, no network, processor time of a request", "µs", "× bare")
    for name, seconds in found.items():
        base = found["exempt-bare"] if name.startswith("exempt") else found["bare"]
        lines.append(
            _row(NAMES.get(f"{name} in process", NAMES[name]), f"{seconds * 1e6:.1f}", f"{seconds / base:.2f}")
        )
    return lines


def _exempt(found: dict[str, Any]) -> list[str]:
    title = "exempt request under uvicorn, c=16, × the no-op middleware"
    lines = _head(title, "time per request", "CPU per request")
    return lines + [_row(name, f"{1 / one['rate']:.2f}", f"{one['cpu']:.2f}") for name, one in found.items()]


def _slow(found: dict[str, Any]) -> list[str]:
    lines = _head("an authority that takes its time, c=64, requests per second", *(f"{ms} ms" for ms in found))
    names = [name for name in ("most", "auto", "sdk") if all(name in one for one in found.values())]
    for name in names:
        title = "most that 64 connections can get" if name == "most" else NAMES[name]
        lines.append(_row(title, *(f"{one[name]:.0f}" for one in found.values())))
    return lines


def _workers(found: dict[str, Any]) -> list[str]:
    lines = _head("workers on one core that share a state (SQLite), reports on, c=64", *found)
    lines.append(_row("requests per second", *(f"{one['rate']:.0f}" for one in found.values())))
    return [*lines, _row("CPU per request", *(_micro(one["cpu"]) for one in found.values()))]


def _memory(found: dict[str, float]) -> list[str]:
    lines = _head("memory of 1,000 requests that wait", "MB")
    titles = {"slow": "in their handlers, no governance", "waiting": 'for a person, `pending = "wait:55s"`'}
    return lines + [_row(titles[name], f"{value * 1000 / 2**20:.1f}") for name, value in found.items()]


def _policies(found: dict[str, float]) -> list[str]:
    lines = _head("a submission in the embedded authority's process", *(f"{int(size):,} policies" for size in found))
    return [*lines, _row("processor time", *(_micro(seconds) for seconds in found.values()))]


def _imports(found: dict[str, float]) -> list[str]:
    lines = _head("import", "ms", "× `httpx2`")
    return lines + [
        _row(f"`{name}`", f"{seconds * 1000:.0f}", f"{seconds / found['httpx2']:.2f}")
        for name, seconds in found.items()
    ]


def _lookup(times: dict[str, float]) -> list[str]:
    sizes = [int(name.split()[1]) for name in times if name.startswith("hit ")]
    lines = _head("one lookup, µs", *(f"{size:,} rules" for size in sizes))
    for title, key in (
        ("rule table, hit", "hit"),
        ("rule table, miss", "miss"),
        ("werkzeug `Map.match`, hit", "werkzeug hit"),
        ("werkzeug `Map.match`, miss", "werkzeug miss"),
    ):
        lines.append(_row(title, *(f"{times[f'{key} {size}'] * 1e6:.2f}" for size in sizes)))
    lines += ["", *_head(f"a table of {times['rules']:,} rules", "rule table", "werkzeug")]
    lines.append(_row("building, s", f"{times['build']:.2f}", f"{times['werkzeug build']:.2f}"))
    of_rule = f"{times['bytes a rule'] * 1000 / 2**20:.2f}"
    return [*lines, _row("memory, MB for each 1,000 rules, the rules' own source included", of_rule, "")]


def _beside(figures: dict[str, Any]) -> list[str]:
    """Return what two interpreters have measured alike."""
    other = figures["beside"]
    lines = _head("× bare", f"Python {figures['python']}", f"Python {other['python']}")
    if "in process" in other and "in process" in figures:
        for name in other["in process"]:
            cells = [f"{one['in process'][name] / one['in process']['bare']:.2f}" for one in (figures, other)]
            lines.append(_row(f"in process, CPU: {NAMES[name]}", *cells))
    if "governed" in other and "governed" in figures:
        tables = [one["governed"]["levels"] for one in (figures, other)]
        for level in tables[1]:
            for name in [name for name in tables[1][level] if name in tables[0][level]]:
                cells = [f"{one[level][name]['rate']:.2f} / {one[level][name]['cpu']:.2f}" for one in tables]
                lines.append(_row(f"c={level}: {NAMES[name]}", *cells))
    return lines


_TABLES: dict[str, Callable[[dict[str, Any]], list[str]]] = {
    "governed": _governed,
    "h11": _levels("the same without httptools"),
    "in process": _in_process,
    "flask": _levels("Flask under gunicorn, gthread with 16 threads"),
    "django": _levels("Django under gunicorn, gthread with 16 threads"),
    "django async": _levels("Django's ASGI application under uvicorn"),
    "exempt": _exempt,
    "slow authority": _slow,
    "workers": _workers,
    "memory": _memory,
    "lookup": _lookup,
    "embedded": authority.table,
    "policies": _policies,
    "imports": _imports,
}
