"""What else is answered: stored actions and lists of them, the state of a connection."""

from __future__ import annotations

from typing import Any, ClassVar

from .record import Record

__all__ = ["ActionPage", "ActionRecord", "ConnectionStatus"]


class ActionRecord(Record):
    """One stored action, in full or as the row of a list; it informs, and only an `AuthorizationDecision` permits."""

    __slots__ = ()

    _NAMED: ClassVar[frozenset[str]] = frozenset(
        {"action_id", "status", "decision", "risk_score", "risk_level", "reason", "created_at", "updated_at"},
    )

    @property
    def metadata(self) -> dict[str, Any]:
        """What the authority sent beyond the named fields; its own `metadata` object is merged in."""
        rest = {key: value for key, value in self.items() if key not in self._NAMED and key != "metadata"}
        own = self.get("metadata")
        return {**rest, **own} if isinstance(own, dict) else rest


class ActionPage(Record):
    """One page of a list: `actions`, `total`, `limit`, `offset`, `has_more`.

    Iterate `.actions`, not the page.
    """

    __slots__ = ()

    @property
    def actions(self) -> list[ActionRecord]:
        """The rows of this page."""
        rows: list[ActionRecord] = self["actions"]
        return rows

    def _summary(self) -> dict[str, Any]:
        return {key: self.get(key) for key in ("total", "limit", "offset", "has_more")}

    def to_dict(self) -> dict[str, Any]:
        """Return a plain dict that `json.dumps` takes."""
        return {**self, "actions": [row.to_dict() for row in self.actions]}


class ConnectionStatus(Record):
    """The result of `test_connection`; `status` is `connected` or `error`.

    Keys that are always there: status, connected, api_version, latency_ms (milliseconds), server_time; `error` is
    there only on failure, as `.get("error")` expects.
    """

    __slots__ = ()

    @property
    def connected(self) -> bool:
        """Whether the authenticated call succeeded."""
        return bool(self["connected"])

    @property
    def error(self) -> str | None:
        """What went wrong, or None."""
        return self.get("error")

    def _summary(self) -> dict[str, Any]:
        return {key: self.get(key) for key in ("status", "api_version", "error")}
