"""Every command: what it is called, what it takes, and where its function is. Each is written here, once.

A function takes the parsed arguments and returns a `Result`. Its module is imported when it runs, so that the modules
of the authority need their extra only then.
"""

from __future__ import annotations

import argparse
import importlib
from argparse import Namespace
from typing import TYPE_CHECKING, Any, Final

from ..api import endpoints
from ..inspection import EXPLAIN, JSON, ROUTES, RULES, Command, arg
from ..problems import BadValueError, duration

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ..inspection import Argument
    from ..inspection.about import Application

__all__ = ["COMMANDS", "GROUPS", "TASKS"]


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) <= 65_535):
        raise argparse.ArgumentTypeError(f"expected a port number, got {text!r}")
    return int(text)


def _duration(text: str) -> float:
    try:
        return duration(text)
    except BadValueError as error:
        raise argparse.ArgumentTypeError(f"{error}; {error.hint}") from None


# --- arguments of several commands

_POLICY: Final = arg("--policy", default="policy.toml", help="the policy file (default: policy.toml)")
_PLACE: Final = (
    _POLICY,
    arg(
        "--db",
        help="the database, a file or a postgresql:// URL (default: ASCEND_AUTHORITY_DB, or beside the policy file)",
    ),
)
_TENANT: Final = arg("--tenant", default="default", help="the organisation (default: default)")
_ORGANISATION: Final = (*_PLACE, _TENANT, JSON)
_APPLICATION: Final = (
    arg("app", help='the application, "module:name"; "module:create_app()" calls a factory'),
    arg("--app-dir", default=".", help="where the module is looked for first (default: here)"),
)
_LOCK: Final = arg("--lock", default="ascend.lock", metavar="FILE", help="the lock file (default: ascend.lock)")
_JOURNALS: Final = (
    arg("--rules", metavar="FILE", help="the ascend.toml whose [ascend] settings hold"),
    arg("--journal", metavar="DIR", help="the directory, as the setting journal names it"),
)
_SERVER: Final = (arg("name", help="the server's name"), *_ORGANISATION)
_MODEL: Final = (arg("id", type=int, help="its number"), *_ORGANISATION)
_STATUSES: Final = ("approved", "partially_approved", "pending", "denied")
_LEVEL: Final = (arg("level", choices=("low", "medium", "high", "critical")), *_ORGANISATION)
_TASKS: Final = ("serve", "init", "backup", "restore", "copy", "archive", "erase")
_NEW_KEY: Final = (
    *_ORGANISATION,
    arg("--name", required=True, help="whose key it is, for the audit log"),
    arg(
        "--role",
        choices=("super_admin", "admin", "user", "approver", "viewer"),
        default="user",
        help="user (default): submits and reads; approver: reads and decides; viewer: only reads; admin: everything",
    ),
    arg("--expires", type=_duration, metavar="TIME", help="when it ends by itself: 90d from now, say (default: never)"),
    arg(
        "--agents",
        action="append",
        default=[],
        metavar="PATTERN",
        help="the agents it may speak for, billing-* or one id; repeatable (default: any)",
    ),
)
_DECISION: Final = (
    arg("action", help="the action's id, 7 or act_7"),
    arg("--comments", default="", help="why; kept in the audit log"),
    *_ORGANISATION,
)
_AGENT: Final = (
    arg("agent", nargs="?", help="the agent's id, registered or not"),
    arg("--all", action="store_true", help="every agent of the organisation, now and later"),
    arg("--reason", required=True, help="why; the agent's people and the audit log see it"),
    *_ORGANISATION,
)
_SERVER_REASON: Final = arg("--reason", required=True, help="why; everybody who uses the server sees it")

# --- commands

# What `--help` says of groups of tasks.
TASKS: Final = {
    "journal": "show, deliver or export what passed actions left to be reported",
    "policy": "try a policy file: on cases, on stored actions, against another one",
    "audit": "verify or export the audit log",
    "agents": "list agents, and block, slow down or release them",
    "mcp-servers": "register MCP servers, switch them off and on, block them",
    "models": "register models and say which may be used",
    "approvers": "say who approves at which risk level",
    "keys": "issue, rotate, list and revoke API keys",
}


def _about(command: Command) -> Command:
    """Return a command about an application as one that is told where to find it."""
    texts = {"description": command.description, "epilog": command.epilog}
    return Command(command.path, command.text, command.function, *_APPLICATION, *command.arguments, **texts, find=_find)


def _find(args: Namespace) -> Application:
    found: Application = importlib.import_module(".applications", __package__).load_application(args)
    return found


