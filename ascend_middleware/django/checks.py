"""System checks: `manage.py check` fails if a request would be ungoverned, or every request refused.

ascend.E001  the rule table
ascend.E002  a setting in `ASCEND`
ascend.E003  the key, the authority's address, the agent
ascend.E004  `AscendMiddleware` is not in `MIDDLEWARE`
ascend.E005  `AscendMiddleware` is there twice
ascend.E006  something stands after `AscendMiddleware`
ascend.E007  something answers requests that the guard never decided about
ascend.E008  a charset in which views read parameters otherwise than the guard
ascend.W001  the guard is switched off, or only observes
ascend.W002  `strict` without `TripwireMiddleware` first
ascend.W003  Channels' consumers, which come by no middleware of Django
ascend.W004  no key: commands that ask nobody run, a server does not start; an error (E003) under `check --deploy`

Where `MIDDLEWARE` is wrong the server does not start either: servers run no checks. An id in `SILENCED_SYSTEM_CHECKS`
is taken as it is meant, there as well.
"""

from __future__ import annotations

import ast
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from django.conf import settings
from django.core.checks import CheckMessage, Error
from django.core.checks import Warning as Caution
from django.utils.module_loading import import_string

from ..compose import find_problems, read_options
from ..exceptions import ConfigurationError
from ..problems import Problem
from .configuration import NAME, configured, load_hooks

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["check_configuration", "check_key", "check_middleware", "require_order"]

_SELF: Final = "ascend_middleware.django.AscendMiddleware"
_TRIPWIRE: Final = "ascend_middleware.django.TripwireMiddleware"
# What answers without a view, by what it is derived from, and what to do instead.
_ANSWERING: Final = {
    "django.contrib.flatpages.middleware.FlatpageFallbackMiddleware": (
        "renders a page where no view was found",
        'remove it, and end the URL patterns with path("<path:url>", flatpages.views.flatpage), which is governed',
    ),
    "django.middleware.cache.FetchFromCacheMiddleware": (
        "answers from the cache what was decided about for somebody else",
        "use the decorator cache_page at views, which runs after the decision",
    ),
}


def check_configuration(app_configs: Any = None, **options: Any) -> list[CheckMessage]:
    """Check table, settings, key, authority and agent: everything at once."""
    try:
        rules, given, hooks = read_options(configured(), NAME)
    except ConfigurationError as error:
        return [_error(problem) for problem in error.problems]
    problems, loaded = find_problems(rules, given)
    try:
        load_hooks(hooks)
    except ConfigurationError as error:
        problems += error.problems
    messages: list[CheckMessage] = [_error(problem) for problem in problems]
    if settings.DEFAULT_CHARSET.lower() not in ("utf-8", "utf8"):
        messages.append(
            Error(
                f"DEFAULT_CHARSET is {settings.DEFAULT_CHARSET}: views read parameters otherwise than the guard.",
                hint="Use utf-8.",
                id="ascend.E008",
            )
        )
    if loaded is not None and not loaded.enabled:
        messages.append(Caution("enabled = false: every request passes without a decision.", id="ascend.W001"))
    elif loaded is not None and loaded.mode == "observe":
        messages.append(Caution('mode = "observe": no request is refused.', id="ascend.W001"))
    if loaded is not None and loaded.strict and (settings.MIDDLEWARE or [""])[0] != _TRIPWIRE:
        messages.append(
            Caution(
                "strict is set, but what other middlewares answer by themselves is not seen.",
                hint=f'Put "{_TRIPWIRE}" first in MIDDLEWARE.',
                id="ascend.W002",
            )
        )
    return messages


def check_key(app_configs: Any = None, **options: Any) -> list[CheckMessage]:
    """Check that there is a key where the project will serve."""
    missing = [one for one in check_configuration() if one.id == "ascend.W004"]
    return [Error(one.msg, hint=one.hint, id="ascend.E003") for one in missing]


