"""The demonstration: the embedded authority, a governed FastAPI application, and real requests between them."""

from .run import add_parser

__all__ = ["add_parser"]
