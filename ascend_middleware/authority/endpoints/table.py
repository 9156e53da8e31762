"""The table of endpoints, and how a request finds its own."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from ..bodies import ApiError
from . import actions, agents, analytics, commands, mcp_servers, meta, policies, supply_chain, webhooks

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..context import Route

__all__ = ["HEALTH", "OPENAPI", "ROUTES", "changes", "find_route", "reads_many"]

HEALTH: Final = "/health"
OPENAPI: Final = "/openapi.json"

ROUTES: Final[tuple[Route, ...]] = (
    *actions.ROUTES,
    *mcp_servers.ROUTES,
    *agents.ROUTES,
    *commands.ROUTES,
    *policies.ROUTES,
    *webhooks.ROUTES,
    *supply_chain.ROUTES,
    *analytics.ROUTES,
    *meta.ROUTES,
)

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
_RETIRED: Final = "/api/mcp-governance/"


def _pattern(path: str) -> re.Pattern[str]:
    text = path.replace("{rest}", ".+")
    return re.compile(re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", text))


_PLACES: Final[Mapping[str, tuple[re.Pattern[str], dict[str, Route]]]] = {
    path: (_pattern(path), {route.method: route for route in ROUTES if route.path == path})
    for path in dict.fromkeys(route.path for route in ROUTES)
}
# Most requests name their endpoint literally, or submit.
_LITERAL: Final = {path: routes for path, (_, routes) in _PLACES.items() if "{" not in path}
_NOT_HERE: Final = tuple(_pattern(path) for path in _ELSEWHERE)


def find_route(method: str, path: str) -> tuple[Route, dict[str, str]]:
    """Return the endpoint of a request and the parameters in its path.

    A literal path goes before one with parameters: `/api/webhooks/configure` is no webhook's id.

    Raises:
        ApiError: 404, 405 with the methods that there are, 410 for a retired path, 501 for a feature of other
            authorities.
    """
    routes = _LITERAL.get(path)
    if routes is None or method not in routes:
        allowed = set(routes or ())
        for pattern, candidates in _PLACES.values():
            match = pattern.fullmatch(path)
            if match is None:
                continue
            if method in candidates and routes is None:
                return candidates[method], match.groupdict()
            if routes is None:
                allowed |= set(candidates)
        if allowed:
            message = f"{method} is not allowed here"
            raise ApiError(405, "METHOD_NOT_ALLOWED", message, headers={"allow": ", ".join(sorted(allowed))})
        if path.startswith(_RETIRED):
            raise ApiError(410, "GONE", "this path is retired; use /api/v1/mcp/actions/submit")
        if any(pattern.fullmatch(path) for pattern in _NOT_HERE):
            raise ApiError(501, "NOT_IMPLEMENTED", "the embedded authority does not have this feature")
        raise ApiError(404, "NOT_FOUND", "there is no such endpoint")
    return routes[method], {}


def changes(method: str, path: str) -> bool:
    """Say whether a request may change something; what has no endpoint changes nothing."""
    try:
        return find_route(method, path)[0].writes
    except ApiError:
        return False


def reads_many(method: str, path: str) -> bool:
    """Say whether a request reads more, the more is stored; what has no endpoint reads nothing."""
    try:
        return find_route(method, path)[0].many
    except ApiError:
        return False
