"""Made of `methods/governance.py` by tools/make_async.py; not to be edited."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...api import endpoints
from ...api.endpoint import given
from ...api.models import AuditLogResponse, PolicyEvaluationResult, Record
from .. import requests
from ..awaiting import Awaiting
from ..methods.governance import GovernanceMethods
from ..twins import twin_of

__all__ = ["AsyncGovernanceMethods"]


@twin_of(GovernanceMethods)
class AsyncGovernanceMethods(Awaiting):
    """The awaitable twin of `GovernanceMethods`."""

    async def evaluate_policy(
        self, action_type: str, resource: str, context: Mapping[str, Any] | None = None
    ) -> PolicyEvaluationResult:
        """See `AscendClient.evaluate_policy`."""
        return await self._ask(requests.evaluate_policy(action_type, resource, context))

    async def query_audit_log(self, limit: int = 50, offset: int = 0) -> AuditLogResponse:
        """See `AscendClient.query_audit_log`."""
        return await self._ask(requests.audit_page(limit=limit, offset=offset))

    async def register_supply_chain_component(
        self,
        component_id: str,
        component_name: str,
        component_type: str,
        provider: str | None = None,
        version: str | None = None,
        latest_version: str | None = None,
        license_type: str | None = None,
        source_url: str | None = None,
        provenance_verified: bool = False,
        risk_level: str = "medium",
        compliance_notes: str | None = None,
        package_name: str | None = None,
        package_ecosystem: str | None = None,
    ) -> Record:
        """See `AscendClient.register_supply_chain_component`."""
        body = given(
            component_id=component_id,
            component_name=component_name,
            component_type=component_type,
            provenance_verified=provenance_verified,
            risk_level=risk_level,
            provider=provider,
            version=version,
            latest_version=latest_version,
            license_type=license_type,
            source_url=source_url,
            compliance_notes=compliance_notes,
            package_name=package_name,
            package_ecosystem=package_ecosystem,
        )
        operation = endpoints.REGISTER_COMPONENT.call(body=body)
        return await self._ask(operation)
