"""What every command shares: exit codes, JSON, and text that cannot steer a terminal."""

from __future__ import annotations

import json
from typing import Final

__all__ = ["FAILED", "MISUSED", "OK", "plain", "print_json"]

OK: Final = 0
FAILED: Final = 1
MISUSED: Final = 2


def print_json(value: object) -> None:
    """Print one JSON value."""
    print(json.dumps(value, indent=2))


def plain(text: str) -> str:
    """Drop control characters: an agent's words must not steer the operator's terminal."""
    return "".join(char if char.isprintable() else " " for char in text)
