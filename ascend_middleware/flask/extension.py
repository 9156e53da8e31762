"""The extension: settings from keyword arguments and `app.config["ASCEND"]`, one guard for each application.

It adds the command group `flask ascend`: routes, explain and check for the application that Flask has loaded.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import sys
from typing import TYPE_CHECKING, Any, Final, TypeVar, Unpack

import click
from flask import current_app, request
from flask.cli import AppGroup, ScriptInfo

from ..adapters.decorator import VERDICT, Framework, attach
from ..adapters.runner import SyncRunner
from ..compose import only_looked_at, read_options
from ..exceptions import AscendError, ConfigurationError
from ..inspection.about import Application, Sketch, main_about, plain_view
from ..routing.coverage import cover
from ..routing.werkzeug import FlaskResolver, method_of
from ..rules import RuleFields
from ..wsgi.middleware import view_of
from .install import AppGuard, check_application

if TYPE_CHECKING:
    from collections.abc import Callable

    from flask import Flask

    from ..guard import RequestView

Target = TypeVar("Target", bound="Callable[..., Any]")

CONFIG = "ASCEND"
EXTENSION = "ascend"
_HELP = {
    "routes": "List what is governed, what is not, and what can never match.",
    "explain": "Explain what governs one request, and what would be sent.",
}


class Ascend:
    """Ask the authority before a view runs; the verdict is at `flask.g.ascend`.

    `app.config["ASCEND"]` may hold a mapping of everything below, or of the shape of an `ascend.toml`; keyword
    arguments win over it.

    Args:
        app: the application, or None to call `init_app` later. One extension may guard several applications.
        rules: the path of an `ascend.toml`, a mapping of the same shape, or `Rule` objects.
        identify: called with the request; returns `Agent` or `NotAnAgent`.
        render: called with status, headers and body of a refusal; returns the three to answer instead.
        http_client: your own `httpx2.Client` or `httpx.Client` to ask the authority with; you close it.
        after: a `before_request` function after which to decide, or its dotted path, so that `identify` finds what it
            sets; by default the decision comes before all of them.
        settings: any field of `ascend_middleware.config.Settings`.

    Raises:
        ConfigurationError: with everything that is wrong.
    """

    def __init__(
        self,
        app: Flask | None = None,
        *,
        rules: Any = None,
        identify: Callable[[Any], Any] | None = None,
        render: Callable[..., Any] | None = None,
        http_client: object = None,
        after: Callable[[], Any] | str | None = None,
        **settings: Any,
    ) -> None:
        self._arguments = {
            "rules": rules,
            "identify": identify,
            "render": render,
            "http_client": http_client,
            **settings,
        }
        self._after = after
        if app is not None:
            self.init_app(app)

    def health(self, app: Flask | None = None) -> dict[str, Any]:
        """Return how an application's guard is in this process; asks nobody. docs/operating.md says what it means.

        Args:
            app: the guarded application; where it is left out, Flask's current one.
        """
        guard: AppGuard = (app or current_app).extensions[EXTENSION]
        return guard.runner.health()

    def init_app(self, app: Flask) -> None:
        """Guard an application.

        Args:
            app: the application.

        Raises:
            ConfigurationError: with everything that is wrong, or the application has a guard already.
        """
        if EXTENSION in app.extensions:
            raise ConfigurationError(f"the application {app.name!r} is guarded already; one Ascend belongs to it")
        config = app.config.get(CONFIG)
        after = self._after
        if isinstance(config, dict) and "after" in config:
            config = dict(config)
            named = config.pop("after")
            after = after or named
        rules, settings, hooks = read_options(config, f'app.config["{CONFIG}"]', self._arguments)
        command = _command()
        try:
            with only_looked_at() if command and command != "run" else contextlib.nullcontext():
                runner = SyncRunner(rules, settings, **hooks)
        except AscendError as error:
            if command:  # Flask prints this one, and a traceback of every other
                raise click.ClickException(str(error)) from error
            raise
        app.extensions[EXTENSION] = AppGuard(app, runner, after=after)
        app.cli.add_command(_make_group(EXTENSION))


def _command() -> str:
    """Return the command for which Flask makes the application, `run` for its server; empty where it is none."""
    context = click.get_current_context(silent=True)
    if context is None or context.find_object(ScriptInfo) is None:
        return ""
    nested = context.parent is None or context.parent.parent is not None
    return "command" if nested else context.info_name or "command"


def _make_group(name: str) -> AppGroup:
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
        if installed.runner.lacking is not None:
            click.echo(f"note: it cannot serve: {installed.runner.lacking}", err=True)
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
        about = application_of(app)
        sys.exit(main_about(about, [name, *arguments], name=app.name, prog=f"flask {group.name}"))


def application_of(app: Flask) -> Application:
    """Return an application as command lines see it."""
    resolver, ours = FlaskResolver(app), app.extensions.get(EXTENSION)
    installed = (lambda: (ours.guard.table, ours.guard.settings)) if isinstance(ours, AppGuard) else None
    view = functools.partial(_view, app, resolver)
    return Application(framework="Flask", app=app, routes=resolver, view=view, installed=installed)


def _view(app: Flask, resolver: FlaskResolver, sketch: Sketch) -> RequestView:
    raw, _, query = sketch.target.partition("?")
    plain = plain_view(sketch)
    host = next((value for name, value in plain.headers if name == "host"), "localhost")
    options: dict[str, Any] = {"query_string": query, "headers": list(sketch.headers), "data": sketch.body}
    with app.test_request_context(plain.path, base_url=f"http://{host}", method=sketch.method, **options) as context:
        view = view_of(context.request.environ, request=context.request)
        resolved = resolver.resolve(context.request, view.path)
    return dataclasses.replace(view, method=method_of(context.request, resolved), raw_path=raw, resolved=resolved)


def governed(**fields: Unpack[RuleFields]) -> Callable[[Target], Target]:
    """Return a decorator that puts a rule at a view: a function, a method of a `MethodView`, or a class of views.

        @app.post("/refunds")
        @governed(action_type="transaction", details={"amount": "body.amount"})
        def refund(): ...

    It stands below `route`, and ranks like a rule of the table that names the route's endpoint. Without the extension
    on the application the view does not run.

    Args:
        fields: what a `[[rule]]` may say, but `match` and `endpoint`.

    Raises:
        ConfigurationError: at decoration, with everything that is wrong, naming module and function.
    """
    return lambda target: attach(target, fields, _FRAMEWORK)


_FRAMEWORK: Final = Framework(
    lambda args, kwargs: request.environ.get(VERDICT), "dispatch_request", "a View or MethodView class"
)
