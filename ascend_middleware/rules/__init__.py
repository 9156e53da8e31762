"""What is governed: the rule table, its templates and precedence, and the fields that rules take from a request."""

from ..secret_names import REDACTED, SECRET_NAMES, redact, secret_names
from .declared import VERBS, declaration, declare, declared, place_of
from .fields import Rule, RuleFields
from .index import RoutePart, RouteRules
from .rule import CompiledRule, Declaration, Defaults, by_method_rule
from .sources import MISSING, FieldError, RequestFields, fold_header
from .table import RuleTable
from .templates import READING, WEBSOCKET, Handshake, Method, Template, parse_match, parse_route

__all__ = [
    "MISSING",
    "READING",
    "REDACTED",
    "SECRET_NAMES",
    "VERBS",
    "WEBSOCKET",
    "CompiledRule",
    "Declaration",
    "Defaults",
    "FieldError",
    "Handshake",
    "Method",
    "RequestFields",
    "RoutePart",
    "RouteRules",
    "Rule",
    "RuleFields",
    "RuleTable",
    "Template",
    "by_method_rule",
    "declaration",
    "declare",
    "declared",
    "fold_header",
    "parse_match",
    "parse_route",
    "place_of",
    "redact",
    "secret_names",
]
