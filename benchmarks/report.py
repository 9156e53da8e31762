"""The figures as Markdown, each goal with what was reached."""

from __future__ import annotations

from typing import Any

NAMES = {
    "bare": "no governance (bare)",
    "no-op": "no-op pure ASGI middleware",
    "sdk": "`ascend-ai-sdk` 2.7.1 in a sync dependency",
    "auto": "ours",
    "auto+reports": "ours, `report_outcomes = true`",
    "httpx2": "ours, engine `httpx2`",
    "flask": "no governance (bare)",
    "flask-sdk": "`ascend-ai-sdk` 2.7.1 in `before_request`",
    "flask-auto": "ours",
    "flask-auto+reports": "ours, `report_outcomes = true`",
}


def render(figures: dict[str, Any]) -> str:
    """Return the tables."""
    lines = [
        f"Measured {figures['when']} with Python {figures['python']}: medians of {figures['rounds']} rounds of bursts of "
        f"{figures['seconds']} s. Load average at the start: {figures['busy']:.1f} (0 is an idle machine).",
        "",
        *_governed(figures["governed"], "requests per second / CPU per request, × bare", "bare", "auto"),
        "",
        *_governed(figures["threaded"], "Flask under gunicorn, gthread with 16 threads, × bare", "flask", "flask-auto"),
        "",
        *_exempt(figures["exempt"], figures["trivial"]),
        "",
        *_lookup(figures["lookup"]),
        "",
        *_goals(figures),
        "",
    ]
    return "\n".join(lines)


def _governed(table: dict[str, Any], title: str, bare: str, ours: str) -> list[str]:
    levels = list(table)
    head = " | ".join(f"c={level}" for level in levels)
    lines = [f"| {title} | {head} |", "|---" * (len(levels) + 1) + "|"]
    for name in table[levels[0]]:
        cells = (f"{table[level][name]['rate']:.2f} / {table[level][name]['cpu']:.2f}" for level in levels)
        lines.append(f"| {NAMES[name]} | {' | '.join(cells)} |")
    cells = (
        f"{table[level][bare]['per second']:.0f}/s, {table[level][bare]['cpu seconds'] * 1e6:.0f} µs"
        for level in levels
    )
    lines.append(f"| *bare, absolute* | {' | '.join(cells)} |")
    spread = ("–".join(f"{table[level][ours][side]:.2f}" for side in ("low", "high")) for level in levels)
    lines.append(f"| *ours, lowest and highest round* | {' | '.join(spread)} |")
    told = [table[level][f"{ours}+reports"] for level in levels]
    cells = (f"{one['delivered']:.0%}" for one in told)
    lines.append(f"| *outcomes delivered while under load* | {' | '.join(cells)} |")
    cells = (f"{one['worker'] * 1e6:.0f} µs" for one in told)
    lines.append(f"| *processor time of their delivery per request* | {' | '.join(cells)} |")
    return lines


def _exempt(table: dict[str, Any], trivial: dict[str, Any]) -> list[str]:
    lines = [
        "| exempt request under uvicorn, c=16, × the no-op middleware | time per request | CPU per request |",
        "|---|---|---|",
    ]
    for title, row in table.items():
        lines.append(f"| FastAPI, {title} | {1 / row['exempt']['rate']:.2f} | {row['exempt']['cpu']:.2f} |")
    row = trivial["trivial-exempt"]
    lines.append(f"| an application that does nothing, 10,000 rules | {1 / row['rate']:.2f} | {row['cpu']:.2f} |")
    return lines


def _lookup(times: dict[str, float]) -> list[str]:
    sizes = (10, 1_000, 10_000)
    lines = [
        "| one lookup, µs | " + " | ".join(f"{size:,} rules" for size in sizes) + " |",
        "|---" * (len(sizes) + 1) + "|",
    ]
    for title, key in (
        ("rule table, hit", "hit"),
        ("rule table, miss", "miss"),
        ("werkzeug `Map.match`, hit", "werkzeug hit"),
        ("werkzeug `Map.match`, miss", "werkzeug miss"),
    ):
        lines.append(f"| {title} | " + " | ".join(f"{times[f'{key} {size}'] * 1e6:.2f}" for size in sizes) + " |")
    lines += [
        "",
        "| a table of 10,000 rules | rule table | werkzeug |",
        "|---|---|---|",
        f"| building, s | {times['build']:.2f} | {times['werkzeug build']:.2f} |",
        f"| memory, KB a rule, the rule's own source included | {times['bytes a rule'] / 1024:.2f} | |",
    ]
    return lines


