"""Every command: what it is called, what it takes, and where its function is. Each is written here, once.

A function takes the parsed arguments and returns a `Result`. Its module is imported when it runs, so that the modules
of the authority need their extra only then.
"""

from __future__ import annotations

import argparse
import importlib
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from ..api import endpoints

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from .terminal import Result

__all__ = ["APPLICATION", "COMMANDS", "GROUPS", "TASKS", "Command"]

Argument: TypeAlias = "tuple[tuple[str, ...], dict[str, Any]]"


def _arg(*names: str, **options: Any) -> Argument:
    """Return what `add_argument` is given."""
    return names, options


class Command:
    """One command.

    Args:
        path: its name; or that of its group of tasks, a blank, and its own.
        text: what `--help` says of it, in one line.
        function: `module:function`, the module beside this one.
        arguments: what it takes.
        description: what its own help says first; `epilog` is what that says last.
        fixed: arguments that the command line does not give.
    """

    def __init__(
        self,
        path: str,
        text: str,
        function: str,
        *arguments: Argument,
        description: str = "",
        epilog: str = "",
        **fixed: Any,
    ) -> None:
        self.path, self.text, self.function, self.arguments = path, text, function, arguments
        self.description, self.epilog, self.fixed = description, epilog, fixed

    def load(self) -> Callable[[argparse.Namespace], Result]:
        """Import and return its function."""
        module, _, name = self.function.partition(":")
        function: Callable[[argparse.Namespace], Result] = getattr(
            importlib.import_module(f".{module}", __package__), name
        )
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
_LOCK: Final = _arg("--lock", default="ascend.lock", metavar="FILE", help="the lock file (default: ascend.lock)")
_JOURNALS: Final = (
    _arg("--rules", metavar="FILE", help="the ascend.toml whose [ascend] settings hold"),
    _arg("--journal", metavar="DIR", help="the directory, as the setting journal names it"),
)
_SERVER: Final = (_arg("name", help="the server's name"), *_ORGANISATION)
_MODEL: Final = (_arg("id", type=int, help="its number"), *_ORGANISATION)
_STATUSES: Final = ("approved", "partially_approved", "pending", "denied")
_LEVEL: Final = (_arg("level", choices=("low", "medium", "high", "critical")), *_ORGANISATION)
_TASKS: Final = ("serve", "init", "backup")
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
_SERVER_REASON: Final = _arg("--reason", required=True, help="why; everybody who uses the server sees it")

# --- commands

# What `--help` says of groups of tasks.
TASKS: Final = {
    "journal": "show, deliver or export what passed actions left to be reported",
    "audit": "verify or export the audit log",
    "agents": "list agents, and block, slow down or release them",
    "mcp-servers": "register MCP servers, switch them off and on, block them",
    "models": "register models and say which may be used",
    "approvers": "say who approves at which risk level",
    "keys": "issue, list and revoke API keys",
}


def _operate(path: str, text: str, task: str, *arguments: Argument, **fixed: Any) -> Command:
    """Return a command whose function, of `administer`, works on the opened database."""
    return Command(path, text, "administer:operate", *arguments, task=task, **fixed)


