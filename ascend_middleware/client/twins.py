"""One text for both clients: what a method of the blocking client says holds for its awaitable twin."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

__all__ = ["twin_of"]

C = TypeVar("C", bound=type)


def twin_of(blocking: type) -> Callable[[C], C]:
    """Give each method of the decorated class the docstring of the method of that name in `blocking`."""

    def decorate(awaiting: C) -> C:
        for name, method in vars(awaiting).items():
            if not name.startswith("_"):
                method.__doc__ = vars(blocking)[name].__doc__
        return awaiting

    return decorate
