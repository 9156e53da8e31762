"""An application by `module:name`: of which framework, with which guard; its lock file; and a rule table checked."""

from __future__ import annotations

import functools
import importlib
import os
import sys
import traceback
from argparse import Namespace
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from ..compose import build_table, only_looked_at
from ..exceptions import AscendError, ConfigurationError
from ..guard import Guard, RequestView
from ..inspection import FAILED, OK, Result
from ..inspection.about import Application, Installed, Sketch, plain_view
from ..problems import Problem
from ..routing import Leaf
from ..routing.coverage import Coverage, Routes, cover
from ..routing.lock import Change, Direction, compare, dump, load, lock_of
from ..rules import WEBSOCKET, RuleTable

__all__ = ["check", "covered", "diff", "import_application", "load_application", "lock", "recognise"]

_USUAL: Final = ("app", "application")
# Where middlewares keep what they stand around.
INNER: Final = ("app", "wsgi_app", "application", "_app")
_MAX_DEPTH: Final = 32
_SETTINGS: Final = ("enabled", "mode", "unmapped", "strict", "kill_switch")
_HEADINGS: Final = {Direction.LOOSER: "Looser:", Direction.TIGHTER: "Tighter:", Direction.OTHER: "Also changed:"}
_EMPTY: Final = (
    'begin one with [[rule]], or set unmapped = "by-method"; rules at handlers are checked by the command routes'
)


def check(args: Namespace) -> Result:
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


def load_application(args: Namespace) -> Application:
    """Return the application that the arguments name.

    Raises:
        ConfigurationError: it cannot be imported.
    """
    with only_looked_at():
        return recognise(import_application(args.app, args.app_dir))


def recognise(found: Any) -> Application:
    """Return an application, and the guard that is installed in it or stands around it."""
    named = found
    around: Installed | None = None
    for _ in range(_MAX_DEPTH):
        known = _starlette(found) or _flask(found) or _django(found)
        if known is not None:
            if known.installed is not None or around is None:
                return replace(known, installed=around or known.installed)
            if known.framework not in ("Flask", "Django"):
                return replace(known, installed=around)
            # Its guard knows the routes by their paths only.
            routes = None if known.routes is None else _PathOnly(known.routes)
            return replace(known, installed=around, routes=routes, view=plain_view, outside=True)
        around = around or _guard_of(found)
        inner = next((inner for name in INNER if (inner := getattr(found, name, None)) is not None), None)
        if inner is None:
            break
        found = inner
    return Application(framework="ASGI or WSGI", app=named, installed=around)


class _PathOnly:
    """The routes of an application as a guard around it knows them: by their paths."""

    def __init__(self, routes: Routes) -> None:
        self._routes = routes

    def leaves(self) -> list[Leaf]:
        """See `Routes`."""
        return [replace(leaf, endpoint=None, declared=()) for leaf in self._routes.leaves()]


def import_application(name: str, directory: str) -> Any:
    """Return what `module:name` names, or what `module:name()` makes, below a directory.

    Raises:
        ConfigurationError: it cannot be imported.
    """
    module_name, _, attribute = name.partition(":")
    calls = attribute.endswith("()")
    attribute = attribute.removesuffix("()")
    sys.path.insert(0, os.path.abspath(directory))
    try:
        module = importlib.import_module(module_name)
        names = [attribute] if attribute else [one for one in _USUAL if hasattr(module, one)]
        if not names:
            raise ConfigurationError(f'{module_name} has no app; name it: "{module_name}:…"')
        found: Any = module
        for part in names[0].split("."):
            found = getattr(found, part)
        return found() if calls else found
    except AscendError:
        raise
    except ModuleNotFoundError as error:
        if error.name and f"{module_name}.".startswith(f"{error.name}."):
            where = f"it is not below {os.path.abspath(directory)}; --app-dir names another folder"
            raise ConfigurationError(f"{name} cannot be imported: {error} ({where})") from error
        raise ConfigurationError(f"{name} cannot be imported: {error}{_place(error)}") from error
    except Exception as error:
        raise ConfigurationError(f"{name} cannot be loaded: {type(error).__name__}: {error}{_place(error)}") from error


def _place(error: BaseException) -> str:
    """Return where an error arose, unless that was in the machinery of importing."""
    frames = [one for one in traceback.extract_tb(error.__traceback__) if "importlib" not in one.filename]
    return f" ({frames[-1].filename}, line {frames[-1].lineno})" if len(frames) > 1 else ""


def _guard_of(found: Any) -> Installed | None:
    """Return the rules of a guard that stands around an application, in ASGI or WSGI."""
    guard = getattr(found, "guard", None)
    if not isinstance(guard, Guard):
        return None
    return lambda: (guard.table, guard.settings)


