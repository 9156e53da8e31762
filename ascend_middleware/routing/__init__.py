"""Which route a request runs: one resolver per framework. This package itself imports none of them."""

from .leaves import Kind, Leaf, Resolved

__all__ = ["Kind", "Leaf", "Resolved"]
