"""ASGI adapter: Starlette, FastAPI, and any other ASGI application."""

from .middleware import AscendMiddleware, require_decision

__all__ = ["AscendMiddleware", "require_decision"]