# fmt: off
# A table: a row to a line, or its continuation.
_GOVERN: Final = (
    Command(
        "check", "check a rule table", "routes:check",
        _arg("table", nargs="?", default="ascend.toml", help="the rule table (default: ascend.toml)"), _JSON,
        description="Check a rule table and print every problem. Exit codes: 0 no problem, 1 problems, 2 usage.",
    ),
    Command(
        "routes", "list what is governed in an application", "routes:routes", _RULES, *APPLICATION, _JSON,
        _arg("--fail-unmapped", action="store_true", help="exit with 1 if a route is not covered; for CI"),
        _arg("--suggest", action="store_true", help="print rules to start from for what is not covered"),
        description="List every live route and method with its rule, what is not covered, and what can never match.",
        epilog="Exit codes: 0 listed, 1 something is not covered or contradictory (--fail-unmapped), 2 wrong usage.",
    ),
    Command(
        "lock", "write what becomes of every route to a file", "lock:lock", _RULES, *APPLICATION, _LOCK, _JSON,
        description="Write every live route with its rule to a file that is kept under version control.",
    ),
    Command(
        "diff", "tell what has become looser since that file was written", "lock:diff", _RULES, *APPLICATION, _LOCK,
        _JSON,
        _arg("--accept", action="store_true", help="write the file anew, and exit with 0"),
        _arg("--github", action="store_true", help="print annotations for GitHub"),
        description="Compare an application with its lock file: what became looser (exempt, without a rule, open to "
        "failure, observed only, under a wider rule), what became tighter, and what else has changed.",
        epilog="Exit codes: 0 nothing is looser, 1 something is, 2 wrong usage.",
    ),
    Command(
        "explain", "explain what governs one request", "explain:explain_request", _RULES, *APPLICATION, _JSON,
        _arg("request", help='method and target, "POST /customers/7/refunds?dry_run=1"'),
        _arg("--header", action="append", default=[], metavar="NAME: VALUE", help="a header; may be repeated"),
        _arg("--body", help="the body; @FILE reads it from a file"),
        description="Print the rule that governs a request, the rules that lost and why, and what would be sent.",
        epilog="Nobody is asked and nothing runs. The agent is the configured one, whatever identify would say.",
    ),
    Command("journal status", "list the journals: whose process lives, what waits, since when", "journal:status",
        *_JOURNALS, _JSON),
    Command("journal deliver", "deliver the journals of processes that ended", "journal:deliver", *_JOURNALS, _JSON),
    Command("journal export", "print the lines as JSON, one a line, and change nothing", "journal:export", *_JOURNALS,
        _arg("--all", action="store_true", help="delivered lines too, as far as they are still there")),
)
_RUN: Final = (
    Command(
        "authority", "serve the embedded authority", "authority:run_task",
        _arg("task", nargs="?", choices=_TASKS, default=_TASKS[0], help="serve (default), init or backup"),
        _arg("path", nargs="?", help="init: the policy file to write (default: policy.toml)"),
        *_PLACE,
        _arg("--host", default="127.0.0.1", help="the address to listen on (default: 127.0.0.1)"),
        _arg("--port", type=_port, default=8700, help="the port, 0 for any free one (default: 8700)"),
        _arg("--tls-cert", metavar="FILE", help="the server's certificate and its chain, PEM"),
        _arg("--tls-key", metavar="FILE", help="its private key, PEM"),
        _arg("--allow-remote", action="store_true", help="listen in plain HTTP where other machines can connect"),
        _arg("--development", action="store_true", help="let webhooks go to plain http and to private addresses"),
        _arg("--no-access-log", action="store_true", help="do not log each request"),
        description="Serve the embedded authority. `authority init [PATH]` writes a commented policy file, makes its "
        "database and prints the first keys, once. `authority backup PATH` copies the database to a new file, also "
        "while it is being served.",
    ),
    Command(
        "explain-policy", "tell what would be decided about an action, and why", "authority:explain_policy",
        _arg("action_type", nargs="?", help="the type of the action, such as transaction"),
        _arg("--action", metavar="FILE", help="the whole action as JSON, - for standard input"),
        _arg("--agent-id", help="who acts"),
        _arg("--resource", help="what is acted on"),
        _arg("--tool-name", help="the tool"),
        _arg("--mcp-server", dest="mcp_server_name", help="the MCP server"),
        _arg("--model", dest="model_id", help="the model's number or name"),
        _arg("--details", dest="action_details", metavar="JSON", help="its details, a JSON object"),
        _arg("--context", metavar="JSON", help="its context, a JSON object"),
        _arg("--risk-indicators", metavar="JSON", help="its risk indicators, a JSON object"),
        *_ORGANISATION,
        description="Decide about an action as the authority would, by the policy file and, where there is a "
        "database, the organisation's own policies, smart rules, MCP servers, models and commands. Exit code 0 if it "
        "would be approved, 1 if not.",
    ),
    Command(
        "audit verify", "find what was changed, removed or reordered", "authority:verify_audit", *_PLACE, _JSON,
        _arg("--head", action="append", default=[], metavar="NUMBER:HASH", help="one noted earlier; repeatable"),
        description="Read the whole audit log and name every entry that was changed, removed or reordered afterwards. "
        "Exit code 1 if any was. Whoever can write the file can also make a whole new log: keep the head that this "
        "prints somewhere else, and pass it to the next verification with --head.",
    ),
    Command(
        "audit export", "print the entries as JSON lines, oldest first", "authority:export_audit", *_PLACE,
        _arg("--after", type=int, default=0, metavar="NUMBER", help="only entries after this one"),
        _arg("--tenant", help="only one organisation's entries (default: all)"),
        description="Print the entries as JSON lines, oldest first. Exit code 1, after them, if the log does not end "
        "where its head says: the last ones may be missing. Whether the others are as they were written only `audit "
        "verify` tells.",
    ),
)
_ADMINISTER: Final = (
    _operate("pending", "list the actions that wait for a person", "pending", *_ORGANISATION,
        _arg("--limit", type=int, choices=range(1, 1001), default=50, metavar="N", help="at most N (50)")),
    _operate("approve", "approve a pending action", "decide", *_DECISION, endpoint=endpoints.APPROVE),
    _operate("deny", "deny a pending action", "decide", *_DECISION, endpoint=endpoints.REJECT),
    _operate("agents list", "list the registered agents and those under a command", "list_agents", *_ORGANISATION),
    _operate("agents block", "refuse everything that the agent submits", "command_agents", *_AGENT, kind="BLOCK"),
    _operate("agents unblock", "lift every block and limit of the agent", "command_agents", *_AGENT, kind="UNBLOCK"),
    _operate("agents suspend", "block for the time being", "command_agents", *_AGENT, kind="SUSPEND"),
    _operate("agents quarantine", "block on suspicion", "command_agents", *_AGENT, kind="QUARANTINE"),
    _operate("agents rate-limit", "let through so many actions a minute", "command_agents", *_AGENT,
        _arg("--per-minute", type=int, required=True, metavar="N", help="actions a minute"), kind="RATE_LIMIT"),
    _operate("mcp-servers list", "list the MCP servers of the database", "list_servers", *_ORGANISATION),
    _operate("mcp-servers add", "register an MCP server", "add_server", *_SERVER,
        _arg("--block-tool", action="append", default=[], metavar="TOOL", help="a tool that may not be used"),
        _arg("--description", default="", help="for people")),
    _operate("mcp-servers activate", "let actions name a server again, or for the first time",
        "change_server", *_SERVER, endpoint=endpoints.ACTIVATE_MCP_SERVER, state="active"),
    _operate("mcp-servers deactivate", "refuse actions that name a server", "change_server", *_SERVER,
        _arg("--reason", default="", help="why; kept in the audit log"),
        endpoint=endpoints.DEACTIVATE_MCP_SERVER, state="inactive"),
    _operate("mcp-servers remove", "remove a server", "change_server", *_SERVER,
        endpoint=endpoints.DELETE_MCP_SERVER, state="removed"),
    _operate("mcp-servers block", "issue a kill-switch command against a server", "command_server", *_SERVER,
        _SERVER_REASON, kind="BLOCK"),
    _operate("mcp-servers unblock", "lift it", "command_server", *_SERVER, _SERVER_REASON, kind="UNBLOCK"),
    _operate("models list", "list the models of the database", "list_models", *_ORGANISATION),
    _operate("models add", "register a model; actions name it by its number or its name", "add_model",
        *_MODEL, _arg("--name", default="", help="its name"),
        _arg("--status", choices=_STATUSES, default="approved", help="default: approved")),
    _operate("models status", "change a model's compliance status", "set_model_status", *_MODEL,
        _arg("status", choices=_STATUSES)),
    _operate("models remove", "remove a model", "remove_model", *_MODEL),
    _operate("approvers list", "list what is set here", "list_approvers", *_ORGANISATION),
    _operate("approvers set", "set the approvers of a level", "set_approvers", *_LEVEL,
        _arg("--count", type=int, default=1, help="so many different people (default: 1)"),
        _arg("--approver", action="append", default=[], metavar="NAME", help="the name of an admin key"),
        description="What is set here goes before the policy file, for actions that are submitted from then on."),
    _operate("approvers clear", "let the policy file say it again", "clear_approvers", *_LEVEL),
    Command("keys issue", "make a key and print it, once", "administer:issue_key", *_ORGANISATION,
        _arg("--name", required=True, help="whose key it is, for the audit log"),
        _arg("--role", choices=("super_admin", "admin", "user"), default="user", help="default: user")),
    Command("keys list", "list the keys; never shows them", "administer:list_keys", *_PLACE, _JSON),
    Command("keys revoke", "make a key invalid", "administer:revoke_key", *_PLACE, _JSON,
        _arg("id", type=int, help="the number that `keys list` shows")),
)
_LEARN: Final = (
    Command(
        "demo", "start the embedded authority and a governed FastAPI application, and watch real requests",
        "authority:demo", _arg("--serve", action="store_true", help="leave both running and print curl lines to try"),
        description="Run the demonstration and print its transcript; the exit status says whether every answer was "
        "the expected one.",
    ),
    Command("version", "print the version", "terminal:version", _JSON),
)
# fmt: on

# In the order of the help text.
GROUPS: Final[Mapping[str, Sequence[Command]]] = {
    "govern an application": _GOVERN,
    "run an authority": _RUN,
    "administer an authority": _ADMINISTER,
    "get to know this package": _LEARN,
}
COMMANDS: Final = tuple(command for group in GROUPS.values() for command in group)
