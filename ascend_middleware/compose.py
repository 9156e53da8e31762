"""Put a guard together from what an application gave its adapter; the same for every framework."""

from __future__ import annotations

import contextlib
import os
import secrets
import time
import tomllib
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from . import substitute
from .client import ClientCore, open_engine
from .config import Settings, connection_problem, unknown_variables
from .exceptions import AscendError, ConfigurationError
from .fork import process_id
from .guard import Guard
from .journal.journal import open_journal
from .journal.worker import BackgroundWorker
from .json_logs import log_as_json
from .killswitch.poller import LeasedPoller, QueueConsumer
from .masking import get_logger
from .problems import Problem
from .rules import RuleTable
from .state import open_state

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from .journal.journal import Journal
    from .rules import Rule
    from .state.base import State

__all__ = [
    "build_dry_guard",
    "build_guard",
    "build_table",
    "build_worker",
    "find_problems",
    "is_only_looked_at",
    "load_table",
    "only_looked_at",
    "read_options",
]

logger = get_logger("ascend_middleware.compose")


_looked_at: ContextVar[bool] = ContextVar("ascend_middleware.looked_at", default=False)


@contextlib.contextmanager
def only_looked_at() -> Iterator[None]:
    """Let applications be made without a key meanwhile: for commands that ask no authority.

    Such an application serves nobody: the first request, or the server's start, ends with what was missing.
    """
    before = _looked_at.set(True)
    try:
        yield
    finally:
        _looked_at.reset(before)


def is_only_looked_at() -> bool:
    """Whether what is made now may lack a key."""
    return _looked_at.get()


def load_table(rules: str | Path | Mapping[str, Any] | Sequence[Rule] | RuleTable | None) -> RuleTable | None:
    """Build the rule table from a TOML file's path, a mapping, `Rule` objects, or a table built before."""
    if rules is None or isinstance(rules, RuleTable):
        return rules
    if isinstance(rules, dict):
        return RuleTable.from_mapping(rules, name="rules")
    if isinstance(rules, list | tuple):
        return RuleTable.from_rules(rules)
    return RuleTable.from_toml(rules)  # type: ignore[arg-type]  # a path is what remains


def build_table(
    rules: Any, arguments: Mapping[str, Any], *, environ: Mapping[str, str] | None = None
) -> tuple[RuleTable, Settings]:
    """Return a table with the defaults of its settings, and the settings, neither key nor URL checked yet."""
    table = load_table(rules)
    settings = Settings.load(arguments, environ=environ, file=table.settings if table is not None else {})
    if table is None:
        table, settings = RuleTable.from_rules([]), replace(settings, unmapped="by-method")
    return table.with_settings(settings), settings


def read_options(
    config: object, name: str, arguments: Mapping[str, Any] | None = None
) -> tuple[Any, dict[str, Any], dict[str, Callable[..., Any]]]:
    """Sort what an application's configuration holds into rules, settings and hooks by name.

    Args:
        config: a mapping of settings, `rules`, `identify` and `render`; or of the shape of an `ascend.toml`; or None.
        name: what the configuration is called, for messages.
        arguments: the same by keyword; each one wins over its namesake, None counts as not given.
    """
    if config is not None and not isinstance(config, dict):
        problem = Problem("settings.bad-value", name, f"expected a mapping, got {type(config).__name__}")
        raise ConfigurationError(problems=[problem])
    given = {**(config or {})}
    table = {key: given.pop(key) for key in ("ascend", "rule") if key in given}
    if table:
        if "rules" in given:
            problem = Problem("settings.bad-value", name, "has both a table and rules", "keep one of them")
            raise ConfigurationError(problems=[problem])
        given["rules"] = table
    given |= {key: value for key, value in (arguments or {}).items() if value is not None}
    hooks = {key: given.pop(key) for key in ("identify", "render", "http_client") if given.get(key) is not None}
    return given.pop("rules", None), given, hooks


