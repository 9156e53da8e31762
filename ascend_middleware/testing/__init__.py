"""A scripted authority for users' own tests: in this process, without a socket, a key, or time that passes.

With pytest, use the fixtures of `ascend_middleware.pytest_plugin`; this package serves other test runners too.
"""

from .answers import Asked
from .authority import ScriptedAuthority
from .clients import open_engine

__all__ = ["Asked", "ScriptedAuthority", "open_engine"]
