"""What `settings.ASCEND` says: the runner of this process, and everything that is wrong with it.

`ASCEND` is a mapping: `rules` (a path, a mapping or `Rule` objects), `identify` and `render` (functions), `http_client`
(a client of httpx or httpx2), each or its dotted path, and any setting; or a mapping of the shape of an `ascend.toml`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from asgiref.sync import async_to_sync, iscoroutinefunction, sync_to_async
from django.conf import settings
from django.utils.module_loading import import_string

from .. import substitute
from ..adapters.runner import AsyncRunner, SyncRunner
from ..compose import read_options
from ..exceptions import ConfigurationError
from ..fork import ProcessLock
from ..guard import announce
from ..problems import Problem
from ..routing.django import DjangoResolver

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..guard import Guard

__all__ = [
    "NAME",
    "RESOLVER",
    "announce_once",
    "async_runner",
    "configured",
    "forget",
    "health",
    "load_hooks",
    "sync_runner",
]

NAME = "settings.ASCEND"
# One for the process: test clients build the middleware anew again and again.
RESOLVER = DjangoResolver()

_lock = ProcessLock()
_runners: dict[type, tuple[object, Any]] = {}
_announced: list[object] = []


def configured() -> object:
    """Return `settings.ASCEND`, or None."""
    return getattr(settings, "ASCEND", None)


def sync_runner() -> SyncRunner:
    """Return the process's runner for requests without an event loop.

    Raises:
        ConfigurationError: with everything that is wrong.
    """
    runner: SyncRunner = _runner(SyncRunner, lambda hook: async_to_sync(hook) if iscoroutinefunction(hook) else hook)
    return runner


def async_runner() -> AsyncRunner:
    """Return the process's runner for requests on an event loop.

    A synchronous `identify` is called in Django's thread for synchronous code, where it may use the database.

    Raises:
        ConfigurationError: with everything that is wrong.
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
            hooks = load_hooks(hooks)
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
        known = _runners.get(AsyncRunner) or _runners.get(SyncRunner)
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


def load_hooks(hooks: dict[str, Any]) -> dict[str, Any]:
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
