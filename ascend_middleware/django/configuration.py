"""What `settings.ASCEND` says: the runner of this process, and everything that is wrong with it.

`ASCEND` is a mapping: `rules` (a path, a mapping or `Rule` objects), `identify` and `render` (functions), `http_client`
(a client of httpx or httpx2), each or its dotted path, and any setting; or a mapping of the shape of an `ascend.toml`.

System checks fail if a request would be ungoverned, or every request refused; docs/django.md lists them. Where
`MIDDLEWARE` is wrong the server does not start either: servers run no checks. An id in `SILENCED_SYSTEM_CHECKS` counts
there as well.
"""

from __future__ import annotations

import ast
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from asgiref.sync import async_to_sync, iscoroutinefunction, sync_to_async
from django.conf import settings
from django.core.checks import CheckMessage, Error
from django.core.checks import Warning as Caution
from django.utils.module_loading import import_string

from .. import substitute
from ..adapters.runner import AsyncRunner, SyncRunner
from ..compose import find_problems, read_options
from ..exceptions import ConfigurationError
from ..fork import ProcessLock
from ..guard import announce
from ..problems import Problem
from ..routing.django import DjangoResolver

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ..guard import Guard

NAME = "settings.ASCEND"
# One for the process: test clients build the middleware anew again and again.
RESOLVER = DjangoResolver()

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

_lock = ProcessLock()
_runners: dict[type, tuple[object, Any]] = {}
_announced: list[object] = []


def configured() -> object:
    """Return `settings.ASCEND`, or None."""
    return getattr(settings, "ASCEND", None)


def sync_runner() -> SyncRunner:
    """Return the process's runner for requests without an event loop."""
    runner: SyncRunner = _runner(SyncRunner, lambda hook: async_to_sync(hook) if iscoroutinefunction(hook) else hook)
    return runner


def async_runner() -> AsyncRunner:
    """Return the process's runner for requests on an event loop.

    A synchronous `identify` is called in Django's thread for synchronous code, where it may use the database.
    """
    runner: AsyncRunner = _runner(AsyncRunner, lambda hook: hook if iscoroutinefunction(hook) else sync_to_async(hook))
    return runner


def _runner(kind: type, adapt: Callable[[Any], Any]) -> Any:
    config = configured()
    with _lock:
        known = _runners.get(kind)
        # Tests replace the whole setting; whoever changes it in place has changed nothing.
        if known is None or known[0] is not config:
            rules, given, hooks = read_options(config, NAME)
            hooks = _load_hooks(hooks)
            if "identify" in hooks:
                hooks["identify"] = adapt(hooks["identify"])
            if known is not None:
                _stop(known[1])
            with substitute.as_at_import():
                known = _runners[kind] = config, kind(rules, given, **hooks)
        return known[1]


def announce_once(guard: Guard) -> None:
    """Say in the log which routes nothing covers; at the first request, when Django's URL patterns can be loaded."""
    if _announced != [configured()]:
        _announced[:] = [configured()]
        announce(RESOLVER, guard.table, guard.settings)


def health() -> dict[str, Any]:
    """Return how the guard is in this process; asks nobody. docs/operating.md says what it means."""
    with _lock:
        known = _runners.get(AsyncRunner)
    found: dict[str, Any] = (known[1] if known is not None else sync_runner()).health()
    return found


def forget() -> None:
    """Deliver the outcomes that wait, and let the next request begin anew; for tests."""
    with _lock:
        for _, runner in _runners.values():
            _stop(runner)
        _runners.clear()


def _stop(runner: SyncRunner | AsyncRunner) -> None:
    if isinstance(runner, SyncRunner):
        runner.close()
    elif runner.worker is not None:
        runner.worker.close()  # its engines belong to event loops that may be gone


def _load_hooks(hooks: dict[str, Any]) -> dict[str, Any]:
    """Return the hooks with dotted paths replaced by what they name.

    Raises:
        ConfigurationError: with every path that names nothing.
    """
    loaded, problems = {}, []
    for name, hook in hooks.items():
        try:
            loaded[name] = import_string(hook) if isinstance(hook, str) else hook
        except ImportError as error:
            problems.append(Problem("settings.bad-value", f"{NAME} {name}", f"{hook!r}: {error}"))
            continue
        if name != "http_client" and not callable(loaded[name]):
            problems.append(Problem("settings.bad-value", f"{NAME} {name}", "expected a function or its dotted path"))
    if problems:
        raise ConfigurationError(problems=problems)
    return loaded


# --- system checks


def check_configuration(app_configs: Any = None, **options: Any) -> list[CheckMessage]:
    """Check table, settings, key, authority and agent: everything at once."""
    try:
        rules, given, hooks = read_options(configured(), NAME)
    except ConfigurationError as error:
        return [_error(problem) for problem in error.problems]
    problems, loaded = find_problems(rules, given)
    try:
        _load_hooks(hooks)
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


def is_guarded() -> bool:
    """Say whether the middleware is in `MIDDLEWARE`."""
    return any(_is_a(import_string(path), _load(_SELF)) for path in settings.MIDDLEWARE)


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
