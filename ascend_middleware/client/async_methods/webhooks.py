"""Made of `methods/webhooks.py` by tools/make_async.py; not to be edited."""

from __future__ import annotations

from collections.abc import Sequence

from ...api import endpoints
from ...api.models import Record, Webhook, WebhookTestResult
from .. import requests
from ..awaiting import Awaiting
from ..methods.webhooks import WebhookMethods
from ..twins import twin_of

__all__ = ["AsyncWebhookMethods"]


@twin_of(WebhookMethods)
class AsyncWebhookMethods(Awaiting):
    """The awaitable twin of `WebhookMethods`."""

    async def create_webhook(self, target_url: str, event_types: Sequence[str]) -> Webhook:
        """See `AscendClient.create_webhook`."""
        return await self._ask(requests.new_webhook(target_url, event_types))

    async def configure_webhook(self, url: str, events: Sequence[str], secret: str | None = None) -> Webhook:
        """See `AscendClient.configure_webhook`."""
        operation = requests.configured_webhook(url, events, agent_id=self.settings.agent_id, secret=secret)
        return await self._ask(operation)

    async def list_webhooks(self) -> list[Webhook]:
        """See `AscendClient.list_webhooks`."""
        return await self._ask(endpoints.LIST_WEBHOOKS.call())

    async def update_webhook(
        self,
        webhook_id: str | int,
        url: str | None = None,
        events: Sequence[str] | None = None,
        secret: str | None = None,
    ) -> Webhook:
        """See `AscendClient.update_webhook`."""
        operation = requests.webhook_change(webhook_id, url=url, events=events, secret=secret)
        return await self._ask(operation)

    async def delete_webhook(self, webhook_id: str | int) -> Record:
        """See `AscendClient.delete_webhook`."""
        return await self._ask(endpoints.DELETE_WEBHOOK.call(webhook_id=webhook_id))

    async def test_webhook(self, webhook_id: str | int) -> WebhookTestResult:
        """See `AscendClient.test_webhook`."""
        return await self._ask(endpoints.TEST_WEBHOOK.call(webhook_id=webhook_id))
