"""Flask adapter: an extension that decides after routing and before anything of the application runs.

Ascend(app, rules="ascend.toml")
"""

from .declaring import governed
from .extension import Ascend

__all__ = ["Ascend", "governed"]
