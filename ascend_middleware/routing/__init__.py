"""Which route a request runs: one resolver per framework. This package itself imports none of them."""

from .leaves import Entered, Kind, Leaf, Resolved, Stop

__all__ = ["Entered", "Kind", "Leaf", "Resolved", "Stop"]
