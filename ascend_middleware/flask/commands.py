"""The command group `flask ascend`: routes, explain and check for the application that Flask has loaded."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click
from flask import current_app
from flask.cli import AppGroup

from ..cli import main_about
from ..routing.coverage import cover
from .checks import check_application

if TYPE_CHECKING:
    from .install import AppGuard

__all__ = ["make_group"]

_HELP = {
    "routes": "List what is governed, what is not, and what can never match.",
    "explain": "Explain what governs one request, and what would be sent.",
}


def make_group(name: str) -> AppGroup:
    """Return the command group for an application's `cli`."""
    group = AppGroup(name, help="What is governed in this application, and what is not.")
    for command, text in _HELP.items():
        _add(group, command, text)

    @group.command("check", help="Check rules against routes, and what stands around the application.")
    def check() -> None:
        installed: AppGuard = current_app.extensions["ascend"]
        settings = installed.guard.settings
        coverage = cover(installed.resolver, installed.guard.table, unmapped=settings.unmapped)
        wrong = [*coverage.problems, *check_application(installed.app, installed.is_reached_by)]
        for problem in wrong:
            click.echo(f"{problem.code}: {problem}", err=True)
        for idle in coverage.idle:
            click.echo(f"note: {idle.rule.label} can never match: {idle.why}", err=True)
        if installed.lacking is not None:
            click.echo(f"note: it cannot serve: {installed.lacking}", err=True)
        if wrong:
            sys.exit(1)
        click.echo(f"ok: {len(installed.guard.table.rules)} rules, {len(coverage.rows)} rows of routes")

    return group


def _add(group: AppGroup, name: str, text: str) -> None:
    # The arguments are those of the package's own command line, which reads them.
    settings: dict[str, Any] = {"ignore_unknown_options": True}

    @group.command(name, help=text, context_settings=settings, add_help_option=False)
    @click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
    def run(arguments: tuple[str, ...]) -> None:
        app = current_app._get_current_object()  # type: ignore[attr-defined]
        sys.exit(main_about(app, [name, *arguments], name=app.name, prog=f"flask {group.name}"))
