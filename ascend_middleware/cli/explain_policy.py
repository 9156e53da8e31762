"""The `explain-policy` command: what would be decided about an action, and why; nothing is stored."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..api.endpoints import EVALUATE_POLICY
from ..authority import Authority, Store, load_policy
from ..authority.bodies import ApiError
from ..authority.keys import operator
from ..exceptions import ConfigurationError, ValidationError
from .files import place_of
from .terminal import FAILED, OK, Result

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

__all__ = ["explain_policy"]


def explain_policy(args: argparse.Namespace) -> Result:
    """Decide about an action as the authority would, and store nothing."""
    action = _action(args)
    database = place_of(args)
    policy = load_policy(args.policy)
    # Without a database there is only the policy file to ask, and a dry run makes none.
    store = Store.open(database if Path(database).exists() else ":memory:", now=time.time)
    with contextlib.closing(Authority(store, policy)) as authority:
        try:
            answer = authority.ask(EVALUATE_POLICY, operator(args.tenant), body=action)
        except (ApiError, ValidationError) as error:
            raise ConfigurationError(f"the action cannot be judged: {error.message}") from None
    return Result(data=answer, lines=_lines(answer), code=OK if answer["decision"] == "approved" else FAILED)


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
    for name, option, text in (
        ("action_details", "--details", args.details),
        ("context", "--context", args.context),
        ("risk_indicators", "--risk-indicators", args.risk_indicators),
    ):
        if text is not None:
            action[name] = _object(option, text)
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


def _lines(answer: dict[str, Any]) -> Iterator[str]:
    explanation = answer["explanation"]
    yield f"{answer['decision']}: {answer['reason']}"
    yield f"risk score {answer['risk_score']} ({answer['risk_level']})"
    for signal in explanation["signals"]:
        yield f"  {signal['points']:>+4}  {signal['signal']}  from {signal['source']}"
    for policy in explanation["policies"]:
        says = policy["decision"] or f"risk score {policy['risk_score']}"
        failed = f", could not be evaluated: {policy['fault']}" if policy["evaluation_failed"] else ""
        yield f"{policy['source']} {policy['name']!r} says {says}{failed}"
    if explanation["decided_by"] == "threshold":
        pending, denied = explanation["thresholds"]["pending"], explanation["thresholds"]["denied"]
        yield f"no policy decides; thresholds: a person from {pending}, denied from {denied}"
    for violation in answer["violations"]:
        yield f"violation: {violation}"
