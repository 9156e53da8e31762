"""The commands `check` and `routes`: what is wrong with a rule table, and what it governs in an application."""

from __future__ import annotations

import inspect
import shutil
from typing import TYPE_CHECKING, Final

from ..exceptions import ConfigurationError
from ..problems import Problem
from ..routing.coverage import cover
from ..routing.listing import as_json, as_text
from ..routing.suggestion import suggest
from ..rules import RuleTable
from .applications import load_application
from .terminal import FAILED, OK, Result

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from .applications import Application

__all__ = ["check", "routes"]

_EMPTY: Final = (
    'begin one with [[rule]], or set unmapped = "by-method"; rules at handlers are checked by the command routes'
)


def check(args: argparse.Namespace) -> Result:
    """Say everything that is wrong with a rule table."""
    problems: tuple[Problem, ...] = ()
    rules: int | None = None
    try:
        table = RuleTable.from_toml(args.table)
        rules = len(table.rules)
        if not rules and table.settings.get("unmapped") != "by-method":
            problems = (Problem("rules.empty", args.table, "it has no rule, so that every request is refused", _EMPTY),)
    except ConfigurationError as error:
        if any(problem.code == "rules.unreadable" for problem in error.problems):
            raise  # there is no table to check, which is wrong usage
        problems = error.problems or (Problem("rules.unreadable", "", error.message),)
    rows = [{"code": p.code, "where": p.where, "message": p.message, "hint": p.hint} for p in problems]
    return Result(
        data={"ok": not problems, "table": str(args.table), "rules": rules, "problems": rows},
        lines=[str(one) for one in problems] or [f"ok: {rules} {'rule' if rules == 1 else 'rules'}"],
        code=FAILED if problems else OK,
    )


def routes(args: argparse.Namespace) -> Result:
    """List every live route and method of an application with what governs it."""
    application = load_application(args)
    if application.routes is None:
        if ":" in args.app and _may_be_a_factory(application.app):
            raise ConfigurationError(f'{args.app} is a function; if it makes the application, write "{args.app}()"')
        raise ConfigurationError(
            f"{args.app} is no application of a framework whose routes can be listed: its rules go by the path alone; "
            f'see what becomes of a path with: ascend-middleware explain {args.app} "GET /…"'
        )
    settings = application.settings
    unmapped = settings.unmapped if application.guarded or args.rules is not None else "refuse"
    coverage = cover(application.routes, application.table, unmapped=unmapped)
    if args.suggest:
        agent_id = None if application.table.rules else settings.agent_id or args.app.partition(":")[0].split(".")[0]
        text = suggest(coverage.unmapped, agent_id=agent_id, standing=coverage.rows)
        return Result(lines=text.splitlines())
    wanting = coverage.forgotten or coverage.problems or not application.guarded
    head = {"application": args.app, "framework": application.framework, "guarded": application.guarded}
    width = max(80, shutil.get_terminal_size((100, 24)).columns)
    return Result(
        data={**head, "unmapped": settings.unmapped, "mode": settings.mode, **as_json(coverage)},
        lines=as_text(coverage, width=width, unmapped=unmapped).removesuffix("\n").split("\n"),
        notes=_notes(args, application),
        code=FAILED if args.fail_unmapped and wanting else OK,
    )


def _notes(args: argparse.Namespace, application: Application) -> Iterator[str]:
    if application.outside:
        yield (
            f"{args.app} has its guard around it: paths decide, and rules that name an endpoint or stand at a handler "
            "take no part"
        )
    if not application.guarded:
        also = " This is what the table would do." if args.rules is not None else ""
        yield f"{args.app} has no guard: nothing is governed until the middleware is added to it.{also}"


def _may_be_a_factory(app: object) -> bool:
    """Say whether an object makes an application rather than being one, which takes two arguments (WSGI) or three."""
    if not inspect.isfunction(app):
        return False
    parameters = inspect.signature(app).parameters.values()
    return sum(one.default is one.empty and one.kind is not one.VAR_KEYWORD for one in parameters) < 2
