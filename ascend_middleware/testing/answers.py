"""What a scripted authority is asked, and the answers it can give."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeAlias
from urllib.parse import unquote, urlsplit

from ..client.http.transport import Request, Response

__all__ = [
    "NOW",
    "UNSCRIPTED",
    "Answer",
    "Asked",
    "Scripted",
    "decided",
    "error_response",
    "json_response",
    "read_request",
]

NOW: Final = "2026-01-01T00:00:00Z"
_CREDENTIALS: Final = frozenset({"authorization", "x-api-key"})


@dataclass(frozen=True, slots=True)
class Asked:
    """One request that reached the authority; credentials are left out of the headers.

    Attributes:
        method: upper case.
        path: below the base URL, decoded.
        headers: names in lower case.
        body: the JSON object that was sent, or an empty one.
    """

    method: str
    path: str
    headers: Mapping[str, str]
    body: Mapping[str, Any]

    @property
    def action_type(self) -> str:
        """The type of the action that was submitted; for an MCP action, `namespace.verb` unless it names another."""
        given = self.body.get("action_type")
        return str(given) if given else f"{self.body.get('namespace', '')}.{self.body.get('verb', '')}".strip(".")

    @property
    def agent_id(self) -> str:
        """The agent on whose behalf it was asked."""
        return str(self.body.get("agent_id", ""))

    @property
    def resource(self) -> str:
        """What the action is about."""
        return str(self.body.get("resource", ""))

    @property
    def details(self) -> Mapping[str, Any]:
        """The action's details."""
        details: Mapping[str, Any] = self.body.get("action_details") or self.body.get("parameters") or {}
        return details


class Scripted(Protocol):
    """What answers and clients know of the scripted authority; see `ScriptedAuthority`."""

    number: int
    time: float
    actions: dict[str, dict[str, Any]]

    @property
    def api_url(self) -> str:
        """What names it in settings."""

    def answer(self, request: Request) -> Response:
        """Return what the script answers."""


# Called with the authority, the request, and the action that it is about, if there is one.
Answer: TypeAlias = "Callable[[Scripted, Asked, dict[str, Any] | None], Response]"

UNSCRIPTED: Final = {"reason": "the test scripted no answer for this action: use approve(), deny() or hold()"}


def decided(word: str, fields: Mapping[str, Any]) -> Answer:
    """Answer a submission with a new action, decided by `word`: approved, denied or pending."""

    def answer(authority: Scripted, asked: Asked, action: dict[str, Any] | None) -> Response:
        number = str(len(authority.actions) + 1)
        words = {"approved": "auto_approved", "pending": "pending_approval", "denied": "denied"}
        made = {
            "action_id": number,
            "id": int(number),
            "status": word,
            "decision": word,
            "enforcement_decision": words[word],
            "execution_allowed": word == "approved",
            "requires_approval": word == "pending",
            "success": word != "denied",
            "risk_score": 0,
            "risk_level": "low",
            "reason": f"{word} by the test",
            "timestamp": NOW,
            "created_at": NOW,
            "updated_at": NOW,
            "approval_request_id": number if word == "pending" else None,
            **fields,
        }
        authority.actions[number] = {
            **{name: value for name, value in asked.body.items() if name not in made},
            **made,
            "action_type": asked.action_type,
        }
        return json_response(200, made)

    return answer


def json_response(status: int, body: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> Response:
    """Answer a JSON object."""
    return Response(status, {"content-type": "application/json", **(headers or {})}, json.dumps(body).encode())


def error_response(status: int, code: str, message: str, headers: Mapping[str, str]) -> Response:
    """Answer an error in the documented form."""
    error = {"code": code, "message": message, "details": {}}
    return json_response(status, {"status": "error", "error": error, "detail": message}, headers)


def read_request(request: Request, base: str) -> Asked:
    """Read what an engine was given to send."""
    target = request.url.removeprefix(base)
    path = target.partition("?")[0] if target != request.url else urlsplit(request.url).path
    path = path[path.index("/") :]  # guards say which test's authority they mean
    headers = {name.lower(): value for name, value in request.headers if name.lower() not in _CREDENTIALS}
    try:
        body = json.loads(request.content) if request.content else {}
    except ValueError:
        body = {}
    return Asked(request.method.upper(), unquote(path), headers, body if isinstance(body, dict) else {})
