"""`manage.py ascend`: routes, explain and check for the project that Django has loaded."""

from __future__ import annotations

import argparse
import functools
import io
import sys
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_to_bytes

from django.core.checks import run_checks
from django.core.handlers.base import BaseHandler
from django.core.handlers.wsgi import WSGIRequest
from django.core.management.base import BaseCommand
from django.urls import Resolver404, resolve

from ascend_middleware.compose import build_table, read_options
from ascend_middleware.django.configuration import NAME, configured, is_guarded
from ascend_middleware.django.request import view_of
from ascend_middleware.exceptions import ConfigurationError
from ascend_middleware.inspection.about import Application, Sketch, main_about, plain_view
from ascend_middleware.routing import Kind, Resolved
from ascend_middleware.routing.coverage import cover
from ascend_middleware.routing.django import DjangoResolver

if TYPE_CHECKING:
    from ascend_middleware.config import Settings
    from ascend_middleware.guard import RequestView
    from ascend_middleware.rules import RuleTable

_COMMANDS = ("routes", "explain", "check")


def application_of(handler: BaseHandler) -> Application:
    """Return a project as command lines see it; `handler.urlconf` may name its routes."""
    resolver = DjangoResolver(getattr(handler, "urlconf", None))
    view = functools.partial(_view, handler, resolver)
    installed = _governed if is_guarded() else None
    return Application(framework="Django", app=handler, routes=resolver, view=view, installed=installed)


def _governed() -> tuple[RuleTable, Settings]:
    rules, given, _ = read_options(configured(), NAME)
    return build_table(rules, given)


def _view(handler: BaseHandler, resolver: DjangoResolver, sketch: Sketch) -> RequestView:
    raw, _, query = sketch.target.partition("?")
    environ = {
        "REQUEST_METHOD": sketch.method,
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote_to_bytes(raw).decode("latin-1"),
        "RAW_URI": sketch.target,
        "QUERY_STRING": query,
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "80",
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(sketch.body),
        "CONTENT_LENGTH": str(len(sketch.body)) if sketch.body else "",
    }
    for name, value in plain_view(sketch).headers:
        key = name.upper().replace("-", "_")
        environ[key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{key}"] = value
    request = WSGIRequest(environ)
    urlconf = getattr(handler, "urlconf", None)
    if urlconf is not None:
        request.urlconf = urlconf
    try:
        match = request.resolver_match = resolve(request.path_info, urlconf)
    except Resolver404:
        return view_of(request, Resolved(None, Kind.NOT_FOUND, {}, request.path_info))
    return view_of(request, resolver.resolve(request, match.func, match.args, match.kwargs))


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
        sys.exit(main_about(application_of(_Project(urlconf)), argv, name="the project", prog="manage.py ascend"))

    def _check(self, urlconf: str | None) -> int:
        messages = [one for one in run_checks(tags=["ascend"]) if not one.is_silenced()]
        for message in messages:
            self.stderr.write(str(message))
        try:
            table, settings = _governed()
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