def _goals(figures: dict[str, Any]) -> list[str]:
    governed, times = figures["governed"], figures["lookup"]

    def over(name: str, level: str) -> float:
        return float(governed[level][name]["rate"] / governed[level]["sdk"]["rate"])

    def added(level: str) -> float:
        return float(governed[level]["auto"]["cpu"] - 1)

    every = {level: over("auto", level) for level in governed}
    fast = {level: value for level, value in every.items() if level != "1"}
    calls = added("64") * governed["64"]["bare"]["cpu seconds"], added("16") * governed["16"]["bare"]["cpu seconds"]
    exempt = {title: 1 / row["exempt"]["rate"] for title, row in figures["exempt"].items()}
    big, small = "10000", "10"
    rows = [
        ("throughput, c=16 and 64, × the SDK", "≥ 5.5", _list(fast.values()), min(fast.values()) >= 5.5),
        ("throughput, c=1, 16 and 64, × the SDK", "≥ 1.5", _list(every.values()), min(every.values()) >= 1.5),
        (
            "CPU added to one request, c=64, × a bare request",
            "≤ 0.8",
            f"{added('64'):.2f}",
            added("64") <= 0.8,
        ),
        (
            "CPU per governed call, c=64 against c=16",
            "≤ 1.2",
            f"{calls[0] / calls[1]:.2f}",
            calls[0] / calls[1] <= 1.2,
        ),
    ]
    threaded = figures["threaded"]

    def threads_over(base: str, name: str) -> list[float]:
        return [float(level[name]["rate"] / level[base]["rate"]) for level in threaded.values()]

    values = threads_over("flask-sdk", "flask-auto")
    rows.append(("throughput, Flask, c=16 and 64, × the SDK", "≥ 3.5", _list(values), min(values) >= 3.5))
    journal = {
        "asyncio": (
            0.85,
            [governed[at]["auto+reports"]["rate"] / governed[at]["auto"]["rate"] for at in fast],
        ),
        "threads": (0.75, threads_over("flask-auto", "flask-auto+reports")),
    }
    for where, (least, found) in journal.items():
        text = ", ".join(f"{value:.2f}" for value in found)
        title = f"journal on against off, {where}, c=16 and 64"
        rows.append((title, f"≥ {least}", text, min(found) >= least))
    value = 1 / figures["trivial"]["trivial-exempt"]["rate"]
    rows.append(
        ("exempt over an application that does nothing, 10,000 rules, × no-op", "≤ 2", f"{value:.2f}", value <= 2)
    )
    times_of = figures["imports"]
    for module in ("ascend_middleware", "ascend_middleware.client"):
        value = times_of[module] / times_of["httpx2"]
        rows.append((f"import of `{module}`, × that of `httpx2`", "≤ 1.3", f"{value:.2f}", value <= 1.3))
    for title, limit in (("10 routes, repeated paths", 1.05), ("100 routes, every path different", 1.08)):
        rows.append(
            (
                f"exempt on FastAPI, {title}, × the no-op middleware",
                f"≤ {limit}",
                f"{exempt[title]:.2f}",
                exempt[title] <= limit,
            )
        )
    for kind, limit in (("hit", 1.7), ("miss", 1.2)):
        value = times[f"{kind} {big}"] / times[f"{kind} {small}"]
        rows.append((f"lookup, {kind}, 10,000 rules against 10", f"≤ {limit}", f"{value:.2f}", value <= limit))
    value = times[f"werkzeug hit {big}"] / times[f"hit {big}"]
    rows.append(("lookup at 10,000 rules, times faster than werkzeug", "≥ 5", f"{value:.1f}", value >= 5))
    rows.append(("building a table of 10,000 rules", "≤ 0.15 s", f"{times['build']:.2f} s", times["build"] <= 0.15))
    size = times["bytes a rule"] / 1024
    rows.append(("memory of a rule", "≤ 1 KB", f"{size:.2f} KB", size <= 1))
    lines = ["| goal | wanted | reached | |", "|---|---|---|---|"]
    return lines + [
        f"| {title} | {wanted} | {got} | {'yes' if met else '**no**'} |" for title, wanted, got, met in rows
    ]


def _list(values: Any) -> str:
    return ", ".join(f"{value:.1f}" for value in values)
