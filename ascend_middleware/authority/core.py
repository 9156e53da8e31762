"""The authority without HTTP: one request in, one answer out. All doors (server, `local:`, tests) use this."""

from __future__ import annotations

import hashlib
import logging
import re
import sqlite3
import time
import uuid
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from ascend_middleware import __version__
from ascend_middleware.exceptions import NotFoundError, ProtocolError
from ascend_middleware.wire import encode_json, normalize_action_id

from . import approvals, orchestration
from .forms import Answer, ApiError, decision_fields, read_object, read_submission, record_fields
from .keys import Credential, presented_key
from .listing import Request, page_fields, read_query
from .policy import PolicySet
from .score import risk_level, score_action
from .store import Store, canonical_json, default_database, iso_time
from .waiting import read_wait

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

__all__ = ["Authority"]

log = logging.getLogger(__name__)

_CORRELATION_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_IDEMPOTENCY_KEY = re.compile(r"[\x21-\x7e]{1,255}")
_BLANK: Final = dict.fromkeys(
    ("resource_id", "tool_name", "orchestration_session_id", "mcp_server_name", "business_justification"), ""
)

_Result: TypeAlias = "dict[str, Any]"


class Authority:
    """Decides, remembers and answers.

    Args:
        store: the database.
        policy: what the policy file says.
        now: seconds since the epoch.
        new_id: a fresh correlation id.
        environment: the word shown in deployment-info.
    """

    def __init__(
        self,
        store: Store,
        policy: PolicySet,
        *,
        now: Callable[[], float] = time.time,
        new_id: Callable[[], str] = lambda: uuid.uuid4().hex,
        environment: str = "local",
    ) -> None:
        self.store = store
        self.policy = policy
        self._now = now
        self._new_id = new_id
        self._environment = environment

    @classmethod
    def open(
        cls, policy_path: str | Path, db_path: str | Path | None = None, *, now: Callable[[], float] = time.time
    ) -> Authority:
        """Load a policy file and open its database (beside it unless told).

        Raises:
            ConfigurationError: one of the two cannot be used; for the policy with every problem found.
        """
        policy = PolicySet.load(policy_path)
        return cls(Store.open(db_path or default_database(policy_path), now=now), policy, now=now)

    def close(self) -> None:
        """Close the database."""
        self.store.close()

    def handle(
        self,
        method: str,
        path: str,
        query: str,
        headers: Mapping[str, str],
        body: bytes,
        *,
        credential: Credential | None = None,
    ) -> tuple[int, dict[str, str], bytes]:
        """Answer one request; never raises for what the request or the database does.

        Args:
            method: in upper case.
            path: decoded, beginning with a slash.
            query: raw, without the question mark.
            headers: names in lower case.
            body: the whole of it.
            credential: who asks, where the caller knows already (`local:`); else the headers' key tells.
        """
        given = headers.get("x-correlation-id", "")
        correlation_id = given if _CORRELATION_ID.fullmatch(given) else self._new_id()
        versioned = path.startswith("/api/v2/")
        request = Request(
            method=method,
            path="/api/v1/" + path.removeprefix("/api/v2/") if versioned else path,
            query=query,
            headers=headers,
            body=body,
            correlation_id=correlation_id,
            envelope=versioned or "x-api-version" in headers,
        )
        try:
            answer = self._answer(request, credential)
        except ApiError as error:
            answer = self._refusal(error, request)
        except sqlite3.Error as error:
            answer = self._refusal(_storage_failed(error, correlation_id), request)
        except Exception:
            log.exception("request %s failed", correlation_id)
            answer = self._refusal(
                ApiError(500, "INTERNAL_ERROR", "the authority failed; nothing was decided"), request
            )
        return answer.status, {**_fixed(correlation_id), **answer.headers}, answer.body

    def unstored(self, headers: Mapping[str, str], error: Exception) -> tuple[int, dict[str, str], bytes]:
        """Answer a request whose changes could not be kept after all: nothing was decided."""
        given = headers.get("x-correlation-id", "")
        correlation_id = given if _CORRELATION_ID.fullmatch(given) else self._new_id()
        request = Request(
            method="", path="", query="", headers=headers, body=b"", correlation_id=correlation_id, envelope=False
        )
        answer = self._refusal(_storage_failed(error, correlation_id), request)
        return answer.status, {**_fixed(correlation_id), **answer.headers}, answer.body

    # --- from request to route

    def _answer(self, request: Request, credential: Credential | None) -> Answer:
        if request.path == "/health":
            self._only(request, "GET")
            return self._success(request, {"status": "healthy", "server_time": iso_time(self._now())}, plain=True)
        credential = credential or self._authenticate(request)
        route, action_id = self._route(request)
        if request.method == "GET":
            return route(self, request, credential, action_id)
        # One transaction holds the repetition check, the decision, its audit entry and the kept answer: what two
        # requests do at once, or what a killed process leaves behind, is either all of it or nothing.
        with self.store.write():
            return self._once(route, request, credential, action_id)

    def _authenticate(self, request: Request) -> Credential:
        key = presented_key(request.headers)
        credential = None if key is None else self.store.find_key(key)
        if credential is None:
            message = "an API key is required, as X-API-Key or as a bearer token" if key is None else "invalid API key"
            raise ApiError(401, "AUTHENTICATION_FAILED", message, headers={"www-authenticate": "Bearer"})
        return credential

    def _only(self, request: Request, method: str) -> None:
        if request.method != method:
            message = f"{request.method} is not allowed here"
            raise ApiError(405, "METHOD_NOT_ALLOWED", message, headers={"allow": method})

    def _route(self, request: Request) -> tuple[_Route, int | None]:
        for method, pattern, route in _ROUTES:
            match = pattern.fullmatch(request.path)
            if match is None:
                continue
            self._only(request, method)
            return route, _decimal(match["id"]) if "id" in pattern.groupindex else None
        raise ApiError(404, "NOT_FOUND", "there is no such endpoint")

    def _once(self, route: _Route, request: Request, credential: Credential, action_id: int | None) -> Answer:
        name = request.headers.get("idempotency-key")
        if name is None:
            return self._run(route, request, credential, action_id)
        if not _IDEMPOTENCY_KEY.fullmatch(name):
            raise ApiError(422, "VALIDATION_ERROR", "Idempotency-Key must be 1 to 255 visible ASCII characters")
        content = canonical_json([read_object(request.body), request.query, request.envelope])
        fingerprint = hashlib.sha256(content.encode()).hexdigest()
        place = {"key_id": credential.key_id, "path": request.path}
        kept = self.store.answer_for(name, **place)  # type: ignore[arg-type]  # values of two types
        if kept is not None:
            if kept[0] != fingerprint:
                raise ApiError(409, "IDEMPOTENCY_CONFLICT", "this Idempotency-Key came before with another body")
            return Answer(kept[1], kept[2], {"idempotency-replayed": "true"})
        answer = self._run(route, request, credential, action_id)
        if answer.status < 400:
            self.store.keep_answer(name, fingerprint, answer.status, answer.body, **place)  # type: ignore[arg-type]
        return answer

    def _run(self, route: _Route, request: Request, credential: Credential, action_id: int | None) -> Answer:
        # A refusal is answered from inside, so that the audit entry it wrote is kept.
        try:
            return route(self, request, credential, action_id)
        except ApiError as error:
            return self._refusal(error, request)

    # --- routes

    def _deployment(self, request: Request, credential: Credential, action_id: int | None) -> Answer:
        fields = {
            "version": __version__,
            "environment": self._environment,
            "server_time": iso_time(self._now()),
            "policy_version": self.policy.version,
        }
        return self._success(request, fields)

    def _submit(self, request: Request, credential: Credential, action_id: int | None) -> Answer:
        action = read_submission(read_object(request.body))
        governance = orchestration.check(action, request, self.store, self.policy, credential)
        score = score_action(action["action_type"], action["risk_indicators"])
        judgement = self.policy.judge({**_BLANK, "orchestration_depth": 0, **action}, score)
        stored = {
            "decision": judgement.decision,
            "reason": judgement.reason,
            "policy_matched": judgement.policy_matched,
            "matched": judgement.matched,
            "factors": judgement.factors,
            "policy_version": self.policy.version,
            "correlation_id": request.correlation_id,
            **governance,
        }
        level = risk_level(judgement.risk_score)
        stored |= self.policy.approvals.terms(
            judgement.decision, level, expires_at=lambda seconds: iso_time(self._now() + seconds)
        )
        number = self.store.add_action(action, stored, risk=(judgement.risk_score, level), by=credential)
        self.store.audit(
            "ACTION_SUBMITTED",
            tenant=credential.tenant,
            actor=credential.name,
            action_id=number,
            data={
                **stored,
                "key": credential.key_id,
                "agent_id": action["agent_id"],
                "action_type": action["action_type"],
                "risk_score": judgement.risk_score,
                "submission": hashlib.sha256(canonical_json(action).encode()).hexdigest(),
            },
        )
        return self._success(request, decision_fields(self._find(number, credential)), decision=True)

    def _status(self, request: Request, credential: Credential, action_id: int | None) -> Answer:
        read_wait(request.query, request.headers)  # the door holds the request; here it is only checked
        return self._success(request, decision_fields(self._find(action_id, credential)), decision=True)

    def _details(self, request: Request, credential: Credential, action_id: int | None) -> Answer:
        row = self._find(action_id, credential)
        record = record_fields(row)
        record["audit_trail"] = self.store.audit_trail(row["id"], tenant=credential.tenant)
        return self._success(request, record, decision=True)

    def _list(self, request: Request, credential: Credential, action_id: int | None) -> Answer:
        return self._page(request, credential, read_query(request.query))

    def _pending(self, request: Request, credential: Credential, action_id: int | None) -> Answer:
        query = read_query(request.query)
        query["equal"]["status"] = "pending"
        return self._page(request, credential, query)

    def _page(self, request: Request, credential: Credential, query: dict[str, Any]) -> Answer:
        rows, total = self.store.actions(tenant=credential.tenant, **query)
        fields = page_fields([record_fields(row) for row in rows], total, query["limit"], query["offset"])
        if not request.envelope:
            return self._success(request, fields)
        data = [_pending_word(row) for row in fields["data"]]
        meta = self._meta(request)
        body = {"status": "success", "data": data, "pagination": fields["pagination"], "meta": meta}
        return Answer(200, encode_json(body))

    def _approve(self, request: Request, credential: Credential, action_id: int | None) -> Answer:
        body = read_object(request.body)
        approved = body.get("approved", True)
        if not isinstance(approved, bool):
            raise ApiError(422, "VALIDATION_ERROR", "approved must be true or false", details={"field": "approved"})
        return self._decide(request, credential, action_id, body, approved=approved)

    def _reject(self, request: Request, credential: Credential, action_id: int | None) -> Answer:
        body = read_object(request.body)
        if body.get("approved", False) is not False:
            raise ApiError(422, "VALIDATION_ERROR", "a rejection cannot approve", details={"field": "approved"})
        return self._decide(request, credential, action_id, body, approved=False)

    def _decide(
        self,
        request: Request,
        credential: Credential,
        action_id: int | None,
        body: Mapping[str, Any],
        *,
        approved: bool,
    ) -> Answer:
        row = self._find(action_id, credential)
        row = approvals.decide(self.store, row, body, approved=approved, by=credential)
        return self._success(request, decision_fields(row), decision=True)

    def _complete(self, request: Request, credential: Credential, action_id: int | None) -> Answer:
        return self._conclude(request, credential, action_id, "completed")

    def _fail(self, request: Request, credential: Credential, action_id: int | None) -> Answer:
        return self._conclude(request, credential, action_id, "failed")

    def _conclude(self, request: Request, credential: Credential, action_id: int | None, word: str) -> Answer:
        body = read_object(request.body)
        row = self._find(action_id, credential)
        approvals.conclude(self.store, row, body, word=word, at=iso_time(self._now()), by=credential)
        return self._success(request, {"success": True, "action_id": str(row["id"]), "outcome": word})

    def _find(self, action_id: int | None, credential: Credential) -> dict[str, Any]:
        try:
            return self.store.action(action_id or 0, tenant=credential.tenant)
        except NotFoundError:
            raise ApiError(404, "NOT_FOUND", "there is no such action") from None

    # --- answers

    def _meta(self, request: Request) -> dict[str, str]:
        return {"request_id": request.correlation_id, "timestamp": iso_time(self._now())}

    def _success(self, request: Request, fields: _Result, *, decision: bool = False, plain: bool = False) -> Answer:
        if request.envelope and not plain:
            data = _pending_word(fields) if decision else fields
            return Answer(200, encode_json({"status": "success", "data": data, "meta": self._meta(request)}))
        return Answer(200, encode_json(fields))

    def _refusal(self, error: ApiError, request: Request) -> Answer:
        body = {
            "status": "error",
            "error": {"code": error.code, "message": error.message, "details": error.details},
            "meta": self._meta(request),
            "detail": error.detail or error.message,
        }
        return Answer(error.status, encode_json(body), error.headers)


