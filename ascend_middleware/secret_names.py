"""The names of secrets: one list, for what is redacted in actions and for what is masked in logs.

`redact` and the governed tools of `mcp` ask `is_secret` about each name of an action, with the user's own names added;
`masking.py` hides what stands behind such a name in logs, errors and printed records.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, Final

__all__ = ["REDACTED", "SECRET_NAMES", "SECRET_PATTERN", "is_secret", "redact", "secret_names"]

REDACTED: Final = "[redacted]"
_MAX_DEPTH: Final = 64

# docs/rules.md lists them too. A dash stands where a name may be written in one, with - or _, or with a capital.
_NAMES: Final = """
    password passwd passphrase passcode pwd pin otp token tokens jwt bearer auth authorization proxy-authorization
    cookie set-cookie csrf xsrf signature secret secrets client-secret credential credentials api-key api-keys
    access-key private-key signing-key encryption-key session-key card card-number credit-card pan cvv cvv2 cvc cvc2
    iban account-number routing-number ssn social-security social-security-number tax-id passport passport-number
"""
# Limits and counts that only look like secrets; language-model requests are full of them.
_HARMLESS: Final = """
    max-tokens max-completion-tokens max-output-tokens total-tokens prompt-tokens completion-tokens input-tokens
    output-tokens token-count
"""

# Compared without case and punctuation, as whole words of a name: `card` is in `cardNumber`, not in `discard`.
SECRET_NAMES: Final = frozenset(name.replace("-", "") for name in _NAMES.split())
_COUNTS: Final = frozenset(name.replace("-", "") for name in _HARMLESS.split())
_WORD: Final = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+|[^\W\d_a-zA-Z]+")


def _pattern() -> str:
    """Return a regular expression of the names as they stand in a text, for use with `re.IGNORECASE`.

    A long name counts wherever it stands in a word; a short one as a word or part in camel case of its own.
    """

    def spelt(names: Iterable[str]) -> str:
        return "|".join(name.replace("-", "[_-]?") for name in sorted(names, key=len, reverse=True))

    names = _NAMES.split()
    long = [name for name in names if len(name) > 4 or name == "pwd"]
    short = [name for name in names if name not in long]
    begin = r"(?:(?<![a-z])|(?-i:(?<=[a-z])(?=[A-Z])))"
    end = r"(?-i:(?![a-z])(?!(?<=[A-Z])[A-Z]))"
    named = rf"(?:{spelt(long)}|{begin}(?:{spelt(short)}){end})"
    return rf"(?<![\w-])(?!(?:{spelt(_HARMLESS.split())})(?![\w-]))[\w-]*{named}[\w-]*"


# A whole word of a text that is a secret's name.
SECRET_PATTERN: Final = _pattern()


def secret_names(extra: Iterable[str] = ()) -> frozenset[str]:
    """Return the default names and the user's own, in the form that `is_secret` compares."""
    return SECRET_NAMES | {plain for name in extra if (plain := "".join(_words(name)))}


def is_secret(name: str, names: frozenset[str] = SECRET_NAMES) -> bool:
    """Whether a name is a secret's: some of its words in a row are one, or it ends in a long one (`userpassword`)."""
    # Names come from requests as well: the cache must not keep long ones alive.
    return _known_secret(name, names) if len(name) <= 64 else _is_secret(name, names)


def _is_secret(name: str, names: frozenset[str]) -> bool:
    words = _words(name)
    whole = "".join(words)
    if whole in names:
        return True
    if whole in _COUNTS:
        return False
    for start in range(len(words)):
        joined = ""
        for word in words[start : start + 4]:
            joined += word
            if joined in names:
                return True
    return any(len(secret) > 4 and whole.endswith(secret) for secret in names)


_known_secret = lru_cache(maxsize=4096)(_is_secret)


def _words(name: str) -> list[str]:
    return [word.lower() for word in _WORD.findall(name)]


def redact(value: Any, names: frozenset[str] = SECRET_NAMES) -> Any:
    """Return a JSON value in which whatever stands under a secret name, at any depth, is `[redacted]`."""
    return _redact(value, names, 0)


def _redact(value: Any, names: frozenset[str], depth: int) -> Any:
    if depth > _MAX_DEPTH:
        return REDACTED
    if isinstance(value, str):  # most values; asked before what costs more
        return value
    if isinstance(value, Mapping):
        return {
            key: REDACTED if _hides(item) and is_secret(str(key), names) else _redact(item, names, depth + 1)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [_redact(item, names, depth + 1) for item in value]
    return value


def _hides(value: Any) -> bool:
    # `card_present = true` raises a risk and tells no secret.
    return value is not None and not isinstance(value, bool)