def check_middleware(app_configs: Any = None, **options: Any) -> list[CheckMessage]:
    """Check that every request comes to the guard, and that nothing changes it afterwards."""
    classes = {path: _load(path) for path in settings.MIDDLEWARE}
    guard = _load(_SELF)
    places = [at for at, path in enumerate(settings.MIDDLEWARE) if _is_a(classes[path], guard)]
    messages = list(_answering(classes))
    if not places:
        missing = f"{_SELF} is not in MIDDLEWARE: nothing is governed."
        messages.append(Error(missing, hint="Put it last.", id="ascend.E004"))
        return messages
    if len(places) > 1:
        messages.append(Error(f"{_SELF} is in MIDDLEWARE {len(places)} times.", hint="Keep one.", id="ascend.E005"))
    messages += _channels()
    later = settings.MIDDLEWARE[places[0] + 1 :]
    if later and len(places) == 1:
        text = f"{', '.join(later)} in MIDDLEWARE after {_SELF}: may change a request after the decision, or answer it."
        messages.append(Error(text, hint="Put AscendMiddleware last.", id="ascend.E006"))
    return messages


def require_order() -> None:
    """Refuse to serve under a `MIDDLEWARE` that the check finds wrong.

    Raises:
        ConfigurationError: with every problem that is not silenced.
    """
    problems = [
        Problem(f"django.{one.id}", "settings.MIDDLEWARE", str(one.msg), f"{one.hint or ''} [{one.id}]".strip())
        for one in check_middleware()
        if one.is_serious() and not one.is_silenced() and one.id != "ascend.E004"
    ]
    if problems:
        raise ConfigurationError(problems=problems)


def _answering(classes: dict[str, Any]) -> Iterator[CheckMessage]:
    for path, cls in classes.items():
        for known, (what, hint) in _ANSWERING.items():
            if path == known or _is_a(cls, _load(known)):
                text = f"{path} in MIDDLEWARE {what}: the guard does not decide about it."
                yield Error(text, hint=f"{hint[0].upper()}{hint[1:]}.", id="ascend.E007")


def _channels() -> Iterator[CheckMessage]:
    """Tell of consumers that no guard stands around, by the source of the ASGI module: importing it starts things."""
    named = getattr(settings, "ASGI_APPLICATION", None) or ""
    try:
        spec = importlib.util.find_spec(named.rpartition(".")[0])
        source = Path(spec.origin).read_text("utf-8") if spec is not None and spec.origin else ""
        tree = ast.parse(source)
    except (ImportError, OSError, SyntaxError, ValueError):
        return  # the server tells what is wrong with it
    imports = [one for one in ast.walk(tree) if isinstance(one, ast.ImportFrom | ast.Import)]
    modules = {one.module or "" for one in imports if isinstance(one, ast.ImportFrom)}
    modules |= {alias.name for one in imports if isinstance(one, ast.Import) for alias in one.names}
    if "channels.routing" in modules and not any(name.startswith("ascend_middleware.asgi") for name in modules):
        text = f"{named} routes to consumers of Channels, and MIDDLEWARE governs views only: consumers run ungoverned."
        yield Caution(
            text,
            hint='Guard them: "websocket": ascend_middleware.asgi.AscendMiddleware(URLRouter(…), rules=…).',
            id="ascend.W003",
        )


def _load(path: str) -> Any:
    # Not everything can be imported everywhere: flat pages, for one, only where their application is installed.
    try:
        return import_string(path)
    except (ImportError, RuntimeError):
        return None


def _is_a(cls: Any, known: Any) -> bool:
    return isinstance(cls, type) and isinstance(known, type) and issubclass(cls, known)


def _error(problem: Problem) -> CheckMessage:
    if problem.code == "settings.no-key":
        return Caution(f"{problem.message} Without it a server does not start.", id="ascend.W004")
    code = "ascend.E001"
    if problem.code.startswith("settings."):
        code = "ascend.E003" if problem.code == "settings.connection" else "ascend.E002"
    where = f"{problem.where}: " if problem.where else ""
    return Error(f"{where}{problem.message}", hint=problem.hint or None, id=code)
