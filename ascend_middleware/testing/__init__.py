"""For users' own tests: a scripted authority in this process, and whether every route is governed.

With pytest, use the fixtures of `ascend_middleware.pytest_plugin`; this package serves other test runners too.
"""

from .answers import Asked
from .authority import ScriptedAuthority
from .clients import open_engine
from .governed import assert_governed

__all__ = ["Asked", "ScriptedAuthority", "assert_governed", "open_engine"]
