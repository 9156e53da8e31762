"""Webhook subscriptions over HTTP, in both documented forms; one store (contract §2.9)."""

from __future__ import annotations

import ipaddress
import secrets
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from ascend_middleware.api import endpoints
from ascend_middleware.api.bodies import ConfiguredWebhook, NewWebhook, Page
from ascend_middleware.api.endpoint import given

from ..bodies import ApiError, wrong
from ..context import Call, Fields, answers
from ..delivery import is_public
from ..paging import cut, listed
from ..store.registry_store import WEBHOOK

_MOST: Final = 100
_SECRET_BYTES: Final = 32


@answers(endpoints.CREATE_WEBHOOK)
def _create(call: Call) -> Fields:
    new = call.body(NewWebhook)
    return _stored(call, new.target_url, new.event_types, new.secret, None)


@answers(endpoints.CONFIGURE_WEBHOOK)
def _configure(call: Call) -> Fields:
    new = call.body(ConfiguredWebhook)
    return _stored(call, new.url, new.events, new.secret, new.agent_id, field="url")


def _stored(
    call: Call, url: str, events: tuple[str, ...], secret: str | None, agent_id: str | None, field: str = "target_url"
) -> Fields:
    _check_url(call, url, field)
    if len(call.store.all(WEBHOOK, tenant=call.tenant)) >= _MOST:
        raise ApiError(409, "TOO_MANY_WEBHOOKS", f"an organisation has at most {_MOST} webhooks")
    made = secret or secrets.token_urlsafe(_SECRET_BYTES)
    fields = {"url": url, "events": list(events), "secret": made, "agent_id": agent_id, "active": True}
    name = secrets.token_hex(12)
    record = call.store.add(WEBHOOK, name, fields, tenant=call.tenant, key_id=call.credential.key_id)
    call.audit("WEBHOOK_CREATED", webhook_id=name, target=_target(url), events=list(events))
    # The only answer that shows the secret.
    return {**_shown(record), "secret": made, "success": True, "message": "subscribed"}


def _check_url(call: Call, url: str, field: str) -> None:
    """Refuse a target that is not https, or plainly private; what its name resolves to is checked at delivery."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        raise wrong(field, "is no URL") from None
    if not url.isascii() or not url.isprintable() or " " in url or not host or "@" in parts.netloc:
        raise wrong(field, "must be a plain URL with a host and without user or password")
    if call.authority.development and parts.scheme in ("http", "https"):
        return
    if parts.scheme != "https":
        raise wrong(field, "must be an https URL")
    try:
        private = not is_public(str(ipaddress.ip_address(host.rstrip("."))))
    except ValueError:
        # Only names with a dot are anybody's on the internet, and none of those in these zones.
        name = host.rstrip(".").lower()
        zones = (".local", ".localhost", ".internal", ".home.arpa", ".lan", ".intranet")
        private = "." not in name or name.endswith(zones) or name.split(".")[-1].isdigit()
    if private:
        raise wrong(field, "must not be a private address")


def _target(url: str) -> str:
    """Return whom a URL reaches, without its path: many services take whoever knows the path for the subscriber."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def _visible(call: Call, record: Mapping[str, Any]) -> bool:
    """Say whether the caller may see a webhook: their own, and as an admin every one."""
    return call.credential.role.administers or record["key_id"] == call.credential.key_id


def _shown(record: Mapping[str, Any]) -> Fields:
    return {
        **dict.fromkeys(("id", "webhook_id"), record["name"]),
        **dict.fromkeys(("url", "target_url"), record["url"]),
        **dict.fromkeys(("events", "event_types"), record["events"]),
        **{name: record[name] for name in ("agent_id", "active", "created_at", "updated_at")},
        "secret": None,
    }


@answers(endpoints.LIST_WEBHOOKS)
def _list(call: Call) -> Fields:
    page = call.query(Page)
    rows = [_shown(row) for row in call.store.all(WEBHOOK, tenant=call.tenant) if _visible(call, row)]
    return listed("webhooks", page, cut(rows, page))


def _webhook(call: Call) -> Fields:
    record = call.record(WEBHOOK, call.parameters["id"], "webhook")
    if not _visible(call, record):
        call.audit("ACCESS_REFUSED", webhook_id=record["name"], endpoint=f"{call.request.method} /api/webhooks/{{id}}")
        raise ApiError(404, "NOT_FOUND", "there is no such webhook")
    return record


@answers(endpoints.GET_WEBHOOK)
def _get(call: Call) -> Fields:
    return _shown(_webhook(call))


@answers(endpoints.UPDATE_WEBHOOK)
def _update(call: Call) -> Fields:
    record, fields = _webhook(call), given(**call.fields())
    for name, other in (("url", "target_url"), ("events", "event_types")):
        if name in fields and other in fields:
            raise wrong(name, "is given by both of its names")
        if other in fields:
            fields[name] = fields.pop(other)
    if "url" in fields:
        _check_url(call, fields["url"], "url")
    record = call.store.update(record, fields, tenant=call.tenant)
    call.audit("WEBHOOK_CHANGED", webhook_id=record["name"], changed=sorted(fields), target=_target(record["url"]))
    return {**_shown(record), "success": True}


@answers(endpoints.DELETE_WEBHOOK)
def _delete(call: Call) -> Fields:
    record = _webhook(call)
    call.store.remove(record, tenant=call.tenant)
    call.audit("WEBHOOK_REMOVED", webhook_id=record["name"], target=_target(record["url"]))
    return {"success": True, "webhook_id": record["name"], "message": "unsubscribed"}


@answers(endpoints.TEST_WEBHOOK)
def _test(call: Call) -> Fields:
    record = _webhook(call)
    if call.authority.send_webhook is None:
        error = "this authority delivers no webhooks; serve it with its command"
        return {"success": False, "status_code": None, "response_time_ms": None, "error": error}
    return dict(call.authority.send_webhook(record, call.tenant))
