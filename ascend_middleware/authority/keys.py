"""API keys: how they are made and recognised. Only their SHA-256 is ever stored."""

from __future__ import annotations

import base64
import hmac
import re
import unicodedata
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "DEFAULT_TENANT",
    "LOCAL",
    "Credential",
    "Role",
    "bearer_token",
    "contradicts",
    "operator",
    "person",
    "presented_key",
]

DEFAULT_TENANT: Final = "default"

# What nobody sees in a name: control and format characters, blanks, what has no meaning yet; and of the others those
# that Unicode calls ignorable, or that show as a blank.
_UNSEEN_KINDS: Final = frozenset({"Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp", "Zs"})
_UNSEEN: Final = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)

_JWT = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*")


class Role(StrEnum):
    """What a key may do: a `user` submits and reads, an `admin` also decides about pending actions."""

    SUPER_ADMIN = "super_admin"
    ADMIN = "admin"
    USER = "user"

    @property
    def administers(self) -> bool:
        """Whether the role may approve and deny."""
        return self is not Role.USER


@dataclass(frozen=True, slots=True)
class Credential:
    """Who asks. The tenant of everything a request touches comes from here, never from its body."""

    key_id: int
    name: str
    role: Role
    tenant: str = DEFAULT_TENANT

    @property
    def is_operator(self) -> bool:
        """Whether it is whoever runs the command line on the database; see `operator`."""
        return self.key_id == _OPERATOR


# The caller of `local:` needs no key; it is a user, so that the process that submits cannot approve.
LOCAL: Final = Credential(0, "local", Role.USER)
_OPERATOR: Final = -1


def operator(tenant: str = DEFAULT_TENANT) -> Credential:
    """Return the credential of whoever runs the command line on the database: the file's own permissions let them."""
    return Credential(_OPERATOR, "local-operator", Role.SUPER_ADMIN, tenant)


def person(name: str) -> str:
    """Return whom a name means, for comparing: without case, blanks and what cannot be seen, in one form (NFKC)."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", _visible(name)).casefold())
    return _visible(folded)


def _visible(text: str) -> str:
    return "".join(char for char in _UNSEEN.sub("", text) if unicodedata.category(char) not in _UNSEEN_KINDS)


def presented_key(headers: Mapping[str, str]) -> str | None:
    """Return the API key of a request, or None if it presents none.

    `X-API-Key` decides where present: some clients send a masked bearer token beside it. A bearer token of JWT shape
    is no API key; schemes other than Bearer are ignored.
    """
    own = headers.get("x-api-key", "").strip()
    if own:
        return own
    token = _bearer(headers)
    return None if token is None or _is_jwt(token) else token


def bearer_token(headers: Mapping[str, str]) -> str | None:
    """Return the bearer token of a request that has the shape of a JSON Web Token, or None."""
    token = _bearer(headers)
    return token if token is not None and _is_jwt(token) else None


def contradicts(headers: Mapping[str, str]) -> bool:
    """Say whether a bearer token stands beside another `X-API-Key`, which decides."""
    own, token = headers.get("x-api-key", "").strip(), _bearer(headers)
    return bool(own) and token is not None and not hmac.compare_digest(own.encode(), token.encode())


def _bearer(headers: Mapping[str, str]) -> str | None:
    scheme, _, token = headers.get("authorization", "").strip().partition(" ")
    token = token.strip()
    return token if scheme.lower() == "bearer" and token else None


def _is_jwt(token: str) -> bool:
    if not _JWT.fullmatch(token):
        return False
    head = token.split(".", 1)[0]
    try:
        return base64.urlsafe_b64decode(head + "=" * (-len(head) % 4)).startswith(b"{")
    except ValueError:
        return False
