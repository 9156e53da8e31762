"""What drf-spectacular's OpenAPI document tells of the guard, as one of its `POSTPROCESSING_HOOKS`.

The document knows no route, only paths, in which settings of drf-spectacular may have changed names of parameters and
more. A path that is no route's own is compared with all of them. What fits no route, or several, is left alone.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from ..compose import build_table, read_options
from ..openapi import Operation, Operations, add_refusals, is_told
from ..routing.django import DjangoResolver
from .configuration import NAME, configured, is_guarded

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_TYPED = re.compile(r"\{(\w+):[^{}]*\}")
_PARAMETER = re.compile(r"\{[^{}]*\}")
# A parameter, or what stands for it: a version, for one.
_SOMETHING = r"(?:\{\}|[^/{}]+)"


def describe_refusals(result: dict[str, Any], generator: Any, request: Any, public: bool) -> Mapping[str, Any]:
    """Return a document with what the guard tells of its operations; `SPECTACULAR_SETTINGS` names this function.

    Args:
        result: the document.
        generator: of drf-spectacular, which made it.
        request: of the view that serves it, or None.
        public: whether it holds what the request's user may not do.

    Raises:
        ConfigurationError: `settings.ASCEND` is wrong.
    """
    if not is_guarded():
        return result
    rules, given, hooks = read_options(configured(), NAME)
    table, loaded = build_table(rules, given)
    if not is_told(loaded):
        return result
    leaves = DjangoResolver(getattr(generator, "urlconf", None)).leaves()
    paths = _Paths(Operations(leaves, table, loaded, _plain))
    return add_refusals(result, paths.find, rendered="render" in hooks)


def _plain(path: str) -> str:
    """Return a path without the types of its parameters, and without a slash at its end."""
    return _TYPED.sub(r"{\1}", path).rstrip("/")


def _shape(path: str) -> str:
    """Return such a path without what its parameters are called."""
    return _PARAMETER.sub("{}", path)


class _Paths:
    """Finds routes by the paths of a document."""

    def __init__(self, operations: Operations) -> None:
        from drf_spectacular.settings import spectacular_settings  # optional dependency

        self._inserted: str = spectacular_settings.SCHEMA_PATH_PREFIX_INSERT
        self._trims: bool = spectacular_settings.SCHEMA_PATH_PREFIX_TRIM
        self._operations = operations
        self._shapes = {place: _shape(place) for place in operations.places()}

    def find(self, path: str, method: str) -> Operation | None:
        """Return what is told of an operation; None where no single route fits."""
        path = _plain("/" + path.removeprefix(self._inserted).lstrip("/"))
        if path in self._shapes and not self._trims:
            return self._operations.find(path, method)
        near = list(self._near(_shape(path)))
        return self._operations.find(near[0], method) if len(near) == 1 else None

    def _near(self, shape: str) -> Iterator[str]:
        for place, known in self._shapes.items():
            pattern = re.escape(known).replace(r"\{\}", _SOMETHING)
            if known.endswith(shape) if self._trims else re.fullmatch(pattern, shape):
                yield place
