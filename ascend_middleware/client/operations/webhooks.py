"""Web hooks: where the authority reports events to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from ...config import check_api_url
from ...exceptions import ConfigurationError, ProtocolError, ValidationError
from ...models import Record, Webhook, WebhookTestResult
from ...wire import decode_object, encode_json
from .operation import Operation, acknowledgement, name, path, texts

__all__ = [
    "configure_webhook",
    "create_webhook",
    "delete_webhook",
    "list_webhooks",
    "test_webhook",
    "update_webhook",
]


def create_webhook(*, target_url: str, event_types: Sequence[str]) -> Operation[Webhook]:
    """Subscribe in the form of the REST documentation."""
    body = {"target_url": _url("target_url", target_url), "event_types": _events("event_types", event_types)}
    return Operation(method="POST", target="/api/webhooks", content=encode_json(body), decode=_webhook)


def configure_webhook(*, url: str, events: Sequence[str], agent_id: str, secret: str | None) -> Operation[Webhook]:
    """Subscribe for one agent, with a secret of one's own to verify signatures by."""
    body: dict[str, Any] = {"url": _url("url", url), "events": _events("events", events), "agent_id": agent_id or None}
    if secret is not None:
        body["secret"] = name("secret", secret)
    return Operation(method="POST", target="/api/webhooks/configure", content=encode_json(body), decode=_webhook)


def list_webhooks() -> Operation[list[Webhook]]:
    """Fetch all subscriptions."""
    return Operation(method="GET", target="/api/webhooks", decode=_webhooks)


def update_webhook(
    webhook_id: str | int, *, url: str | None, events: Sequence[str] | None, secret: str | None
) -> Operation[Webhook]:
    """Change a subscription; what is None stays as it is."""
    body: dict[str, Any] = {}
    if url is not None:
        body["url"] = _url("url", url)
    if events is not None:
        body["events"] = _events("events", events)
    if secret is not None:
        body["secret"] = name("secret", secret)
    if not body:
        raise ValidationError("give at least one of url, events and secret", field="url")
    return Operation(method="PUT", target=_place(webhook_id), content=encode_json(body), decode=_webhook)


def delete_webhook(webhook_id: str | int) -> Operation[Record]:
    """End a subscription."""
    return Operation(method="DELETE", target=_place(webhook_id), decode=acknowledgement)


def test_webhook(webhook_id: str | int) -> Operation[WebhookTestResult]:
    """Have a test event sent now."""
    return Operation(method="POST", target=f"{_place(webhook_id)}/test", content=b"{}", decode=_test_result)


def _place(webhook_id: str | int) -> str:
    return path("/api/webhooks/{webhook_id}", webhook_id=webhook_id)


def _url(field: str, url: object) -> str:
    """Check what can be checked here: https, or a loopback address for development; the authority judges the rest."""
    text = name(field, url)
    try:
        # Where events go to is as sensitive as where actions go to, but a query is allowed here.
        check_api_url(text.partition("?")[0])
    except ConfigurationError as error:
        raise ValidationError(f"{field} must be an https URL: {error}", field=field) from None
    if not text.startswith("http"):
        raise ValidationError(f"{field} must be an https URL", field=field)
    return text


def _events(field: str, events: object) -> list[str]:
    given = texts(field, events)
    if not given:
        raise ValidationError(f"{field} must name at least one event, such as action.denied", field=field)
    return given


def _webhook(content: bytes) -> Webhook:
    answer = decode_object(content)
    inner = answer.get("webhook")
    return _one(inner if isinstance(inner, dict) else answer)


def _one(row: dict[str, Any]) -> Webhook:
    webhook_id = row.get("webhook_id", row.get("id"))
    if isinstance(webhook_id, bool) or not isinstance(webhook_id, str | int):
        raise ProtocolError("the authority's answer names no web hook")
    url, events = row.get("url", row.get("target_url")), row.get("events", row.get("event_types"))
    return Webhook({**row, "webhook_id": str(webhook_id), "url": url, "events": events})


def _webhooks(content: bytes) -> list[Webhook]:
    try:
        plain = msgspec.json.decode(content)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        plain = None
    rows: Any = plain
    if not isinstance(plain, list):
        answer = decode_object(content)
        rows = answer.get("webhooks", answer.get("data"))
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ProtocolError("the authority's answer holds no web hooks")
    return [_one(row) for row in rows]


def _test_result(content: bytes) -> WebhookTestResult:
    answer = decode_object(content)
    if not isinstance(answer.get("success"), bool):
        raise ProtocolError("the authority's answer does not say whether the test succeeded")
    return WebhookTestResult({"status_code": None, "response_time_ms": None, "error": None, **answer})
