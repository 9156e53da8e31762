"""What a request passes on its way from the socket: the limit of its address, numbers, traces."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractContextManager
from typing import Final

import anyio
import anyio.to_thread

from ascend_middleware.api.endpoints import METRICS, SUBMIT
from ascend_middleware.text import is_loopback

from .bodies import Answer, ApiError, not_allowed
from .core import OPEN
from .fleet import window
from .keys import DEFAULT_TENANT, Allowance, Credential, Role, network_of
from .metrics import CONTENT_TYPE, Metrics, Span, Traces, untraced
from .service import Service
from .store.database import StorageError
from .wire import Asked

__all__ = ["Door"]


class Door:
    """Stands before the service of a served authority.

    Args:
        service: what answers.
        telemetry: whether each request is traced.
        open_metrics: whether whoever reaches the port may read the numbers of all organisations.
    """

    def __init__(self, service: Service, *, telemetry: bool = False, open_metrics: bool = False) -> None:
        self.metrics: Final = Metrics(service)
        self._service = service
        self._authority = service.authority
        self._open_metrics = open_metrics
        self._addresses = window(self._authority.store, "address")
        self._telemetry = telemetry
        self._trace: Callable[[str, str, Mapping[str, str]], AbstractContextManager[Span]]
        self._trace = Traces() if telemetry else untraced

    async def refusal(self, client: str) -> Exception | None:
        """Count a request of an address; return why it is refused, if it is, also where that cannot be found out."""
        try:
            return await self._counted(client)
        except Exception as error:
            return error  # answered like any other defect

    async def _counted(self, client: str) -> ApiError | None:
        if not self._counts(client):
            return None
        limit = self._authority.policy.address_limit
        subject, now = network_of(client), self._authority.now()
        # Only what has to ask a database is worth a thread.
        allowance = self._addresses.quick(subject, limit, now)
        if allowance is None:
            allowance = await anyio.to_thread.run_sync(self._addresses.take, subject, limit, now)
        return self._refusal(limit, allowance)

    def _refusal(self, limit: int, allowance: Allowance) -> ApiError | None:
        if not allowance.retry_after:
            return None
        self._authority.limited("address")
        message = f"one address may make {limit} requests a minute"
        return ApiError(429, "ADDRESS_LIMITED", message, headers={"retry-after": str(allowance.retry_after)})

    def _counts(self, client: str) -> bool:
        # On this machine a proxy may speak for everybody.
        return bool(self._authority.policy.address_limit and client) and not is_loopback(client)

    def submit(self, asked: Asked, client: str, reply: Callable[[Answer], None]) -> bool:
        """Begin to answer a submission without ASGI; see `Straight`."""
        if asked.target != SUBMIT.path or asked.method != SUBMIT.method or self._telemetry:
            return False
        began, headers = time.perf_counter(), asked.headers

        def answered(answer: Answer) -> None:
            self.metrics.answered(SUBMIT.counted_as, answer.status, time.perf_counter() - began)
            reply(answer)

        if self._counts(client):
            limit = self._authority.policy.address_limit
            allowance = self._addresses.quick(network_of(client), limit, self._authority.now())
            if allowance is None:
                return False
            refused = self._refusal(limit, allowance)
            if refused is not None:
                answered(self._authority.refused(headers, refused))
                return True
        return self._service.submit(headers, asked.body, client, answered)

    async def answer(
        self,
        method: str,
        path: str,
        query: str,
        headers: Mapping[str, str],
        body: bytes,
        *,
        client: str,
        gone: Callable[[], Awaitable[None]],
    ) -> Answer:
        """Answer one request; see `Service.answer`."""
        endpoint, _ = self._authority.find_endpoint(method, path)
        route = endpoint.path if endpoint is not None else path if path in (*OPEN, METRICS.path) else ""
        kind = endpoint.counted_as if endpoint is not None else "open" if route else "unknown"
        began = time.perf_counter()
        with self._trace(method, route, headers) as span:
            refused = await self.refusal(client)
            if refused is not None:
                answer = self._authority.refused(headers, refused)
            elif path == METRICS.path:
                answer = await self._numbers(method, headers, client)
            else:
                answer = await self._service.answer(method, path, query, headers, body, client=client, gone=gone)
            span.set_attribute("http.response.status_code", answer.status)
        self.metrics.answered(kind, answer.status, time.perf_counter() - began)
        return answer

    async def _numbers(self, method: str, headers: Mapping[str, str], client: str) -> Answer:
        try:
            if method != "GET":
                raise not_allowed(method, "GET")
            who = None
            if not self._open_metrics:
                who = await anyio.to_thread.run_sync(self._authority.authenticate, headers, client)
            text = await anyio.to_thread.run_sync(self._text, who)
        except (ApiError, StorageError) as error:
            return self._authority.refused(headers, error)
        return Answer(200, {"content-type": CONTENT_TYPE, "cache-control": "no-store"}, text)

    def _text(self, who: Credential | None) -> bytes:
        if who is not None and not (who.role.administers or who.role is Role.VIEWER):
            raise ApiError(403, "ROLE_REFUSED", "the numbers are for keys of viewers and admins")
        # The organisation `default` is that of whoever runs the authority.
        return self.metrics.text(tenant=None if who is None or who.tenant == DEFAULT_TENANT else who.tenant)
