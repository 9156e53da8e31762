"""`manage.py ascend`: routes, explain and check for the project that Django has loaded."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from django.core.checks import run_checks
from django.core.handlers.base import BaseHandler
from django.core.management.base import BaseCommand

from ascend_middleware.cli import main_about
from ascend_middleware.compose import build_table, read_options
from ascend_middleware.django.configuration import NAME, configured
from ascend_middleware.exceptions import ConfigurationError
from ascend_middleware.routing.coverage import cover
from ascend_middleware.routing.django import DjangoResolver

_COMMANDS = ("routes", "explain", "check")


class _Project(BaseHandler):
    """The project as the listing knows it: no middleware is built, so that what is wrong can still be looked at."""

    def __init__(self, urlconf: str | None) -> None:
        self.urlconf = urlconf


class Command(BaseCommand):
    """Show what is governed in this project, and what is not."""

    help = "Show what is governed in this project: routes [--json …], explain 'METHOD /path', check. Each has --help."
    requires_system_checks = ()

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Take everything after the command's name as it stands; the package's own command line reads it."""
        parser.add_argument("--urlconf", help="routes that request.urlconf may name, instead of the project's own")
        parser.add_argument("command", choices=_COMMANDS)
        parser.add_argument("arguments", nargs=argparse.REMAINDER)

    def handle(self, *args: Any, **options: Any) -> None:
        """Run a command, and exit with its code."""
        urlconf = options["urlconf"]
        if options["command"] == "check":
            sys.exit(self._check(urlconf))
        # Django has read these, wherever they stand.
        own = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
        for name in ("--settings", "--pythonpath"):
            own.add_argument(name)
        argv = [options["command"], *own.parse_known_args(options["arguments"])[1]]
        sys.exit(main_about(_Project(urlconf), argv, name="the project", prog="manage.py ascend"))

    def _check(self, urlconf: str | None) -> int:
        messages = [one for one in run_checks(tags=["ascend"]) if not one.is_silenced()]
        for message in messages:
            self.stderr.write(str(message))
        try:
            rules, given, _ = read_options(configured(), NAME)
            table, settings = build_table(rules, given)
        except ConfigurationError:
            return 1  # said already
        coverage = cover(DjangoResolver(urlconf), table, unmapped=settings.unmapped)
        for problem in coverage.problems:
            self.stderr.write(f"{problem.code}: {problem}")
        for idle in coverage.idle:
            self.stderr.write(f"note: {idle.rule.label} can never match: {idle.why}")
        if coverage.problems or any(message.is_serious() for message in messages):
            return 1
        self.stdout.write(f"ok: {len(table.rules)} rules, {len(coverage.rows)} rows of routes")
        return 0
