"""What every command shares: exit codes, JSON, and text that cannot steer a terminal."""

from __future__ import annotations

import json
from typing import Final

from ..text import one_line as plain

__all__ = ["FAILED", "MISUSED", "OK", "plain", "print_json"]

OK: Final = 0
FAILED: Final = 1
MISUSED: Final = 2


def print_json(value: object) -> None:
    """Print one JSON value."""
    print(json.dumps(value, indent=2))