def build_guard(
    rules: Any,
    arguments: Mapping[str, Any],
    *,
    identify: Callable[[Any], Any] | None = None,
    render: Callable[..., Any] | None = None,
    environ: Mapping[str, str] | None = None,
    now: Callable[[], float] = time.time,
) -> Guard:
    """Return a guard, or raise `ConfigurationError` with everything that is wrong.

    Args:
        rules: the path of an `ascend.toml`, a mapping of the same shape, `Rule` objects, or None, which submits every
            request by its method.
        arguments: settings by name; they win over the environment, which wins over the table's `[ascend]`.
        identify: says on whose behalf a request acts.
        render: answers a refusal in the application's own style.
        environ: `os.environ` by default.
        now: seconds since the epoch.
    """
    if substitute.current is not None:
        arguments = {**arguments, "api_url": substitute.current.api_url}
    for name, hook in (("identify", identify), ("render", render)):
        if hook is not None and not callable(hook):
            raise ConfigurationError(f"{name} must be a function, got {hook!r}")
    for line in unknown_variables(os.environ if environ is None else environ):
        logger.warning("%s", line)
    try:
        table, settings = build_table(rules, arguments, environ=environ)
        settings = settings.checked(needs_agent=True) if settings.enabled else settings
    except AscendError:
        problems, _ = _static_problems(rules, arguments, environ)
        if len(problems) > 1:  # what was raised tells of some of them
            raise ConfigurationError(problems=problems) from None
        raise
    if settings.log_format == "json":
        log_as_json()
    usual = (settings.engine, settings.proxy, settings.ca_file, settings.trust_env) == ("auto", "", "", False)
    if settings.enabled and not (usual and settings.api_url.startswith(("http:", "https:"))):
        # An unreadable policy, proxy or certificate is told now, not at the first request.
        open_engine(settings).close()
    core = ClientCore(settings, now=now)
    state, journal = _open_stores(table, settings, now)
    return Guard(
        table=table,
        settings=settings,
        core=core,
        state=state,
        journal=journal,
        identify=identify,
        render=render,
    )


_NOBODYS_KEY: Final = "owkai_nobody_is_asked"


def build_dry_guard(table: RuleTable, settings: Settings) -> Guard:
    """Return a guard that judges like any other and keeps nothing: to be explained, never to let a request pass.

    Neither key nor URL need to be right; nobody is asked.
    """
    settings = replace(
        settings,
        agent_id=settings.agent_id or "my-agent",
        agent_name=settings.agent_name or settings.agent_id or "my-agent",
        api_url="http://127.0.0.1",
        api_key=_NOBODYS_KEY,
        state="memory:",
        journal="off",
        kill_switch="off",
        kill_file="",
    )
    core = ClientCore(settings)
    return Guard(table=table, settings=settings, core=core, state=open_state(settings), journal=None)


def _open_stores(table: RuleTable, settings: Settings, now: Callable[[], float]) -> tuple[State, Journal | None]:
    if not settings.enabled:
        return open_state(replace(settings, state="memory:")), None
    if settings.kill_switch == "sqs" and not (settings.kill_queue_url and settings.organization_id):
        raise ConfigurationError(
            "kill_switch = sqs needs kill_queue_url and organization_id, to tell foreign commands from our own"
        )
    journal = open_journal(settings, now=now)
    opens = [rule.label for rule in table.rules if rule.on_failure == "open" and rule.action_type]
    if journal is None and opens:
        raise ConfigurationError(
            f"on_failure = open needs the journal, and journal = off: {', '.join(opens[:5])}; what passes without a "
            "decision is submitted when the authority is back"
        )
    reuses = [rule.label for rule in table.rules if rule.reuse]
    if reuses and (journal is None or not settings.report_outcomes):
        lacking = "journal = off" if journal is None else "report_outcomes = false"
        raise ConfigurationError(
            f"cache and coalesce need the journal and its reports, and {lacking}: {', '.join(reuses[:5])}; each use of "
            "a decision is told to the authority"
        )
    return open_state(settings), journal


