"""The commands that administer an authority: approvals, agents, MCP servers, models, approvers and keys."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ..api import endpoints
from ..authority import Role, load_policy
from ..authority.context import action_number
from ..authority.killswitch import standing
from ..authority.management import unknown_approvers
from ..authority.store.registry_store import AGENT
from ..exceptions import ConfigurationError
from .files import open_database, open_store
from .terminal import Result

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Mapping, Sequence

    from ..authority.management import Management
    from ..authority.policy.approvers import Requirement

# --- what waits for a person

_MOST_VALUES: Final = 4
_LONGEST_VALUE: Final = 40


def pending(args: argparse.Namespace) -> Result:
    """List the actions that wait for a person, oldest first."""
    with open_database(args) as operator:
        found = operator.ask(endpoints.LIST_PENDING, query={"order": "asc", "limit": args.limit})
    records, total = found["actions"], found["total"]
    lines = [_waiting(record) for record in records]
    if total > len(records):
        lines.append(f"{total - len(records)} more; see --limit")
    return Result(data={"actions": records, "total": total}, lines=lines or ["nothing is pending"])


def _waiting(record: Mapping[str, Any]) -> str:
    risk = f"{record['risk_score']} {record['risk_level']}"
    what = f"{record['agent_id']}: {record['action_type']} on {record['resource']}"
    # A resource may be the route's template, the same for every customer.
    values = {"id": record.get("resource_id"), **(record.get("action_details") or {})}
    shown = [f"{name}={_short(value)}" for name, value in values.items() if value is not None]
    if shown:
        what += f" [{', '.join(shown[:_MOST_VALUES])}{', …' if len(shown) > _MOST_VALUES else ''}]"
    return f"{record['action_id']:>4}  {record['created_at']}  {risk:<11}  {what}  ({record['reason']})"


def _short(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}…"


def decide(args: argparse.Namespace) -> Result:
    """Approve or deny a pending action."""
    number = action_number(args.action)
    if number is None:
        raise ConfigurationError(f"not an action id: {args.action!r}; expected 7 or act_7")
    missing = f"there is no action {number}; what waits is listed by: ascend-middleware pending"
    with open_database(args) as operator:
        found = operator.ask(args.endpoint, body={"comments": args.comments}, missing=missing, id=str(number))
    if found["status"] == "pending":
        line = f"action {number} is approved by you and waits for {', '.join(found['pending_approvers'])}"
    else:
        line = f"action {number} is {found['status']}"
    return Result(data=found, lines=[line])


# --- agents


def list_agents(args: argparse.Namespace) -> Result:
    """List the registered agents and those under a command."""
    with open_database(args) as operator:
        records = operator.authority.records
        known = {row["name"]: row for row in records.all(AGENT, tenant=args.tenant)}
        named = records.rows(
            "SELECT DISTINCT agent_id FROM commands WHERE tenant = ? AND agent_id IS NOT NULL", (args.tenant,)
        )
        rows = []
        for name in sorted({*known, *(row["agent_id"] for row in named)}):
            agent, found = known.get(name, {}), standing(records, name, tenant=args.tenant)
            rows.append(
                {
                    "agent_id": name,
                    "registered": name in known,
                    "display_name": agent.get("display_name"),
                    "model_id": agent.get("model_id"),
                    "standing": found.word,
                    "reason": found.command["reason"] if found.command else None,
                }
            )
        everybody = standing(records, None, tenant=args.tenant)
    lines = [_agent(row) for row in rows] or ["no agents"]
    if everybody.command is not None:
        lines.insert(0, f"the whole organisation is {everybody.word}: {everybody.command['reason']}")
    return Result(data={"agents": rows, "organization": everybody.word}, lines=lines)


def _agent(row: Mapping[str, Any]) -> str:
    reason = f"  ({row['reason']})" if row["reason"] else ""
    return f"{row['standing']:<12}  {row['agent_id']}{'' if row['registered'] else '  not registered'}{reason}"


def command_agents(args: argparse.Namespace) -> Result:
    """Issue a kill-switch command to one agent, or to all."""
    if (args.agent is None) != args.all:
        raise ConfigurationError("name one agent, or all of them with --all")
    body = {"command_type": args.kind, "reason": args.reason}
    if args.kind == "RATE_LIMIT":
        body["parameters"] = {"max_per_minute": args.per_minute}
    with open_database(args, create=True) as operator:
        if args.all:
            found = operator.ask(endpoints.COMMAND_ALL, body=body)
        else:
            found = operator.ask(endpoints.COMMAND_AGENT, body=body, agent_id=args.agent)
    target = "all agents" if args.all else f"agent {args.agent}"
    return Result(data=found["command"], lines=[f"{args.kind} issued to {target}: command {found['command_id']}"])


# --- MCP servers


def list_servers(args: argparse.Namespace) -> Result:
    """List the MCP servers of the database."""
    with open_database(args) as operator:
        rows: list[dict[str, Any]] = []
        while page := operator.ask(endpoints.LIST_MCP_SERVERS, query={"offset": len(rows)})["servers"]:
            rows += [_server(row) for row in page]
    none = ["no MCP servers in the database; those of the policy file are not listed here"]
    return Result(data={"servers": rows}, lines=[_server_line(row) for row in rows] or none)


def _server(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: row[name] for name in ("name", "active", "deactivated_reason", "blocked_tools", "description")}


def _server_line(row: Mapping[str, Any]) -> str:
    blocked = f"  without {', '.join(row['blocked_tools'])}" if row["blocked_tools"] else ""
    reason = f"  ({row['deactivated_reason']})" if row["deactivated_reason"] else ""
    return f"{'active' if row['active'] else 'inactive':<8}  {row['name']}{blocked}{reason}"


def add_server(args: argparse.Namespace) -> Result:
    """Register an MCP server, active."""
    body = {"server_name": args.name, "blocked_tools": args.block_tool, "description": args.description or None}
    with open_database(args, create=True) as operator:
        found = operator.ask(endpoints.REGISTER_MCP_SERVER, body=body)
    return Result(data=_server(found["server"]), lines=[f"MCP server {args.name} is registered"])


def switch_server(args: argparse.Namespace) -> Result:
    """Let actions name a server, or refuse them."""
    body = {"reason": args.reason or None}
    with open_database(args) as operator:
        found = operator.ask(args.endpoint, body=body, missing=_no_server(args.name), name=args.name)
    return Result(data=_server(found["server"]), lines=[f"MCP server {args.name} is {args.state}"])


def remove_server(args: argparse.Namespace) -> Result:
    """Remove an MCP server."""
    with open_database(args) as operator:
        operator.ask(endpoints.DELETE_MCP_SERVER, missing=_no_server(args.name), name=args.name)
    return Result(data={"removed": args.name}, lines=[f"MCP server {args.name} is removed"])


def _no_server(name: str) -> str:
    return f"there is no MCP server {name!r} in the database"


def command_server(args: argparse.Namespace) -> Result:
    """Issue a kill-switch command about an MCP server."""
    body = {"command_type": args.kind, "reason": args.reason, "mcp_server": args.name}
    with open_database(args, create=True) as operator:
        found = operator.ask(endpoints.COMMAND_ALL, body=body)
    return Result(data=found["command"], lines=[f"{args.kind} issued about MCP server {args.name}"])


# --- models


def _model(row: Mapping[str, Any]) -> dict[str, Any]:
    return {"id": int(row["name"]), "name": row["model_name"], "compliance_status": row["compliance_status"]}


def list_models(args: argparse.Namespace) -> Result:
    """List the models of the database."""
    with open_database(args) as operator:
        rows = [_model(row) for row in operator.management.models()]
    lines = [f"{row['id']:>6}  {row['compliance_status']:<18}  {row['name']}" for row in rows]
    none = ["no models in the database; those of the policy file are not listed here"]
    return Result(data={"models": rows}, lines=lines or none)


def add_model(args: argparse.Namespace) -> Result:
    """Register a model."""
    with open_database(args, create=True) as operator:
        row = operator.management.add_model(args.id, name=args.name, status=args.status)
    return Result(data=_model(row), lines=[f"model {args.id} is registered as {args.status}"])


def set_model_status(args: argparse.Namespace) -> Result:
    """Change a model's compliance status."""
    with open_database(args) as operator:
        row = operator.management.set_model_status(args.id, args.status)
    return Result(data=_model(row), lines=[f"model {args.id} is {args.status}"])


