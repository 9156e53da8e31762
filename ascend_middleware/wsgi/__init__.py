"""WSGI adapter: any WSGI application, and what the adapters of WSGI frameworks share."""

from .middleware import AscendMiddleware

__all__ = ["AscendMiddleware"]
