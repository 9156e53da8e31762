"""The main table as a picture: throughput of each variant, × the bare application."""

from __future__ import annotations

from html import escape
from typing import Any

from .report import NAMES

ALTERNATIVE = "Requests per second of a FastAPI application, × no governance: a bar for each way of governing"
_WIDTH, _LABEL, _BAR, _GAP, _TOP = 800, 390, 13, 16, 64
_COLOURS = {"16": "#7f9fd1", "64": "#2f5d9f"}


def draw(figures: dict[str, Any]) -> str | None:
    """Return the picture as SVG; None where the table was not measured."""
    table = figures.get("governed", {}).get("levels", {})
    levels = [level for level in _COLOURS if level in table]
    if not levels:
        return None
    names = list(table[levels[0]])
    row = len(levels) * (_BAR + 2) + _GAP
    height = _TOP + len(names) * row + 34
    room = _WIDTH - _LABEL - 60
    most = max(1.0, *(table[level][name]["rate"] for level in levels for name in names))
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" font-family="sans-serif" font-size="13" '
        f'role="img" aria-label="{ALTERNATIVE}">',
        f'<rect width="{_WIDTH}" height="{height}" fill="#ffffff"/>',
        _text(16, 24, "FastAPI under uvicorn: requests per second, × no governance", size=15),
    ]
    for number, level in enumerate(levels):
        x = 16 + number * 150
        parts.append(f'<rect x="{x}" y="36" width="12" height="12" fill="{_COLOURS[level]}"/>')
        parts.append(_text(x + 18, 47, f"{level} connections"))
    for number, name in enumerate(names):
        y = _TOP + number * row
        parts.append(_text(_LABEL - 10, y + row / 2 - 3, _short(name), anchor="end"))
        for place, level in enumerate(levels):
            rate, top = table[level][name]["rate"], y + place * (_BAR + 2)
            width = rate / most * room
            parts.append(f'<rect x="{_LABEL}" y="{top}" width="{width:.1f}" height="{_BAR}" fill="{_COLOURS[level]}"/>')
            parts.append(_text(_LABEL + width + 6, top + _BAR - 2, f"{rate:.2f}", size=11))
    about = f"Measured {figures['when']}, Python {figures['python']}, one core; medians of {figures['rounds']} rounds"
    parts.append(_text(16, height - 12, about, size=11))
    return "\n".join([*parts, "</svg>", ""])


def _short(name: str) -> str:
    return (
        NAMES[name].replace("`", "").replace(" on the rule", "").replace("report_outcomes = true", "outcomes reported")
    )


def _text(x: float, y: float, text: str, *, size: int = 13, anchor: str = "start") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" fill="#222222">{escape(text)}</text>'
    )
