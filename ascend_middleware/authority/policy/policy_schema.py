"""The JSON Schema of `policy.toml`, made of what its reader knows and of the comments of the sample."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from ascend_middleware.json_schema import table

from .policy_file import ONE_OF, ROWS, TABLES, sample_policy

__all__ = ["policy_schema"]

# Commented out or not.
_HEADER: Final = re.compile(r"(?:# )?\[{1,2}([\w.]+)\]{1,2}$")
_KEY: Final = re.compile(r"(?:# )?(\w+) = .*\S +# +(.+)")


def policy_schema() -> Mapping[str, Any]:
    """Return the schema of a policy file."""
    about = _comments()
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "policy.toml",
        "description": about[""][""],
        "type": "object",
        "additionalProperties": False,
        "properties": {name: _table(name, about.get(name, {})) for name in TABLES},
    }


def _table(name: str, about: Mapping[str, str]) -> Mapping[str, Any]:
    fields, required = TABLES[name]
    found = table(fields, required, about=about)
    if name in ONE_OF:
        found["oneOf" if name == "jwt" else "anyOf"] = [{"required": [key]} for key in ONE_OF[name]]
    told = {"description": about[""]} if about.get("") else {}
    return {**told, "type": "array", "items": found} if name in ROWS else {**told, **found}


def _comments() -> dict[str, dict[str, str]]:
    """Return what the sample says of each table, under an empty name, and of its keys."""
    found: dict[str, dict[str, str]] = {}
    now, paragraph = "", list[str]()
    for line in sample_policy().splitlines():
        if header := _HEADER.match(line):
            now = header[1]
            found.setdefault(now, {}).setdefault("", " ".join(paragraph))
        elif key := _KEY.match(line):
            found.setdefault(now, {}).setdefault(key[1], key[2])
        elif not line.strip("# ") and paragraph:
            found.setdefault("", {}).setdefault("", " ".join(paragraph))
        paragraph = [*paragraph, line[2:]] if line.startswith("# ") and not header else []
    return found
