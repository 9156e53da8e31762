"""The authority without HTTP: one request in, one answer out. All doors (server, `local:`, tests) use this."""

from __future__ import annotations

import contextlib
import logging
import re
import time
from collections.abc import Callable, Generator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeAlias, TypeVar

import msgspec

from ascend_middleware.api.decode import encode_json
from ascend_middleware.api.endpoint import Endpoint
from ascend_middleware.api.endpoints import APPROVE, DECIDE_WORKFLOW, EVALUATE_POLICY, HEALTH, OPENAPI, READY, REJECT

from .approvals import what_cannot_be
from .bodies import Answer, ApiError, fixed_headers, not_allowed
from .context import HANDLERS, IDEMPOTENCY_KEY, V2, Call, Known, Request, fingerprint, repeated_otherwise, versionless
from .encoding import encode, pending_word, rows_encoded
from .endpoints import find_endpoint, openapi
from .endpoints.policies import kept_policies
from .failures import as_refusal, policies_changing
from .fleet import Peers, window
from .judging import Apart, Task
from .keys import DEFAULT_TENANT, LOCAL, Credential, network_of, presented
from .ordinary import Ordinary
from .policy import PolicySet, Question
from .policy.policy_file import load_policy
from .policy.risk_score import Score
from .readiness import Readiness
from .store.audit import new_salt
from .store.store import Store, default_database, iso_time
from .tokens import Tokens

__all__ = ["API_VERSIONS", "OPEN", "Answering", "Authority", "advance"]

log = logging.getLogger(__name__)

API_VERSIONS: Final = frozenset({"2025-12-01"})
_CORRELATION_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
OPEN: Final = (HEALTH.path, READY.path, OPENAPI.path)
# What an approver may do besides reading.
_DECIDING: Final = frozenset({APPROVE, REJECT, DECIDE_WORKFLOW})
# Failed sign-ins that the audit log takes in a minute; further ones are told in number.
_MOST_FAILURES: Final = 100
# Answers whose words the envelope spells otherwise.
_DECISIONS: Final = frozenset({"Decision", "ActionDetails", "Evaluation"})
_WORD: Final = 2**64 - 1
# So often a request is judged before its policies are said to change all the time.
_MOST_TURNS: Final = 4
_T = TypeVar("_T")
# Yields what has to be done outside of all transactions, and receives what came of it.
Answering: TypeAlias = Generator[Task, object, Answer]