def _operate(path: str, text: str, task: str, *arguments: Argument, **fixed: Any) -> Command:
    """Return a command whose function, of `administer`, works on the opened database."""
    return Command(path, text, "cli.administer:operate", *arguments, task=task, **fixed)


# fmt: off
# A table: a row to a line, or its continuation.
_GOVERN: Final = (
    Command(
        "check", "check a rule table", "cli.applications:check",
        arg("table", nargs="?", default="ascend.toml", help="the rule table (default: ascend.toml)"), JSON,
        description="Check a rule table and print every problem. Exit codes: 0 no problem, 1 problems, 2 usage.",
    ),
    _about(ROUTES),
    Command(
        "lock", "write what becomes of every route to a file", "cli.applications:lock",
        *(RULES, *_APPLICATION, _LOCK, JSON),
        description="Write every live route with its rule to a file that is kept under version control.",
    ),
    Command(
        "diff", "tell what has become looser since that file was written", "cli.applications:diff",
        *(RULES, *_APPLICATION, _LOCK, JSON),
        arg("--accept", action="store_true", help="write the file anew, and exit with 0"),
        arg("--github", action="store_true", help="print annotations for GitHub"),
        description="Compare an application with its lock file: what became looser (exempt, without a rule, open to "
        "failure, observed only, under a wider rule), what became tighter, and what else has changed.",
        epilog="Exit codes: 0 nothing is looser, 1 something is, 2 wrong usage.",
    ),
    _about(EXPLAIN),
    Command(
        "report", "tell what observe mode would have refused", "cli.journal:report", *_JOURNALS, JSON,
        arg("--forget", action="store_true", help="delete what was observed, after it is printed"),
        description="Tell what observe mode saw: which routes would have been refused or held, how often, for whom "
        "and why, and which rules to add. Reads what is beside the journals of this machine.",
    ),
    Command("journal status", "list the journals: whose process lives, what waits, since when", "cli.journal:status",
        *_JOURNALS, JSON),
    Command("journal deliver", "deliver the journals of processes that ended", "cli.journal:deliver", *_JOURNALS, JSON),
    Command("journal export", "print the lines as JSON, one a line, and change nothing", "cli.journal:export",
        *_JOURNALS,
        arg("--all", action="store_true", help="delivered lines too, as far as they are still there")),
)
_RUN: Final = (
    Command(
        "authority", "serve the embedded authority", "cli.authority:run_task",
        arg("task", nargs="?", choices=_TASKS, default=_TASKS[0], help="serve (the default) or another one"),
        arg("path", nargs="?", help="init: the policy file to write (policy.toml); erase: the action; else the backup"),
        *_PLACE,
        arg("--host", default="127.0.0.1", help="the address to listen on (default: 127.0.0.1)"),
        arg("--port", type=_port, default=8700, help="the port, 0 for any free one (default: 8700)"),
        arg("--tls-cert", metavar="FILE", help="the server's certificate and its chain, PEM"),
        arg("--tls-key", metavar="FILE", help="its private key, PEM"),
        arg("--allow-remote", action="store_true", help="listen in plain HTTP where other machines can connect"),
        arg("--development", action="store_true", help="let webhooks go to plain http and to private addresses"),
        arg("--telemetry", action="store_true", help="trace requests (OpenTelemetry; also ASCEND_TELEMETRY=true)"),
        arg("--open-metrics", action="store_true", help="serve /metrics without a key, for a private network"),
        arg("--no-access-log", action="store_true", help="do not log each request"),
        arg("--from", dest="source", metavar="DB", help="copy: the database to copy, a file or a URL"),
        arg("--to", metavar="DB|DIR", help="copy: where there is no database yet, a file or the URL of an empty one; "
            "archive, erase: the folder of the archives (default: as [retention] says)"),
        arg("--agent", metavar="ID", help="erase: all actions of this agent, in the place of one action"),
        arg("--match", metavar="PLACE=TEXT", action="append", help="erase: all actions whose submission has this text "
            "at a place such as context.principal; may be repeated, and all must hold"),
        arg("--reason", help="erase: why; the audit log keeps it"),
        _TENANT,
        arg("--before", metavar="DATE", help="archive: what is older (default: as [retention] says)"),
        arg("--without-outcome", action="store_true", help="archive: with --before, also approved actions of which "
            "nobody told what became of them"),
        description="Serve the embedded authority. `authority init [PATH]` writes a commented policy file, makes its "
        "database and prints the first keys, once. `authority backup PATH` copies the database to a new file, also "
        "while it is being served. `authority restore PATH` checks such a copy wholly, audit log included, and puts it "
        "in the place of the database, whose old file is kept; stop the authority first. `authority copy --from FILE "
        "--to postgresql://…` copies it to another kind. `authority archive` moves old actions and audit entries into "
        "compressed files. `authority erase ID` erases an action's personal data.",
    ),
    Command(
        "explain-policy", "tell what would be decided about an action, and why", "cli.authority:explain_policy",
        arg("action_type", nargs="?", help="the type of the action, such as transaction"),
        arg("--action", metavar="FILE", help="the whole action as JSON, - for standard input"),
        arg("--agent-id", help="who acts"),
        arg("--resource", help="what is acted on"),
        arg("--tool-name", help="the tool"),
        arg("--mcp-server", dest="mcp_server_name", help="the MCP server"),
        arg("--model", dest="model_id", help="the model's number or name"),
        arg("--details", dest="action_details", metavar="JSON", help="its details, a JSON object"),
        arg("--context", metavar="JSON", help="its context, a JSON object"),
        arg("--risk-indicators", metavar="JSON", help="its risk indicators, a JSON object"),
        *_ORGANISATION,
        description="Decide about an action as the authority would, by the policy file and, where there is a "
        "database, the organisation's own policies, smart rules, MCP servers, models and commands. Exit code 0 if it "
        "would be approved, 1 if not.",
    ),
    Command(
        "policy test", "decide about the actions of cases, and compare", "cli.policies:test",
        arg("cases", nargs="+", metavar="FILE", help="files with [[case]], or folders of them"),
        _POLICY, JSON,
        arg("--all", action="store_true", help="also fail if a policy is reached by no case"),
        description="Decide about each action of the cases as the authority would, compare with the decision, the "
        "reason and the policy that they expect, and name the policies that no case reaches. Exit code 1 if a case "
        "is not met.",
    ),
    Command(
        "policy replay", "tell which decisions a changed policy file would make otherwise", "cli.policies:replay",
        *_ORGANISATION,
        arg("--since", required=True, metavar="DATE", help="actions submitted from then on, 2026-11-01"),
        arg("--limit", type=int, default=20, metavar="N", help="show at most N of them (20)"),
        arg("--exit-code", action="store_true", help="exit with 1 if any would be"),
        description="Decide anew about stored actions, by the given policy file and the organisation's own policies, "
        "and tell every decision that would be another one. Nothing is stored.",
    ),
    Command(
        "policy diff", "tell what differs between two policy files", "cli.policies:diff",
        arg("before", help="a policy file"), arg("after", help="another one"), JSON,
        arg("--exit-code", action="store_true", help="exit with 1 if anything does"),
    ),
    Command(
        "audit verify", "find what was changed, removed or reordered", "cli.authority:verify_audit", *_PLACE, JSON,
        arg("--head", action="append", default=[], metavar="NUMBER:HASH",
            help="one noted earlier, or a file with such ones, as head_file of the policy file; repeatable"),
        arg("--from", dest="start", metavar="NUMBER:HASH", help="read only what follows a head that was verified"),
        arg("--archive", metavar="DIR", help="read the archives in this folder too, from the first entry on"),
        description="Read the whole audit log and name every entry that was changed, removed or reordered afterwards. "
        "Exit code 1 if any was. Whoever can write the file can also make a whole new log: keep the head that this "
        "prints somewhere else, and pass it to the next verification with --head.",
    ),
    Command(
        "audit export", "print the entries as JSON lines, oldest first", "cli.authority:export_audit", *_PLACE,
        arg("--after", type=int, default=0, metavar="NUMBER", help="only entries after this one"),
        arg("--tenant", help="only one organisation's entries (default: all)"),
        description="Print the entries as JSON lines, oldest first. Exit code 1, after them, if the log does not end "
        "where its head says: the last ones may be missing. Whether the others are as they were written only `audit "
        "verify` tells.",
    ),
)
_ADMINISTER: Final = (
    _operate("pending", "list the actions that wait for a person", "pending", *_ORGANISATION,
        arg("--limit", type=int, choices=range(1, 1001), default=50, metavar="N", help="at most N (50)")),
    _operate("approve", "approve a pending action", "decide", *_DECISION, endpoint=endpoints.APPROVE),
    _operate("deny", "deny a pending action", "decide", *_DECISION, endpoint=endpoints.REJECT),
    _operate("agents list", "list the registered agents and those under a command", "list_agents", *_ORGANISATION),
    _operate("agents block", "refuse everything that the agent submits", "command_agents", *_AGENT, kind="BLOCK"),
    _operate("agents unblock", "lift every block and limit of the agent", "command_agents", *_AGENT, kind="UNBLOCK"),
    _operate("agents suspend", "block for the time being", "command_agents", *_AGENT, kind="SUSPEND"),
    _operate("agents quarantine", "block on suspicion", "command_agents", *_AGENT, kind="QUARANTINE"),
    _operate("agents rate-limit", "let through so many actions a minute", "command_agents", *_AGENT,
        arg("--per-minute", type=int, required=True, metavar="N", help="actions a minute"), kind="RATE_LIMIT"),
    _operate("mcp-servers list", "list the MCP servers of the database", "list_servers", *_ORGANISATION),
    _operate("mcp-servers add", "register an MCP server", "add_server", *_SERVER,
        arg("--block-tool", action="append", default=[], metavar="TOOL", help="a tool that may not be used"),
        arg("--description", default="", help="for people")),
    _operate("mcp-servers activate", "let actions name a server again, or for the first time",
        "change_server", *_SERVER, endpoint=endpoints.ACTIVATE_MCP_SERVER, state="active"),
    _operate("mcp-servers deactivate", "refuse actions that name a server", "change_server", *_SERVER,
        arg("--reason", default="", help="why; kept in the audit log"),
        endpoint=endpoints.DEACTIVATE_MCP_SERVER, state="inactive"),
    _operate("mcp-servers remove", "remove a server", "change_server", *_SERVER,
        endpoint=endpoints.DELETE_MCP_SERVER, state="removed"),
    _operate("mcp-servers block", "issue a kill-switch command against a server", "command_server", *_SERVER,
        _SERVER_REASON, kind="BLOCK"),
    _operate("mcp-servers unblock", "lift it", "command_server", *_SERVER, _SERVER_REASON, kind="UNBLOCK"),
    _operate("models list", "list the models of the database", "list_models", *_ORGANISATION),
    _operate("models add", "register a model; actions name it by its number or its name", "add_model",
        *_MODEL, arg("--name", default="", help="its name"),
        arg("--status", choices=_STATUSES, default="approved", help="default: approved")),
    _operate("models status", "change a model's compliance status", "set_model_status", *_MODEL,
        arg("status", choices=_STATUSES)),
    _operate("models remove", "remove a model", "remove_model", *_MODEL),
    _operate("approvers list", "list what is set here", "list_approvers", *_ORGANISATION),
    _operate("approvers set", "set the approvers of a level", "set_approvers", *_LEVEL,
        arg("--count", type=int, default=1, help="so many different people (default: 1)"),
        arg("--approver", action="append", default=[], metavar="NAME", help="the name of an admin key"),
        description="What is set here goes before the policy file, for actions that are submitted from then on."),
    _operate("approvers clear", "let the policy file say it again", "clear_approvers", *_LEVEL),
    Command("keys issue", "make a key and print it, once", "cli.administer:issue_key", *_NEW_KEY),
    Command("keys create", "the same as issue", "cli.administer:issue_key", *_NEW_KEY),
    Command("keys rotate", "make a key that takes another one's place, and print it, once", "cli.administer:rotate_key",
        *_PLACE, JSON, arg("id", type=int, help="the number of the old key, which `keys list` shows"),
        arg("--overlap", type=_duration, default="24h", metavar="TIME", help="how long the old one stays (24h)"),
        arg("--expires", type=_duration, metavar="TIME", help="when the new one ends: 90d from now, say "
            "(it lasts as long as the old one was issued for)"),
        description="Make a key of the same name, role, organisation and agents. The old one stays valid for the "
        "overlap; its agents and webhooks become the new one's."),
    Command("keys list", "list the keys; never shows them", "cli.administer:list_keys", *_PLACE, JSON),
    Command("keys revoke", "make a key invalid", "cli.administer:revoke_key", *_PLACE, JSON,
        arg("id", type=int, help="the number that `keys list` shows")),
)
_LEARN: Final = (
    Command(
        "demo", "start the embedded authority and a governed FastAPI application, and watch real requests",
        "demo.run:run",
        arg("--serve", action="store_true", help="leave both running and print curl lines to try"),
        description="Run the demonstration and print its transcript; the exit status says whether every answer was "
        "the expected one.",
    ),
    Command(
        "schema", "print a JSON Schema, by which editors check and complete a file", "cli.schemas:print_schema",
        arg("name", nargs="?", choices=("ascend", "policy"), default="ascend", help="ascend (default) or policy"),
        description="Print the JSON Schema of ascend.toml or policy.toml. A file whose first line is `#:schema "
        "./ascend.schema.json` is checked by it in editors, and by `taplo lint`, if it stands beside.",
    ),
    Command("version", "print the version", "cli:version", JSON),
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
