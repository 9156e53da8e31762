"""An object of the API as a Python object: a dict whose keys are attributes too."""

from __future__ import annotations

from typing import Any

__all__ = ["Record"]


class Record(dict[str, Any]):
    """An object of the API: a dict whose keys are attributes too; where a method of dicts has the name, it goes first.

    A key that the authority did not send raises `KeyError` as an item and `AttributeError` as an attribute.
    """

    __slots__ = ()

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"{type(self).__name__} has no field {name!r}; it has {', '.join(self)}") from None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{key}={value!r}' for key, value in self._summary().items())})"

    def _summary(self) -> dict[str, Any]:
        return self

    def to_dict(self) -> dict[str, Any]:
        """Return a plain dict."""
        return dict(self)
