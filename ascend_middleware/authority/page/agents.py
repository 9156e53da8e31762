"""Agents on the page: who they are, what the kill switch says of them, and commands to them."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Final

from ascend_middleware.exceptions import ValidationError

from .. import killswitch
from ..store.registry_store import AGENT
from .views_base import Desk, Form, RefusedError, signed_in

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from .sessions import Session

__all__ = ["command", "listing"]

_MOST: Final = 500
_LONGEST_ID: Final = 255
_MIN_BROADCAST_REASON: Final = 10


@signed_in
async def listing(desk: Desk, request: Request, session: Session, form: Form) -> Response:
    """Show the agents, those that need attention first."""
    return await desk.read(session, functools.partial(_listing, desk, request, session))


def _listing(desk: Desk, request: Request, session: Session) -> Response:
    wanted = request.query_params.get("find", "").strip()
    agents = _agents(desk, session.credential.tenant)
    found = [agent for agent in agents if wanted.casefold() in f"{agent['id']} {agent['name']}".casefold()]
    everybody = killswitch.standing(desk.authority.records, None, tenant=session.credential.tenant)
    return desk.page(
        request,
        "agents.html",
        session=session,
        agents=found[:_MOST],
        total=len(agents),
        hidden=max(len(found) - _MOST, 0),
        find=wanted,
        everybody=everybody,
    )


def _agents(desk: Desk, tenant: str) -> list[dict[str, Any]]:
    """Return whoever is registered, has submitted something, or was the target of a command."""
    records = desk.authority.records
    agents: dict[str, dict[str, Any]] = {}

    def agent(name: str) -> dict[str, Any]:
        fresh = {"id": name, "name": "", "type": "", "registered": False, "last": "", "beat": "", "count": 0}
        return agents.setdefault(name, fresh)

    for record in records.all(AGENT, tenant=tenant):
        agent(record["name"]).update(
            name=record.get("display_name") or "", type=record.get("agent_type") or "", registered=True
        )
    for row in records.rows(
        "SELECT agent_id, max(created_at) AS last, count(*) AS n FROM actions WHERE tenant = ? GROUP BY agent_id",
        (tenant,),
    ):
        agent(row["agent_id"]).update(last=row["last"], count=row["n"])
    for row in records.rows("SELECT agent_id, last_at FROM heartbeats WHERE tenant = ?", (tenant,)):
        agent(row["agent_id"]).update(beat=row["last_at"])
    for row in records.rows(
        "SELECT DISTINCT agent_id FROM commands WHERE tenant = ? AND target_type = 'agent'", (tenant,)
    ):
        agent(row["agent_id"])
    for one in agents.values():
        one["standing"] = killswitch.standing(records, one["id"], tenant=tenant)
    return sorted(agents.values(), key=lambda one: (one["standing"].word == "active", -_rank(one["last"]), one["id"]))


def _rank(moment: str) -> int:
    return int("".join(char for char in moment if char.isdigit()) or 0)


@signed_in
async def command(desk: Desk, request: Request, session: Session, form: Form) -> Response:
    """Issue a command to one agent, or to all of them."""
    agent_id = form.get("agent_id")
    if agent_id is not None and not (0 < len(agent_id) <= _LONGEST_ID and agent_id == agent_id.strip()):
        raise RefusedError(400, "The form names no agent.")
    if agent_id is not None and not agent_id.isprintable():
        raise RefusedError(400, "The form names no agent.")
    reason, rate = form.text("reason"), form.text("max_per_minute")
    kind = form.get("command_type", "")
    if agent_id is None and len(reason) < _MIN_BROADCAST_REASON:
        raise RefusedError(
            422, f"A command to all agents needs a reason of at least {_MIN_BROADCAST_REASON} characters."
        )
    if rate and not (rate.isascii() and rate.isdigit() and len(rate) < 9):
        raise RefusedError(422, "The limit must be a whole number.")
    who = session.credential
    job = functools.partial(
        killswitch.issue,
        desk.authority.store,
        desk.authority.records,
        tenant=who.tenant,
        command_type=kind,
        reason=reason,
        issued_by=who.name,
        issued_via="page",
        agent_id=agent_id,
        max_per_minute=int(rate) if rate and kind == "RATE_LIMIT" else None,
        key_id=who.key_id,
    )
    try:
        await desk.change(job)
    except ValidationError as error:
        raise RefusedError(422, _sentence(error.message)) from None
    return desk.done(request, "commanded", to="/agents")


def _sentence(message: str) -> str:
    field, _, rest = message.partition(": ")
    words = f"{field.replace('_', ' ')} {rest}" if rest else message
    return f"{words[:1].upper()}{words[1:]}."
