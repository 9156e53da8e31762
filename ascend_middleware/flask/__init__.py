"""Flask adapter: an extension that decides after routing and before anything of the application runs.

Ascend(app, rules="ascend.toml")
"""

try:
    from .extension import Ascend, governed
except ModuleNotFoundError as error:
    if error.name != "flask":
        raise
    raise ModuleNotFoundError("Flask is not installed: add the extra ascend-middleware[flask]", name="flask") from None

__all__ = ["Ascend", "governed"]
