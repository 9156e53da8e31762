"""Where state and journal are on a machine by default."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from .exceptions import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["default_directory", "make_directory", "shown"]

NAME = "ascend-middleware"


def default_directory(environ: Mapping[str, str] | None = None, *, platform: str = sys.platform) -> Path:
    """Return the directory for what outlives a process: systemd's, else the user's own state directory.

    Raises:
        ConfigurationError: the process has no home directory.
    """
    environ = os.environ if environ is None else environ
    given = environ.get("STATE_DIRECTORY", "").split(":")[0]
    if given:
        return Path(given) / NAME
    try:
        if platform == "win32":
            base = Path(environ["LOCALAPPDATA"]) if environ.get("LOCALAPPDATA") else Path.home() / "AppData" / "Local"
        elif platform == "darwin":
            base = Path.home() / "Library" / "Application Support"
        else:
            given = environ.get("XDG_STATE_HOME", "")
            base = Path(given) if os.path.isabs(given) else Path.home() / ".local" / "state"
    except RuntimeError:
        raise ConfigurationError(
            "there is no home directory for the state; set state (ASCEND_STATE) to a file, redis://… or memory:"
        ) from None
    return base / NAME


def make_directory(path: Path) -> None:
    """Make a directory that only its owner may read, with its parents; raises OSError."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)


def shown(url: str) -> str:
    """Return a URL without its user name, password and query, for messages; rather too little than too much of it."""
    return re.sub(r"\?\S*", "?…", re.sub(r"//.*@", "//…@", url))
