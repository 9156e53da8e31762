"""Which database a command is about."""

from __future__ import annotations

import os
from argparse import Namespace
from typing import Final

from ..masking import mask_text

__all__ = ["DATABASE", "named_database", "shown_database"]

DATABASE: Final = "ASCEND_AUTHORITY_DB"


def named_database(args: Namespace) -> str:
    """Return the path or URL that the arguments name, or else the environment; nothing if neither does."""
    return getattr(args, "db", None) or os.environ.get(DATABASE, "")


def shown_database(args: Namespace) -> str:
    """Return how messages name it, without a password."""
    return mask_text(named_database(args)) or f"beside {getattr(args, 'policy', 'the policy file')}"
