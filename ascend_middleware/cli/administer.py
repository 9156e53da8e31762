"""The commands that administer an authority: approvals, agents, MCP servers, models, approvers and keys.

Their database is opened where the arguments say, and asked through the API.
"""

from __future__ import annotations

import contextlib
import json
import time
from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

from ..api import endpoints
from ..api.endpoint import Endpoint
from ..authority import Authority, PolicySet, Role, Store, default_database, load_policy
from ..authority.approvals import Management, unknown_approvers
from ..authority.bodies import ApiError
from ..authority.context import action_number
from ..authority.keys import Credential, operator
from ..authority.killswitch import standing
from ..authority.policy.approvers import Requirement
from ..authority.store.registry_store import AGENT
from ..exceptions import AscendError, ConfigurationError, NotFoundError
from ..inspection import Result
from ..text import is_postgres
from .places import named_database

__all__ = ["open_store", "operate", "place_of"]


def place_of(args: Namespace) -> str:
    """Return the database that the arguments name."""
    return named_database(args) or str(default_database(args.policy))


@contextlib.contextmanager
def open_store(args: Namespace, *, create: bool = False) -> Iterator[Store]:
    """Open the database that the arguments name, directly: this also works for `local:` and beside a server."""
    place = place_of(args)
    if not create and not is_postgres(place) and not Path(place).exists():
        raise ConfigurationError(
            f"there is no database {place}; the authority, or an application with a local: URL, makes it at its first "
            "start; --policy or --db say where it is"
        )
    with contextlib.closing(Store.open(place, now=time.time, create=create)) as store, store.typed():
        yield store


@dataclass(frozen=True, slots=True, kw_only=True)
class Operator:
    """Whoever runs the command line on a database, for one organisation: that they may use the file is enough.

    Attributes:
        authority: on the database, and without the policy file. No command that administers decides by policies, and
            none must fail because that file is being edited.
        by: how the audit log calls them.
    """

    authority: Authority
    by: Credential

    def ask(
        self,
        endpoint: Endpoint[Any],
        *,
        body: Mapping[str, Any] | None = None,
        query: Mapping[str, Any] | None = None,
        missing: str = "",
        **parameters: str,
    ) -> dict[str, Any]:
        """Return what the API answers, or raise `AscendError`; `missing` goes before its own words for a 404."""
        try:
            return self.authority.ask(endpoint, self.by, body=body, query=urlencode(query or {}), **parameters)
        except ApiError as error:
            if error.status == 404 and missing:
                raise NotFoundError(missing) from None
            raise AscendError(error.message) from None

    @property
    def management(self) -> Management:
        """What the API does not offer: models and approvers."""
        return Management(store=self.authority.store, by=self.by)


# What may come before the authority's first start.
_CREATING: Final = frozenset({"command_agents", "add_server", "command_server", "add_model", "set_approvers"})


def operate(args: Namespace) -> Result:
    """Run the task that the command names, `args.task`, for the organisation that the arguments name."""
    with open_store(args, create=args.task in _CREATING) as store:
        by = Operator(authority=Authority(store, PolicySet(mcp_servers={})), by=operator(args.tenant))
        result: Result = globals()[args.task](by, args)
        return result


# --- what waits for a person

_MOST_VALUES: Final = 4
_LONGEST_VALUE: Final = 40


def pending(operator: Operator, args: Namespace) -> Result:
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


def decide(operator: Operator, args: Namespace) -> Result:
    number = action_number(args.action)
    if number is None:
        raise ConfigurationError(f"not an action id: {args.action!r}; expected 7 or act_7")
    missing = f"there is no action {number}; what waits is listed by: ascend-middleware pending"
    found = operator.ask(args.endpoint, body={"comments": args.comments}, missing=missing, id=str(number))
    line = f"action {number} is {found['status']}"
    if found["status"] == "pending":
        line = f"action {number} is approved by you and waits for {', '.join(found['pending_approvers'])}"
    return Result(data=found, lines=[line])


# --- agents


