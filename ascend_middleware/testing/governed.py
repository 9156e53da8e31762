"""`assert_governed`: that every route of an application is covered by a rule, and that nothing became looser."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import Any

from ..cli.applications import covered, recognise
from ..routing.coverage import shown
from ..routing.lock import Direction, compare, load, lock_of

__all__ = ["assert_governed"]


def assert_governed(app: Any, *, lock: str | PathLike[str] | None = None) -> None:
    """Assert that a guard is installed in an application, and that a rule covers every route and method of it.

    Args:
        app: of FastAPI, Starlette, Flask or Django (what `get_wsgi_application` or `get_asgi_application` returns).
        lock: the file that `ascend-middleware lock` wrote: then nothing may be looser than it says, either.

    Raises:
        AssertionError: names each route that is not covered, and each change that lets more pass.
        ConfigurationError: the routes cannot be listed, the rules are wrong, or the lock file cannot be read.
    """
    name = f"this {type(app).__name__}"
    application = recognise(app)
    coverage, settings = covered(application, name)
    if application.installed is None:
        raise AssertionError(f"{name} has no guard: nothing is governed until the middleware is added to it")
    wrong = [f"no rule covers {shown(row)}" for row in coverage.forgotten]
    wrong += [str(problem) for problem in coverage.problems]
    if lock is not None:
        changes = compare(load(Path(lock).read_text(encoding="utf-8"), str(lock)), lock_of(coverage, settings))
        wrong += [f"looser than {lock}: {one}" for one in changes if one.direction is Direction.LOOSER]
    if wrong:
        raise AssertionError("\n".join(wrong))
