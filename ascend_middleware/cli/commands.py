"""Every command: what it is called, what it takes, and where its function is. Each is written here, once.

A function takes the parsed arguments and returns a `Result`. Its module is imported when it runs, so that the modules
of the authority need their extra only then.
"""

from __future__ import annotations

import argparse
import importlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from .terminal import Result

__all__ = ["APPLICATION", "COMMANDS", "TASKS", "Command"]

Argument: TypeAlias = "tuple[tuple[str, ...], dict[str, Any]]"


def _arg(*names: str, **options: Any) -> Argument:
    """Return what `add_argument` is given."""
    return names, options


@dataclass(frozen=True, slots=True)
class Command:
    """One command.

    Attributes:
        group: under which `--help` lists it.
        path: its name, or that of its group of tasks and its own.
        help: one line.
        function: `module:function`, the module as seen from here.
        arguments: what it takes.
        description: what its own help says first.
        epilog: what that says last.
        defaults: fixed arguments for its function.
    """

    group: str
    path: str
    help: str
    function: str
    arguments: Sequence[Argument] = ()
    description: str = ""
    epilog: str = ""
    defaults: Mapping[str, Any] = field(default_factory=dict)

    def load(self) -> Callable[[argparse.Namespace], Result]:
        """Import and return its function."""
        module, _, name = self.function.partition(":")
        function: Callable[[argparse.Namespace], Result] = getattr(importlib.import_module(module, __package__), name)
        return function


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) <= 65_535):
        raise argparse.ArgumentTypeError(f"expected a port number, got {text!r}")
    return int(text)


# --- arguments of several commands

_JSON: Final = _arg("--json", action="store_true", help="print one JSON object")
_PLACE: Final = (
    _arg("--policy", default="policy.toml", help="the policy file (default: policy.toml)"),
    _arg("--db", help="the database (default: beside the policy file)"),
)
_TENANT: Final = _arg("--tenant", default="default", help="the organisation (default: default)")
_ORGANISATION: Final = (*_PLACE, _TENANT, _JSON)
APPLICATION: Final = (
    _arg("app", help='the application, "module:name"; "module:create_app()" calls a factory'),
    _arg("--app-dir", default=".", help="where the module is looked for first (default: here)"),
)
"""The arguments that name an application; where one is at hand, its commands go without."""
_RULES: Final = _arg("--rules", help="a rule table, instead of the installed guard's own")
_JOURNALS: Final = (
    _arg("--rules", metavar="FILE", help="the ascend.toml whose [ascend] settings hold"),
    _arg("--journal", metavar="DIR", help="the directory, as the setting journal names it"),
)
_SERVER: Final = (_arg("name", help="the server's name"), *_ORGANISATION)
_MODEL: Final = (_arg("id", type=int, help="its number"), *_ORGANISATION)
_STATUSES: Final = ("approved", "partially_approved", "pending", "denied")
_LEVEL: Final = (_arg("level", choices=("low", "medium", "high", "critical")), *_ORGANISATION)
_AUTHORITY: Final = ("serve", "init", "backup")
_DECISION: Final = (
    _arg("action", help="the action's id, 7 or act_7"),
    _arg("--comments", default="", help="why; kept in the audit log"),
    *_ORGANISATION,
)
_AGENT: Final = (
    _arg("agent", nargs="?", help="the agent's id, registered or not"),
    _arg("--all", action="store_true", help="every agent of the organisation, now and later"),
    _arg("--reason", required=True, help="why; the agent's people and the audit log see it"),
    *_ORGANISATION,
)
_PER_MINUTE: Final = _arg("--per-minute", type=int, required=True, metavar="N", help="actions a minute")

# --- commands

GOVERN: Final = "govern an application"
RUN: Final = "run an authority"
ADMINISTER: Final = "administer an authority"
LEARN: Final = "get to know this package"

# Groups of tasks: what `--help` says of them, and what their own help adds.
TASKS: Final[Mapping[str, tuple[str, str]]] = {
    "journal": ("show, deliver or export what passed actions left to be reported", ""),
    "audit": ("verify or export the audit log", ""),
    "agents": ("list agents, and block, slow down or release them", ""),
    "mcp-servers": ("register MCP servers, switch them off and on, block them", ""),
    "models": ("register models and say which may be used", ""),
    "approvers": (
        "say who approves at which risk level",
        "What is set here goes before the policy file, for actions that are submitted from then on.",
    ),
    "keys": ("issue, list and revoke API keys", ""),
}

