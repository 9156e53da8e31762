"""The JSON Schemas of the files that people write, as the package holds them; editors of TOML read them."""

from __future__ import annotations

import contextlib
from argparse import Namespace
from importlib import resources
from pathlib import Path

from ..inspection import Result

__all__ = ["print_schema", "schema_text", "write_beside"]


def print_schema(args: Namespace) -> Result:
    """Print a schema."""
    return Result(lines=schema_text(args.name).splitlines())


def schema_text(name: str) -> str:
    """Return the schema of `ascend.toml` or `policy.toml`, as JSON."""
    file = resources.files(__package__.rpartition(".")[0]) / "schemas" / f"{name}.schema.json"
    return file.read_text(encoding="utf-8")


def write_beside(name: str, path: Path) -> None:
    """Write a schema beside a file whose `#:schema` line names it there; one that is there already stays."""
    with (
        contextlib.suppress(FileExistsError),
        (path.parent / f"{name}.schema.json").open("x", encoding="utf-8") as file,
    ):
        file.write(schema_text(name))
