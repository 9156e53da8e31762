"""One rule as the table keeps it; `fields.py` says what users write."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from ..api.models import ActionType, AgentAction
from ..secret_names import REDACTED, SECRET_NAMES, redact
from ..setting_values import Pending
from .sources import MISSING, Const, FieldError, RequestFields, Source, Text
from .templates import ANY_METHOD, Method, parse_match

if TYPE_CHECKING:
    from .templates import Template

_EVERYTHING: Final = parse_match("* /**")
_NOT_OUTCOME: Final = frozenset({"name", "match", "endpoint", "enabled"})


@dataclass(frozen=True, slots=True)
class Defaults:
    """What a rule has that does not say otherwise; from the settings."""

    on_failure: str = "closed"
    pending: Pending = field(default_factory=Pending)
    mode: str = "enforce"
    body_limit: int = 65_536
    body_timeout: float = 10.0
    secrets: frozenset[str] = SECRET_NAMES
    unmapped_permit: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Recipe:
    """How a rule makes an action: texts and maps of sources, parsed once, shared by the rule's matches."""

    texts: tuple[tuple[str, str | int | Text], ...] = ()
    maps: tuple[tuple[str, tuple[tuple[str, Source | Const], ...]], ...] = ()
    body: str | None = None
    reads_headers: tuple[str, ...] = ()
    reads_query: bool = False

    def sources(self) -> Iterator[Source]:
        """Yield every source that is read from a request."""
        for _, text in self.texts:
            if isinstance(text, Text):
                yield from text.sources
        for _, entries in self.maps:
            for _, source in entries:
                if isinstance(source, Source):
                    yield source


NO_RECIPE: Final = Recipe()


