"""Supply-chain components over HTTP: what agents are made of, and how risky that is."""

from __future__ import annotations

from collections import Counter
from typing import Any, Final, Literal

import msgspec
from msgspec import UNSET, Struct, UnsetType

from ascend_middleware.exceptions import ConflictError

from ..context import Call, Reply, Route
from ..pagination import Page
from ..store.registry_store import COMPONENT
from .types import Name, Text

__all__ = ["ROUTES"]

_Kind = Literal["library", "model", "dataset", "framework", "tool", "service"]
_Level = Literal["low", "medium", "high", "critical"]


class NewComponent(Struct, kw_only=True):
    """The body of a component's registration."""

    component_id: Name
    component_name: Name
    component_type: _Kind
    provider: Name | None = None
    version: Name | None = None
    latest_version: Name | None = None
    license_type: Name | None = None
    source_url: Text | None = None
    provenance_verified: bool = False
    risk_level: _Level = "medium"
    compliance_notes: Text | None = None
    package_name: Name | None = None
    package_ecosystem: Name | None = None


class ComponentQuery(Page, kw_only=True, forbid_unknown_fields=True):
    """The query of the list."""

    active_only: bool | UnsetType = UNSET
    component_type: _Kind | UnsetType = UNSET
    risk_level: _Level | UnsetType = UNSET
    has_vulnerabilities: bool | UnsetType = UNSET


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
    return Reply(fields=query.fields("components", shown, len(rows)))


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


ROUTES: Final = (
    Route(
        method="POST",
        path="/api/v1/supply-chain/components",
        run=_register,
        summary="Register a component; 200 where it was known and is now updated",
        body=NewComponent,
        admin=True,
        local=True,
        allowance="admin",
        status=201,
        answer="ComponentChanged",
    ),
    Route(
        method="GET",
        path="/api/v1/supply-chain/components",
        run=_list,
        summary="List components",
        query=ComponentQuery,
        answer="Components",
    ),
    Route(method="GET", path="/api/v1/supply-chain/stats", run=_stats, summary="Count components"),
)
