"""Django adapter: decided in `process_view`, about the view that Django resolved.

    INSTALLED_APPS = [..., "ascend_middleware.django"]
    MIDDLEWARE = [..., "ascend_middleware.django.AscendMiddleware"]  # last
    ASCEND = {"rules": BASE_DIR / "ascend.toml"}

Names load at first use: Django imports this package before its settings and applications are ready.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .configuration import health as health
    from .middleware import AscendMiddleware as AscendMiddleware
    from .middleware import GovernedMixin as GovernedMixin
    from .middleware import TripwireMiddleware as TripwireMiddleware
    from .middleware import governed as governed
    from .openapi import describe_refusals as describe_refusals

_HOME = {
    "AscendMiddleware": "middleware",
    "GovernedMixin": "middleware",
    "TripwireMiddleware": "middleware",
    "describe_refusals": "openapi",
    "governed": "middleware",
    "health": "configuration",
}

__all__ = ["AscendMiddleware", "GovernedMixin", "TripwireMiddleware", "describe_refusals", "governed", "health"]


def __getattr__(name: str) -> Any:
    room = _HOME.get(name)
    if room is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{room}", __name__), name)