class CompiledRule:
    """One match of one rule, ready to be applied. A rule with three matches becomes three of these.

    What the rule says stands in attributes named like the rule's keys, with what holds where it says nothing. `number`
    is its place in the table, from 1, and `line` where it begins in its file; they are 0 where there is none.
    `declaration` is what it was made from, if it stands at a handler. `template` is `/**` for a rule that names an
    endpoint only. A table may have thousands of these, so they have slots.
    """

    __slots__ = (
        *("_secrets", "action_type", "block", "body", "body_limit", "body_timeout", "cache", "coalesce", "declaration"),
        *("endpoint", "exempt", "given", "line", "methods", "mode", "name", "number", "on_failure", "pending"),
        *("permit", "reads_headers", "recipe", "template"),
    )

    def __init__(
        self,
        number: int,
        given: Mapping[str, Any],
        methods: frozenset[Method],
        template: Template,
        recipe: Recipe,
        defaults: Defaults,
        declaration: Declaration | None = None,
        line: int = 0,
    ) -> None:
        self.number, self.given, self.methods, self.template = number, given, methods, template
        self.recipe, self.declaration, self.line = recipe, declaration, line
        self.body, self.reads_headers = recipe.body, recipe.reads_headers
        self.name: str | None = given.get("name")
        self.endpoint: str | None = given.get("endpoint")
        self.action_type: str = given.get("action_type", "")
        self.exempt: bool = given.get("exempt", False)
        self.block: str | None = given.get("block")
        self.permit: tuple[str, ...] = given.get("permit", ())
        self.on_failure: str = given.get("on_failure", defaults.on_failure)
        self.pending: Pending = given.get("pending", defaults.pending)
        self.mode: str = given.get("mode", defaults.mode)
        self.cache: float = given.get("cache", 0.0)
        self.coalesce: bool = given.get("coalesce", False)
        self.body_limit: int = given.get("body_limit", defaults.body_limit)
        self.body_timeout: float = given.get("body_timeout", defaults.body_timeout)
        self._secrets = defaults.secrets

    def __repr__(self) -> str:
        return f"<rule {self.label}>"

    def under(self, defaults: Defaults) -> CompiledRule:
        """Return the same rule with other defaults."""
        place = self.number, self.given, self.methods, self.template
        return CompiledRule(*place, self.recipe, defaults, self.declaration, self.line)

    @property
    def label(self) -> str:
        """The rule's name, or its number and match; for messages and logs."""
        if self.declaration is not None:
            return self.declaration.label
        anywhere = self.endpoint is not None and self.template.text == "/**"
        return rule_label(self.number, self.given, "" if anywhere else self.match)

    @property
    def place(self) -> str:
        """The label, with the line in the file; for messages about the table."""
        return f"{self.label} at line {self.line}" if self.line else self.label

    @property
    def short_label(self) -> str:
        """The rule's name, its number, or the place where it stands."""
        if self.declaration is not None:
            return self.name or f"at {self.declaration.place.rpartition('.')[2]}"
        return self.name or f"rule {self.number}" + (f" (line {self.line})" if self.line else "")

    @property
    def match(self) -> str:
        """The match, normalised: `GET,POST /orders/{id}`."""
        return f"{','.join(sorted(map(str, self.methods)))} {self.template}"

    @property
    def reuse(self) -> dict[str, str | bool]:
        """What it says of using one decision for several requests, as a table would; empty where it says nothing."""
        said: dict[str, str | bool] = {"cache": f"{self.cache:g}s"} if self.cache else {}
        return said | ({"coalesce": True} if self.coalesce else {})

    @property
    def path_names(self) -> tuple[str, ...]:
        """The path parameters that the rule cannot do without, sorted."""
        return tuple(sorted({one.name for one in self.recipe.sources() if one.kind == "path" and not one.optional}))

    def path_params(self, path: str) -> dict[str, str]:
        """Return the parameters of a decoded path by the rule's own template, where no router can be asked."""
        return self.template.parameters(path)

    def action(self, fields: RequestFields, *, agent_id: str, agent_name: str) -> AgentAction:
        """Make the action of one request, without secrets.

        Raises:
            FieldError: the request lacks a value, or repeats it.
        """
        return self.action_maker()(fields, agent_id, agent_name)

    def action_maker(self) -> Callable[[RequestFields, str, str], AgentAction]:
        """Return what makes the actions of requests of what they hold, the agent's id and its name; see `action`."""
        kind, texts, maps, names = self.action_type, self.recipe.texts, self.recipe.maps, self._secrets
        secret = frozenset(source for source in self.recipe.sources() if source.is_secret(names))
        extra = {"observed": True} if self.mode == "observe" else None

        def make(fields: RequestFields, agent_id: str, agent_name: str) -> AgentAction:
            values: dict[str, Any] = {}
            for name, text in texts:
                value: Any = text.render(fields, names, secret) if isinstance(text, Text) else text
                if name == "orchestration_depth" and isinstance(value, str) and value:
                    value = _depth(value)
                if value == "":
                    continue
                if isinstance(value, str) and not value.strip():
                    raise FieldError(f"{name} comes out blank", source=name)
                values[name] = value
            for name, entries in maps:
                taken = _taken(fields, entries, secret)
                if taken:
                    values["action_details" if name == "details" else name] = redact(taken, names)
            if extra is not None:
                values["context"] = {**values.get("context", {}), **extra}
            resource = values.pop("resource", None) or f"{fields.method} {fields.template}"
            return AgentAction(agent_id=agent_id, agent_name=agent_name, action_type=kind, resource=resource, **values)

        return make

    def path_action_maker(self) -> Callable[[Mapping[str, Any], str, str, str], AgentAction | None] | None:
        """Return what makes the actions of a rule that reads texts of path parameters at most; None of other rules.

        It takes the parameters, the resource where the rule names none, and the agent's id and name. It returns None
        where only the maker for all rules can tell what to make of a request.
        """
        recipe, kind = self.recipe, self.action_type
        secret = any(source.is_secret(self._secrets) for source in recipe.sources())
        if secret or recipe.maps or self.mode == "observe" or not _PATH_TEXTS.issuperset(dict(recipe.texts)):
            return None
        if any(source.kind != "path" or source.many for source in recipe.sources()):
            return None
        constant = {name: text for name, text in recipe.texts if not isinstance(text, Text)}
        read = tuple((name, text.parts) for name, text in recipe.texts if isinstance(text, Text))

        def make(params: Mapping[str, Any], resource: str, agent_id: str, agent_name: str) -> AgentAction | None:
            values: dict[str, Any] = {"resource": resource, **constant}
            for name, parts in read:
                whole = ""
                for part in parts:
                    if type(part) is not str:
                        value = params.get(part.name)  # type: ignore[union-attr]  # there are sources and texts only
                        if type(value) is int and -_INT64 <= value < _INT64:
                            part = str(value)
                        elif type(value) is str:
                            part = value
                        else:
                            return None
                    whole = whole + part if whole else part
                if not whole.strip():
                    return None
                values[name] = whole
            return AgentAction(agent_id=agent_id, agent_name=agent_name, action_type=kind, **values)

        return make


