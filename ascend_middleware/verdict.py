"""What the middleware does with a request, and how a refusal looks in HTTP."""

from __future__ import annotations

from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

import msgspec

from .api.decode import encode_json

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .api.models import AgentAction, AuthorizationDecision
    from .api.permission import Permission
    from .rules import CompiledRule

__all__ = [
    "OTHER_STATUSES",
    "PROBLEM_TYPE",
    "REFUSALS",
    "PermittedVerdict",
    "Refusal",
    "Run",
    "Verdict",
    "answer_of",
    "problem_schema",
]

# Problem type → status and title (RFC 9457). One row per line of the documented table of verdicts.
REFUSALS: Final[Mapping[str, tuple[int, str]]] = {
    "denied": (403, "The authority denied this action"),
    "unknown-agent": (403, "No agent is known for this request"),
    "approval-required": (403, "A person has to approve this action first"),
    "modification-required": (403, "The authority asks for this action to be changed"),
    "unmapped-route": (403, "No rule covers this route"),
    "blocked": (403, "A rule closes this route"),
    "unavailable": (503, "No decision could be had"),
    "overloaded": (503, "This service has too much to decide"),
    "misconfigured": (500, "This service cannot ask for a decision"),
    "kill-switch": (503, "The agent is blocked"),
    "approval-mismatch": (409, "The approval is not for this request"),
    "approval-used": (409, "The approval was used already"),
    "agent-rate-limit": (429, "The agent is asked to slow down"),
    "bad-request": (400, "The request is ambiguous or malformed"),
    "body-timeout": (408, "The body took too long to arrive"),
    "body-too-large": (413, "The body is too large to be governed"),
}

# Further statuses under which a problem type is answered; see `Refusal.status`.
OTHER_STATUSES: Final[Mapping[int, str]] = {202: "approval-required", 422: "bad-request"}
PROBLEM_TYPE: Final = "application/problem+json"
_URN: Final = "urn:ascend:problem:"

