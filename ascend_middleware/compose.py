"""Put a guard together from what an application gave its adapter; the same for every framework."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from .client import ClientCore, open_engine
from .config import Settings
from .guard import Guard
from .guard.keeper import Keeper
from .rules import RuleTable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from .rules import Rule

__all__ = ["build_guard", "build_keeper", "load_table"]


def load_table(rules: str | Path | Mapping[str, Any] | Sequence[Rule] | RuleTable | None) -> RuleTable | None:
    """Build the rule table from a TOML file's path, a mapping, `Rule` objects, or a table built before."""
    if rules is None or isinstance(rules, RuleTable):
        return rules
    if isinstance(rules, dict):
        return RuleTable.from_mapping(rules, name="rules")
    if isinstance(rules, list | tuple):
        return RuleTable.from_rules(rules)
    return RuleTable.from_toml(rules)  # type: ignore[arg-type]  # a path is what remains


def build_guard(
    rules: Any,
    arguments: Mapping[str, Any],
    *,
    identify: Callable[[Any], Any] | None = None,
    render: Callable[..., Any] | None = None,
    environ: Mapping[str, str] | None = None,
) -> Guard:
    """Return a guard, or raise `ConfigurationError` with everything that is wrong.

    Args:
        rules: the path of an `ascend.toml`, a mapping of the same shape, `Rule` objects, or None, which submits every
            request by its method.
        arguments: settings by name; they win over the environment, which wins over the table's `[ascend]`.
        identify: says on whose behalf a request acts.
        render: answers a refusal in the application's own style.
        environ: the environment, `os.environ` by default.
    """
    table = load_table(rules)
    file = table.settings if table is not None else {}
    settings = Settings.load(arguments, environ=environ, file=file)
    settings = settings.checked(needs_agent=True) if settings.enabled else settings
    if table is None:
        table, settings = RuleTable.from_rules([]), replace(settings, unmapped="by-method")
    table = table.with_settings(settings)
    if settings.enabled and settings.is_local:
        open_engine(settings).close()  # an unreadable policy is told now, not at the first request
    return Guard(table=table, settings=settings, core=ClientCore(settings), identify=identify, render=render)


def build_keeper(guard: Guard) -> Keeper | None:
    """Return the thread that reports outcomes, or None where the settings want none."""
    settings = guard.settings
    if not (settings.enabled and settings.report_outcomes):
        return None
    return Keeper(guard.core, lambda: open_engine(settings))