_INT64: Final = 2**63
_ATOMS: Final = (str, int, float, bool, type(None))
_PATH_TEXTS: Final = frozenset({"resource", "resource_id", "tool_name", "description", "mcp_server_name"})


def _taken(
    fields: RequestFields, entries: tuple[tuple[str, Source | Const], ...], secret: frozenset[Source]
) -> dict[str, Any]:
    taken = {}
    for key, source in entries:
        if isinstance(source, Const):
            # Who changes an action changes no later one.
            taken[key] = source.value if isinstance(source.value, _ATOMS) else copy.deepcopy(source.value)
            continue
        value = source.read(fields)
        if value is not MISSING:
            taken[key] = REDACTED if source in secret else value
    return taken


def _depth(text: str) -> int:
    if len(text) != 1 or text not in "012345":
        raise FieldError("orchestration_depth is not a whole number from 0 to 5", source="orchestration_depth")
    return int(text)


def rule_label(number: int, given: Mapping[str, Any], match: str = "") -> str:
    """Name a rule in a message: by its name, else by its number and what it matches."""
    name = given.get("name")
    if isinstance(name, str) and name:
        return name
    if not match and isinstance(given.get("endpoint"), str):
        match = f"endpoint {given['endpoint']}"
    return f"rule {number} ({match})" if match else f"rule {number}"


@dataclass(frozen=True, slots=True, eq=False)
class Declaration:
    """A checked rule that stands at a handler, at a `place` that messages name by module and function.

    `given` is one object for each `governed(…)`; `methods` are `{"*"}`, or the one whose function of a class it stands
    at.
    """

    place: str
    given: Mapping[str, Any]
    recipe: Recipe = field(repr=False)
    methods: frozenset[Method] = ANY_METHOD

    @property
    def label(self) -> str:
        """How messages call the rule."""
        return self.given.get("name") or f"governed at {self.place}"

    @property
    def key(self) -> tuple[object, ...]:
        """What two declarations share that are the same one, for as long as it stands."""
        return id(self.given), self.methods

    def compiled(self, defaults: Defaults) -> CompiledRule:
        """Return the rule as the table keeps its own."""
        return CompiledRule(0, self.given, self.methods, _EVERYTHING[1], self.recipe, defaults, self)

    def same_outcome(self, rule: CompiledRule | Declaration) -> bool:
        """Whether a request fares the same under the other rule."""
        return self.given is rule.given or outcome_of(self.given) == outcome_of(rule.given)


def outcome_of(given: Mapping[str, Any]) -> dict[str, object]:
    """Return what decides how a request fares under a rule: everything but what the rule is called and matches."""
    return {key: value for key, value in given.items() if key not in _NOT_OUTCOME and value is not False}


def by_method_rule(method: Method, defaults: Defaults = Defaults()) -> CompiledRule:
    """Return the rule for a request that no rule matches, under `unmapped = "by-method"`.

    GET, HEAD and OPTIONS are data_access, everything else data_modification; never exempt.
    """
    reads = method in ("GET", "HEAD", "OPTIONS")
    kind = ActionType.DATA_ACCESS if reads else ActionType.DATA_MODIFICATION
    methods, template = _EVERYTHING
    given = {"name": f"by-method {method}", "action_type": str(kind), "permit": defaults.unmapped_permit}
    return CompiledRule(0, given, methods, template, NO_RECIPE, defaults)
