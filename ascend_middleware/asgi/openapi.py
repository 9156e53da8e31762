"""FastAPI's OpenAPI documents of what a guard governs: `app.openapi` of each application tells it, and of each mounted.

The document is made by the application, by its own function or FastAPI's, and comes back with the additions; what
FastAPI keeps in `app.openapi_schema` is that, as it is without a guard.
"""

from __future__ import annotations

import re
import sys
import weakref
from typing import TYPE_CHECKING, Any

from ..openapi import Operation, Operations, add_refusals, is_told
from ..routing import Leaf

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..config import Settings
    from ..rules import RuleTable

__all__ = ["Documents"]


class Documents:
    """The documents of the applications that one guard governs, as its resolver comes to them.

    What it added is told for as long as it lives.
    """

    def __init__(self, table: RuleTable, settings: Settings, *, rendered: bool) -> None:
        self._table, self._settings, self._rendered = table, settings, rendered
        self._parts: dict[tuple[int, str, str | None], _Governed] = {}

    @property
    def reached(self) -> Callable[[Any], None]:
        """What a resolver tells of each router that it comes to; it does not keep this alive."""
        known = weakref.ref(self)

        def reach(level: Any) -> None:
            if (documents := known()) is not None:
                documents._reach(level)

        return reach

    def _reach(self, level: Any) -> None:
        """Let the document of a router's application tell what is governed there, if it makes one."""
        if is_told(self._settings) and _is_fastapi(level.owner):
            part = _Governed(level, self._table, self._settings, rendered=self._rendered)
            self._parts[id(level.owner), level.prefix, level.host] = part
            _Document.of(level.owner).add(part)

    def renew(self) -> None:
        """Do so again where an application was given a function of its own since."""
        for part in self._parts.values():
            _Document.of(part.level.owner).add(part)


class _Governed:
    """What one guard governs of one application, under one prefix."""

    def __init__(self, level: Any, table: RuleTable, settings: Settings, *, rendered: bool) -> None:
        self.level, self.rendered = level, rendered
        self._table, self._settings = table, settings
        self._known: Operations | None = None

    def operations(self) -> Operations:
        """Return what is told of the routes as they are now."""
        leaves = [item for item in self.level.items() if isinstance(item, Leaf)]
        known = self._known
        if known is None or known.leaves() != leaves:
            known = self._known = Operations(leaves, self._table, self._settings, self._place)
        return known

    def _place(self, template: str) -> str:
        """Return a route's path as FastAPI's document writes it."""
        return re.sub(r"\{(\w+):[^{}]*\}", r"{\1}", template.removeprefix(self.level.prefix))


class _Document:
    """What stands at `app.openapi`; `own` is what the application had put there, None for its class's method."""

    def __init__(self, app: Any, own: Callable[[], Any] | None) -> None:
        self._app, self._own = app, own
        self._parts: list[weakref.ref[_Governed]] = []
        self._before: Any = None  # what the application made,
        self._after: Any = None  # what that became,
        self._under: list[Operations] = []  # and by what

    @classmethod
    def of(cls, app: Any) -> _Document:
        """Return the one of an application, made if need be."""
        found = vars(app).get("openapi")
        if not isinstance(found, cls):
            found = app.openapi = cls(app, found)
        return found

    def add(self, part: _Governed) -> None:
        """Tell what is governed, for as long as the guard is there."""
        if not any(known() is part for known in self._parts):
            self._parts = [*(known for known in self._parts if known() is not None), weakref.ref(part)]

    def __call__(self) -> Any:
        """Return the document."""
        app = self._app
        made = type(app).openapi(app) if self._own is None else self._own()
        parts = [part for known in self._parts if (part := known()) is not None]
        under = [part.operations() for part in parts]
        before = made
        if made is self._after:
            if under == self._under:
                return made
            before = self._before
        after = _described(before, under, rendered=any(part.rendered for part in parts))
        if app.openapi_schema is made:
            app.openapi_schema = after
        self._before, self._after, self._under = before, after, under
        return after


def _described(document: Any, under: list[Operations], *, rendered: bool) -> Any:
    def find(path: str, method: str) -> Operation | None:
        whole: Operation | None = None
        for operations in under:
            found = operations.find(path, method)
            whole = found if whole is None else whole if found is None else whole | found
        return whole

    return add_refusals(document, find, rendered=rendered)


def _is_fastapi(app: object) -> bool:
    kind = getattr(sys.modules.get("fastapi"), "FastAPI", None)
    return kind is not None and isinstance(app, kind)
