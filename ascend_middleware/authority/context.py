"""One authenticated request on its way through an endpoint: what the endpoint may use, and how fields are read."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol, TypeAlias, TypeVar

import msgspec

from ascend_middleware.api.bodies import Nothing, Page
from ascend_middleware.api.decode import normalize_action_id
from ascend_middleware.api.endpoint import Endpoint
from ascend_middleware.exceptions import NotFoundError, ProtocolError

from .bodies import ApiError, read_fields, read_object, read_query_fields, wrong
from .judging import QUICK, Apart, Judged, Task
from .keys import Credential, contradicts
from .paging import cursor_of, in_order
from .policy import Judgement, PolicySet, Question, pattern_issues
from .policy.evaluation import Shape
from .policy.risk_score import Score
from .store.listing import Listing
from .store.store import Store, canonical_json

__all__ = [
    "HANDLERS",
    "IDEMPOTENCY_KEY",
    "V2",
    "AuthorityContext",
    "Call",
    "Fields",
    "Known",
    "Request",
    "action_number",
    "answers",
    "check_patterns",
    "fingerprint",
    "repeated_otherwise",
    "shown_to",
    "versionless",
]

_Body = TypeVar("_Body", bound=msgspec.Struct)

_LONGEST_ID: Final = 19
_V1: Final = "/api/v1/"
# Under which the same endpoints answer in the envelope's form.
V2: Final = "/api/v2/"
IDEMPOTENCY_KEY: Final = re.compile(r"[\x21-\x7e]{1,255}")

# The fields of an answer, or of what it shows.
Fields: TypeAlias = dict[str, Any]
# What answers an endpoint; raises `ApiError` to refuse.
Handler: TypeAlias = "Callable[[Call], Fields]"
# What an audit entry tells to admins alone: how policies failed, and the hashes of what was stored with it.
_FOR_ADMINS: Final = ("faults", "judgement", "kept", "stored")
HANDLERS: Final[dict[Endpoint[Any], Handler]] = {}


def answers(*endpoints: Endpoint[Any]) -> Callable[[Handler], Handler]:
    """Have a function answer endpoints of the table."""

    def register(handler: Handler) -> Handler:
        HANDLERS.update(dict.fromkeys(endpoints, handler))
        return handler

    return register


class Known(dict[str, Any]):
    """The fields of something that was there before: answered with 200, whatever the endpoint's status."""


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """One request. `path` has the v1 form; `envelope` says which form its answer takes."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes
    correlation_id: str
    envelope: bool
    _read: list[dict[str, Any]] = msgspec.field(default_factory=list)

    def read(self) -> dict[str, Any]:
        """Return the body as an object, read once; see `bodies.read_object`."""
        if not self._read:
            self._read.append(read_object(self.body))
        return self._read[0]


class AuthorityContext(Protocol):
    """What endpoints know of the authority; see `core.Authority`."""

    store: Store
    policy: PolicySet
    environment: str
    development: bool
    send_webhook: Callable[[Mapping[str, Any], str], Mapping[str, Any]] | None
    limited: Callable[[str], None]

    @property
    def now(self) -> Callable[[], float]:
        """Seconds since the epoch."""

    def policy_state(self) -> str:
        """Return a word that changes with whatever decisions depend on: policies, registrations, commands."""

    def correlation_id(self, headers: Mapping[str, str]) -> str:
        """Return by which word logs and answers know a request."""

    def question(self, action: Mapping[str, Any], score: Score, *, tenant: str) -> Question:
        """Ask the policy file and the organisation's own policies and smart rules about an action."""


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """One authenticated request: who asks, for what, and whom an endpoint turns to.

    `done` is what was done for it outside of the transaction; see `judging`.
    """

    authority: AuthorityContext
    request: Request
    credential: Credential
    endpoint: Endpoint[Any]
    parameters: Mapping[str, str]
    done: object = None

    @property
    def store(self) -> Store:
        """The database."""
        return self.authority.store

    @property
    def tenant(self) -> str:
        """The caller's organisation."""
        return self.credential.tenant

    def body(self, kind: type[_Body]) -> _Body:
        """Return the body's fields; see `read_fields`."""
        return read_fields(self.request.read(), kind)

    def fields(self) -> dict[str, Any]:
        """Return the body as the endpoint's row describes it, in plain values, with what is left out."""
        read: dict[str, Any] = msgspec.to_builtins(self.body(self.endpoint.body or Nothing))
        return read

    def query(self, kind: type[_Body]) -> _Body:
        """Return the query's fields; a parameter that is repeated or unknown is refused."""
        return read_query_fields(self.request.query, kind)

    def audit(self, event: str, *, action_id: int | None = None, at: str | None = None, **data: Any) -> None:
        """Append an audit entry in the caller's name; see `Store.audit`."""
        door = {"via": "command line"} if self.credential.is_operator else {"key": self.credential.key_id}
        data = {**data, **door, "correlation_id": self.request.correlation_id}
        if contradicts(self.request.headers):
            data["credentials"] = "X-API-Key counted, another bearer token stood beside it"
        self.store.audit(event, tenant=self.tenant, actor=self.credential.name, action_id=action_id, data=data, at=at)

    def judge(self, action: Mapping[str, Any], score: Score) -> Judgement:
        """Decide about an action by all policies that speak of it.

        Raises:
            Apart: that may take long, and was not done yet, or by policies or facts that have changed since.
        """
        question = self.authority.question(action, score, tenant=self.tenant)
        if question.is_quick(Shape.of(self.request.body), QUICK):
            return question.judge(quick=True)
        if not isinstance(self.done, Judged) or not question.is_as(self.done.question):
            raise Apart(Task(self.tenant, question))
        return self.done.judgement

    def speak_for(self, agent_id: str) -> None:
        """Refuse (403) who acts in the name of an agent that their key may not speak for."""
        if not self.credential.speaks_for(agent_id):
            self.audit("AGENT_REFUSED", agent_id=agent_id, endpoint=f"{self.endpoint.method} {self.endpoint.path}")
            message = f"this key speaks for {', '.join(self.credential.agents)}, and not for agent {agent_id!r}"
            raise ApiError(403, "AGENT_NOT_ALLOWED", message, details={"agent_id": agent_id})

    def shown(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """Return what the caller may see of an audit entry's data."""
        return shown_to(self.credential, data)

    def action(self, action_id: object = None) -> dict[str, Any]:
        """Return a stored action, that which the path names unless told."""
        number = action_number(self.parameters["id"] if action_id is None else action_id) or 0
        return self.found("action", lambda: self.store.action(number, tenant=self.tenant))

    def page(self, kind: str, page: Page) -> Listing:
        """Return one page of the organisation's records of a kind."""
        cursor, tenant = cursor_of(page), self.tenant
        return in_order(
            lambda: self.store.page(kind, tenant=tenant, limit=page.limit, offset=page.offset, cursor=cursor)
        )

    def record(self, kind: str, name: str, words: str) -> dict[str, Any]:
        """Return a record of the organisation; `words` say what there is not where there is none."""
        return self.found(words, lambda: self.store.get(kind, name, tenant=self.tenant))

    def found(self, words: str, find: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Return what is found, or answer with 404."""
        try:
            return find()
        except NotFoundError:
            raise ApiError(404, "NOT_FOUND", f"there is no such {words}") from None


def shown_to(who: Credential, data: Mapping[str, Any]) -> dict[str, Any]:
    """Return what somebody may see of an audit entry's data: how policies are made is for admins."""
    hidden = () if who.role.administers else _FOR_ADMINS
    return {name: value for name, value in data.items() if name not in hidden}


def fingerprint(body: Mapping[str, Any], query: str = "", *, envelope: bool = False) -> str:
    """Return by what a repetition under an idempotency key is known to be one."""
    return hashlib.sha256(canonical_json([body, query, envelope]).encode()).hexdigest()


def versionless(path: str) -> str:
    """Return the path of a request in its v1 form."""
    return _V1 + path.removeprefix(V2) if path.startswith(V2) else path


def repeated_otherwise() -> ApiError:
    """Return the refusal of an idempotency key that came before with something else."""
    return ApiError(409, "IDEMPOTENCY_CONFLICT", "this Idempotency-Key came before with another body")


def check_patterns(fields: Mapping[str, Any], *keys: str) -> None:
    """Refuse lists of patterns in which one can match nothing."""
    for key, message, hint in pattern_issues(fields, *keys):
        raise wrong(key, message, hint=hint)


def action_number(text: object) -> int | None:
    """Return the number of an action id (`7`, `act_7`), or None where there can be no such action."""
    try:
        digits = normalize_action_id(text)
    except ProtocolError:
        return None
    return int(digits) if digits.isascii() and digits.isdigit() and len(digits) <= _LONGEST_ID else None
