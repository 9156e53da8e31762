"""Supply-chain components over HTTP: what agents are made of, and how risky that is."""

from __future__ import annotations

from collections import Counter
from typing import Any, Final

import msgspec
from msgspec import UNSET

from ascend_middleware.api import endpoints
from ascend_middleware.api.bodies import ComponentQuery, NewComponent
from ascend_middleware.exceptions import ConflictError

from ..context import Call, Handlers, Reply
from ..pagination import listed
from ..store.registry_store import COMPONENT

__all__ = ["HANDLERS"]


def _register(call: Call) -> Reply:
    fields = msgspec.to_builtins(call.body(NewComponent))
    name = fields.pop("component_id")
    fields |= {"active": True, "vulnerability_count": 0}
    try:
        record = call.records.add(COMPONENT, name, fields, tenant=call.tenant, key_id=call.credential.key_id)
        event, message, status = "SUPPLY_CHAIN_COMPONENT_REGISTERED", "component registered", 201
    except ConflictError:
        known = call.records.get(COMPONENT, name, tenant=call.tenant)
        record = call.records.update(known, fields, tenant=call.tenant)
        event, message, status = "SUPPLY_CHAIN_COMPONENT_UPDATED", "component updated", 200
    call.audit(event, component_id=name, component_type=fields["component_type"], risk_level=fields["risk_level"])
    return Reply(fields={"success": True, "component": _shown(record), "message": message}, status=status)


def _shown(record: dict[str, Any]) -> dict[str, Any]:
    kept = {name: value for name, value in record.items() if name not in ("name", "key_id")}
    return {**kept, "component_id": record["name"]}


def _list(call: Call) -> Reply:
    query = call.query(ComponentQuery)
    rows = []
    for record in call.records.all(COMPONENT, tenant=call.tenant):
        if query.component_type not in (UNSET, record["component_type"]):
            continue
        if query.risk_level not in (UNSET, record["risk_level"]) or (
            query.active_only is True and not record["active"]
        ):
            continue
        if query.has_vulnerabilities not in (UNSET, record["vulnerability_count"] > 0):
            continue
        rows.append(_shown(record))
    shown = rows[query.offset : query.offset + query.limit]
    return Reply(fields=listed(query, "components", shown, len(rows)))


def _stats(call: Call) -> Reply:
    rows = call.records.all(COMPONENT, tenant=call.tenant)
    verified = sum(bool(row["provenance_verified"]) for row in rows)
    outdated = sum(row["latest_version"] not in (None, row["version"]) for row in rows)
    return Reply(
        fields={
            "total": len(rows),
            "total_components": len(rows),
            "active_components": sum(bool(row["active"]) for row in rows),
            "by_type": dict(Counter(row["component_type"] for row in rows)),
            "by_risk_level": dict(Counter(row["risk_level"] for row in rows)),
            "provenance_verified": verified,
            "outdated": outdated,
            "vulnerable_components": sum(row["vulnerability_count"] > 0 for row in rows),
        }
    )


HANDLERS: Final[Handlers] = {
    endpoints.REGISTER_COMPONENT: _register,
    endpoints.LIST_COMPONENTS: _list,
    endpoints.COMPONENT_STATS: _stats,
}
