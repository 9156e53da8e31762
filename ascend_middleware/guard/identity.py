"""On whose behalf a request acts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..api.endpoint import fill_path
from ..exceptions import ValidationError
from ..flow import Hook
from ..masking import get_logger
from ..text import printable
from ..verdict import Refusal

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..config import Settings
    from ..flow import Flow
    from .request import RequestView

__all__ = ["Agent", "NotAnAgent", "agent_of"]

logger = get_logger("ascend_middleware.guard")


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
    """A request that a person makes: it passes ungoverned, and the log says so with the reason.

    Attributes:
        reason: why it is no agent's, for the log.
    """

    reason: str


def agent_of(
    view: RequestView, settings: Settings, usual: Agent, identify: Callable[[Any], Any] | None
) -> Flow[Agent | NotAnAgent | Refusal]:
    """Say on whose behalf a request acts, or why that cannot be said.

    Args:
        view: the request.
        settings: `agent_header`.
        usual: the agent of the settings, where nothing else names one.
        identify: the application's function, if it has one.
    """
    name = settings.agent_header
    if name:
        twins = view.header(name)
        # A second spelling is what some servers drop or replace. They join what was sent twice with a comma.
        plain = any(key.lower() == name for key, _ in view.headers)
        if len(twins) != 1 or not twins[0].strip() or "," in twins[0] or not plain:
            return Refusal(problem="bad-request", detail=f"Exactly one {name} header must name the agent.")
        return _askable(Agent(twins[0].strip()))
    if identify is None:
        return usual
    try:
        agent = yield Hook(identify, (view.request,))
    except Exception:
        logger.exception("identify failed; the request is refused")
        return Refusal(problem="misconfigured", detail="The caller could not be identified.")
    if isinstance(agent, NotAnAgent):
        logger.info("passed as not an agent's: %s", printable(str(agent.reason)))
        return agent
    if not isinstance(agent, Agent) or not agent.id:
        logger.warning(
            "refused, nobody was asked: identify returned %s; it returns an Agent with an id, or NotAnAgent(reason)",
            "nothing" if agent is None else type(agent).__name__,
        )
        return Refusal(problem="unknown-agent", detail="The application knows no agent for this request.")
    return _askable(agent)


def _askable(agent: Agent) -> Agent | Refusal:
    """Refuse an id that the authority cannot be asked about: its commands would never come."""
    try:
        fill_path("{agent_id}", agent_id=agent.id)
    except ValidationError as error:
        return Refusal(problem="bad-request", detail=f"{error}.")
    return agent
