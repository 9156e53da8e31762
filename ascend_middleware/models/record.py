"""An object of the API as a Python object: a mapping whose keys are attributes too."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["Record"]


class Record(Mapping[str, Any]):
    """An object of the API: a read-only mapping whose keys are attributes too.

    A key that the authority did not send raises `KeyError` as an item and `AttributeError` as an attribute.
    """

    __slots__ = ("_fields",)

    def __init__(self, fields: Mapping[str, Any]) -> None:
        self._fields: dict[str, Any] = dict(fields)

    def __getitem__(self, key: str) -> Any:
        return self._fields[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)

    def __len__(self) -> int:
        return len(self._fields)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # an unpickled, still empty object must not recurse
            raise AttributeError(name)
        try:
            return self._fields[name]
        except KeyError:
            raise AttributeError(f"{type(self).__name__} has no field {name!r}; it has {', '.join(self)}") from None

    def __eq__(self, other: object) -> bool:
        return dict(self) == dict(other) if isinstance(other, Mapping) else NotImplemented

    __hash__ = None  # type: ignore[assignment] # equal to a dict, so no more hashable than one

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{key}={value!r}' for key, value in self._summary().items())})"

    def _summary(self) -> dict[str, Any]:
        return {key: self._fields[key] for key in ("action_id", "status") if key in self._fields}

    def to_dict(self) -> dict[str, Any]:
        """Return a plain dict that `json.dumps` takes."""
        return dict(self._fields)
