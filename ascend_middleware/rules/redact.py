"""Secrets: which names hold them, and a value without them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, Final

__all__ = ["REDACTED", "SECRET_NAMES", "is_secret", "redact", "secret_names"]

REDACTED: Final = "[redacted]"
_MAX_DEPTH: Final = 64
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+|[^\W\d_a-zA-Z]+")

# Compared without case and punctuation, as whole words of a name: `card` is in `cardNumber`, not in `discard`.
SECRET_NAMES: Final = frozenset(
    {
        "password", "passwd", "passphrase", "pwd", "passcode", "pin", "otp", "token", "tokens", "jwt", "secret",
        "secrets", "clientsecret", "apikey", "apikeys", "accesskey", "privatekey", "signingkey", "encryptionkey",
        "authorization", "proxyauthorization", "auth", "bearer", "cookie", "setcookie",
        "sessionkey", "csrf", "xsrf", "credential", "credentials", "card", "cardnumber", "creditcard", "pan", "cvv",
        "cvv2", "cvc", "cvc2", "iban", "accountnumber", "routingnumber", "ssn", "socialsecurity",
        "socialsecuritynumber", "taxid", "passport", "passportnumber"
    }
)  # fmt: skip
# Names of limits and counts that only look like secrets; language-model requests are full of them.
_HARMLESS: Final = frozenset(
    f"{word}tokens"
    for word in ("max", "maxcompletion", "maxoutput", "total", "prompt", "completion", "input", "output")
) | {"tokencount"}


def secret_names(extra: Iterable[str] = ()) -> frozenset[str]:
    """Return the default names and the user's own, in the form that `redact` compares."""
    return SECRET_NAMES | {plain for name in extra if (plain := "".join(_words(name)))}


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


def is_secret(name: str, names: frozenset[str] = SECRET_NAMES) -> bool:
    """Whether a name is a secret's: some of its words in a row are one, or it ends in a long one (`userpassword`)."""
    # Names come from requests as well: the cache must not keep long ones alive.
    return _known_secret(name, names) if len(name) <= 64 else _is_secret(name, names)


def _is_secret(name: str, names: frozenset[str]) -> bool:
    words = _words(name)
    whole = "".join(words)
    if whole in names:
        return True
    if whole in _HARMLESS:
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