# Beats observe mode: a blocked agent stays blocked.
UNCONDITIONAL: Final = frozenset({"kill-switch"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A refusal, rendered by `response()`.

    Attributes:
        problem: the problem type, a key of `REFUSALS`.
        detail: one sentence for the caller; never a secret.
        retry_after: seconds, or None.
        extra: further members of the problem body.
        status: the HTTP status, where it is not the type's own.
        headers: further headers, names in lower case.
        report: what the health or the status URL answers instead of a problem, as JSON.
    """

    problem: str
    detail: str
    retry_after: float | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)
    status: int | None = None
    headers: tuple[tuple[str, str], ...] = ()
    report: Mapping[str, Any] | None = None

    def response(self, decision: AuthorizationDecision | None) -> tuple[int, list[tuple[str, str]], bytes]:
        """Return status, headers and body, most often as `application/problem+json`."""
        if self.report is not None:
            kind, status, body = "application/json", self.status or 200, {**self.report}
        else:
            own_status, title = REFUSALS[self.problem]
            kind, status = PROBLEM_TYPE, self.status or own_status
            body = {
                "type": _URN + self.problem,
                "title": title,
                "status": status,
                "detail": self.detail,
                **self.extra,
            }
        headers = [("content-type", kind), ("cache-control", "no-store"), *self.headers]
        if self.retry_after is not None:
            headers.append(("retry-after", str(max(1, -int(-self.retry_after // 1)))))
        if decision is not None:
            if decision.action_id:
                body["action_id"] = decision.action_id
                headers.append(("ascend-action-id", decision.action_id))
            headers.append(("ascend-decision", str(decision.status)))
            body["decision"] = str(decision.status)
        content = encode_json(body)
        headers.append(("content-length", str(len(content))))
        return status, headers, content


def problem_schema() -> dict[str, Any]:
    """Return the JSON Schema of a refusal's body, in the words that OpenAPI 3.0 and 3.1 share."""
    text, flag = {"type": "string"}, {"type": "boolean"}

    def of(properties: dict[str, Any], description: str, *required: str) -> dict[str, Any]:
        schema = {"type": "object", "description": description, "properties": properties}
        return {**schema, "required": list(required)} if required else schema

    approval = {"handle": text, "state": text, "status_url": text, "expires_in": {"type": "integer", "minimum": 0}}
    members = {
        "type": {"type": "string", "enum": [_URN + name for name in REFUSALS]},
        "title": text,
        "status": {"type": "integer"},
        "detail": text,
        "action_id": text,
        "decision": text,
        "reason": text,
        "risk_score": {"type": "number"},
        "conditions": {},
        "approval": of(approval, "How to repeat the request once it is approved.", *approval),
        "executed": flag,
        "outcome": text,
        "field": text,
        "findings": {"type": "array", "items": text},
    }
    description = "Why the request was refused before its handler ran (RFC 9457)."
    return of(members, description, "type", "title", "status", "detail")


class Run(msgspec.Struct, eq=False):
    """A passed request of which somebody is still to be told what became of it: the journal, or an approval.

    Attributes:
        number: the journal's; 0 where it has no entry.
        approval: the handle that was claimed for it, or None.
        claim: the token of that claim.
        action_id: the action's id at the authority; empty where there is none.
        concluded: whether it was told; only the first word counts.
    """

    number: int
    approval: str | None
    claim: str
    action_id: str
    concluded: bool = False

    def __repr__(self) -> str:
        return f"Run(number={self.number}, concluded={self.concluded})"  # a handle is a key


class Verdict(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """What becomes of a request.

    Attributes:
        outcome: `allowed`, `exempt`, `framework` (no handler of the application runs), `not-an-agent`, `open`
            (passed without a decision, because the rule says so), `observed`, `disabled`, `client-gone`, or a problem
            type.
        passes: whether the handler runs.
        refusal: what to answer when it does not; None when there is nobody to answer.
        rule: the rule that governed, if any.
        action: what was submitted, if anything was.
        decision: what the authority answered, if it did.
        cause: why there is no decision, a word of `refusals.cause_of`; None where there is one or none was asked for.
        would: in observe mode, the problem type that would have been answered.
        principal: the authenticated caller, where the application named one.
        run: what is to be concluded when the handler has run; None where nobody wants to hear of it.
        reuse: `cached` or `coalesced`, where the decision was made about another, identical request.
    """

    outcome: str
    passes: bool
    refusal: Refusal | None = None
    rule: CompiledRule | None = None
    action: AgentAction | None = None
    decision: AuthorizationDecision | None = None
    cause: str | None = None
    would: str | None = None
    principal: str | None = None
    run: Run | None = None
    reuse: str | None = None

    @property
    def action_id(self) -> str | None:
        """The action's id at the authority, when there is one."""
        return (self.decision.action_id or None) if self.decision is not None else None


class PermittedVerdict(Verdict, frozen=True, kw_only=True, eq=False):
    """The verdict on a plain permission, whose decision is decoded when somebody asks for it."""

    permission: Permission

    @property  # type: ignore[misc]  # in the place of the field, which stays empty
    def decision(self) -> AuthorizationDecision:
        """What the authority answered."""
        return self.permission.decision

    @property
    def action_id(self) -> str:
        """The action's id at the authority."""
        return self.permission.action_id


def answer_of(verdict: Verdict, render: Callable[..., Any] | None) -> tuple[int, list[tuple[str, str]], bytes]:
    """Return status, headers (as latin-1, like servers read them) and body for a verdict that does not pass."""
    if verdict.refusal is None:
        # The client has left before its body was whole; a server wants an answer all the same.
        return HTTPStatus.BAD_REQUEST, [("content-length", "0")], b""
    answer = verdict.refusal.response(verdict.decision)
    status, headers, content = answer if render is None else render(*answer)
    return status, [(str(name), _latin_1(str(value))) for name, value in headers], content


def _latin_1(value: str) -> str:
    """Return a header's value as it can be sent: what latin-1 does not have goes as UTF-8."""
    try:
        value.encode("latin-1")
    except UnicodeEncodeError:
        return value.encode("utf-8", "replace").decode("latin-1")
    return value
