"""ASGI adapter: Starlette, FastAPI, and any other ASGI application."""

from .decorator import governed, require_decision
from .middleware import AscendMiddleware

__all__ = ["AscendMiddleware", "governed", "require_decision"]
