"""Which database a command is about."""

from __future__ import annotations

import os
import re
from argparse import Namespace
from typing import Final

from ..exceptions import ConfigurationError
from ..masking import mask_text
from ..text import is_postgres

__all__ = ["DATABASE", "named_database", "shown_database"]

DATABASE: Final = "ASCEND_AUTHORITY_DB"
_OTHER_URL: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


def named_database(args: Namespace) -> str:
    """Return the path or URL that the arguments name, or else the environment; nothing if neither does.

    Raises:
        ConfigurationError: it is a URL of another kind.
    """
    place = getattr(args, "db", None) or os.environ.get(DATABASE, "")
    if _OTHER_URL.match(place) and not is_postgres(place):
        raise ConfigurationError(
            f"the database {mask_text(place)} is neither a file nor a URL that begins with postgresql://"
        )
    return place


def shown_database(args: Namespace) -> str:
    """Return how messages name it, without a password."""
    return mask_text(named_database(args)) or f"beside {getattr(args, 'policy', 'the policy file')}"
