"""The table: rules checked and put in order of precedence, and the lookup of the rule for a request.

The order of the rules never matters. A block beats everything that it covers; then the most specific template wins,
and in it the narrowest method set. A method that this template does not list is unmapped, whatever wider rules say.
"""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields as dataclass_fields
from dataclasses import replace
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from ..config import Settings
from ..exceptions import ConfigurationError
from ..problems import TOML_ERRORS, Problem, Report, did_you_mean, toml_problem
from ..secret_names import secret_names
from .fields import Rule, check_rule
from .index import Entry, Index, RouteRules, members, rank_declared, report_blocked, resolve
from .rule import CompiledRule, Declaration, Defaults, Recipe, by_method_rule
from .templates import REST, WEBSOCKET, Method, Template, parse_route, split_path

if TYPE_CHECKING:
    from os import PathLike


_RULE_FIELDS: Final = tuple(item.name for item in dataclass_fields(Rule))
_canonical: Final = msgspec.json.Encoder(order="deterministic", enc_hook=str)


class _Layer:
    """The rules of one endpoint, or of none: blocks apart, because they win."""

    __slots__ = ("blocks", "rules")

    def __init__(self) -> None:
        self.blocks = Index()
        self.rules = Index()


class RuleTable:
    """Rules by request, built with `from_toml`, `from_mapping` or `from_rules`; a table never changes afterwards.

    `rules` are the enabled ones, one entry for each match, in the order given; `settings` is the `[ascend]` table as
    given.
    """

    __slots__ = ("_by_method", "_endpoints", "_layer", "_version", "defaults", "rules", "settings")

    def __init__(
        self, rules: Iterable[CompiledRule], *, settings: Mapping[str, Any], defaults: Defaults, report: Report
    ) -> None:
        self.rules = tuple(rules)
        self.settings = settings
        self.defaults = defaults
        self._version = ""
        self._by_method: dict[Method, CompiledRule] = {}
        self._layer, self._endpoints = _arrange(self.rules, report)

    def __repr__(self) -> str:
        return f"RuleTable({len(self.rules)} matches)"

    @classmethod
    def from_toml(cls, path: str | PathLike[str]) -> RuleTable:
        """Read a table from a TOML file.

        Raises:
            ConfigurationError: the file cannot be read, or with every problem in it.
        """
        name = str(path)
        try:
            text = Path(path).read_bytes().decode("utf-8-sig")
            content = tomllib.loads(text)
        except OSError as error:
            problem = Problem(
                "rules.unreadable", name, error.strerror or "cannot be read", "check path and permissions"
            )
            raise ConfigurationError(problems=[problem]) from error
        except UnicodeDecodeError as error:
            raise ConfigurationError(problems=[Problem("rules.not-toml", name, str(error))]) from None
        except TOML_ERRORS as error:
            raise ConfigurationError(problems=[toml_problem("rules.not-toml", name, text, error)]) from None
        return cls._read(content, Report(name, "rules"), lines=_lines_of_rules(text))

    @classmethod
    def from_mapping(cls, content: Mapping[str, Any], *, name: str = "rules") -> RuleTable:
        """Build a table from `{"ascend": {…}, "rule": [{…}, …]}`, the content of a TOML file.

        Raises:
            ConfigurationError: with every problem found.
        """
        return cls._read(content, Report(name, "rules"))

    @classmethod
    def _read(cls, content: Mapping[str, Any], report: Report, *, lines: Sequence[int] = ()) -> RuleTable:
        for key in content:
            if key not in ("ascend", "rule"):
                report.add("unknown-key", (str(key),), "no such table", did_you_mean(str(key), ("ascend", "rule")))
        rules = content.get("rule", ())
        if not isinstance(rules, list | tuple):
            report.add("bad-value", ("rule",), "expected a list of rules", "each one begins with [[rule]]")
            rules = ()
        if len(lines) != len(rules):
            lines = (0,) * len(rules)  # not every rule has a header of its own
        return cls._build(rules, content.get("ascend", {}), report, lines=lines)

    @classmethod
    def from_rules(
        cls, rules: Sequence[Rule], *, settings: Mapping[str, Any] | None = None, name: str = "rules"
    ) -> RuleTable:
        """Build a table from `Rule` objects; `settings` is what a file has under `[ascend]`.

        Raises:
            ConfigurationError: with every problem found.
        """
        return cls._build(list(rules), settings or {}, Report(name, "rules"))

    @classmethod
    def _build(
        cls, rules: Sequence[object], settings: object, report: Report, *, lines: Iterable[int] = repeat(0)
    ) -> RuleTable:
        if not isinstance(settings, Mapping):
            report.add("bad-value", ("ascend",), "expected a table", "it begins with [ascend]")
            settings = {}
        defaults = Defaults()
        try:
            defaults = _defaults(Settings.load(environ={}, file=settings, file_name=f"{report.name}: [ascend]"))
        except ConfigurationError as error:
            report.problems += error.problems
        compiled: list[CompiledRule] = []
        recipes: dict[object, Recipe] = {}
        for number, (item, line) in enumerate(zip(rules, lines, strict=False), 1):
            raw = _raw(item)
            if raw is None:
                report.add("bad-value", (f"rule {number}",), f"expected a table or a Rule, got {type(item).__name__}")
                continue
            checked = check_rule(raw, number=number, line=line, report=report, recipes=recipes)
            if checked is None or checked[0].get("enabled") is False:
                continue
            given, matches, recipe = checked
            compiled += [
                CompiledRule(number, given, methods, template, recipe, defaults, line=line)
                for methods, template in matches
            ]
        table = cls(compiled, settings=settings, defaults=defaults, report=report)
        if report.problems:
            raise ConfigurationError(problems=report.problems)
        return table

    def with_settings(self, settings: Settings) -> RuleTable:
        """Return the same rules with defaults from loaded settings, which arguments and environment went into."""
        defaults = _defaults(settings)
        if defaults == self.defaults:
            return self
        rules = [rule.under(defaults) for rule in self.rules]
        return RuleTable(rules, settings=self.settings, defaults=defaults, report=Report("rules", "rules"))

    @property
    def version(self) -> str:
        """A digest of the content, 16 hex digits; the rules' order and the credentials do not go into it."""
        if not self._version:
            rules = sorted(
                _canonical.encode([sorted(map(str, rule.methods)), rule.template.text, _meaning(rule)])
                for rule in self.rules
            )
            secrets = sorted(self.defaults.secrets)
            head = _canonical.encode([replace(self.defaults, secrets=frozenset()), secrets])
            self._version = hashlib.sha256(b"\n".join([head, *rules])).hexdigest()[:16]
        return self._version

    def lookup(self, method: Method, path: str) -> CompiledRule | None:
        """Return the rule for a request by its path, where no router can be asked; None if it is unmapped.

        The path is decoded and application-relative. Rules that name an endpoint do not take part.
        """
        parts = split_path(path)
        if parts is None:
            return None
        layer = self._layer
        return layer.blocks.find(parts, method, listed=True) or layer.rules.find(parts, method)

    def for_route(
        self,
        template: str,
        *,
        endpoint: str | None = None,
        declared: Sequence[Declaration] = (),
        files: bool = False,
    ) -> RouteRules:
        """Collect the rules of a route; the caller keeps the result for as long as the route exists.

        The template is the framework's, with the prefixes of what it is mounted under. Rules that are declared at its
        handler rank like rules that name its endpoint; where two of equal rank differ, the result has a `problem`. With
        `files` the rest of a path names a file. Then a rule for a part of the tree (`/static/private/**`) goes before
        one for all of it (`/static/**`); a handler's rule holds however a path was spelt.
        """
        route = parse_route(template)
        own = self._endpoints.get(endpoint) if endpoint is not None else None
        layers = [self._layer] if own is None else [own, self._layer]
        blocks = [entry for layer in layers for entry in layer.blocks.entries(route)]
        entries: list[Entry] = []
        for layer in layers:
            entries += _governing(layer.rules.entries(route), route, files=files)
            if entries and entries[-1][2]:
                break
        if not declared:
            return RouteRules(tuple(blocks), tuple(entries))
        report = Report(f"route {template}", "rules")
        rivals = [rule for _, group, _ in own.rules.entries(route) for rule in members(group)] if own else []
        standing = rank_declared([one.compiled(self.defaults) for one in declared], rivals, report)
        blocking = [rule for rule in standing if rule.block is not None]
        governing = [rule for rule in standing if rule.block is None]
        if blocking:
            blocks.insert(0, ((REST,), resolve(blocking, report), True))
        group = resolve(governing, report) if governing else None
        problem = report.problems[0] if report.problems else None
        return RouteRules(tuple(blocks), tuple(entries), group, problem)

    def by_method_rule(self, method: Method) -> CompiledRule:
        """Return the rule for a request that no rule matches, under `unmapped = "by-method"`."""
        key: Method = method if method in _KNOWN else "POST"
        found = self._by_method.get(key)
        if found is None:
            found = self._by_method[key] = by_method_rule(key, self.defaults)
        return found


