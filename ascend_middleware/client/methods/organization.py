"""What concerns the organisation: its policies, audit and supply chain, its MCP servers, and who is told of events."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from ...api import answers, endpoints
from ...api.decode import strip_risk_claims
from ...api.endpoint import given, text
from ...api.models import AuditLogResponse, PolicyEvaluationResult, Record, Webhook, WebhookTestResult
from ...config import check_api_url
from ...exceptions import ConfigurationError, ValidationError
from ...flow import Flow
from ..base import ClientBase, arguments
from ..drivers import sync_and_async

__all__ = ["OrganizationMethods"]


class OrganizationMethods(ClientBase):
    """What concerns the organisation rather than one action."""

    @sync_and_async
    def evaluate_policy(
        self, action_type: str, resource: str, context: Mapping[str, Any] | None = None
    ) -> Flow[PolicyEvaluationResult]:
        """Ask what the policies would say, without submitting anything; the answer permits nothing.

        Args:
            action_type: what kind of action.
            resource: what it would act on.
            context: where it would come from; risk scores and levels are taken out.

        Raises:
            ValidationError: a value is missing or of the wrong kind; nothing was sent.

        Source: contract §3.2.
        """
        text("resource", resource)
        body = given(action_type=action_type, resource=resource, context=context)
        if isinstance(context, Mapping):
            body["context"] = strip_risk_claims(dict(context))
        return self.core.call(endpoints.EVALUATE_POLICY.call(body=body))

    @sync_and_async
    def query_audit_log(self, limit: int = 50, offset: int = 0, cursor: str | None = None) -> Flow[AuditLogResponse]:
        """Return one page of the audit.

        Args:
            limit: entries of the page, at least 1.
            offset: entries to leave out, 10,000 at most.
            cursor: the `next` of the page before, in place of the offset.

        Raises:
            AuthorizationDeniedError: the key may not read the audit.

        Source: contract §3.2.
        """
        decode = partial(answers.audit_page, limit=limit, offset=offset)
        query = {"limit": limit, "offset": offset, "cursor": cursor}
        return self.core.call(endpoints.AUDIT_LOG.call(query=query, decode=decode))

    @sync_and_async
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
    ) -> Flow[Record]:
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
            AuthorizationDeniedError: the key has not the admin role.

        Source: contract §1.2, §4.
        """
        return self.core.call(endpoints.REGISTER_COMPONENT.call(body=arguments(locals())))

    # --- MCP servers, which actions may name

    @sync_and_async
    def register_mcp_server(
        self,
        server_name: str,
        display_name: str | None = None,
        description: str | None = None,
        server_url: str | None = None,
        transport_type: str = "stdio",
        connection_config: Mapping[str, Any] | None = None,
        governance_enabled: bool = True,
        auto_approve_tools: Sequence[str] | None = None,
        blocked_tools: Sequence[str] | None = None,
        tool_risk_overrides: Mapping[str, int] | None = None,
    ) -> Flow[Record]:
        """Register an MCP server, so that actions may name it.

        Args:
            server_name: the name that actions give as `mcp_server_name`.
            display_name: the same for people.
            description: what it is for.
            server_url: where it listens, for transports that do.
            transport_type: `stdio`, `http`, `sse`.
            connection_config: how it is connected; holds no secrets, since the authority shows it to people.
            governance_enabled: whether its actions are judged.
            auto_approve_tools: tools that need no person.
            blocked_tools: tools that are always denied.
            tool_risk_overrides: a risk score of its own for a tool, 0 to 100.

        Returns:
            The authority's answer: `success`, `message`, `server`.

        Raises:
            ConflictError: the name is taken.

        Source: contract §3.2.
        """
        return self.core.call(endpoints.REGISTER_MCP_SERVER.call(body=arguments(locals())))

    @sync_and_async
    def list_mcp_servers(self) -> Flow[Record]:
        """Return the organisation's MCP servers: `servers`, a list of mappings, and what else the authority tells.

        Source: contract §3.2.
        """
        return self.core.call(endpoints.LIST_MCP_SERVERS.call())

    @sync_and_async
    def get_mcp_server(self, server_name: str) -> Flow[Record]:
        """Return one MCP server.

        Args:
            server_name: its registered name.

        Raises:
            NotFoundError: there is no such server.

        Source: contract §3.2.
        """
        return self.core.call(endpoints.GET_MCP_SERVER.call(server_name=text("server_name", server_name)))

    @sync_and_async
    def activate_mcp_server(self, server_name: str) -> Flow[Record]:
        """Let actions name an MCP server again; the key needs the admin role.

        Args:
            server_name: its registered name.

        Raises:
            NotFoundError: there is no such server.
            AuthorizationDeniedError: the key has not the admin role.

        Source: contract §3.2.
        """
        return self.core.call(endpoints.ACTIVATE_MCP_SERVER.call(server_name=text("server_name", server_name)))

    @sync_and_async
    def deactivate_mcp_server(self, server_name: str, reason: str | None = None) -> Flow[Record]:
        """Have every action denied that names an MCP server; the key needs the admin role.

        Args:
            server_name: its registered name.
            reason: why, for the audit.

        Raises:
            NotFoundError: there is no such server.
            AuthorizationDeniedError: the key has not the admin role.

        Source: contract §3.2.
        """
        body, server_name = given(reason=reason), text("server_name", server_name)
        return self.core.call(endpoints.DEACTIVATE_MCP_SERVER.call(body=body, server_name=server_name))

    @sync_and_async
    def delete_mcp_server(self, server_name: str) -> Flow[Record]:
        """Remove an MCP server from the register; the key needs the admin role.

        Args:
            server_name: its registered name.

        Raises:
            NotFoundError: there is no such server.
            AuthorizationDeniedError: the key has not the admin role.

        Source: contract §3.2.
        """
        return self.core.call(endpoints.DELETE_MCP_SERVER.call(server_name=text("server_name", server_name)))

    # --- web hooks

    @sync_and_async
    def create_webhook(self, target_url: str, event_types: Sequence[str]) -> Flow[Webhook]:
        """Subscribe to events in the form of the REST documentation.

        Args:
            target_url: where events go; https, or a loopback address for development.
            event_types: `action.submitted`, `action.approved`, …; at least one.

        Raises:
            ValidationError: the URL or an event is not allowed.

        Source: contract §2.9, C23.
        """
        _check_url("target_url", target_url)
        body = {"target_url": target_url, "event_types": event_types}
        return self.core.call(endpoints.CREATE_WEBHOOK.call(body=body))

    @sync_and_async
    def configure_webhook(self, url: str, events: Sequence[str], secret: str | None = None) -> Flow[Webhook]:
        """Subscribe the client's agent to events, with a secret to verify their signatures by.

        Args:
            url: where events go; https, or a loopback address for development.
            events: `action.approved`, `action.denied`, `action.pending`, …; at least one.
            secret: what the authority signs with; the authority's own choice when None.

        Raises:
            ValidationError: the URL or an event is not allowed.

        Source: contract §2.9, §3.2, C23.
        """
        _check_url("url", url)
        body = {"url": url, "events": events, "agent_id": self.settings.agent_id or None, **given(secret=secret)}
        return self.core.call(endpoints.CONFIGURE_WEBHOOK.call(body=body))

    @sync_and_async
    def list_webhooks(self) -> Flow[list[Webhook]]:
        """Return all subscriptions of the organisation.

        Source: contract §3.2.
        """
        return self.core.call(endpoints.LIST_WEBHOOKS.call())

    @sync_and_async
    def update_webhook(
        self,
        webhook_id: str | int,
        url: str | None = None,
        events: Sequence[str] | None = None,
        secret: str | None = None,
    ) -> Flow[Webhook]:
        """Change a subscription; what is None stays as it is.

        Args:
            webhook_id: the subscription.
            url: where events go.
            events: which events.
            secret: what the authority signs with.

        Raises:
            ValidationError: nothing to change, or a value is not allowed.
            NotFoundError: there is no such subscription.

        Source: contract §3.2.
        """
        if url is not None:
            _check_url("url", url)
        body = given(url=url, events=events, secret=secret)
        if not body:
            raise ValidationError("give at least one of url, events and secret", field="url")
        return self.core.call(endpoints.UPDATE_WEBHOOK.call(body=body, webhook_id=webhook_id))

    @sync_and_async
    def delete_webhook(self, webhook_id: str | int) -> Flow[Record]:
        """End a subscription.

        Args:
            webhook_id: the subscription.

        Raises:
            NotFoundError: there is no such subscription.

        Source: contract §3.2.
        """
        return self.core.call(endpoints.DELETE_WEBHOOK.call(webhook_id=webhook_id))

    @sync_and_async
    def test_webhook(self, webhook_id: str | int) -> Flow[WebhookTestResult]:
        """Have the authority send a test event now.

        Args:
            webhook_id: the subscription.

        Raises:
            NotFoundError: there is no such subscription.

        Source: contract §3.2.
        """
        return self.core.call(endpoints.TEST_WEBHOOK.call(webhook_id=webhook_id))


def _check_url(field: str, url: object) -> None:
    """Check what can be checked here: https, or a loopback address for development; the authority judges the rest."""
    address = text(field, url)
    try:
        # Where events go to is as sensitive as where actions go to, but a query is allowed here.
        check_api_url(address.partition("?")[0])
    except ConfigurationError as error:
        raise ValidationError(f"{field} must be an https URL: {error}", field=field) from None
    if not address.startswith("http"):
        raise ValidationError(f"{field} must be an https URL", field=field)
