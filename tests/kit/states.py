"""Shared states for tests, at a time of their own, and orders that stand in them."""

from ascend_middleware.api.orders import Order
from ascend_middleware.state.base import Approval
from ascend_middleware.state.sqlite import SQLState

NOW = 1_800_000_000.0


def state_at(path=None, *, scope="t", timeout=1.0):
    """Open a state in a file, or in memory."""
    return SQLState(path, scope=scope, timeout=timeout)


def order(kind="BLOCK", at=NOW, *, target="bot", slot="block", **more):
    return Order(target=target, slot=slot, kind=kind, issued_at=at, **more)


def approval(action_id):
    """Return an action on hold, which stands for its own handle."""
    known = {"fingerprint": "f", "hint": "h", "agent_id": "bot", "rule": "r", "created_at": NOW, "expires_at": NOW + 9}
    return Approval(handle=action_id, action_id=action_id, sharing=action_id, **known)