def list_agents(operator: Operator, args: Namespace) -> Result:
    records = operator.authority.store
    known = {row["name"]: row for row in records.all(AGENT, tenant=args.tenant)}
    named = "SELECT DISTINCT agent_id FROM commands WHERE tenant = ? AND agent_id IS NOT NULL"
    rows, lines = [], []
    for name in sorted({*known, *(row["agent_id"] for row in records.rows(named, (args.tenant,)))}):
        agent, found = known.get(name, {}), standing(records, name, tenant=args.tenant)
        why = found.command["reason"] if found.command else None
        shown = {"display_name": agent.get("display_name"), "model_id": agent.get("model_id")}
        rows.append({"agent_id": name, "registered": name in known, **shown, "standing": found.word, "reason": why})
        unknown = "" if name in known else "  not registered"
        lines.append(f"{found.word:<12}  {name}{unknown}{f'  ({why})' if why else ''}")
    everybody = standing(records, None, tenant=args.tenant)
    lines = lines or ["no agents"]
    if everybody.command is not None:
        lines.insert(0, f"the whole organisation is {everybody.word}: {everybody.command['reason']}")
    return Result(data={"agents": rows, "organization": everybody.word}, lines=lines)


def command_agents(operator: Operator, args: Namespace) -> Result:
    if (args.agent is None) != args.all:
        raise ConfigurationError("name one agent, or all of them with --all")
    body = {"command_type": args.kind, "reason": args.reason}
    if args.kind == "RATE_LIMIT":
        body["parameters"] = {"max_per_minute": args.per_minute}
    if args.all:
        found = operator.ask(endpoints.COMMAND_ALL, body=body)
    else:
        found = operator.ask(endpoints.COMMAND_AGENT, body=body, agent_id=args.agent)
    target = "all agents" if args.all else f"agent {args.agent}"
    return Result(data=found["command"], lines=[f"{args.kind} issued to {target}: command {found['command_id']}"])


# --- MCP servers


def list_servers(operator: Operator, args: Namespace) -> Result:
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


def add_server(operator: Operator, args: Namespace) -> Result:
    body = {"server_name": args.name, "blocked_tools": args.block_tool, "description": args.description or None}
    found = operator.ask(endpoints.REGISTER_MCP_SERVER, body=body)
    return Result(data=_server(found["server"]), lines=[f"MCP server {args.name} is registered"])


def change_server(operator: Operator, args: Namespace) -> Result:
    body = {"reason": args.reason or None} if args.endpoint.body else None
    missing = f"there is no MCP server {args.name!r} in the database"
    found = operator.ask(args.endpoint, body=body, missing=missing, name=args.name)
    data = _server(found["server"]) if "server" in found else {"removed": args.name}
    return Result(data=data, lines=[f"MCP server {args.name} is {args.state}"])


def command_server(operator: Operator, args: Namespace) -> Result:
    body = {"command_type": args.kind, "reason": args.reason, "mcp_server": args.name}
    found = operator.ask(endpoints.COMMAND_ALL, body=body)
    return Result(data=found["command"], lines=[f"{args.kind} issued about MCP server {args.name}"])


# --- models


def _model(row: Mapping[str, Any]) -> dict[str, Any]:
    return {"id": int(row["name"]), "name": row["model_name"], "compliance_status": row["compliance_status"]}


def list_models(operator: Operator, args: Namespace) -> Result:
    rows = [_model(row) for row in operator.management.models()]
    lines = [f"{row['id']:>6}  {row['compliance_status']:<18}  {row['name']}" for row in rows]
    none = ["no models in the database; those of the policy file are not listed here"]
    return Result(data={"models": rows}, lines=lines or none)


def add_model(operator: Operator, args: Namespace) -> Result:
    row = operator.management.add_model(args.id, name=args.name, status=args.status)
    return Result(data=_model(row), lines=[f"model {args.id} is registered as {args.status}"])


def set_model_status(operator: Operator, args: Namespace) -> Result:
    row = operator.management.set_model_status(args.id, args.status)
    return Result(data=_model(row), lines=[f"model {args.id} is {args.status}"])


def remove_model(operator: Operator, args: Namespace) -> Result:
    operator.management.remove_model(args.id)
    return Result(data={"removed": args.id}, lines=[f"model {args.id} is removed"])


# --- approvers


