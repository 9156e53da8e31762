"""What the guard may find wrong with a request before it looks at its rule."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from .problems import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["FINDINGS", "parse_findings"]

# What makes a request suspicious; a rule may permit some of it.
FINDINGS: Final = {
    "not-origin-form": "the target does not begin with /",
    "dot-segment": "the path has a . or .. segment",
    "empty-segment": "the path has an empty segment",
    "backslash": "the path has a backslash",
    "control-character": "the path has a control character",
    "invalid-utf8": "the path is not valid UTF-8",
    "path-parameter": "the path has a ; parameter",
    "encoded-separator": "the path has an encoded slash or percent outside a parameter",
    "fragment": "the target has a fragment",
    "root-path": "the path may be read in two ways, with and without the server's root path",
    "method-override": "a header asks for another method",
    "path-override": "a header asks for another path",
    "bad-method": "the method is not a token in upper case letters",
}


def parse_findings(names: Iterable[str]) -> tuple[str, ...]:
    """Return names of findings as they stand.

    Raises:
        ValueError: there is no such finding.
    """
    names = tuple(names)
    for name in names:
        if name not in FINDINGS:
            raise ValueError(f"there is no finding {name!r}; {did_you_mean(name, FINDINGS)}")
    return names
