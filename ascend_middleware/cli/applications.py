"""Find an application by `module:name`, which framework it is of, and the guard that is installed in it."""

from __future__ import annotations

import functools
import importlib
import os
import sys
import traceback
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from ..compose import build_table, only_looked_at, read_options
from ..exceptions import AscendError, ConfigurationError
from ..guard import Guard

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from ..config import Settings
    from ..routing import Leaf
    from ..routing.coverage import Routes
    from ..rules import RuleTable

__all__ = ["Application", "load_application"]

_USUAL: Final = ("app", "application")
# Where middlewares keep what they stand around.
_INNER: Final = ("app", "wsgi_app", "application", "_app")
_MAX_DEPTH: Final = 32
_DJANGO_GUARD: Final = "ascend_middleware.django.middleware.AscendMiddleware"
# What a middleware is given beside rules and settings.
_HOOKS: Final = ("identify", "render", "http_client", "strips_root_path")


@dataclass(frozen=True, slots=True, kw_only=True)
class Application:
    """An application as its command lines see it.

    Attributes:
        framework: `FastAPI`, `Starlette`, `Flask`, `Django`, or `ASGI or WSGI` for what no resolver knows.
        app: the framework's own object.
        routes: its resolver, or None where no router can be asked.
        guarded: whether a guard is installed.
        outside: whether it stands around an application whose router it cannot ask: paths decide there.
        table: the rules that hold, with the settings' defaults.
        settings: the guard's, neither key nor URL checked.
    """

    framework: str
    app: Any
    routes: Routes | None
    guarded: bool
    outside: bool
    table: RuleTable
    settings: Settings


def load_application(args: argparse.Namespace) -> Application:
    """Return the application that the arguments name, or hold as `found`.

    Raises:
        ConfigurationError: it cannot be imported, or its rules are wrong.
    """
    with only_looked_at():
        found = args.found if "found" in args else _import(args.app, args.app_dir)
    framework, app, routes, installed, outside = "ASGI or WSGI", found, None, None, False
    for _ in range(_MAX_DEPTH):
        for recognise in (_starlette, _flask, _django):
            known = recognise(found)
            if known is not None:
                framework, routes, own = known
                outside = own is None and installed is not None and framework in ("Flask", "Django")
                app, installed = found, installed or own
                break
        else:
            installed = installed or _guard_of(found)
            found = next((inner for name in _INNER if (inner := getattr(found, name, None)) is not None), None)
            if found is not None:
                continue
        break
    if args.rules is not None:
        table, settings = build_table(args.rules, {})
    elif installed is not None:
        table, settings = installed()
    else:
        table, settings = build_table([], {})
    return Application(
        framework=framework,
        app=app,
        routes=_PathOnly(routes) if outside and routes is not None else routes,
        guarded=installed is not None,
        outside=outside,
        table=table,
        settings=settings,
    )


class _PathOnly:
    """The routes of an application as a guard around it knows them: by their paths."""

    def __init__(self, routes: Routes) -> None:
        self._routes = routes

    def leaves(self) -> list[Leaf]:
        """See `Routes`."""
        return [replace(leaf, endpoint=None, declared=()) for leaf in self._routes.leaves()]


if TYPE_CHECKING:
    # Makes the rules and settings of an installed guard.
    Installed = Callable[[], tuple[RuleTable, Settings]]


def _import(name: str, directory: str) -> Any:
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


def _starlette(found: Any) -> tuple[str, Routes, Installed | None] | None:
    if "starlette.applications" not in sys.modules:
        return None
    from starlette.applications import Starlette
    from starlette.routing import Router

    from ..asgi import AscendMiddleware
    from ..routing.starlette import StarletteResolver

    if not isinstance(found, Starlette | Router):
        return None
    fastapi = getattr(sys.modules.get("fastapi"), "FastAPI", None)
    framework = "FastAPI" if fastapi is not None and isinstance(found, fastapi) else "Starlette"
    installed: Installed | None = None
    for middleware in getattr(found, "user_middleware", ()):
        if isinstance(middleware.cls, type) and issubclass(middleware.cls, AscendMiddleware):
            options = {key: value for key, value in middleware.kwargs.items() if key not in _HOOKS}
            installed = installed or functools.partial(build_table, options.pop("rules", None), options)
    return framework, StarletteResolver(found), installed


def _flask(found: Any) -> tuple[str, Routes, Installed | None] | None:
    flask = sys.modules.get("flask")
    if flask is None or not isinstance(found, flask.Flask):
        return None
    from ..routing.werkzeug import FlaskResolver

    return "Flask", FlaskResolver(found), _guard_of(found.extensions.get("ascend"))


def _django(found: Any) -> tuple[str, Routes, Installed | None] | None:
    base = sys.modules.get("django.core.handlers.base")
    if base is None or not isinstance(found, base.BaseHandler):
        return None
    from django.conf import settings
    from django.utils.module_loading import import_string

    from ..routing.django import DjangoResolver

    resolver = DjangoResolver(getattr(found, "urlconf", None))
    classes = [import_string(path) for path in settings.MIDDLEWARE]
    bases = (base for cls in classes if isinstance(cls, type) for base in cls.__mro__)
    if not any(f"{base.__module__}.{base.__name__}" == _DJANGO_GUARD for base in bases):
        return "Django", resolver, None

    def installed() -> tuple[RuleTable, Settings]:
        rules, given, _ = read_options(getattr(settings, "ASCEND", None), "settings.ASCEND")
        return build_table(rules, given)

    return "Django", resolver, installed