def list_approvers(operator: Operator, args: Namespace) -> Result:
    declared, issuer = _declared(args)
    found = operator.management.approvers()
    lines = [_approvers_line(level, one) for level, one in found.items()]
    lines += [f"{_approvers_line(level, one)}  (policy file)" for level, one in declared.items() if level not in found]
    if not found:
        lines.append("nothing is set here; the policy file says who approves")
    data = {"approvers": _told(found), "policy_file": _told(declared)}
    return _warned(operator, args, {**declared, **found}, issuer, data, lines)


def _declared(args: Namespace) -> tuple[Mapping[str, Requirement], str]:
    """Return the approvers of the policy file, where there is one, and whose tokens it takes."""
    if not Path(args.policy).exists():
        return {}, ""
    policy = load_policy(args.policy)
    return policy.approvals.levels, policy.token_key.issuer if policy.token_key else ""


def _warned(
    operator: Operator,
    args: Namespace,
    levels: Mapping[str, Requirement],
    issuer: str,
    data: Mapping[str, Any],
    lines: Sequence[str],
) -> Result:
    warnings = unknown_approvers(operator.authority.store, levels, tenant=args.tenant, issuer=issuer)
    notes = [f"ascend-middleware: warning: {words}" for words in warnings if not args.json]
    return Result(data={**data, "warnings": warnings}, lines=lines, notes=notes)


def _told(levels: Mapping[str, Requirement]) -> dict[str, Any]:
    return {level: {"count": one.count, "approvers": list(one.names)} for level, one in levels.items()}


def _approvers_line(level: str, one: Requirement) -> str:
    return f"{level:<8}  {one.count} of {_who(one.names)}"


def _who(names: Sequence[str]) -> str:
    return ", ".join(names) or "any admin"


def set_approvers(operator: Operator, args: Namespace) -> Result:
    operator.management.set_approvers(args.level, count=args.count, names=args.approver)
    level = {args.level: operator.management.approvers()[args.level]}
    data = {"level": args.level, "count": args.count, "approvers": args.approver}
    line = f"actions of {args.level} risk need {args.count} of {_who(args.approver)}"
    return _warned(operator, args, level, _declared(args)[1], data, [line])


def clear_approvers(operator: Operator, args: Namespace) -> Result:
    operator.management.clear_approvers(args.level)
    line = f"the policy file says who approves actions of {args.level} risk"
    return Result(data={"cleared": args.level}, lines=[line])


# --- keys


def issue_key(args: Namespace) -> Result:
    """Make a key and print it, once."""
    with open_store(args, create=True) as store:
        key = store.issue_key(
            name=args.name, role=Role(args.role), tenant=args.tenant, lifetime=args.expires, agents=args.agents
        )
    data = {"key": key, "name": args.name, "role": args.role, "tenant": args.tenant, "agents": args.agents}
    return Result(data=data, lines=[key], notes=[] if args.json else ["keep it: it cannot be shown again"])


def list_keys(args: Namespace) -> Result:
    """List the keys; never shows them."""
    with open_store(args) as store:
        keys = store.list_keys()
    return Result(data={"keys": keys}, lines=[_key_line(key) for key in keys])


def _key_line(key: Mapping[str, Any]) -> str:
    words = [f"{key['id']:>4}", f"{key['role']:<11}", key["tenant"], key["name"]]
    ends = f"until {key['expires_at']}" if key["expires_at"] else ""
    states = {"revoked": f"revoked {key['revoked_at']}", "expired": f"expired {key['expires_at']}"}
    words.append(states.get(key["state"]) or " ".join(filter(None, ("valid", ends))))
    words.append(f"used {key['used_at']}" if key["used_at"] else "not used yet")
    words += [f"for {', '.join(key['agents'])}"] if key["agents"] else []
    return "  ".join(words)


def rotate_key(args: Namespace) -> Result:
    """Make another key for the same person and agents; the old one ends after the overlap."""
    with open_store(args) as store:
        key, end = store.rotate_key(args.id, overlap=args.overlap, lifetime=args.expires)
    notes = [f"keep it: it cannot be shown again; key {args.id} ends at {end}"]
    return Result(data={"key": key, "replaces": args.id, "old_key_ends_at": end}, lines=[key], notes=notes)


def revoke_key(args: Namespace) -> Result:
    """Make a key invalid."""
    with open_store(args) as store:
        store.revoke_key(args.id)
    return Result(data={"revoked": args.id}, lines=[f"key {args.id} is revoked"])
