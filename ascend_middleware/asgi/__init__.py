"""ASGI adapter: Starlette, FastAPI, and any other ASGI application."""

from .declaring import governed
from .middleware import AscendMiddleware, require_decision

__all__ = ["AscendMiddleware", "governed", "require_decision"]
