"""What the workers of a service share: approvals, claims, the kill state, limits, leases. Memory, SQLite, Redis."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..exceptions import ConfigurationError
from ..setting_values import default_directory, shown
from .base import StateError, scope_of
from .sqlite import SQLState

if TYPE_CHECKING:
    from ..config import Settings
    from .base import State

__all__ = ["open_state"]


def open_state(settings: Settings) -> State:
    """Return the store that the setting `state` names, checked: what is wrong with it is told now.

    Raises:
        ConfigurationError: it cannot be opened; names the place and the setting.
    """
    place, scope = settings.state, scope_of(settings)
    if place == "memory:":
        return SQLState(None, scope=scope, timeout=settings.state_timeout)
    if place.startswith(("redis://", "rediss://", "unix://")):
        from .redis import RedisState  # optional dependency

        try:
            return RedisState(place, scope=scope, timeout=settings.state_timeout)
        except (ConfigurationError, StateError) as error:
            raise ConfigurationError(f"the setting state (ASCEND_STATE) = {shown(place)!r}: {error}") from None
    path = place or default_directory() / "state.db"
    try:
        return SQLState(path, scope=scope, timeout=settings.state_timeout, power_safe=settings.durability == "power")
    except (ConfigurationError, StateError) as error:
        raise ConfigurationError(
            f"the state {path} cannot be used: {error}. The setting state (ASCEND_STATE) names another file, redis://… "
            "for a fleet, or memory: for a single process that may forget; see docs/state.md"
        ) from None
