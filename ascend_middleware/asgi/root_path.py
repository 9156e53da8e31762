"""The application-relative path of a request to a foreign application, which reads the server's root path its own way.

ASGI says that `path` begins with `root_path`; uvicorn keeps to that, hypercorn and daphne do not. An application that
strips the root path cannot tell either: it strips what looks like it. Where its reading may be another one than the
guard's, the request is refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from ..exceptions import ConfigurationError
from ..masking import get_logger

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["FINDING", "Reading", "RootPath"]

logger = get_logger("ascend_middleware.asgi")

FINDING: Final = "root-path"
# Frameworks that strip the root path wherever a path begins with it.
_STRIPPING: Final = frozenset({"a2wsgi", "asgiref", "django", "litestar", "quart", "starlette"})


class Reading(NamedTuple):
    """One request's path.

    Attributes:
        path: application-relative.
        other: what the application reads instead, if it does not strip; None where that is the same.
        findings: for the firewall.
    """

    path: str
    other: str | None = None
    findings: tuple[str, ...] = ()


class RootPath:
    """How an application reads the root path.

    Args:
        app: the application.
        strips: `True` and `False` settle it; None finds it out. An unknown application is taken to strip; once the
            server was seen not to put the root path in front, paths that begin with it all the same are doubtful.
    """

    __slots__ = ("_apart", "_known", "_strips")

    def __init__(self, app: Any, strips: bool | None) -> None:
        if strips is not None and not isinstance(strips, bool):
            raise ConfigurationError(f"strips_root_path is true, false or not given, got {strips!r}")
        framework = type(app).__module__.partition(".")[0]
        self._known = strips is not None or framework in _STRIPPING
        self._strips = strips is not False
        self._apart = False

    def read(self, scope: Mapping[str, Any]) -> Reading:
        """Return how a request's path is read."""
        path: str = scope["path"]
        root: str = (scope.get("root_path") or "").rstrip("/")
        if not root or not self._strips:
            return Reading(path)
        if path == root or path.startswith(root + "/"):
            doubtful = self._apart and not self._known
            return Reading(path[len(root) :] or "/", path if doubtful else None)
        if not path.startswith(root) and not self._apart:
            self._apart = True
            if not self._known:
                logger.warning(
                    "the server does not put its root path %r before the path: requests that begin with it all the "
                    "same are refused where rules differ; strips_root_path says how the application reads them",
                    root,
                )
        # `/apiadmin` and `/public/api/admin` below `/api`: frameworks cut them in different places.
        return Reading(path, None, (FINDING,) if root in path else ())