def _fixed(correlation_id: str) -> dict[str, str]:
    return {
        "content-type": "application/json",
        "cache-control": "no-store",
        "x-content-type-options": "nosniff",
        "x-correlation-id": correlation_id,
    }


def _storage_failed(error: Exception, correlation_id: str) -> ApiError:
    log.error("the database failed, request %s was refused: %s", correlation_id, error)
    message = "the authority's database failed; nothing was decided"
    return ApiError(503, "STORAGE_UNAVAILABLE", message, headers={"retry-after": "1"})


def _pending_word(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Spell a pending decision as the envelope generation does."""
    if fields["status"] != "pending":
        return dict(fields)
    return {**fields, "status": "pending_approval", "decision": "pending_approval"}


def _decimal(text: str) -> int | None:
    try:
        digits = normalize_action_id(text)
    except ProtocolError:
        return None
    return int(digits) if digits.isascii() and digits.isdigit() and len(digits) <= 19 else None


_Route: TypeAlias = "Callable[[Authority, Request, Credential, int | None], Answer]"
_ROUTES: Final[tuple[tuple[str, re.Pattern[str], _Route], ...]] = tuple(
    (method, re.compile(path.replace("{id}", "(?P<id>[^/]+)")), route)
    for method, path, route in (
        ("GET", "/api/deployment-info", Authority._deployment),
        ("POST", "/api/v1/actions/submit", Authority._submit),
        ("GET", "/api/v1/actions/{id}/status", Authority._status),
        ("POST", "/api/v1/actions/{id}/approve", Authority._approve),
        ("POST", "/api/v1/actions/{id}/reject", Authority._reject),
        ("GET", "/api/v1/actions/{id}", Authority._details),
        ("GET", "/api/v1/actions", Authority._list),
        ("GET", "/api/agent-activity", Authority._list),
        ("GET", "/api/governance/pending-actions", Authority._pending),
        ("POST", "/api/governance/workflows/{id}/approve", Authority._approve),
        ("POST", "/api/agent-action/{id}/complete", Authority._complete),
        ("POST", "/api/agent-action/{id}/fail", Authority._fail),
    )
)
