"""On whose behalf a request acts."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Agent", "NotAnAgent"]


@dataclass(frozen=True, slots=True)
class Agent:
    """The agent that a request acts for, as the application's `identify` found it.

    Attributes:
        id: the agent's stable identifier at the authority.
        name: the same for people; the id when empty.
        principal: the authenticated caller, where the application knows one.
    """

    id: str
    name: str = ""
    principal: str | None = None


@dataclass(frozen=True, slots=True)
class NotAnAgent:
    """A request that a person makes: it passes ungoverned, and the log says so with the reason."""

    reason: str