class Authority:
    """Decides, remembers and answers.

    Args:
        store: the database.
        policy: what the policy file says.
        now: seconds since the epoch.
        new_id: a fresh correlation id.
        development: whether webhooks may go to plain http and private addresses.

    Attributes:
        environment: the word shown in deployment-info.
        send_webhook: sends a test event to a subscription of a tenant and returns what came of it; None where nothing
            delivers webhooks.
        peers: the other replicas of the database.
        policy_problem: why a changed policy file was not taken; nothing where none waits.
        limited: is told the name of each limit that refuses a request.
        ordinary: answers nearly all submissions.
    """

    def __init__(
        self,
        store: Store,
        policy: PolicySet,
        *,
        now: Callable[[], float] = time.time,
        new_id: Callable[[], str] = new_salt,
        development: bool = False,
    ) -> None:
        self.store = store
        self.policy = policy
        self.now = now
        self.environment = "local"
        self.development = development
        self.send_webhook: Callable[[Mapping[str, Any], str], Mapping[str, Any]] | None = None
        self.tokens = Tokens(store, policy.token_key)
        self._new_id = new_id
        self._requests = window(store, "key")
        self.ordinary = Ordinary(self, self._requests)
        self._failures = window(store, "sign-in")
        self.peers = Peers(store)
        self._unlogged = 0
        self.readiness = Readiness(store, now=now)
        self.policy_problem = ""
        self.limited: Callable[[str], None] = lambda _: None

    @classmethod
    def open(
        cls, policy_path: str | Path, db_path: str | Path | None = None, *, now: Callable[[], float] = time.time
    ) -> Authority:
        """Load a policy file and open its database (beside it unless told).

        Raises:
            ConfigurationError: one of the two cannot be used; for the policy with every problem found.
        """
        policy = load_policy(policy_path)
        store = Store.open(db_path or default_database(policy_path), now=now)
        try:
            store.check()
            authority = cls(store, policy, now=now)
        except BaseException:
            store.close()
            raise
        authority.warn()
        return authority

    def use(self, policy: PolicySet) -> None:
        """Decide by another policy file from now on; what was decided stays as it was."""
        self.policy, self.policy_problem = policy, ""
        self.tokens = Tokens(self.store, policy.token_key)

    def warn(self) -> None:
        """Log what was declared and can never come true; see `approvals.what_cannot_be`."""
        for words in what_cannot_be(self):
            log.warning("%s", words)

    def close(self) -> None:
        """Close the database."""
        self.store.close()

    def policy_state(self) -> str:
        """Return a word that changes with whatever decisions depend on: policies, registrations, commands."""
        return f"{self.policy.version}-{self.store.revision() & _WORD:016x}"

    def question(self, action: Mapping[str, Any], score: Score, *, tenant: str) -> Question:
        """Ask the policy file and the organisation's own policies and smart rules about an action."""
        return Question.of(self.policy, action, score, more=kept_policies(self.store, tenant=tenant))

    def handle(
        self,
        method: str,
        path: str,
        query: str,
        headers: Mapping[str, str],
        body: bytes,
        *,
        credential: Credential | None = None,
        client: str = "",
    ) -> Answer:
        """Answer one request; never raises for what the request or the database does.

        The method is in upper case, the path decoded, the query raw, and names of headers are in lower case. Failed
        sign-ins are counted by `client`, the address that asks; where the caller knows who asks, it gives `credential`.
        """
        try:
            answer = self.ordinary.alone(method, path, query, headers, body) if credential is None else None
        except Exception as error:
            return self.refused(headers, error)
        if answer is not None:
            return answer
        return _performed(self.answering(method, path, query, headers, body, credential=credential, client=client))

    def answering(
        self,
        method: str,
        path: str,
        query: str,
        headers: Mapping[str, str],
        body: bytes,
        *,
        credential: Credential | None = None,
        client: str = "",
    ) -> Answering:
        """Answer one request as `handle` does, but yield what others are to do outside of all transactions."""
        request = self._request(method, path, query, headers, body)
        limits: dict[str, str] = {}
        try:
            answer = yield from _turns(partial(self._answer, request, credential, client, limits))
        except Exception as error:
            answer = self._refusal(error, request)
        return Answer(answer.status, {**fixed_headers(request.correlation_id), **limits, **answer.headers}, answer.body)

    def ask(
        self,
        endpoint: Endpoint[Any],
        by: Credential,
        *,
        body: Mapping[str, Any] | None = None,
        query: str = "",
        **parameters: str,
    ) -> dict[str, Any]:
        """Answer somebody of this process at one endpoint with the fields of the answer, or raise `ApiError`.

        What stands in the path may be any text, where a URL takes only one without a slash.
        """
        content = b"" if body is None else encode_json(dict(body))
        request = self._request(endpoint.method, endpoint.path, query, {}, content)
        call = Call(authority=self, request=request, credential=by, endpoint=endpoint, parameters=parameters)
        return _performed(_turns(lambda done: self._asked(msgspec.structs.replace(call, done=done))))

    def _asked(self, call: Call) -> dict[str, Any]:
        with self.store.write() if call.endpoint.writes else contextlib.nullcontext():
            try:
                return self._admitted(call)
            except ApiError as error:
                refusal = error  # raised outside, or what it wrote would be taken back
        raise refusal

    def find_endpoint(self, method: str, path: str) -> tuple[Endpoint[Any] | None, dict[str, str]]:
        """Return the endpoint of a request, if it has one, and the parameters in its path."""
        try:
            return find_endpoint(method, versionless(path))
        except ApiError:
            return None, {}

    def refused(self, headers: Mapping[str, str], error: Exception) -> Answer:
        """Answer a request that is refused before `handle`, or whose changes could not be kept after it."""
        request = self._request("", "", "", headers, b"")
        answer = self._refusal(error, request)
        return answer._replace(headers={**fixed_headers(request.correlation_id), **answer.headers})

    def correlation_id(self, headers: Mapping[str, str]) -> str:
        """Return by which word logs and answers know a request: the one that it brings, or a new one."""
        given = headers.get("x-correlation-id", "")
        return given if _CORRELATION_ID.fullmatch(given) else self._new_id()

    # --- from request to route

    def _request(self, method: str, path: str, query: str, headers: Mapping[str, str], body: bytes) -> Request:
        return Request(
            method=method,
            path=versionless(path),
            query=query,
            headers=headers,
            body=body,
            correlation_id=self.correlation_id(headers),
            envelope=path.startswith(V2) or "x-api-version" in headers,
        )

    def _answer(
        self,
        request: Request,
        credential: Credential | None,
        client: str,
        limits: dict[str, str],
        done: object,
    ) -> Answer:
        version = request.headers.get("x-api-version")
        if version is not None and version not in API_VERSIONS:
            message = f"there is no such API version; this authority knows {', '.join(sorted(API_VERSIONS))}"
            raise ApiError(400, "UNSUPPORTED_API_VERSION", message, details={"field": "X-API-Version"})
        if request.path in OPEN:
            return self._open(request)
        credential = credential or self.authenticate(request.headers, client)
        meant = request.headers.get("x-organization-slug")
        if meant not in (None, credential.tenant) and credential is not LOCAL:
            raise ApiError(403, "OTHER_ORGANIZATION", "this key is not of the organisation that the client names")
        endpoint, parameters = find_endpoint(request.method, request.path)
        # A request that comes again, after it was judged, is looked at as if for the first time; but it counts once.
        limits |= limits or self.count(endpoint.counted_as, credential)
        call = Call(
            authority=self,
            request=request,
            credential=credential,
            endpoint=endpoint,
            parameters=parameters,
            done=done,
        )
        if not endpoint.writes:
            return self._run(call)
        # One transaction holds the repetition check, the decision, its audit entry and the kept answer: what two
        # requests do at once, or what a killed process leaves behind, is either all of it or nothing.
        with self.store.write():
            name = request.headers.get("idempotency-key") if request.method == "POST" else None
            return self._run(call) if name is None else self._once(name, call)

    def _open(self, request: Request) -> Answer:
        """Answer what needs no credential."""
        if request.method != "GET":
            raise not_allowed(request.method, "GET")
        if request.path == OPENAPI.path:
            return Answer(200, {}, openapi.document())
        if request.path == READY.path:
            well, fields = self.readiness.ready()
            fields |= {
                "policy_version": self.policy.version,
                "policy_problem": self.policy_problem or None,
                "replicas": self.peers.count,
                "differing_policy_versions": sorted(set(self.peers.differing.values())),
            }
        else:
            well, fields = self.readiness.health()
        return Answer(200 if well else 503, {}, encode({**fields, "server_time": iso_time(self.now())}))

    def authenticate(self, headers: Mapping[str, str], client: str) -> Credential:
        """Return whose request it is; failures are counted by `client`, and never stand in a valid key's way."""
        key, token = presented(headers)
        if key is not None:
            credential, message = self.store.find_key(key), "invalid API key"
        elif token is not None:
            credential, message = self.tokens.verify(token, now=self.now()), "invalid or expired token"
        else:
            credential, message = None, "an API key is required, as X-API-Key or as a bearer token"
        if credential is not None:
            return credential
        most = self.policy.failed_sign_ins
        if client and most and (key or token):
            allowance = self._failures.take(network_of(client), most, self.now())
            if allowance.retry_after:
                self.limited("sign-in")
                message = "too many failed sign-ins from this address"
                raise ApiError(429, "TOO_MANY_FAILED_SIGN_INS", message, headers=allowance.headers)
        if key or token:
            self._note_failure(key, client)
        raise ApiError(401, "AUTHENTICATION_FAILED", message, headers={"www-authenticate": "Bearer"})

    def _note_failure(self, key: str | None, client: str) -> None:
        """Have the audit log tell of a failed sign-in, in the organisation of the key where it once was one."""
        if self._failures.take("logged", _MOST_FAILURES, self.now()).retry_after:
            self._unlogged += 1
            return
        number, tenant = (self.store.key_of(key) if key else None) or (None, DEFAULT_TENANT)
        data = {"client": client, "by": "token" if key is None else "key", "key": number}
        if self._unlogged:
            data["further"], self._unlogged = self._unlogged, 0
        self.store.audit("SIGN_IN_FAILED", tenant=tenant, actor="", data=data)

    def count(self, name: str, credential: Credential) -> dict[str, str]:
        """Count a request against a limit of its key, and return what its answer says of that; `local:` has none."""
        limit = 0 if credential is LOCAL else self.policy.limits_of(credential.key_id, credential.name).of(name)
        if limit == 0:
            return {}
        allowance = self._requests.take((credential.key_id, name), limit, self.now())
        if allowance.retry_after:
            self.limited("key")
            message, details = (
                f"this key may make {limit} {name} requests a minute",
                {"limit": limit, "allowance": name},
            )
            raise ApiError(429, "RATE_LIMITED", message, details=details, headers=allowance.headers)
        return allowance.headers

    def _admitted(self, call: Call) -> dict[str, Any]:
        """Return what the endpoint answers, if the caller may ask it."""
        endpoint, role = call.endpoint, call.credential.role
        reads = endpoint.method == "GET" or endpoint is EVALUATE_POLICY
        if not (role.submits or reads or (role.decides and endpoint in _DECIDING)):
            call.audit("ACCESS_REFUSED", endpoint=endpoint.name)
            raise ApiError(403, "ROLE_REFUSED", f"{endpoint.name} is not for a key of the role {role}")
        may = role.administers or (endpoint.local and call.credential is LOCAL)
        if endpoint.admin and not may:
            call.audit("ACCESS_REFUSED", endpoint=endpoint.name)
            raise ApiError(403, "ADMIN_REQUIRED", f"{endpoint.name} needs an admin key")
        return HANDLERS[endpoint](call)

    def _once(self, name: str, call: Call) -> Answer:
        request = call.request
        if not IDEMPOTENCY_KEY.fullmatch(name):
            raise ApiError(422, "VALIDATION_ERROR", "Idempotency-Key must be 1 to 255 visible ASCII characters")
        found = fingerprint(request.read(), request.query, envelope=request.envelope)
        key_id = call.credential.key_id
        kept = self.store.answer_for(name, key_id=key_id, path=request.path)
        if kept is not None:
            if kept[0] != found:
                raise repeated_otherwise()
            return Answer(kept[1], {"idempotency-replayed": "true"}, kept[2])
        answer = self._run(call)
        if answer.status < 400:
            self.store.keep_answer(name, found, answer.status, answer.body, by=call.credential, path=request.path)
        return answer

    def _run(self, call: Call) -> Answer:
        # A refusal is answered from inside, so that the audit entry it wrote is kept.
        try:
            return self._success(call, self._admitted(call))
        except ApiError as error:
            return self._refusal(error, call.request)

    # --- answers

    def _meta(self, request: Request) -> dict[str, str]:
        return {"request_id": request.correlation_id, "timestamp": iso_time(self.now())}

    def _success(self, call: Call, fields: dict[str, Any]) -> Answer:
        status = 200 if isinstance(fields, Known) else call.endpoint.status
        if not call.request.envelope:
            return Answer(status, {}, encode(rows_encoded(fields)))
        body: dict[str, Any] = {"status": "success", "data": fields, "meta": self._meta(call.request)}
        if call.endpoint.answer in _DECISIONS:
            body["data"] = pending_word(fields)
        elif call.endpoint.answer == "Actions":
            body = rows_encoded(body | {"data": [pending_word(row) for row in fields["data"]]})
            body["pagination"] = fields["pagination"]
        else:
            body["data"] = rows_encoded(fields)
        return Answer(status, {}, encode(body))

    def _refusal(self, error: Exception, request: Request) -> Answer:
        error = as_refusal(error, request.correlation_id)
        answer = {"code": error.code, "message": error.message, "details": error.details}
        body = {
            "status": "error",
            "error": answer,
            "meta": self._meta(request),
            "detail": error.detail or error.message,
        }
        return Answer(error.status, error.headers, encode(body))


def _turns(attempt: Callable[[object], _T]) -> Generator[Task, object, _T]:
    """Try what may have to wait for something outside of all transactions; the next try is given what came of it."""
    done: object = None
    for _ in range(_MOST_TURNS):
        try:
            return attempt(done)
        except Apart as apart:
            done = yield apart.task
    raise policies_changing()


def advance(flow: Generator[Task, object, _T], done: object) -> _T | Task:
    """Go on with an answer after what it asked for was done; return it, or what is asked for next."""
    try:
        return flow.send(done)
    except StopIteration as end:
        answer: _T = end.value
        return answer


def _performed(flow: Generator[Task, object, _T]) -> _T:
    """Do in this thread all that an answer asks for, and return it."""
    step = advance(flow, None)
    while isinstance(step, Task):
        step = advance(flow, step.perform())
    return step
