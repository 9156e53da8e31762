"""Settings: one frozen object, filled from arguments, then the environment, then the `[ascend]` table of a file.

`Settings.load` reports every problem at once, each with a code and the place where it stands.
"""

from __future__ import annotations

import dataclasses
import os
import re
import unicodedata
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from . import setting_values as read
from . import substitute
from .exceptions import AscendError, AuthenticationError, ConfigurationError, MissingAPIKeyError
from .problems import Parser, Problem, Report, choice, did_you_mean
from .setting_values import Pending, parse_pending
from .text import is_loopback, is_postgres

if TYPE_CHECKING:
    from collections.abc import Mapping

DEFAULT_API_URL: Final = "https://pilot.owkai.app"
LOCAL_SCHEME: Final = "local"
# Served by `ascend_middleware.testing`, and only while a test has an authority of that name.
TEST_SCHEME: Final = "test"
_IN_PROCESS: Final = (f"{LOCAL_SCHEME}:", f"{TEST_SCHEME}:")
MIN_KEY_LENGTH: Final = 16
KEY_PREFIXES: Final = ("owkai_", "ask_")


def check_api_key(key: str) -> str:
    """Return the key without surrounding white space.

    Raises:
        AuthenticationError: it cannot be a key. The text never holds the key.
        ConfigurationError: it holds control characters or blanks inside.
    """
    key = key.strip()
    if any(unicodedata.category(char) in ("Cc", "Cf", "Zs", "Zl", "Zp") or not char.isascii() for char in key):
        raise ConfigurationError(
            "the API key holds blanks, control or non-ASCII characters; copy it again without line breaks"
        )
    if not key.startswith(KEY_PREFIXES) or len(key) < MIN_KEY_LENGTH:
        raise AuthenticationError(
            f"the API key is ill-formed: a key begins with owkai_ or ask_ and has at least {MIN_KEY_LENGTH} characters"
        )
    return key


def check_api_url(url: str) -> str:
    """Return the base URL without a trailing slash; of `local:`, with absolute paths.

    Plain http is accepted for loopback hosts only, judged on the parsed host.

    Raises:
        ConfigurationError: a remote host without TLS, no host, userinfo, blanks, control characters, other schemes.
    """
    if url.startswith(f"{LOCAL_SCHEME}:"):
        return _absolute(url)
    if url.startswith(_IN_PROCESS):
        return url
    shown = repr(re.sub(r"[?#].*", "?…", re.sub(r"//[^/@]*@", "//…@", url), flags=re.DOTALL))
    if not url.isascii() or any(char <= " " or char in '\x7f\\"<>^`{|}' for char in url):
        raise ConfigurationError(f"api_url {shown} holds white space, control or other characters that no URL has")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
        (host or "").encode("idna")  # as the resolver will: no part empty or longer than 63
    except ValueError as error:
        raise ConfigurationError(f"api_url {shown} is not a URL: {error}") from None
    if parts.scheme not in ("http", "https"):
        raise ConfigurationError(f"api_url {shown} must begin with https://, http:// (loopback only) or local:")
    if not host or "@" in parts.netloc or port == 0:
        raise ConfigurationError(f"api_url {shown} must name a host and hold no user name or password")
    if parts.query or parts.fragment or "?" in url or "#" in url:
        raise ConfigurationError(f"api_url {shown} must hold no query and no fragment")
    if parts.scheme == "http" and not is_loopback(host):
        raise ConfigurationError(f"TLS required for non-localhost URLs: use https:// instead of {shown}")
    return url.rstrip("/")


def _absolute(url: str) -> str:
    # What workers share is kept under the authority's URL. Two projects that both say local:policy.toml have two
    # authorities: kept under one name, an order of one would block the agents of the other.
    place, mark, query = url.removeprefix(f"{LOCAL_SCHEME}:").partition("?")
    if not place:
        return url  # the engine says what is expected
    given = parse_qsl(query, keep_blank_values=True)
    for database in (text for name, text in given if name == "db"):
        if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:", database) and not is_postgres(database):
            raise ConfigurationError("api_url: db is the path of a file or a postgresql:// URL, no other")
        if is_postgres(database) and ("password" in database or re.match(r"[^/]*//[^@/]*:[^@]*@", database)):
            # api_url is shown in logs and messages, as what holds no secret.
            raise ConfigurationError(
                "api_url: the URL of the database holds a password; name it without, and put the password into "
                "PGPASSWORD or a password file (PGPASSFILE)"
            )
    options = [
        (name, os.path.abspath(text) if name == "db" and text and not is_postgres(text) else text)
        for name, text in given
    ]
    absolute = f"{LOCAL_SCHEME}:{os.path.abspath(place)}"
    return f"{absolute}?{urlencode(options, quote_via=quote)}" if mark else absolute


