"""What an application's OpenAPI document tells of its guard; the same for every framework that makes such documents.

An operation that is governed gets the refusals that it may be answered with and `x-ascend-action`. What the document
says already is never changed. Nothing else of the table is told: a document has more readers than its rules.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from .routing import Kind
from .routing.coverage import ANY, OTHERS, Standing, cover
from .verdict import OTHER_STATUSES, PROBLEM_TYPE, REFUSALS, problem_schema

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .config import Settings
    from .routing import Leaf
    from .routing.coverage import Every, Row
    from .rules import Method, RuleTable

__all__ = ["ACTION", "Find", "Operation", "Operations", "add_refusals", "is_told"]

ACTION: Final = "x-ascend-action"
_SCHEMA: Final = "AscendProblem"
_RESPONSE: Final = "Ascend{}"
_METHODS: Final = ("get", "put", "post", "delete", "options", "head", "patch", "trace", "query")
_BODILESS: Final = frozenset({"GET", "HEAD"})
_TEXT: Final = {"schema": {"type": "string"}}
# Headers of refusals, with the statuses that have them.
_HEADERS: Final[dict[str, tuple[frozenset[int], dict[str, Any]]]] = {
    "Ascend-Action-Id": (frozenset({202, 403}), {**_TEXT, "description": "The action at the authority."}),
    "Ascend-Approval": (
        frozenset({202, 403}),
        {**_TEXT, "description": "The handle with which the request is repeated once it is approved."},
    ),
    "Retry-After": (frozenset({202, 403, 429, 503}), {"schema": {"type": "integer"}, "description": "Seconds."}),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """What is told of one operation.

    Attributes:
        action_types: what its requests are submitted as; none where they never are.
        statuses: what a refusal may be answered with.
    """

    action_types: tuple[str, ...] = ()
    statuses: frozenset[int] = frozenset()

    def __or__(self, other: Operation) -> Operation:
        """Return what is told where both govern, or one of them at a time."""
        kinds = dict.fromkeys((*self.action_types, *other.action_types))
        return Operation(action_types=tuple(kinds), statuses=self.statuses | other.statuses)


# Finds what is told of an operation, by the path of the document and the method in upper case; None for nothing.
Find: TypeAlias = Callable[[str, str], Operation | None]


def is_told(settings: Settings) -> bool:
    """Say whether documents tell anything."""
    return settings.openapi and settings.enabled


class Operations:
    """What is told of the routes of one document.

    Args:
        leaves: the routes, in the order in which the framework asks them.
        table: the rules.
        settings: of the same guard.
        place: from a route's template to the path by which `find` is asked.
    """

    def __init__(
        self, leaves: Sequence[Leaf], table: RuleTable, settings: Settings, place: Callable[[str], str]
    ) -> None:
        self._leaves = leaves
        # By path: for each route there its methods with what is told of them. The first that has the method runs.
        self._places: dict[str, list[dict[Method | Every, Operation]]] = {}
        routes: dict[Leaf, dict[Method | Every, Operation]] = {}
        for row in cover(self, table, unmapped=settings.unmapped).rows:
            leaf = row.leaf
            if leaf.websocket or leaf.kind is not Kind.ROUTE:
                continue
            known = routes.get(leaf)
            if known is None:
                known = routes[leaf] = {}
                self._places.setdefault(place(leaf.template), []).append(known)
            for method in row.methods:
                known[method] = known.get(method, Operation()) | _operation(row, method)

    def leaves(self) -> Sequence[Leaf]:
        """Return the routes; see `coverage.Routes`."""
        return self._leaves

    def places(self) -> Iterable[str]:
        """Return every path under which there is something to find."""
        return self._places

    def find(self, path: str, method: str) -> Operation | None:
        """Return what is told of an operation; None for what is no route, and for an exempt one."""
        for known in self._places.get(path, ()):
            for name in (method, OTHERS, ANY):
                if name in known:
                    return known[name] if known[name].statuses else None
        return None


def _operation(row: Row, method: Method | Every) -> Operation:
    """Return what is told of a method; of observe mode nothing: its refusals are told before they begin."""
    rule = row.rule
    if row.standing is Standing.EXEMPT:
        return Operation()
    if row.standing is Standing.CONFLICT:
        return Operation(statuses=frozenset({500}))
    if rule is None or row.standing is Standing.BLOCKED:
        return Operation(statuses=frozenset({400, 403}))
    statuses = {*OTHER_STATUSES, *(status for status, _ in REFUSALS.values())}
    if rule.body is None and method in _BODILESS:
        statuses.discard(408)
    return Operation(action_types=(rule.action_type,), statuses=frozenset(statuses))


# --- the document


def add_refusals(document: Mapping[str, Any], find: Find, *, rendered: bool = False) -> Mapping[str, Any]:
    """Return the document with what `find` tells of its operations; the one that is given stays as it is.

    Args:
        document: of OpenAPI 3.0 or later.
        find: what is told of an operation.
        rendered: whether the application answers refusals in a form of its own, which has no schema here.
    """
    paths = document.get("paths")
    if not isinstance(paths, Mapping):
        return document
    names = _Names(document, rendered=rendered)
    changed = {}
    for path, item in paths.items():
        if not isinstance(item, Mapping):
            continue
        operations = {}
        for method in _METHODS:
            operation = item.get(method)
            if isinstance(operation, Mapping) and (found := find(path, method.upper())) is not None:
                more = _added(operation, found, names)
                if more:
                    operations[method] = {**operation, **more}
        if operations:
            changed[path] = {**item, **operations}
    if not changed:
        return document
    return {**document, "paths": {**paths, **changed}, "components": names.components()}


def _added(operation: Mapping[str, Any], found: Operation, names: _Names) -> dict[str, Any]:
    """Return the members of an operation that change."""
    own = operation.get("responses") or {}
    # Some loaders of YAML make numbers of statuses.
    known = {str(status).upper() for status in own}
    missing = [one for one in sorted(found.statuses) if not {str(one), f"{one // 100}XX"} & known]
    more: dict[str, Any] = {}
    if found.action_types and ACTION not in operation:
        kinds = found.action_types
        more[ACTION] = kinds[0] if len(kinds) == 1 else list(kinds)
    if missing:
        more["responses"] = {**own, **{str(status): {"$ref": names.response(status)} for status in missing}}
    return more


class _Names:
    """The components that are added to a document, each under a name that the document has for nothing else."""

    def __init__(self, document: Mapping[str, Any], *, rendered: bool) -> None:
        self._given: Mapping[str, Any] = document.get("components") or {}
        self._rendered = rendered
        self._made: dict[str, dict[str, Any]] = {"schemas": {}, "responses": {}}
        self._responses: dict[int, str] = {}

    def response(self, status: int) -> str:
        """Return the reference to the response of a status."""
        known = self._responses.get(status)
        if known is None:
            known = self._responses[status] = self._name("responses", _RESPONSE.format(status), self._make(status))
        return known

    def _make(self, status: int) -> dict[str, Any]:
        response: dict[str, Any] = {"description": _description(status)}
        if not self._rendered:
            schema = self._name("schemas", _SCHEMA, problem_schema())
            response["headers"] = {name: header for name, (of, header) in _HEADERS.items() if status in of}
            response["content"] = {PROBLEM_TYPE: {"schema": {"$ref": schema}}}
            if not response["headers"]:
                del response["headers"]
        return response

    def components(self) -> dict[str, Any]:
        """Return the components of the document with those that were named."""
        more = {kind: {**(self._given.get(kind) or {}), **made} for kind, made in self._made.items() if made}
        return {**self._given, **more}

    def _name(self, kind: str, name: str, value: dict[str, Any]) -> str:
        given = self._given.get(kind) or {}
        while given.get(name, value) != value:
            name += "_"
        self._made[kind][name] = value
        return f"#/components/{kind}/{name}"


def _description(status: int) -> str:
    problems = {name: title for name, (own, title) in REFUSALS.items() if own == status}
    if (other := OTHER_STATUSES.get(status)) is not None:
        problems[other] = REFUSALS[other][1]
    return "Refused: " + "; ".join(f"{title} (`{name}`)" for name, title in problems.items()) + "."
