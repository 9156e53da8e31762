"""How a request finds its endpoint, and what answers it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from ascend_middleware.api.endpoints import TABLE

from ..bodies import ApiError
from . import actions, agents, analytics, commands, mcp_servers, meta, policies, supply_chain, webhooks

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ascend_middleware.api.endpoint import Endpoint

    from ..context import Handler

__all__ = ["changes", "find_endpoint", "handler_of", "reads_many"]

_HANDLERS: Final[Mapping[Endpoint[Any], Handler]] = {
    endpoint: handler
    for module in (actions, mcp_servers, agents, commands, policies, webhooks, supply_chain, analytics, meta)
    for endpoint, handler in module.HANDLERS.items()
}

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


_PLACES: Final[Mapping[str, tuple[re.Pattern[str], dict[str, Endpoint[Any]]]]] = {
    path: (_pattern(path), {endpoint.method: endpoint for endpoint in TABLE if endpoint.path == path})
    for path in dict.fromkeys(endpoint.path for endpoint in TABLE)
}
# Most requests name their endpoint literally, or submit.
_LITERAL: Final = {path: methods for path, (_, methods) in _PLACES.items() if "{" not in path}
_NOT_HERE: Final = tuple(_pattern(path) for path in _ELSEWHERE)


def handler_of(endpoint: Endpoint[Any]) -> Handler:
    """Return what answers an endpoint."""
    return _HANDLERS[endpoint]


def find_endpoint(method: str, path: str) -> tuple[Endpoint[Any], dict[str, str]]:
    """Return the endpoint of a request and the parameters in its path.

    A literal path goes before one with parameters: `/api/webhooks/configure` is no webhook's id.

    Raises:
        ApiError: 404, 405 with the methods that there are, 410 for a retired path, 501 for a feature of other
            authorities.
    """
    methods = _LITERAL.get(path)
    if methods is None or method not in methods:
        allowed = set(methods or ())
        for pattern, candidates in _PLACES.values():
            match = pattern.fullmatch(path)
            if match is None:
                continue
            if method in candidates and methods is None:
                return candidates[method], match.groupdict()
            if methods is None:
                allowed |= set(candidates)
        if allowed:
            message = f"{method} is not allowed here"
            raise ApiError(405, "METHOD_NOT_ALLOWED", message, headers={"allow": ", ".join(sorted(allowed))})
        if path.startswith(_RETIRED):
            raise ApiError(410, "GONE", "this path is retired; use /api/v1/mcp/actions/submit")
        if any(pattern.fullmatch(path) for pattern in _NOT_HERE):
            raise ApiError(501, "NOT_IMPLEMENTED", "the embedded authority does not have this feature")
        raise ApiError(404, "NOT_FOUND", "there is no such endpoint")
    return methods[method], {}


def changes(method: str, path: str) -> bool:
    """Say whether a request may change something; what has no endpoint changes nothing."""
    try:
        return find_endpoint(method, path)[0].writes
    except ApiError:
        return False


def reads_many(method: str, path: str) -> bool:
    """Say whether a request reads more, the more is stored; what has no endpoint reads nothing."""
    try:
        return find_endpoint(method, path)[0].many
    except ApiError:
        return False
