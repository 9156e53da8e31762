"""JSON Web Tokens: issued by the page's sign-in for a key, or by others and verified with a configured public key.

Each kind has one algorithm and one key of its own, and the token's header only says which of the two it claims to be:
no header can make a public key the secret of a signature, or none of it.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from .keys import Credential, Role, person
from .store.store import Store

__all__ = ["ISSUER", "LIFETIME", "TokenKey", "Tokens", "public_key_issue"]

ISSUER: Final = "ascend-authority"
# Seconds; the page renews a session by signing in again.
LIFETIME: Final = 12 * 3600.0
_OWN: Final = "HS256"
_FOREIGN: Final = "RS256"
_SECRET_BYTES: Final = 32
_MIN_KEY_BITS: Final = 2048
_LEEWAY: Final = 30.0
_MAX_TOKEN: Final = 8192


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenKey:
    """A public key with which tokens that others issue are verified, and what they must say.

    `name_claim` says whose token it is, in the words that name the keys of the same people.
    """

    public_key: str
    issuer: str
    audience: str
    name_claim: str = "sub"
    role_claim: str = "role"
    tenant_claim: str = "tenant"


def public_key_issue(text: str) -> str:
    """Return what is wrong with a public key, nothing if it can be used."""
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        key = load_pem_public_key(text.encode("ascii", "replace"))
    except Exception as error:  # the library raises many kinds
        return f"the key cannot be read: {type(error).__name__}"
    if not isinstance(key, RSAPublicKey):
        return "the key is no RSA key"
    return "" if key.key_size >= _MIN_KEY_BITS else f"the key has fewer than {_MIN_KEY_BITS} bits"


class Tokens:
    """Issues tokens, and verifies those and, with a foreign key, what others issue."""

    def __init__(self, store: Store, foreign: TokenKey | None) -> None:
        self._store = store
        self._foreign = foreign

    def issue(self, credential: Credential, *, now: float, lifetime: float = LIFETIME) -> str:
        """Return a token that stands for a key for `lifetime` seconds, or until the key or all its tokens are ended."""
        import jwt

        claims = {
            "iss": ISSUER,
            "aud": ISSUER,
            "sub": f"key:{credential.key_id}",
            "round": self._store.token_round(credential.key_id),
            "iat": int(now),
            "exp": int(now + lifetime),
            "jti": secrets.token_urlsafe(12),
        }
        return jwt.encode(claims, self._secret(), algorithm=_OWN)

    def verify(self, token: str, *, now: float) -> Credential | None:
        """Return whom a token stands for, or None if it is not valid now."""
        import jwt

        if len(token) > _MAX_TOKEN:
            return None
        try:
            claimed, foreign = jwt.get_unverified_header(token).get("alg"), self._foreign
            if claimed == _OWN:
                return self._of_key(_claims(token, self._secret(), _OWN, ISSUER, ISSUER, now))
            if claimed == _FOREIGN and foreign is not None:
                key, issuer, audience = foreign.public_key, foreign.issuer, foreign.audience
                return _of_claims(_claims(token, key, _FOREIGN, issuer, audience, now), foreign)
        except (jwt.PyJWTError, ValueError, TypeError):
            pass
        return None

    def _of_key(self, claims: Mapping[str, Any]) -> Credential | None:
        kind, _, number = str(claims["sub"]).partition(":")
        if not (kind == "key" and number.isascii() and number.isdigit() and len(number) < 19):
            return None
        # Somebody who signs out everywhere begins another round.
        valid = claims.get("round", 0) == self._store.token_round(int(number))
        return self._store.key(int(number)) if valid else None

    def _secret(self) -> bytes:
        statement = "SELECT value FROM secrets WHERE name = 'token'"
        found = self._store.rows(statement)
        if not found:
            with self._store.write():  # another process may be doing the same; what stands in the end counts
                self._store.insert("secrets", {"name": "token", "value": secrets.token_bytes(_SECRET_BYTES)}, once=True)
                found = self._store.rows(statement)
                digest = hashlib.sha256(bytes(found[0]["value"])).hexdigest()
                self._store.told("secrets", "token", value=digest)
        return bytes(found[0]["value"])


def _claims(token: str, key: str | bytes, algorithm: str, issuer: str, audience: str, now: float) -> dict[str, Any]:
    import jwt

    claims: dict[str, Any] = jwt.decode(
        token,
        key,
        algorithms=[algorithm],
        issuer=issuer,
        audience=audience,
        # The times are checked below, against the authority's own clock.
        options={
            "require": ["exp", "iss", "aud", "sub"],
            "verify_exp": False,
            "verify_iat": False,
            "verify_nbf": False,
        },
    )
    for name in ("exp", "nbf", "iat"):
        value = claims.get(name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise ValueError(f"{name} is no time")
    if not claims["exp"] > now or claims.get("nbf", 0) > now + _LEEWAY or claims.get("iat", 0) > now + _LEEWAY:
        raise ValueError("the token is not valid now")
    return claims


def _of_claims(claims: Mapping[str, Any], foreign: TokenKey) -> Credential | None:
    """Return whom another issuer's token names. Without a tenant or a known role it names nobody."""
    subject, tenant = claims["sub"], claims.get(foreign.tenant_claim)
    try:
        role = Role(str(claims.get(foreign.role_claim)))
    except ValueError:
        return None
    name = claims.get(foreign.name_claim)
    if not (isinstance(subject, str) and subject and isinstance(tenant, str) and tenant):
        return None
    if not (isinstance(name, str) and person(name)):
        return None
    # Below the numbers of keys and of the command line. One and the same person always has the same, so that nobody
    # approves what they submitted themselves.
    digest = hashlib.sha256(f"{foreign.issuer}\n{subject}".encode()).digest()
    return Credential(-2 - int.from_bytes(digest[:7], "big"), name, role, tenant)
