"""The status URL of a held action: the question, and the answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..api.decode import encode_json
from ..verdict import Refusal

if TYPE_CHECKING:
    from ..api.models import AuthorizationDecision

__all__ = ["StatusQuery", "StatusReport"]


@dataclass(frozen=True, slots=True)
class StatusQuery:
    """A request for the status URL of one handle."""

    handle: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusReport(Refusal):
    """The answer of the status URL: the state of an approval, and nothing else about it."""

    state: str

    def response(self, decision: AuthorizationDecision | None) -> tuple[int, list[tuple[str, str]], bytes]:
        """Return status, headers and body as JSON."""
        content = encode_json({"state": self.state})
        headers = [
            ("content-type", "application/json"),
            ("cache-control", "no-store"),
            ("content-length", str(len(content))),
        ]
        if self.retry_after is not None:
            headers.append(("retry-after", str(max(1, -int(-self.retry_after // 1)))))
        return self.status or 200, headers, content
