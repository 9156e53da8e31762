"""JSON Schemas of what the user writes: each parser says in one which values of a file it takes.

A schema may take more than its parser, never less, so that no editor marks what works. Editors of TOML know draft 7.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, TypeAlias, TypeVar

Schema: TypeAlias = "Mapping[str, Any]"
_Parse = TypeVar("_Parse", bound=Callable[[object], Any])
_KEY: Final = "json_schema"

TEXT: Final[Schema] = {"type": "string", "pattern": r"\S"}


def takes(schema: Schema) -> Callable[[_Parse], _Parse]:
    """Return what marks a parser with the schema of the values that it takes."""

    def mark(parse: _Parse) -> _Parse:
        vars(parse)[_KEY] = schema
        return parse

    return mark


def schema_of(parse: Callable[[object], Any]) -> Schema:
    """Return the schema of a parser; one that has none is a defect."""
    schema: Schema = vars(parse)[_KEY]
    return schema


def either(*schemas: Schema) -> Schema:
    """Return the schema of what one of several takes."""
    return {"anyOf": list(schemas)}


def table(
    fields: Mapping[str, Callable[[object], Any]],
    required: Iterable[str] = (),
    *,
    about: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Return the schema of a table by the parsers of its keys; `about` tells of a key what it means."""
    told = about or {}
    properties = {
        name: {"description": told[name], **schema_of(parse)} if name in told else dict(schema_of(parse))
        for name, parse in fields.items()
    }
    found: dict[str, Any] = {"type": "object", "additionalProperties": False, "properties": properties}
    if names := list(required):
        found["required"] = names
    return found


def without(names: Iterable[str]) -> Schema:
    """Return the schema of a table that has none of the keys."""
    return {"not": {"anyOf": [{"required": [name]} for name in names]}}


def documented(cls: type) -> dict[str, str]:
    """Return what the docstring of a class says of its arguments."""
    _, _, listed = (inspect.getdoc(cls) or "").partition("Args:\n")
    return {
        name: " ".join(text.replace("`", "").split())
        for name, text in re.findall(r"^    (\w+): (.*(?:\n {5,}.*)*)", listed, re.MULTILINE)
    }
