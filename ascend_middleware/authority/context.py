"""One authenticated request on its way through an endpoint, and what an endpoint is."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import parse_qsl

import msgspec

from ascend_middleware.exceptions import NotFoundError, ProtocolError
from ascend_middleware.wire import normalize_action_id

from .bodies import ApiError
from .keys import contradicts
from .policy.policy import pattern_issue

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .core import Authority
    from .keys import Credential
    from .pagination import Request
    from .store.registry_store import Records
    from .store.store import Store

__all__ = ["Call", "Reply", "Route", "action_number", "check_patterns", "missing", "read_fields", "wrong"]

_Fields = TypeVar("_Fields", bound=msgspec.Struct)

_MISSING = re.compile(r"missing required field `([^`]+)`(?: - at `\$\.?([^`]*)`)?")
_PLACE = re.compile(r" - at `(?:key in )?\$\.?([^`]*)`$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What an endpoint answers, before the form is chosen.

    `kind` says what the fields are: `plain`, a `decision` (whose words the envelope spells differently), or a `page`.
    """

    fields: dict[str, Any]
    status: int = 200
    kind: str = "plain"
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One endpoint.

    Attributes:
        method: in upper case.
        path: with `{name}` for one segment.
        run: from a call to its reply; raises `ApiError` to refuse.
        summary: one line for the OpenAPI document.
        body: the fields of the request's body; None where it takes none.
        query: the fields of the query; None where it takes none.
        admin: whether only an admin may call it.
        local: whether the caller of `local:`, who is no admin, may call it all the same: it settles nothing about what
            that caller submits.
        allowance: which rate limit it counts against (`policy.Limits`); without, the one that fits what it is.
        status: of a success.
        pure: whether it changes nothing, whatever its method.
        answer: the name of the answer's schema in the OpenAPI document.
    """

    method: str
    path: str
    run: Callable[[Call], Reply]
    summary: str
    body: type[msgspec.Struct] | None = None
    query: type[msgspec.Struct] | None = None
    admin: bool = False
    local: bool = False
    allowance: str = ""
    status: int = 200
    pure: bool = False
    answer: str = "Object"

    @property
    def many(self) -> bool:
        """Whether it reads more, the more is stored; such calls wait for each other, and nothing else for them."""
        return self.allowance == "analytics" or (self.query is not None and "limit" in self.query.__struct_fields__)

    @property
    def counted_as(self) -> str:
        """The rate limit that it counts against: submit, report, read, list, analytics or admin."""
        if self.allowance or self.admin:
            return self.allowance or "admin"
        return "list" if self.many else "report" if self.writes else "read"

    @property
    def writes(self) -> bool:
        """Whether a call runs within a transaction, and may be repeated under an idempotency key."""
        return self.method != "GET" and not self.pure


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One authenticated request: who asks, for what, and whom an endpoint turns to."""

    authority: Authority
    request: Request
    credential: Credential
    parameters: Mapping[str, str]

    @property
    def store(self) -> Store:
        """The database."""
        return self.authority.store

    @property
    def records(self) -> Records:
        """Agents, commands, rules and the like."""
        return self.authority.records

    @property
    def tenant(self) -> str:
        """The caller's organisation."""
        return self.credential.tenant

    def body(self, kind: type[_Fields]) -> _Fields:
        """Return the body's fields; see `read_fields`."""
        return read_fields(self.request.read(), kind)

    def query(self, kind: type[_Fields]) -> _Fields:
        """Return the query's fields; a parameter that is repeated or unknown is refused."""
        pairs = query_pairs(self.request.query)
        try:
            return msgspec.convert(pairs, kind, strict=False)
        except msgspec.ValidationError as error:
            raise _refusal(error) from None

    def audit(self, event: str, *, action_id: int | None = None, at: str | None = None, **data: Any) -> None:
        """Append an audit entry in the caller's name; see `Store.audit`."""
        data = {**data, "key": self.credential.key_id, "correlation_id": self.request.correlation_id}
        if contradicts(self.request.headers):
            data["credentials"] = "X-API-Key counted, another bearer token stood beside it"
        self.store.audit(event, tenant=self.tenant, actor=self.credential.name, action_id=action_id, data=data, at=at)

    def shown(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """Return what the caller may see of an audit entry's data: how policies are made is for admins."""
        administers = self.credential.role.administers
        return {name: value for name, value in data.items() if administers or name != "faults"}

    def action(self, name: str = "id") -> dict[str, Any]:
        """Return the stored action that the path names."""
        try:
            return self.store.action(action_number(self.parameters[name]) or 0, tenant=self.tenant)
        except NotFoundError:
            raise ApiError(404, "NOT_FOUND", "there is no such action") from None


def query_pairs(query: str) -> dict[str, str]:
    """Return a query's parameters; refuse what is malformed or repeated."""
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query), errors="strict", max_num_fields=50)
    except ValueError:
        raise ApiError(400, "INVALID_REQUEST", "the query is malformed") from None
    given = dict(pairs)
    if len(given) != len(pairs):
        raise ApiError(422, "VALIDATION_ERROR", "a query parameter is repeated")
    return given


def read_fields(body: Mapping[str, Any], kind: type[_Fields]) -> _Fields:
    """Return a body as one of the request types, which also make the OpenAPI document.

    A required text that is empty counts as missing.

    Raises:
        ApiError: 400 for a missing required field, 422 for a wrong value (contract §4, 13).
    """
    for item in msgspec.structs.fields(kind):
        if item.required and body.get(item.encode_name) == "":
            raise missing(item.encode_name)
    try:
        return msgspec.convert(dict(body), kind)
    except msgspec.ValidationError as error:
        raise _refusal(error) from None


def missing(name: str) -> ApiError:
    """Return the refusal of a request that lacks a required field."""
    details = {"field": name, "requirement": "required"}
    return ApiError(400, "INVALID_REQUEST", f"Missing required field: {name}", details=details)


def _refusal(error: msgspec.ValidationError) -> ApiError:
    text = str(error)
    absent = _MISSING.search(text)
    if absent is not None:
        return missing(".".join(part for part in (absent[2], absent[1]) if part))
    place = _PLACE.search(text)
    unknown = re.search(r"unknown field `([^`]+)`", text)
    name = place[1] if place is not None else unknown[1] if unknown is not None else ""
    return wrong(name[:40] or "body", _PLACE.sub("", text)[:200])


def wrong(name: str, message: str, **details: Any) -> ApiError:
    """Return the refusal of a field's value."""
    return ApiError(422, "VALIDATION_ERROR", f"{name}: {message}", details={"field": name, "issue": message, **details})


def check_patterns(fields: Mapping[str, Any], *keys: str) -> None:
    """Refuse lists of patterns in which one can match nothing; see `pattern_issue`."""
    for key in keys:
        for pattern in fields.get(key) or ():
            issue = pattern_issue(pattern, key)
            if issue is not None:
                raise wrong(key, issue[0], hint=issue[1])


_LONGEST_ID: Final = 19


def action_number(text: object) -> int | None:
    """Return the number of an action id (`7`, `act_7`), or None where there can be no such action."""
    try:
        digits = normalize_action_id(text)
    except ProtocolError:
        return None
    return int(digits) if digits.isascii() and digits.isdigit() and len(digits) <= _LONGEST_ID else None
