"""The `explain-policy` command: what would be decided about an action, and why; nothing is stored."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..exceptions import ConfigurationError
from .files import add_organisation, place_of
from .terminal import FAILED, MISUSED, OK, plain, print_json

if TYPE_CHECKING:
    import argparse

__all__ = ["add_parser"]

_ABOUT = """\
Decide about an action as the authority would, by the policy file and, where there is a database, the organisation's own
policies, smart rules, MCP servers, models and commands. Exit code 0 if it would be approved, 1 if not.
"""


def add_parser(commands: Any) -> None:
    """Add the command to the command line."""
    parser = commands.add_parser(
        "explain-policy", help="tell what would be decided about an action, and why", description=_ABOUT
    )
    parser.add_argument("action_type", nargs="?", help="the type of the action, such as transaction")
    parser.add_argument("--action", metavar="FILE", help="the whole action as JSON, - for standard input")
    for name, text in (
        ("agent-id", "who acts"),
        ("resource", "what is acted on"),
        ("tool-name", "the tool"),
        ("mcp-server", "the MCP server"),
        ("model", "the model's number or name"),
    ):
        parser.add_argument(f"--{name}", help=text)
    for name in ("details", "context", "risk-indicators"):
        parser.add_argument(f"--{name}", metavar="JSON", help=f"its {name.replace('-', ' ')}, a JSON object")
    add_organisation(parser)
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    from ..authority import Authority, Store, load_policy
    from ..authority.keys import operator

    action = _action(args)
    database = place_of(args)
    policy = load_policy(args.policy)
    # Without a database there is only the policy file to ask, and a dry run makes none.
    store = Store.open(database if Path(database).exists() else ":memory:", now=time.time)
    authority = Authority(store, policy)
    try:
        status, _, content = authority.handle(
            "POST",
            "/api/governance/policies/evaluate-realtime",
            "",
            {},
            json.dumps(action).encode(),
            credential=operator(args.tenant),
        )
    finally:
        authority.close()
    answer = json.loads(content)
    if status != 200:
        message = f"the action cannot be judged: {answer['error']['message']}"
        if args.json:
            print_json({"error": message})
        else:
            print(f"ascend-middleware: {message}", file=sys.stderr)
        return MISUSED
    if args.json:
        print_json(answer)
    else:
        _tell(answer)
    return OK if answer["decision"] == "approved" else FAILED


def _action(args: argparse.Namespace) -> dict[str, Any]:
    action: dict[str, Any] = {}
    if args.action is not None:
        try:
            text = sys.stdin.read() if args.action == "-" else Path(args.action).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError(f"--action: {args.action} cannot be read: {error}") from None
        action = _object("--action", text)
    given = {
        "action_type": args.action_type,
        "agent_id": args.agent_id,
        "resource": args.resource,
        "tool_name": args.tool_name,
        "mcp_server_name": args.mcp_server,
        "model_id": int(args.model) if args.model and args.model.isdigit() else args.model,
    }
    action |= {name: value for name, value in given.items() if value is not None}
    for name, option in (
        ("action_details", "details"),
        ("context", "context"),
        ("risk_indicators", "risk_indicators"),
    ):
        text = getattr(args, option)
        if text is not None:
            action[name] = _object(f"--{option.replace('_', '-')}", text)
    if not action.get("action_type"):
        raise ConfigurationError("name the type of the action, or give the whole action with --action")
    return action


def _object(option: str, text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise ConfigurationError(f"{option}: not JSON: {error}") from None
    if not isinstance(value, dict):
        raise ConfigurationError(f"{option}: expected a JSON object")
    return value


def _tell(answer: dict[str, Any]) -> None:
    explanation = answer["explanation"]
    print(f"{answer['decision']}: {plain(answer['reason'])}")
    print(f"risk score {answer['risk_score']} ({answer['risk_level']})")
    for signal in explanation["signals"]:
        print(f"  {signal['points']:>+4}  {plain(signal['signal'])}  from {signal['source']}")
    for policy in explanation["policies"]:
        says = policy["decision"] or f"risk score {policy['risk_score']}"
        failed = f", could not be evaluated: {plain(policy['fault'])}" if policy["evaluation_failed"] else ""
        print(f"{policy['source']} {plain(policy['name'])!r} says {says}{failed}")
    if explanation["decided_by"] == "threshold":
        pending, denied = explanation["thresholds"]["pending"], explanation["thresholds"]["denied"]
        print(f"no policy decides; thresholds: a person from {pending}, denied from {denied}")
    for violation in answer["violations"]:
        print(f"violation: {plain(violation)}")
