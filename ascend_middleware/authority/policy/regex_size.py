"""How large a regular expression is once what it repeats is written out: its time is in proportion to that."""

from __future__ import annotations

import re
from typing import Final

__all__ = ["regex_size"]

_TOKEN: Final = re.compile(r"\\(?:[wWdDsSpPbB])|\\.|\[(?:\\.|[^\]\\])*\]|\(|\)|\{(\d+)?(,)?(\d+)?\}|.", re.DOTALL)
_ESCAPE: Final = re.compile(
    r"\\(?:[xX]([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|([0-3][0-7]{2})|(.))", re.DOTALL
)
# Classes of Unicode have hundreds of ranges.
_UNICODE: Final = re.compile(r"\\[wWdDsSpP]|\(\?i\)")
_UNICODE_SIZE: Final = 50


def regex_size(written: str) -> int:
    """Return about how many states an automaton for a pattern has, which is given as a text of CEL spells it.

    An open end of a repetition counts as its start.
    """
    pattern = _ESCAPE.sub(_meant, written)
    groups, last = [0], 0
    for token in _TOKEN.finditer(pattern):
        text = token[0]
        if text == "(":
            groups.append(0)
            last = 0
        elif text == ")":
            last = groups.pop() if len(groups) > 1 else 0
            groups[-1] += last
        elif text.startswith("{") and text.endswith("}") and (token[1] or token[3]):
            times = max(int((token[3] or token[1])[:6]), 1)
            groups[-1] += last * (times - 1)
            last *= times
        else:
            last = _UNICODE_SIZE if _UNICODE.search(text) else 1
            groups[-1] += last
    return sum(groups)


def _meant(escape: re.Match[str]) -> str:
    code = next(filter(None, escape.group(1, 2, 3)), None)
    if code is not None:
        return chr(min(int(code, 16), 0x10FFFF))
    return escape[5] if escape[4] is None else chr(int(escape[4], 8))
