"""Requests that servers, frameworks and handlers read differently; a rule may permit a finding by its name."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from ..rules import WEBSOCKET

if TYPE_CHECKING:
    from .request import RequestView

__all__ = ["USUAL_METHODS", "inspect"]

_SUSPECT = re.compile(r"[\x00-\x1f\x7f-\x9f\\;�\ud800-\udfff\u2028\u2029]|//|/\.\.?(?:/|$)")
# What makes a raw target worth a look: servers may hide in the decoded path what these say.
_SUSPECT_RAW = re.compile(r"[%#;]|\A(?!/)|//|/\.\.?(?:/|\Z)")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_METHOD = re.compile(r"[A-Z][A-Z0-9_-]*")
USUAL_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", WEBSOCKET})
# Folded, as `rules.fold_header` does it.
_OVERRIDES = frozenset({"x-http-method-override", "x-http-method", "x-method-override"})
# Where a later layer may read another path than the router did.
_REWRITES = frozenset({"x-original-url", "x-rewrite-url", "x-original-uri"})


def inspect(view: RequestView) -> list[str]:
    """Return the names of what is suspicious about a request; see `FINDINGS`."""
    found: list[str] = [*view.findings]
    path, raw = view.path, view.raw_path
    # What is below a prefix may be nothing at all: the framework answers it with a redirect, or not at all.
    if not path.startswith("/") and (path or not view.prefix):
        found.append("not-origin-form")
    if _SUSPECT.search(path) is not None:
        _inspect_decoded(path, found)
    # A target without escapes is the path itself, which was looked at.
    if raw is not None and (raw != path or "#" in raw or found) and _SUSPECT_RAW.search(raw) is not None:
        _inspect_raw(view, raw, found)
    if view.method not in USUAL_METHODS and not _METHOD.fullmatch(str(view.method)):
        found.append("bad-method")
    names = view.header_names
    if not names.isdisjoint(_OVERRIDES):
        found.append("method-override")
    if not names.isdisjoint(_REWRITES):
        found.append("path-override")
    return list(dict.fromkeys(found)) if found else found


def _inspect_decoded(path: str, found: list[str]) -> None:
    if "//" in path:
        found.append("empty-segment")
    if any(segment in (".", "..") for segment in path.split("/")):
        found.append("dot-segment")
    if "\\" in path:
        found.append("backslash")
    if ";" in path:
        found.append("path-parameter")
    if _CONTROL.search(path):
        found.append("control-character")
    if any(char == "�" or "\ud800" <= char <= "\udfff" for char in path):
        found.append("invalid-utf8")


def _inspect_raw(view: RequestView, raw: str, found: list[str]) -> None:
    if "#" in raw:
        found.append("fragment")
    lowered = raw.lower()
    if not raw.startswith("/"):
        found.append("not-origin-form")
    else:
        # Some servers drop what comes before the last of several slashes, and some resolve dots.
        if "//" in raw:
            found.append("empty-segment")
        if any(segment in (".", "..") for segment in lowered.replace("%2e", ".").split("/")):
            found.append("dot-segment")
    if ";" in raw:
        found.append("path-parameter")
    if "%5c" in lowered:
        found.append("backslash")
    if ("%2f" in lowered or "%25" in lowered) and not _inside_parameters(view, lowered):
        found.append("encoded-separator")


def _inside_parameters(view: RequestView, raw: str) -> bool:
    """Say whether every encoded slash and percent lies in a parameter that the router bound."""
    resolved = view.resolved
    if resolved is None or resolved.leaf is None:
        return False
    segments = raw.split("/")[1:]
    template = resolved.leaf.template.split("/")[1:]
    # A prefix that the server put before the application's path is not in the template.
    start = max(0, len(segments) - _decoded_length(view))
    if any("%2f" in segment or "%25" in segment for segment in segments[:start]):
        return False
    segments = segments[start:]
    for index, part in enumerate(template):
        if part.startswith("{") and ":~" in part:
            return False  # an expression that binds no parameter, or nobody knows which
        if part == "**" or part.endswith(":path}"):
            return True
        if index >= len(segments):
            return False
        segment = segments[index]
        if "%2f" in segment:
            return False
        if "%25" in segment and not (part.startswith("{") and part.endswith("}") and part.count("{") == 1):
            return False
    return True


def _decoded_length(view: RequestView) -> int:
    """Count the segments of the application's path that stand as such in the raw path."""
    raw = (view.raw_path or "").lower()
    return len(view.path.split("/")) - 1 - raw.count("%2f")
