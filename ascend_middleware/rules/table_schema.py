"""The JSON Schema of `ascend.toml`, made of what its reader knows: keys, values, defaults, contradictions."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any

from ..config import Settings
from ..json_schema import documented, table, without
from .fields import GOVERNING, Rule

if TYPE_CHECKING:
    from collections.abc import Mapping


def table_schema() -> Mapping[str, Any]:
    """Return the schema of a rule table."""
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "ascend.toml",
        "description": "The rule table of ascend-middleware: which routes are governed, and how.",
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "ascend": {"description": "Settings.", **_settings()},
            "rule": {"description": "Rules; their order never matters.", "type": "array", "items": _rule()},
        },
    }


def _settings() -> dict[str, Any]:
    found = table({item.name: item.metadata["parse"] for item in fields(Settings)}, about=documented(Settings))
    for item in fields(Settings):
        told = found["properties"][item.name]
        if item.default not in ("", None, ()):
            shown = item.default if isinstance(item.default, bool | int | float | str) else str(item.default)
            told["default"] = int(shown) if isinstance(shown, float) and shown.is_integer() else shown
        if item.metadata["env"]:
            told["description"] += f" From the environment: {item.metadata['env'][0]}."
    return found


def _rule() -> dict[str, Any]:
    found = table({item.name: item.metadata["parse"] for item in fields(Rule)}, about=documented(Rule))
    for item in fields(Rule):
        if isinstance(item.default, bool):
            found["properties"][item.name]["default"] = item.default
    exempts, passes = ({"properties": {"exempt": {"const": value}}} for value in (True, False))
    found["allOf"] = [
        {"anyOf": [{"required": ["match"]}, {"required": ["endpoint"]}]},
        {
            "anyOf": [
                {"required": ["action_type"], "allOf": [passes, without(["block"])]},
                {"required": ["exempt"], "allOf": [exempts, without(["block", *GOVERNING])]},
                {"required": ["block"], "allOf": [passes, without(GOVERNING)]},
            ]
        },
    ]
    return found
