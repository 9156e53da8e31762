"""What the organisation looks up and records: policies, the audit, the supply chain."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...api import endpoints
from ...api.endpoint import given
from ...api.models import AuditLogResponse, PolicyEvaluationResult, Record
from .. import requests
from ..blocking import Blocking

__all__ = ["GovernanceMethods"]


class GovernanceMethods(Blocking):
    """What concerns the organisation rather than one action."""

    def evaluate_policy(
        self, action_type: str, resource: str, context: Mapping[str, Any] | None = None
    ) -> PolicyEvaluationResult:
        """Ask what the policies would say, without submitting anything; the answer permits nothing.

        Args:
            action_type: what kind of action.
            resource: what it would act on.
            context: where it would come from; risk scores and levels are taken out.

        Returns:
            `decision` (the authority's word), `matched_policies`, `violations`, `risk_score` (0 to 100),
            `evaluation_time_ms` (milliseconds).

        Raises:
            ValidationError: a value is missing or of the wrong kind; nothing was sent.
            AscendError: the errors of every call, see `AscendClient`.

        Source: contract §3.2.
        """
        return self._ask(requests.evaluate_policy(action_type, resource, context))

    def query_audit_log(self, limit: int = 50, offset: int = 0) -> AuditLogResponse:
        """Return one page of the audit.

        Args:
            limit: entries of the page, at least 1.
            offset: entries to leave out.

        Returns:
            The page: `events` (each `event_id`, `event_type`, `timestamp`, …), `total`, `limit`, `offset`.

        Raises:
            AuthorizationDeniedError: the key may not read the audit.
            AscendError: the errors of every call, see `AscendClient`.

        Source: contract §3.2.
        """
        return self._ask(requests.audit_page(limit=limit, offset=offset))

    def register_supply_chain_component(
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
        """Record a component that the organisation depends on; the key needs the admin role.

        Args:
            component_id: its identifier, `hf-bert-base`.
            component_name: its name, `bert-base-uncased`.
            component_type: `library`, `model`, `dataset`, `framework`, `tool` or `service`.
            provider: who makes it.
            version: the version in use.
            latest_version: the newest version there is.
            license_type: its licence, `Apache-2.0`.
            source_url: where it comes from.
            provenance_verified: whether its origin was checked.
            risk_level: `low`, `medium`, `high` or `critical`.
            compliance_notes: anything an auditor should know.
            package_name: its name in the package registry.
            package_ecosystem: which registry, `pypi`.

        Returns:
            The authority's answer: `success`, `component`, `message`.

        Raises:
            ValidationError: a value is missing or not one of the allowed words.
            AuthorizationDeniedError: the key has not the admin role.
            AscendError: the errors of every call, see `AscendClient`.

        Source: contract §1.2, §4.
        """
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
        return self._ask(operation)
