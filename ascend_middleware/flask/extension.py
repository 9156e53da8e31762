"""The extension: settings from keyword arguments and `app.config["ASCEND"]`, one guard for each application."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import click
from flask import current_app
from flask.cli import ScriptInfo

from ..adapters.runner import SyncRunner
from ..compose import only_looked_at, read_options
from ..exceptions import AscendError, ConfigurationError
from .commands import make_group
from .install import AppGuard

if TYPE_CHECKING:
    from collections.abc import Callable

    from flask import Flask

__all__ = ["CONFIG", "EXTENSION", "Ascend"]

CONFIG = "ASCEND"
EXTENSION = "ascend"


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
        return guard.health()

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
        app.cli.add_command(make_group(EXTENSION))


def _command() -> str:
    """Return the command for which Flask makes the application, `run` for its server; empty where it is none."""
    context = click.get_current_context(silent=True)
    if context is None or context.find_object(ScriptInfo) is None:
        return ""
    nested = context.parent is None or context.parent.parent is not None
    return "command" if nested else context.info_name or "command"
