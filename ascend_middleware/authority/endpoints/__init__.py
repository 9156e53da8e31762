"""The endpoints of the REST API, one file for each subject, and how a request finds its own."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from ascend_middleware.api.endpoint import Endpoint
from ascend_middleware.api.endpoints import TABLE

from ..bodies import ApiError, not_allowed
from . import actions, agents, erasure, inventory, meta, policies, webhooks

__all__ = ["actions", "agents", "erasure", "find_endpoint", "inventory", "meta", "policies", "webhooks"]

_RETIRED: Final = "/api/mcp-governance/"


def _pattern(path: str) -> re.Pattern[str]:
    text = path.replace("{rest}", ".+")
    return re.compile(re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", text))


# What other authorities serve and this one does not (contract §3.2), so that a client learns which of the two it is:
# a path that does not exist, or a feature that is not here.
_ELSEWHERE: Final = (
    "/api/authorization/mcp-discovery/scan-network",
    "/api/authorization/mcp-discovery/health-monitor",
    "/api/authorization/mcp-discovery/server-status",
    "/api/discovery/mcp/scan",
    "/api/discovery/mcp/results",
    "/api/v1/orchestration/{rest}",
    "/api/v1/output-filter/{rest}",
    "/api/v1/supply-chain/impact/{id}",
    "/api/v1/supply-chain/sync/status",
    "/api/alerts",
)
_NOT_HERE: Final = tuple(_pattern(path) for path in _ELSEWHERE)
# The endpoints of each path by their methods.
_PATHS: Final[Mapping[str, dict[str, Endpoint[Any]]]] = {
    path: {endpoint.method: endpoint for endpoint in TABLE if endpoint.path == path}
    for path in dict.fromkeys(endpoint.path for endpoint in TABLE)
}
_LITERAL: Final = {path: methods for path, methods in _PATHS.items() if "{" not in path}
_PATTERNS: Final = tuple((_pattern(path), methods) for path, methods in _PATHS.items() if "{" in path)


def _matching(path: str) -> Iterator[tuple[dict[str, Endpoint[Any]], dict[str, str]]]:
    # A literal path goes before one with parameters: `/api/webhooks/configure` is no webhook's id.
    if path in _LITERAL:
        yield _LITERAL[path], {}
        return
    for pattern, methods in _PATTERNS:
        match = pattern.fullmatch(path)
        if match is not None:
            yield methods, match.groupdict()


def find_endpoint(method: str, path: str) -> tuple[Endpoint[Any], dict[str, str]]:
    """Return the endpoint of a request and the parameters in its path.

    Raises:
        ApiError: 404, 405 with the methods that there are, 410 for a retired path, 501 for a feature of other
            authorities.
    """
    literal = _LITERAL.get(path)
    if literal is not None and method in literal:  # nearly always
        return literal[method], {}
    for methods, parameters in _matching(path):
        if method in methods:
            return methods[method], parameters
    allowed = sorted({known for methods, _ in _matching(path) for known in methods})
    if allowed:
        raise not_allowed(method, *allowed)
    if path.startswith(_RETIRED):
        raise ApiError(410, "GONE", "this path is retired; use /api/v1/mcp/actions/submit")
    if any(pattern.fullmatch(path) for pattern in _NOT_HERE):
        raise ApiError(501, "NOT_IMPLEMENTED", "the embedded authority does not have this feature")
    raise ApiError(404, "NOT_FOUND", "there is no such endpoint")
