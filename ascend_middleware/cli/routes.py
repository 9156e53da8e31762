"""The `routes` command: list every live route and method of an application with what governs it."""

from __future__ import annotations

import inspect
import shutil
import sys
from typing import TYPE_CHECKING, Any

from ..exceptions import ConfigurationError
from .applications import add_application, load_application
from .terminal import FAILED, OK, plain, print_json

if TYPE_CHECKING:
    import argparse

__all__ = ["add_parser", "run"]


def add_parser(
    subparsers: argparse._SubParsersAction[argparse.ArgumentParser], *, about: tuple[str, Any] | None = None
) -> None:
    """Add the command to the command line."""
    parser = subparsers.add_parser(
        "routes",
        help="list what is governed in an application",
        description="List every live route and method with its rule, what is not covered, and what can never match.",
        epilog="Exit codes: 0 listed, 1 something is not covered or contradictory (--fail-unmapped), 2 wrong usage.",
    )
    add_application(parser, about)
    parser.add_argument("--fail-unmapped", action="store_true", help="exit with 1 if a route is not covered; for CI")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--suggest", action="store_true", help="print rules to start from for what is not covered")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """List the routes of the application that the arguments name; return the exit code."""
    from ..routing.coverage import cover
    from ..routing.listing import as_json, as_text
    from ..routing.suggestion import suggest

    application = load_application(args)
    if application.routes is None and ":" in args.app and _may_be_a_factory(application.app):
        raise ConfigurationError(f'{args.app} is a function; if it makes the application, write "{args.app}()"')
    if application.routes is None:
        raise ConfigurationError(
            f"{args.app} is no application of a framework whose routes can be listed: its rules go by the path alone; "
            f'see what becomes of a path with: ascend-middleware explain {args.app} "GET /…"'
        )
    settings = application.settings
    governed = application.guarded or args.rules is not None
    coverage = cover(application.routes, application.table, unmapped=settings.unmapped if governed else "refuse")
    if args.suggest:
        agent_id = None if application.table.rules else settings.agent_id or args.app.partition(":")[0].split(".")[0]
        sys.stdout.write(suggest(coverage.unmapped, agent_id=agent_id, standing=coverage.rows))
        return OK
    if args.json:
        head = {"application": args.app, "framework": application.framework, "guarded": application.guarded}
        print_json({**head, "unmapped": settings.unmapped, "mode": settings.mode, **as_json(coverage)})
    else:
        width = shutil.get_terminal_size((100, 24)).columns
        text = as_text(coverage, width=max(80, width), unmapped=settings.unmapped if governed else "refuse")
        sys.stdout.write("\n".join(plain(line) for line in text.split("\n")))
    if application.outside:
        print(
            f"{args.app} has its guard around it: paths decide, and rules that name an endpoint or stand at a handler "
            "take no part",
            file=sys.stderr,
        )
    if not application.guarded:
        print(
            f"{args.app} has no guard: nothing is governed until the middleware is added to it."
            + (" This is what the table would do." if args.rules is not None else ""),
            file=sys.stderr,
        )
    wanting = coverage.forgotten or coverage.problems or not application.guarded
    return FAILED if args.fail_unmapped and wanting else OK


def _may_be_a_factory(app: object) -> bool:
    """Say whether an object makes an application rather than being one, which takes two arguments (WSGI) or three."""
    if not inspect.isfunction(app):
        return False
    parameters = inspect.signature(app).parameters.values()
    return sum(one.default is one.empty and one.kind is not one.VAR_KEYWORD for one in parameters) < 2