# fmt: off
# A table in the order of the help text: a row to a line, or its continuation.
COMMANDS: Final = (
    Command(
        GOVERN, "check", "check a rule table", ".routes:check",
        (_arg("table", nargs="?", default="ascend.toml", help="the rule table (default: ascend.toml)"), _JSON),
        description="Check a rule table and print every problem. Exit codes: 0 no problem, 1 problems, 2 usage.",
    ),
    Command(
        GOVERN, "routes", "list what is governed in an application", ".routes:routes",
        (
            _RULES, *APPLICATION, _JSON,
            _arg("--fail-unmapped", action="store_true", help="exit with 1 if a route is not covered; for CI"),
            _arg("--suggest", action="store_true", help="print rules to start from for what is not covered"),
        ),
        description="List every live route and method with its rule, what is not covered, and what can never match.",
        epilog="Exit codes: 0 listed, 1 something is not covered or contradictory (--fail-unmapped), 2 wrong usage.",
    ),
    Command(
        GOVERN, "explain", "explain what governs one request", ".explain:explain_request",
        (
            _RULES, *APPLICATION, _JSON,
            _arg("request", help='method and target, "POST /customers/7/refunds?dry_run=1"'),
            _arg("--header", action="append", default=[], metavar="NAME: VALUE", help="a header; may be repeated"),
            _arg("--body", help="the body; @FILE reads it from a file"),
        ),
        description="Print the rule that governs a request, the rules that lost and why, and what would be sent.",
        epilog="Nobody is asked and nothing runs. The agent is the configured one, whatever identify would say.",
    ),
    Command(
        GOVERN, "journal status", "list the journals: whose process lives, what waits, since when",
        ".journal:status", (*_JOURNALS, _JSON),
    ),
    Command(
        GOVERN, "journal deliver", "deliver the journals of processes that ended",
        ".journal:deliver", (*_JOURNALS, _JSON),
    ),
    Command(
        GOVERN, "journal export", "print the lines as JSON, one a line, and change nothing", ".journal:export",
        (*_JOURNALS, _arg("--all", action="store_true", help="delivered lines too, as far as they are still there")),
    ),
    Command(
        RUN, "authority", "serve the embedded authority", ".authority:run_task",
        (
            _arg("task", nargs="?", choices=_AUTHORITY, default=_AUTHORITY[0], help="serve (default), init or backup"),
            _arg("path", nargs="?", help="init: the policy file to write (default: policy.toml)"),
            *_PLACE,
            _arg("--host", default="127.0.0.1", help="the address to listen on (default: 127.0.0.1)"),
            _arg("--port", type=_port, default=8700, help="the port, 0 for any free one (default: 8700)"),
            _arg("--tls-cert", metavar="FILE", help="the server's certificate and its chain, PEM"),
            _arg("--tls-key", metavar="FILE", help="its private key, PEM"),
            _arg("--allow-remote", action="store_true", help="listen in plain HTTP where other machines can connect"),
            _arg("--development", action="store_true", help="let webhooks go to plain http and to private addresses"),
            _arg("--no-access-log", action="store_true", help="do not log each request"),
        ),
        description="Serve the embedded authority. `authority init [PATH]` writes a commented policy file, makes its "
        "database and prints the first keys, once. `authority backup PATH` copies the database to a new file, also "
        "while it is being served.",
    ),
    Command(
        RUN, "explain-policy", "tell what would be decided about an action, and why", ".explain_policy:explain_policy",
        (
            _arg("action_type", nargs="?", help="the type of the action, such as transaction"),
            _arg("--action", metavar="FILE", help="the whole action as JSON, - for standard input"),
            _arg("--agent-id", help="who acts"),
            _arg("--resource", help="what is acted on"),
            _arg("--tool-name", help="the tool"),
            _arg("--mcp-server", help="the MCP server"),
            _arg("--model", help="the model's number or name"),
            _arg("--details", metavar="JSON", help="its details, a JSON object"),
            _arg("--context", metavar="JSON", help="its context, a JSON object"),
            _arg("--risk-indicators", metavar="JSON", help="its risk indicators, a JSON object"),
            *_ORGANISATION,
        ),
        description="Decide about an action as the authority would, by the policy file and, where there is a "
        "database, the organisation's own policies, smart rules, MCP servers, models and commands. Exit code 0 if it "
        "would be approved, 1 if not.",
    ),
    Command(
        RUN, "audit verify", "find what was changed, removed or reordered", ".authority:verify_audit",
        (
            _arg("--head", action="append", default=[], metavar="NUMBER:HASH", help="one noted earlier; repeatable"),
            *_PLACE, _JSON,
        ),
        description="Read the whole audit log and name every entry that was changed, removed or reordered afterwards. "
        "Exit code 1 if any was. Whoever can write the file can also make a whole new log: keep the head that this "
        "prints somewhere else, and pass it to the next verification with --head.",
    ),
    Command(
        RUN, "audit export", "print the entries as JSON lines, oldest first", ".authority:export_audit",
        (
            _arg("--after", type=int, default=0, metavar="NUMBER", help="only entries after this one"),
            _arg("--tenant", help="only one organisation's entries (default: all)"),
            *_PLACE,
        ),
        description="Print the entries as JSON lines, oldest first. Exit code 1, after them, if the log does not end "
        "where its head says: the last ones may be missing. Whether the others are as they were written only `audit "
        "verify` tells.",
    ),
    Command(
        ADMINISTER, "pending", "list the actions that wait for a person", ".administer:pending",
        (
            *_ORGANISATION,
            _arg("--limit", type=int, choices=range(1, 1001), default=50, metavar="N", help="at most N (50)"),
        ),
    ),
    Command(ADMINISTER, "approve", "approve a pending action", ".administer:approve", _DECISION),
    Command(ADMINISTER, "deny", "deny a pending action", ".administer:deny", _DECISION),
    Command(
        ADMINISTER, "agents list", "list the registered agents and those under a command",
        ".administer:list_agents", _ORGANISATION,
    ),
    *(
        Command(ADMINISTER, f"agents {name}", text, ".administer:command_agents", arguments, defaults={"kind": kind})
        for name, kind, text, arguments in (
            ("block", "BLOCK", "refuse everything that the agent submits", _AGENT),
            ("unblock", "UNBLOCK", "lift every block and limit of the agent", _AGENT),
            ("suspend", "SUSPEND", "block for the time being", _AGENT),
            ("quarantine", "QUARANTINE", "block on suspicion", _AGENT),
            ("rate-limit", "RATE_LIMIT", "let through so many actions a minute", (*_AGENT, _PER_MINUTE)),
        )
    ),
    Command(
        ADMINISTER, "mcp-servers list", "list the MCP servers of the database",
        ".administer:list_servers", _ORGANISATION,
    ),
    Command(
        ADMINISTER, "mcp-servers add", "register an MCP server", ".administer:add_server",
        (
            *_SERVER,
            _arg("--block-tool", action="append", default=[], metavar="TOOL", help="a tool that may not be used"),
            _arg("--description", default="", help="for people"),
        ),
    ),
    Command(
        ADMINISTER, "mcp-servers activate", "let actions name a server again, or for the first time",
        ".administer:activate_server", _SERVER,
    ),
    Command(
        ADMINISTER, "mcp-servers deactivate", "refuse actions that name a server", ".administer:deactivate_server",
        (*_SERVER, _arg("--reason", default="", help="why; kept in the audit log")),
    ),
    Command(ADMINISTER, "mcp-servers remove", "remove a server", ".administer:remove_server", _SERVER),
    *(
        Command(
            ADMINISTER, f"mcp-servers {kind.lower()}", text, ".administer:command_server",
            (*_SERVER, _arg("--reason", required=True, help="why; everybody who uses the server sees it")),
            defaults={"kind": kind},
        )
        for kind, text in (("BLOCK", "issue a kill-switch command against a server"), ("UNBLOCK", "lift it"))
    ),
    Command(ADMINISTER, "models list", "list the models of the database", ".administer:list_models", _ORGANISATION),
    Command(
        ADMINISTER, "models add", "register a model; actions name it by its number or its name",
        ".administer:add_model",
        (
            *_MODEL, _arg("--name", default="", help="its name"),
            _arg("--status", choices=_STATUSES, default="approved", help="default: approved"),
        ),
    ),
    Command(
        ADMINISTER, "models status", "change a model's compliance status", ".administer:set_model_status",
        (*_MODEL, _arg("status", choices=_STATUSES)),
    ),
    Command(ADMINISTER, "models remove", "remove a model", ".administer:remove_model", _MODEL),
    Command(ADMINISTER, "approvers list", "list what is set here", ".administer:list_approvers", _ORGANISATION),
    Command(
        ADMINISTER, "approvers set", "set the approvers of a level", ".administer:set_approvers",
        (
            *_LEVEL, _arg("--count", type=int, default=1, help="so many different people (default: 1)"),
            _arg("--approver", action="append", default=[], metavar="NAME", help="the name of an admin key"),
        ),
    ),
    Command(
        ADMINISTER, "approvers clear", "let the policy file say it again", ".administer:clear_approvers", _LEVEL
    ),
    Command(
        ADMINISTER, "keys issue", "make a key and print it, once", ".administer:issue_key",
        (
            _arg("--name", required=True, help="whose key it is, for the audit log"),
            _arg("--role", choices=("super_admin", "admin", "user"), default="user", help="default: user"),
            *_ORGANISATION,
        ),
    ),
    Command(ADMINISTER, "keys list", "list the keys; never shows them", ".administer:list_keys", (*_PLACE, _JSON)),
    Command(
        ADMINISTER, "keys revoke", "make a key invalid", ".administer:revoke_key",
        (_arg("id", type=int, help="the number that `keys list` shows"), *_PLACE, _JSON),
    ),
    Command(
        LEARN, "demo", "start the embedded authority and a governed FastAPI application, and watch real requests",
        ".authority:demo",
        (_arg("--serve", action="store_true", help="leave both running and print curl lines to try"),),
        description="Run the demonstration and print its transcript; the exit status says whether every answer was "
        "the expected one.",
    ),
    Command(LEARN, "version", "print the version", ".terminal:version", (_JSON,)),
)
# fmt: on
