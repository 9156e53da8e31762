"""The arguments of one call: a copy that nobody else can change, and how the authority is shown that very copy."""

from __future__ import annotations

import base64
import copy
import dataclasses
import datetime
import decimal
import enum
import inspect
import math
import os
import pathlib
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from ..api.decode import encode_json, strip_risk_claims
from ..exceptions import ConfigurationError, ValidationError
from ..secret_names import REDACTED, is_secret, secret_names

__all__ = ["Arguments", "Binder"]

DEFAULT_LIMIT: Final = 65_536
_MAX_DEPTH: Final = 64
_INT_RANGE: Final = 2**63
_PLAIN: Final = (bool, int, float, str, bytes, frozenset)
_TEXTUAL: Final = (
    decimal.Decimal, uuid.UUID, datetime.date, datetime.datetime, datetime.time, datetime.timedelta
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Arguments:
    """What one call of a tool gets, as a copy, and how the authority is shown it.

    Attributes:
        args, kwargs: for the tool.
        shown: by parameter name; plain JSON, secrets replaced.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    shown: dict[str, Any]


class Binder:
    """Binds the calls of one tool.

    Args:
        function: the tool.
        redact_names: parameter and key names whose values are secrets, besides the usual ones.
        represent: how to show values of further types: type → function from a value to plain JSON.
        by_reference: parameters that the server injects and the caller cannot set: neither copied nor shown in full.
        limit: bytes of JSON that the arguments of one call may be.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        redact_names: Iterable[str] = (),
        represent: Mapping[type, Callable[[Any], Any]] | None = None,
        by_reference: Iterable[str] = (),
        limit: int = DEFAULT_LIMIT,
    ) -> None:
        try:
            self._signature: Final = inspect.signature(function)
        except (TypeError, ValueError) as error:
            raise ConfigurationError(f"a tool needs a signature: {error}") from None
        given = set(by_reference)
        unknown = sorted(given - set(self._signature.parameters))
        if unknown:
            raise ConfigurationError(f"by_reference names {unknown[0]!r}, which is no parameter of the tool")
        receiver = _receiver(function, self._signature)
        self._passed: Final = given | ({receiver} if receiver else set())
        self._receiver: Final = receiver
        self._secrets: Final = secret_names(redact_names)
        self._represent: Final = dict(represent or {})
        self._limit: Final = limit

    def bind(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Arguments:
        """Copy the arguments, defaults included, and show the copy.

        Raises:
            TypeError: the tool cannot be called like this; the same error as without us.
            ValidationError: a value cannot be copied, or cannot be shown in full. The text holds no value.
        """
        bound = self._signature.bind(*args, **kwargs)
        bound.apply_defaults()
        renderer = _Renderer(self._secrets, self._represent, self._limit)
        shown: dict[str, Any] = {}
        for name, value in bound.arguments.items():
            if name == self._receiver:
                continue
            if name in self._passed or _is_injected(value):
                shown[name] = f"<{type(value).__name__}, given by the server>"
                continue
            default = self._signature.parameters[name].default
            if value is not default or _is_mutable(value):
                value = bound.arguments[name] = _copied(value, name)
            elif not _is_plain(value):  # nor mutable
                # The author's own sentinel, which no caller can make, and which is compared by identity.
                shown[name] = f"<default {type(value).__name__}>"
                continue
            shown[name] = renderer.show_named(name, value, name, 0)
        shown = _unclaimed(shown)
        size = len(encode_json(shown))
        if size > self._limit:
            raise _too_large(self._limit)
        return Arguments(bound.args, bound.kwargs, shown)


class _Renderer:
    """Shows the values of one call as JSON."""

    def __init__(self, secrets: frozenset[str], represent: Mapping[type, Callable[[Any], Any]], limit: int) -> None:
        self._secrets: Final = secrets
        self._represent: Final = represent
        self._limit: Final = limit
        # Each value is at least a byte of JSON; a list that holds itself many times over has no end otherwise.
        self._left = limit

    def show_named(self, name: str, value: Any, place: str, depth: int) -> Any:
        if value is not None and type(value) is not bool and is_secret(name, self._secrets):
            return REDACTED
        return self._show(value, place, depth)

    def _show(self, value: Any, place: str, depth: int) -> Any:
        self._left -= 1
        if self._left < 0:
            raise _too_large(self._limit)
        if depth > _MAX_DEPTH:
            raise _refused(place, "is nested too deeply")
        kind = type(value)
        custom = self._represent.get(kind)
        if custom is not None:
            return _encodable(custom(value), place)
        if value is None or kind is bool or kind is str:
            return value
        if kind is int:
            return value if -_INT_RANGE <= value < _INT_RANGE else str(value)
        if kind is float:
            return value if math.isfinite(value) else repr(value)
        if kind in (list, tuple):
            return [self._show(item, f"{place}[{index}]", depth + 1) for index, item in enumerate(value)]
        if kind is dict:
            return self._show_mapping(value, place, depth)
        if kind in (set, frozenset):
            return sorted((self._show(item, place, depth + 1) for item in value), key=encode_json)
        if kind in (bytes, bytearray):
            return {"base64": base64.b64encode(value).decode("ascii")}
        if isinstance(value, enum.Enum):
            return self._show(value.value, place, depth + 1)
        if isinstance(value, pathlib.PurePath) and kind.__module__.partition(".")[0] == "pathlib":
            return os.fspath(value)
        if kind in _TEXTUAL:
            return value.isoformat() if hasattr(value, "isoformat") else str(value)
        if kind.__module__ in ("pydantic.types", "pydantic.networks"):
            return REDACTED if hasattr(value, "get_secret_value") else str(value)
        fields = _fields(value)
        if fields is not None:
            return self._show_mapping(fields, place, depth)
        raise _refused(
            place,
            f"a {kind.__name__} cannot be shown to the authority in full; "
            f"give represent={{{kind.__name__}: …}}, or by_reference for what the server injects",
        )

    def _show_mapping(self, value: Mapping[Any, Any], place: str, depth: int) -> dict[str, Any]:
        shown: dict[str, Any] = {}
        for key, item in value.items():
            if type(key) not in (str, int) and not isinstance(key, enum.Enum):
                raise _refused(place, f"has a key of type {type(key).__name__}")
            name = key if type(key) is str else str(key.value if isinstance(key, enum.Enum) else key)
            if name in shown:
                raise _refused(place, "has two keys that look the same in JSON")
            shown[name] = self.show_named(name, item, f"{place}.{name[:40]}", depth + 1)
        return shown


def _copied(value: Any, place: str) -> Any:
    try:
        return copy.deepcopy(value)
    except RecursionError:
        raise _refused(place, "is nested too deeply") from None
    except Exception as error:
        raise _refused(place, f"a {type(value).__name__} cannot be copied ({type(error).__name__})") from None


def _fields(value: Any) -> dict[str, Any] | None:
    """Return the fields of a dataclass, a named tuple, a msgspec struct or a pydantic model; None of anything else."""
    kind = type(value)
    if dataclasses.is_dataclass(kind):
        names = [item.name for item in dataclasses.fields(kind)]
    elif issubclass(kind, tuple) and hasattr(kind, "_fields"):
        names = list(kind._fields)
    elif hasattr(kind, "__struct_fields__"):
        names = list(kind.__struct_fields__)
    elif hasattr(kind, "__pydantic_fields__"):
        extra = getattr(value, "__pydantic_extra__", None) or {}
        private = getattr(value, "__pydantic_private__", None) or {}
        return {**vars(value), **extra, **private}
    else:
        return None
    # What stands beside the fields would go unseen.
    beside = set(getattr(value, "__dict__", ())) - set(names)
    return None if beside else {name: getattr(value, name) for name in names}


def _receiver(function: Callable[..., Any], signature: inspect.Signature) -> str | None:
    """Return `self` or `cls` where the tool is a method: the object it belongs to is no argument of the caller's."""
    first = next(iter(signature.parameters), None)
    owner = getattr(function, "__qualname__", "").rpartition(".")[0]
    is_method = bool(owner) and not owner.endswith("<locals>")
    return first if is_method and first in ("self", "cls") else None


def _is_injected(value: object) -> bool:
    """Whether it is the context that an MCP server hands to its tools; no message of a client can make one."""
    kind = type(value)
    return kind.__name__ == "Context" and kind.__module__.partition(".")[0] in ("mcp", "fastmcp")


def _is_plain(value: object) -> bool:
    return value is None or isinstance(value, (*_PLAIN, *_TEXTUAL, enum.Enum, pathlib.PurePath))


def _is_mutable(value: object) -> bool:
    return isinstance(value, bytearray | list | tuple | dict | set) or _fields(value) is not None


def _encodable(value: Any, place: str) -> Any:
    try:
        encode_json(value)
    except ValidationError as error:
        raise _refused(place, f"what represent returned is {error.message}") from None
    return value


def _unclaimed(value: Any) -> Any:
    """Rename what the client would drop as a risk claim of the caller's: here it is an argument, and must be seen."""
    if isinstance(value, dict):
        renamed: dict[str, Any] = {}
        for key, item in value.items():
            name = key if strip_risk_claims({key: 0}) else f"{key} (argument)"
            if name in renamed:
                raise _refused(key, "stands twice")
            renamed[name] = _unclaimed(item)
        return renamed
    return [_unclaimed(item) for item in value] if isinstance(value, list) else value


def _too_large(limit: int) -> ValidationError:
    return ValidationError(
        f"the arguments are longer than the {limit} bytes of JSON that can be judged", code="ARGUMENTS_TOO_LARGE"
    )


def _refused(place: str, text: str) -> ValidationError:
    return ValidationError(f"argument {place}: {text}", field=place, code="ARGUMENT_NOT_REPRESENTABLE")