def remove_model(args: argparse.Namespace) -> Result:
    """Remove a model."""
    with open_database(args) as operator:
        operator.management.remove_model(args.id)
    return Result(data={"removed": args.id}, lines=[f"model {args.id} is removed"])


# --- approvers


def list_approvers(args: argparse.Namespace) -> Result:
    """List who approves at which risk level: what is set here, then what the policy file says besides."""
    declared, issuer = _declared(args)
    with open_database(args) as operator:
        found = operator.management.approvers()
        warnings = _warnings(operator.management, {**declared, **found}, issuer)
    lines = [_approvers_line(level, one) for level, one in found.items()]
    lines += [f"{_approvers_line(level, one)}  (policy file)" for level, one in declared.items() if level not in found]
    if not found:
        lines.append("nothing is set here; the policy file says who approves")
    data = {
        "approvers": {level: _requirement(one) for level, one in found.items()},
        "policy_file": {level: _requirement(one) for level, one in declared.items()},
        "warnings": warnings,
    }
    return Result(data=data, lines=lines, notes=_told(args, warnings))


def _declared(args: argparse.Namespace) -> tuple[Mapping[str, Requirement], str]:
    """Return the approvers of the policy file, where there is one, and whose tokens it takes."""
    if not Path(args.policy).exists():
        return {}, ""
    policy = load_policy(args.policy)
    return policy.approvals.levels, policy.token_key.issuer if policy.token_key else ""