_REFUSE: Final = Pending()
_STATE: Final = read.place("memory:", "redis://", "rediss://", "unix://")


def _setting(default: object, parse: Parser, *env: str, secret: bool = False) -> Any:
    return field(default=default, repr=not secret, metadata={"parse": parse, "env": env})


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything that can be set. Durations are seconds.

    The first group concerns every client, the second the guard, the third what workers share (docs/state.md).

    Args:
        api_key: the key; keep it out of files.
        api_url: where the authority is; `local:policy.toml` is the embedded one, in this process.
        agent_id: on whose behalf requests act.
        agent_name: that agent's name for people.
        environment: where the agent runs, told at its registration.
        fail_mode: of a client by itself: whether a submit that nothing answered raises (closed) or is allowed (open).
        timeout: seconds for one call of a client, with all its attempts.
        debug: whether clients log at DEBUG.
        max_retries: attempts after the first.
        enable_circuit_breaker: whether calls stop for a while after several have failed.
        circuit_breaker_threshold: after so many failed calls in a row.
        circuit_breaker_timeout: for so many seconds; then one call tries.
        engine: who sends requests.
        max_connections: to the authority, in one process.
        proxy: the URL of a proxy to the authority.
        ca_file: certificates to trust, PEM, instead of the machine's own.
        trust_env: whether proxy and certificates of the environment count.
        enabled: false switches the guard off, so that everything passes; for tests.
        mode: observe refuses nothing but a blocked agent.
        unmapped: what becomes of requests that no rule covers: refused, or submitted by their method.
        deadline: seconds that a decision may take with all its attempts.
        on_failure: for rules that do not say it: whether a request passes (open) when nothing answered.
        open_per_minute: how often open rules may pass a request so.
        pending: for rules that do not say it: refuse, or wait:30s (at most 55), while a person decides.
        respond_async: whether a pending action is answered with 202 instead of 403.
        max_waiters: how many requests may wait for a person.
        cache_entries: how many decisions a process keeps for rules with cache.
        poll_interval: seconds between two questions whether a person has decided.
        body_limit: for rules that do not say it: bytes that are read at most.
        body_timeout: for rules that do not say it: seconds that a body may take.
        redact: more names of secrets.
        agent_header: a header that names the agent.
        principal_headers: further headers that tell callers apart.
        single_caller: whether all requests come from one caller, whose requests share approvals.
        expose_risk: whether callers are told the risk score.
        strict: whether a success for which no decision was made becomes a 500.
        unmapped_permit: the findings that do not refuse a request under `unmapped = "by-method"`.
        health_path: a path that answers how the guard is.
        telemetry: metrics and traces through OpenTelemetry.
        log_format: json writes the log as JSON to stderr.
        openapi: whether the application's OpenAPI document tells of refusals and action types.
        report_outcomes: whether the authority is told what became of actions.
        organization_id: the organisation at the authority.
        state: what workers share: a file, `memory:`, `redis://…`, `rediss://…` or `unix://…`.
        state_timeout: seconds that a call may wait for it.
        durability: power also survives a power cut, with an fsync before each handler.
        journal: the directory of what passed, `memory:` or `off`.
        journal_max_bytes: how large it may grow.
        journal_max_age: how many seconds old its oldest line may be.
        journal_full: what becomes of requests where it has reached a limit.
        approval_expiry: seconds for which an approval can be used.
        kill_switch: how the service learns of blocked agents.
        kill_poll_interval: seconds between two questions for commands.
        kill_queue_url: the SQS queue of commands.
        kill_file: a file that blocks agents of this machine.
        max_staleness: seconds after which an unconfirmed kill state blocks; 0 for never.
        approvals_path: the path of the status URL of approvals.
    """

    api_key: str = _setting("", read.text, "ASCEND_API_KEY", "OWKAI_API_KEY", secret=True)
    api_url: str = _setting(DEFAULT_API_URL, read.text, "ASCEND_API_URL", "OWKAI_API_URL")
    agent_id: str = _setting("", read.agent_id, "ASCEND_AGENT_ID")
    agent_name: str = _setting("", read.text, "ASCEND_AGENT_NAME")
    environment: str = _setting("production", read.text, "ASCEND_ENVIRONMENT")
    fail_mode: str = _setting("closed", choice("closed", "open"))
    timeout: float = _setting(30.0, read.seconds)
    debug: bool = _setting(False, read.flag, "ASCEND_DEBUG")
    max_retries: int = _setting(3, read.count(0, 10))
    enable_circuit_breaker: bool = _setting(True, read.flag)
    circuit_breaker_threshold: int = _setting(5, read.count(1, 1000))
    circuit_breaker_timeout: float = _setting(30.0, read.seconds)
    engine: str = _setting("auto", read.engine, "ASCEND_ENGINE")
    max_connections: int = _setting(100, read.count(1, 10_000))
    proxy: str = _setting("", read.text, secret=True)
    ca_file: str = _setting("", read.text, "ASCEND_CA_FILE")
    trust_env: bool = _setting(False, read.flag)

    enabled: bool = _setting(True, read.flag, "ASCEND_ENABLED")
    mode: str = _setting("enforce", choice("enforce", "observe"), "ASCEND_MODE")
    unmapped: str = _setting("refuse", choice("refuse", "by-method"))
    deadline: float = _setting(5.0, read.seconds)
    on_failure: str = _setting("closed", choice("closed", "open"))
    open_per_minute: int = _setting(60, read.count(0, 1_000_000))
    pending: Pending = _setting(_REFUSE, parse_pending)  # noqa: RUF009 - the default is frozen
    respond_async: bool = _setting(False, read.flag)
    max_waiters: int = _setting(100, read.count(0, 100_000))
    poll_interval: float = _setting(1.0, read.seconds)
    cache_entries: int = _setting(10_000, read.count(1, 10_000_000))
    body_limit: int = _setting(65_536, read.count(0, 2**30))
    body_timeout: float = _setting(10.0, read.seconds)
    redact: tuple[str, ...] = _setting((), read.texts)
    agent_header: str | None = _setting(None, read.header_name)
    principal_headers: tuple[str, ...] = _setting((), read.header_names)
    single_caller: bool = _setting(False, read.flag)
    expose_risk: bool = _setting(False, read.flag)
    strict: bool = _setting(False, read.flag)
    unmapped_permit: tuple[str, ...] = _setting((), read.findings)
    health_path: str | None = _setting(None, read.local_path)
    telemetry: bool = _setting(False, read.flag, "ASCEND_TELEMETRY")
    openapi: bool = _setting(True, read.flag)
    log_format: str = _setting("text", choice("text", "json"), "ASCEND_LOG_FORMAT")
    report_outcomes: bool = _setting(True, read.flag)

    organization_id: str = _setting("", read.identifier, "ASCEND_ORGANIZATION_ID")
    state: str = _setting("", _STATE, "ASCEND_STATE", secret=True)  # a Redis URL holds a password
    state_timeout: float = _setting(1.0, read.seconds)
    durability: str = _setting("process", choice("process", "power"))
    journal: str = _setting("", read.place("memory:", "off"), "ASCEND_JOURNAL")
    journal_max_bytes: int = _setting(268_435_456, read.count(65_536, 2**40))
    journal_max_age: float = _setting(604_800.0, read.days)
    journal_full: str = _setting("refuse", choice("refuse", "pass"))
    approval_expiry: float = _setting(86_400.0, read.seconds)
    kill_switch: str = _setting("poll", choice("poll", "sqs", "off"), "ASCEND_KILL_SWITCH")
    kill_poll_interval: float = _setting(5.0, read.seconds)
    kill_queue_url: str = _setting("", read.text, "ASCEND_KILL_QUEUE_URL")
    kill_file: str = _setting("", read.place(), "ASCEND_KILL_FILE")
    max_staleness: float = _setting(0.0, read.seconds_or_never)
    approvals_path: str = _setting("/.ascend/approvals", read.local_path)

    @classmethod
    def load(
        cls,
        arguments: Mapping[str, object] | None = None,
        *,
        environ: Mapping[str, str] | None = None,
        file: Mapping[str, object] | None = None,
        file_name: str = "[ascend]",
        variables: Mapping[str, tuple[str, ...]] | None = None,
    ) -> Settings:
        """Build settings from arguments, then the environment, then a file's `[ascend]` table.

        An argument of None and an empty environment text count as not given. `variables` names, for single settings,
        other environment variables than the usual ones, the first that is set counts.

        Raises:
            ConfigurationError: with every problem found.
        """
        environ = os.environ if environ is None else environ
        values: dict[str, Any] = {}
        report = Report("", "settings")
        known = {item.name: item for item in dataclasses.fields(cls)}
        for source, given in (("argument", arguments or {}), (file_name, file or {})):
            for name in given:
                if name not in known:
                    report.add("unknown-key", (f"{source} {name}",), "no such setting", did_you_mean(name, known))
        for name, item in known.items():
            named = (variables or {}).get(name, item.metadata["env"])
            places = [(f"argument {name}", (arguments or {}).get(name))]
            places += [
                (f"environment {one}", environ.get(one, "") if environ.get(one, "").strip() else None) for one in named
            ]
            places.append((f"{file_name} {name}", (file or {}).get(name)))
            found = next((place for place in places if place[1] is not None), None)
            if found is None:
                continue
            where, value = found
            try:
                values[name] = item.metadata["parse"](value)
            except ValueError as error:
                text = str(error) if name != "api_key" else "expected a text"
                report.add("bad-value", (where,), text)
        if report.problems:
            raise ConfigurationError(problems=report.problems)
        if substitute.fallback and not {"api_url", "api_key"} & values.keys():
            values = {**substitute.fallback, **values}
        if not values.get("agent_name"):
            values["agent_name"] = values.get("agent_id", "")
        return cls(**values)

    @property
    def is_local(self) -> bool:
        """Whether the authority is in this process, so that it needs no key: the embedded or a scripted one."""
        return self.api_url.startswith(_IN_PROCESS)

    def checked(self, *, needs_agent: bool = False, key_variable: str = "ASCEND_API_KEY") -> Settings:
        """Return the settings with a checked key and URL.

        Raises:
            MissingAPIKeyError: only the key is missing.
            AuthenticationError: only the key is ill-formed.
            ConfigurationError: anything else; with several problems, all of them.
        """
        found: list[AscendError] = []
        values: dict[str, str] = {}
        try:
            values["api_url"] = check_api_url(self.api_url)
        except ConfigurationError as error:
            found.append(error)
        if not self.is_local:
            try:
                values["api_key"] = _required_key(self.api_key, key_variable)
            except AscendError as error:
                found.append(error)
        if needs_agent and not self.agent_id:
            found.append(ConfigurationError("agent_id is required: set it in [ascend], or ASCEND_AGENT_ID"))
        if len(found) == 1:
            raise found[0]
        if found:
            raise ConfigurationError(problems=[connection_problem(error) for error in found])
        return dataclasses.replace(self, **values)  # type: ignore[arg-type]  # the values are texts of text fields


def connection_problem(error: AscendError) -> Problem:
    """Return what `Settings.checked` raised as a problem; a missing key is one of its own, `settings.no-key`."""
    code = "settings.no-key" if isinstance(error, MissingAPIKeyError) else "settings.connection"
    return Problem(code, "", error.message)


def _required_key(key: str, variable: str) -> str:
    if not key.strip():
        # Word for word what the two generations' documents quote.
        how = "environment variable" if variable.startswith("OWKAI") else "or pass api_key parameter"
        raise MissingAPIKeyError(
            f"API key is required. Set {variable} {how}. "
            "Without an account, use the embedded authority: api_url='local:policy.toml' needs no key."
        )
    return check_api_key(key)


def unknown_variables(environ: Mapping[str, str]) -> list[str]:
    """Return a line for each variable `ASCEND_…` of the environment that no setting reads: most are misspelt."""
    # The last is no setting: it is looked at while the service runs.
    settings = (name for item in dataclasses.fields(Settings) for name in item.metadata["env"])
    known = dict.fromkeys((*settings, "ASCEND_KILL"))
    found = sorted(name for name in environ if name.startswith("ASCEND_") and name not in known)
    return [f"the environment has {name}, which is no setting ({did_you_mean(name, known)})" for name in found]