def find_problems(
    rules: Any, arguments: Mapping[str, Any], *, environ: Mapping[str, str] | None = None
) -> tuple[list[Problem], Settings | None]:
    """Return everything for which `build_guard` would refuse, and the settings where they can be read."""
    problems, settings = _static_problems(rules, arguments, environ)
    if settings is not None and all(one.code == "settings.no-key" for one in problems):
        # Nothing is made on this machine: whether state and journal can be opened, the server finds out.
        aside = {"state": "memory:", "journal": settings.journal if settings.journal == "off" else "memory:"}
        if problems:
            aside["api_key"] = _NOBODYS_KEY
        try:
            build_guard(rules, {**arguments, **aside}, environ=environ).state.close()
        except AscendError as error:
            problems += _problems_of(error, "settings.connection")
    return problems, settings


def _static_problems(
    rules: Any, arguments: Mapping[str, Any], environ: Mapping[str, str] | None
) -> tuple[list[Problem], Settings | None]:
    """Return what is wrong with table and settings, and the settings if they can be read."""
    problems: list[Problem] = []
    file: Mapping[str, Any] = {}
    try:
        table = load_table(rules)
        file = table.settings if table is not None else {}
    except ConfigurationError as error:
        problems += _problems_of(error, "rules")
        file = _settings_in(rules)
    try:
        settings = Settings.load(arguments, environ=environ, file=file)
    except ConfigurationError as error:
        found = _problems_of(error, "settings.bad-value")
        # What is wrong in a table's own settings was said with the table.
        return problems + [one for one in found if not (problems and one.where.startswith("[ascend]"))], None
    try:
        if settings.enabled:
            # A table that cannot be read may well name the agent.
            settings.checked(needs_agent=not any(one.code in _UNREAD for one in problems))
    except AscendError as error:
        problems += getattr(error, "problems", ()) or [connection_problem(error)]
    return problems, settings


_UNREAD: Final = ("rules.unreadable", "rules.not-toml")


def _problems_of(error: AscendError, code: str) -> list[Problem]:
    return list(getattr(error, "problems", ())) or [Problem(code, "", error.message)]


def _settings_in(rules: Any) -> Mapping[str, Any]:
    """Return the `[ascend]` table of what holds no good rules, as far as it can be read."""
    if isinstance(rules, str | os.PathLike):
        try:
            rules = tomllib.loads(Path(rules).read_bytes().decode("utf-8-sig"))
        except (OSError, ValueError):
            return {}
    found = rules.get("ascend") if isinstance(rules, Mapping) else None
    return found if isinstance(found, Mapping) else {}


def build_worker(guard: Guard, *, http_client: object = None) -> BackgroundWorker | None:
    """Return the threads that deliver the journal, receive commands and try the key; None where there is none to do."""
    settings = guard.settings
    serves = guard.journal is not None or settings.kill_switch != "off"
    if not settings.enabled or (settings.is_local and not serves):
        return None
    poller = None
    if settings.kill_switch != "off":
        # One per process: the lease is between processes, and a fork makes another one.
        token = secrets.token_hex(8)
        queue = None
        if settings.kill_switch == "sqs":
            queue = QueueConsumer(settings.kill_queue_url, guard.poller.handler, confirm=guard.poller.confirm)
        poller = LeasedPoller(
            guard.poller,
            state=guard.state,
            owner=lambda: f"{process_id()}-{token}",
            interval=settings.kill_poll_interval,
            queue=queue,
            now=guard.core.now,
        )
    worker = BackgroundWorker(
        guard.core,
        lambda: open_engine(settings, http_client=http_client),
        journal=guard.journal,
        state=guard.state,
        poller=poller,
        now=guard.core.now,
    )
    if serves:
        guard.worker = worker
    return worker