def _warnings(management: Management, levels: Mapping[str, Requirement], issuer: str) -> list[str]:
    return unknown_approvers(management.store, levels, tenant=management.by.tenant, issuer=issuer)


def _told(args: argparse.Namespace, warnings: list[str]) -> Iterator[str]:
    return (f"ascend-middleware: warning: {words}" for words in warnings if not args.json)


def _requirement(one: Requirement) -> dict[str, Any]:
    return {"count": one.count, "approvers": list(one.names)}


def _approvers_line(level: str, one: Requirement) -> str:
    return f"{level:<8}  {one.count} of {_who(one.names)}"


def _who(names: Sequence[str]) -> str:
    return ", ".join(names) or "any admin"


def set_approvers(args: argparse.Namespace) -> Result:
    """Say how many people, and who, must approve at a risk level."""
    with open_database(args, create=True) as operator:
        operator.management.set_approvers(args.level, count=args.count, names=args.approver)
        level = {args.level: operator.management.approvers()[args.level]}
        warnings = _warnings(operator.management, level, _declared(args)[1])
    return Result(
        data={"level": args.level, "count": args.count, "approvers": args.approver, "warnings": warnings},
        lines=[f"actions of {args.level} risk need {args.count} of {_who(args.approver)}"],
        notes=_told(args, warnings),
    )


def clear_approvers(args: argparse.Namespace) -> Result:
    """Let the policy file say again who approves at a risk level."""
    with open_database(args) as operator:
        operator.management.clear_approvers(args.level)
    line = f"the policy file says who approves actions of {args.level} risk"
    return Result(data={"cleared": args.level}, lines=[line])


# --- keys


def issue_key(args: argparse.Namespace) -> Result:
    """Make a key and print it, once."""
    with open_store(args, create=True) as store:
        key = store.issue_key(name=args.name, role=Role(args.role), tenant=args.tenant)
    data = {"key": key, "name": args.name, "role": args.role, "tenant": args.tenant}
    return Result(data=data, lines=[key], notes=[] if args.json else ["keep it: it cannot be shown again"])


def list_keys(args: argparse.Namespace) -> Result:
    """List the keys; never shows them."""
    with open_store(args) as store:
        keys = store.list_keys()
    lines = (
        f"{key['id']:>4}  {key['role']:<11}  {key['tenant']}  {key['name']}  "
        + (f"revoked {key['revoked_at']}" if key["revoked_at"] else "valid")
        for key in keys
    )
    return Result(data={"keys": keys}, lines=lines)


def revoke_key(args: argparse.Namespace) -> Result:
    """Make a key invalid."""
    with open_store(args) as store:
        store.revoke_key(args.id)
    return Result(data={"revoked": args.id}, lines=[f"key {args.id} is revoked"])
