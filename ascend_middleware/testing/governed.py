"""`assert_governed`: that every route of an application is covered by a rule, and that nothing became looser."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import Any

from ..cli.applications import lock_of_application, recognise
from ..routing.coverage import cover, shown
from ..routing.lock import Direction, compare, load

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
    now = lock_of_application(application, name)
    ungoverned = f"{name} has no guard: nothing is governed until the middleware is added to it"
    if application.installed is None:
        raise AssertionError(ungoverned)
    assert application.routes is not None  # noqa: S101 - said by lock_of_application
    table, settings = application.governed(None)
    coverage = cover(application.routes, table, unmapped=settings.unmapped)
    wrong = [f"no rule covers {shown(row)}" for row in coverage.forgotten]
    wrong += [str(problem) for problem in coverage.problems]
    if lock is not None:
        changes = compare(load(Path(lock).read_text(encoding="utf-8"), str(lock)), now)
        wrong += [f"looser than {lock}: {f'{one.route} {one.text}'.strip()}" for one in changes
                  if one.direction is Direction.LOOSER]  # fmt: skip
    if wrong:
        raise AssertionError("\n".join(wrong))
