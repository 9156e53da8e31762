"""Web hooks: where the authority reports events to."""

from __future__ import annotations

from collections.abc import Sequence

from ...api import endpoints
from ...api.models import Record, Webhook, WebhookTestResult
from .. import requests
from ..blocking import Blocking

__all__ = ["WebhookMethods"]


class WebhookMethods(Blocking):
    """Who is told about what happens."""

    def create_webhook(self, target_url: str, event_types: Sequence[str]) -> Webhook:
        """Subscribe to events in the form of the REST documentation.

        Args:
            target_url: where events go; https, or a loopback address for development.
            event_types: `action.submitted`, `action.approved`, …; at least one.

        Returns:
            The subscription: `webhook_id`, `url`, `events`.

        Raises:
            ValidationError: the URL or an event is not allowed.
            AscendError: the errors of every call, see `AscendClient`.

        Source: contract §2.9, C23.
        """
        return self._ask(requests.new_webhook(target_url, event_types))

    def configure_webhook(self, url: str, events: Sequence[str], secret: str | None = None) -> Webhook:
        """Subscribe the client's agent to events, with a secret to verify their signatures by.

        Args:
            url: where events go; https, or a loopback address for development.
            events: `action.approved`, `action.denied`, `action.pending`, …; at least one.
            secret: what the authority signs with; the authority's own choice when None.

        Returns:
            The subscription: `webhook_id`, `url`, `events`.

        Raises:
            ValidationError: the URL or an event is not allowed.
            AscendError: the errors of every call, see `AscendClient`.

        Source: contract §2.9, §3.2, C23.
        """
        operation = requests.configured_webhook(url, events, agent_id=self.settings.agent_id, secret=secret)
        return self._ask(operation)

    def list_webhooks(self) -> list[Webhook]:
        """Return all subscriptions of the organisation.

        Raises:
            AscendError: the errors of every call, see `AscendClient`.

        Source: contract §3.2.
        """
        return self._ask(endpoints.LIST_WEBHOOKS.call())

    def update_webhook(
        self,
        webhook_id: str | int,
        url: str | None = None,
        events: Sequence[str] | None = None,
        secret: str | None = None,
    ) -> Webhook:
        """Change a subscription; what is None stays as it is.

        Args:
            webhook_id: the subscription.
            url: where events go.
            events: which events.
            secret: what the authority signs with.

        Raises:
            ValidationError: nothing to change, or a value is not allowed.
            NotFoundError: there is no such subscription.
            AscendError: the errors of every call, see `AscendClient`.

        Source: contract §3.2.
        """
        operation = requests.webhook_change(webhook_id, url=url, events=events, secret=secret)
        return self._ask(operation)

    def delete_webhook(self, webhook_id: str | int) -> Record:
        """End a subscription.

        Args:
            webhook_id: the subscription.

        Raises:
            NotFoundError: there is no such subscription.
            AscendError: the errors of every call, see `AscendClient`.

        Source: contract §3.2.
        """
        return self._ask(endpoints.DELETE_WEBHOOK.call(webhook_id=webhook_id))

    def test_webhook(self, webhook_id: str | int) -> WebhookTestResult:
        """Have the authority send a test event now.

        Args:
            webhook_id: the subscription.

        Returns:
            `success`, `status_code`, `response_time_ms` (milliseconds), `error`.

        Raises:
            NotFoundError: there is no such subscription.
            AscendError: the errors of every call, see `AscendClient`.

        Source: contract §3.2.
        """
        return self._ask(endpoints.TEST_WEBHOOK.call(webhook_id=webhook_id))