_KNOWN: Final = frozenset({"GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE", WEBSOCKET})


_HEADER: Final = re.compile(r"""[ \t]*\[\[[ \t]*(rule|"rule"|'rule')[ \t]*\]\]""")


def _lines_of_rules(text: str) -> list[int]:
    return [number for number, line in enumerate(text.split("\n"), 1) if _HEADER.match(line)]


def _meaning(rule: CompiledRule) -> dict[str, Any]:
    return {key: value for key, value in rule.given.items() if value is not False and key != "enabled"}


def _raw(item: object) -> Mapping[str, object] | None:
    if isinstance(item, Rule):
        values = ((name, getattr(item, name)) for name in _RULE_FIELDS)
        return {name: value for name, value in values if value is not None and value not in ((), {})}
    return item if isinstance(item, Mapping) else None


def _defaults(settings: Settings) -> Defaults:
    values = {one.name: getattr(settings, one.name) for one in dataclass_fields(Defaults) if one.name != "secrets"}
    return Defaults(**values, secrets=secret_names(settings.redact))


def _arrange(rules: Sequence[CompiledRule], report: Report) -> tuple[_Layer, dict[str, _Layer]]:
    groups: dict[tuple[str | None, bool, tuple[str, ...]], list[CompiledRule]] = {}
    for rule in rules:
        key = (rule.endpoint, rule.block is not None, rule.template.segments)
        groups.setdefault(key, []).append(rule)
    layer, endpoints = _Layer(), dict[str, _Layer]()
    for (endpoint, blocks, segments), rivals in groups.items():
        place = layer if endpoint is None else endpoints.setdefault(endpoint, _Layer())
        (place.blocks if blocks else place.rules).add(segments, resolve(rivals, report))
    if not any(blocks for _, blocks, _ in groups):
        return layer, endpoints

    def blocks_of(rule: CompiledRule) -> list[Index]:
        own = [] if rule.endpoint is None else [endpoints[rule.endpoint].blocks]
        return [layer.blocks, *own]

    report_blocked((rule for rule in rules if rule.block is None), blocks_of, report)
    return layer, endpoints


def _governing(entries: list[Entry], route: Template, *, files: bool) -> list[Entry]:
    """Keep what can apply: the route's own template alone, else everything down to the first that covers it."""
    for place, entry in enumerate(entries):
        if entry[0] == route.segments:
            return [*(entries[:place] if files else ()), (entry[0], entry[1], True)]
    for place, entry in enumerate(entries):
        if entry[2]:
            return entries[: place + 1]
    return entries