def _starlette(found: Any) -> Application | None:
    if "starlette.applications" not in sys.modules:
        return None
    from starlette.applications import Starlette
    from starlette.routing import Router

    from ..asgi.middleware import find_added
    from ..routing.starlette import StarletteResolver

    if not isinstance(found, Starlette | Router):
        return None
    fastapi = getattr(sys.modules.get("fastapi"), "FastAPI", None)
    framework = "FastAPI" if fastapi is not None and isinstance(found, fastapi) else "Starlette"
    added = next(find_added(found), None)
    installed: Installed | None = None if added is None else functools.partial(build_table, *added[:2])
    resolver = StarletteResolver(found)
    view = functools.partial(_view, found, resolver)
    return Application(framework=framework, app=found, routes=resolver, view=view, installed=installed)


def _view(app: Any, resolver: Any, sketch: Sketch) -> RequestView:
    from ..asgi.messages import RootPath, ScopeView
    from ..routing.starlette_classes import root_path_of

    plain = plain_view(sketch)
    websocket = plain.method is WEBSOCKET
    scope: dict[str, Any] = {
        "type": "websocket" if websocket else "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "scheme": "ws" if websocket else "http",
        "path": plain.path,
        "raw_path": (plain.raw_path or "").encode("latin-1", "replace"),
        "query_string": plain.query,
        "root_path": root_path_of(app),
        "headers": [(name.encode("latin-1"), value.encode("latin-1", "replace")) for name, value in plain.headers],
        "app": app,
    }
    if not websocket:
        scope["method"] = plain.method
    return ScopeView(scope, resolver.resolve(scope), RootPath(app, None))


def _flask(found: Any) -> Application | None:
    flask = sys.modules.get("flask")
    if flask is None or not isinstance(found, flask.Flask):
        return None
    from ..flask.extension import application_of

    return application_of(found)


def _django(found: Any) -> Application | None:
    base = sys.modules.get("django.core.handlers.base")
    if base is None or not isinstance(found, base.BaseHandler):
        return None
    from ..django.management.commands.ascend import application_of

    return application_of(found)


# --- the lock file


def covered(application: Application, name: str, rules: str | None = None) -> tuple[Coverage, dict[str, Any]]:
    """Return what covers an application's routes, and its settings that concern all of them.

    Raises:
        ConfigurationError: its routes cannot be listed.
    """
    if application.routes is None:
        raise ConfigurationError(f"{name} is no application of a framework whose routes can be listed")
    table, settings = application.governed(rules)
    guarded = application.installed is not None
    coverage = cover(application.routes, table, unmapped=settings.unmapped)
    return coverage, {"guarded": guarded} | {name: getattr(settings, name) for name in _SETTINGS}


def lock(args: Namespace) -> Result:
    """Write the lock file of an application."""
    found = lock_of(*covered(load_application(args), args.app, args.rules))
    Path(args.lock).write_text(dump(found), encoding="utf-8")
    count = len(found.routes)
    return Result(
        data={"lock": args.lock, "routes": count},
        lines=[f"{args.lock}: {count} {'route' if count == 1 else 'routes'} with their methods"],
    )


def diff(args: Namespace) -> Result:
    """Tell what has changed since the lock file was written."""
    path = Path(args.lock)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigurationError(f"there is no {path}; write it with: ascend-middleware lock {args.app}") from None
    now = lock_of(*covered(load_application(args), args.app, args.rules))
    changes = compare(load(text, str(path)), now)
    looser = [one for one in changes if one.direction is Direction.LOOSER]
    if args.accept and changes:
        path.write_text(dump(now), encoding="utf-8")
    return Result(
        data={
            "ok": not looser or args.accept,
            "lock": args.lock,
            "changes": [{"direction": str(one.direction), "route": one.route, "text": one.text} for one in changes],
        },
        lines=_annotations(changes, text, args.lock) if args.github else _lines(changes),
        code=FAILED if looser and not args.accept else OK,
    )


def _lines(changes: list[Change]) -> list[str]:
    lines: list[str] = []
    for direction, heading in _HEADINGS.items():
        found = [one for one in changes if one.direction is direction]
        if found:
            lines += ["", heading, *(f"  {one}" for one in found)]
    return lines[1:] or ["nothing has changed"]


def _annotations(changes: list[Change], text: str, name: str) -> list[str]:
    """Return what GitHub shows beside the lines of a change."""
    lines = text.splitlines()
    found = []
    for one in changes:
        start = f'"{one.route}" = ' if one.route else f"{one.text.partition(' ')[0]} = "
        line = next((number for number, each in enumerate(lines, 1) if each.startswith(start)), 1)
        kind = "error" if one.direction is Direction.LOOSER else "notice"
        told = str(one).replace("%", "%25")
        found.append(f"::{kind} file={name},line={line},title={one.direction}::{told}")
    return found
