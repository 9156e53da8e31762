"""Who asks: keys and the people behind them, how a request presents them, and how often each may ask.

Rate limits (contract §2.5) live in the memory of the serving process, unless several replicas share a database; `fleet`
counts for these.
"""

from __future__ import annotations

import base64
import functools
import hmac
import ipaddress
import math
import re
import threading
import unicodedata
from collections import OrderedDict, deque
from collections.abc import Collection, Hashable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

__all__ = [
    "ADDRESS_LIMIT",
    "DEFAULT_TENANT",
    "FAILED_SIGN_INS",
    "LOCAL",
    "MAX_SUBJECTS",
    "MINUTE",
    "Allowance",
    "Credential",
    "Role",
    "Window",
    "contradicts",
    "listed",
    "network_of",
    "operator",
    "person",
    "presented",
]

DEFAULT_TENANT: Final = "default"
# A minute, from one address.
FAILED_SIGN_INS: Final = 5
ADDRESS_LIMIT: Final = 60_000
MINUTE: Final = 60.0
MAX_SUBJECTS: Final = 10_000

# What nobody sees in a name: control and format characters, blanks, what has no meaning yet; and of the others those
# that Unicode calls ignorable, or that show as a blank.
_UNSEEN_KINDS: Final = frozenset({"Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp", "Zs"})
_UNSEEN: Final = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)

_JWT = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*")


class Role(StrEnum):
    """What a key may do: a `user` submits and reads, an `admin` also decides about pending actions and changes rules.

    An `approver` only reads and decides, a `viewer` only reads.
    """

    SUPER_ADMIN = "super_admin"
    ADMIN = "admin"
    USER = "user"
    APPROVER = "approver"
    VIEWER = "viewer"

    @property
    def administers(self) -> bool:
        """Whether the role may do all that there is to do."""
        return self in (Role.ADMIN, Role.SUPER_ADMIN)

    @property
    def decides(self) -> bool:
        """Whether the role may approve and deny."""
        return self.administers or self is Role.APPROVER

    @property
    def submits(self) -> bool:
        """Whether the role may submit actions, and change what a user's key may change."""
        return self.administers or self is Role.USER


@dataclass(frozen=True, slots=True)
class Credential:
    """Who asks. The tenant of everything a request touches comes from here, never from its body."""

    key_id: int
    name: str
    role: Role
    tenant: str = DEFAULT_TENANT
    # For which agents it may speak, as ids or beginnings of ids with a `*`; without any, for all of its organisation.
    agents: tuple[str, ...] = ()

    def speaks_for(self, agent_id: str) -> bool:
        """Whether it may act in an agent's name."""
        return not self.agents or listed(agent_id, self.agents)

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


def listed(value: str, patterns: Collection[str]) -> bool:
    """Match a value against words, where a trailing `*` stands for any rest."""
    # Most patterns are whole words; a value that is one of them matches it in either case.
    return value in patterns or any(pattern.endswith("*") and value.startswith(pattern[:-1]) for pattern in patterns)


def person(name: str) -> str:
    """Return whom a name means, for comparing: without case, blanks and what cannot be seen, in one form (NFKC)."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", _visible(name)).casefold())
    return _visible(folded)


def _visible(text: str) -> str:
    return "".join(char for char in _UNSEEN.sub("", text) if unicodedata.category(char) not in _UNSEEN_KINDS)


# --- what a request presents


def presented(headers: Mapping[str, str]) -> tuple[str | None, str | None]:
    """Return the API key of a request, or else its bearer token that has the shape of a JSON Web Token.

    `X-API-Key` decides where present: some clients send a masked bearer token beside it. Schemes other than Bearer are
    ignored.
    """
    own = headers.get("x-api-key", "").strip()
    if own:
        return own, None
    token = _bearer(headers)
    return (None, token) if token is not None and _is_jwt(token) else (token, None)


def contradicts(headers: Mapping[str, str]) -> bool:
    """Say whether a bearer token stands beside another `X-API-Key`, which decides."""
    if "authorization" not in headers:
        return False
    own, token = headers.get("x-api-key", "").strip(), _bearer(headers)
    return bool(own) and token is not None and not hmac.compare_digest(own.encode(), token.encode())


def _bearer(headers: Mapping[str, str]) -> str | None:
    scheme, _, token = headers.get("authorization", "").strip().partition(" ")
    token = token.strip()
    return token if scheme.lower() == "bearer" and token else None


def _is_jwt(token: str) -> bool:
    if not _JWT.fullmatch(token):
        return False
    head = token.partition(".")[0]
    try:
        return base64.urlsafe_b64decode(head + "=" * (-len(head) % 4)).startswith(b"{")
    except ValueError:
        return False


# --- how often they may ask


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowance:
    """What is left to a subject in the running minute."""

    limit: int  # requests a minute
    remaining: int
    reset: int  # epoch seconds at which one more is free
    retry_after: int = 0  # seconds until then; 0 where the request is within the limit

    @property
    def headers(self) -> dict[str, str]:
        """The headers of an answer (contract §2.5)."""
        headers = {
            "x-ratelimit-limit": str(self.limit),
            "x-ratelimit-remaining": str(self.remaining),
            "x-ratelimit-reset": str(self.reset),
        }
        return {**headers, "retry-after": str(self.retry_after)} if self.retry_after else headers


class Window:
    """Counts per subject over the last minute, exactly, for as many subjects as fit; the idlest are forgotten first."""

    def __init__(self, *, subjects: int = MAX_SUBJECTS) -> None:
        self._most = subjects
        self._lock = threading.Lock()
        self._times: OrderedDict[Hashable, deque[float]] = OrderedDict()

    def quick(self, subject: Hashable, limit: int, now: float) -> Allowance | None:
        """Count one request like `take` if that takes no time; else return None, and nothing is counted."""
        return self.take(subject, limit, now)

    def take(self, subject: Hashable, limit: int, now: float) -> Allowance:
        """Count one request, unless the limit is reached: a refused one costs nothing."""
        with self._lock:
            times = self._times.setdefault(subject, deque())
            self._times.move_to_end(subject)
            # A clock that was set back must not lock anybody out for longer than a minute.
            while times and not now - MINUTE < times[0] <= now:
                times.popleft()
            while len(self._times) > self._most:
                self._times.popitem(last=False)
            taken = len(times) < limit
            if taken:
                times.append(now)
            free, count = times[0] + MINUTE if times else now, len(times)
        wait = 0 if taken else max(1, math.ceil(free - now))
        return Allowance(limit=limit, remaining=max(0, limit - count), reset=math.ceil(free), retry_after=wait)


@functools.lru_cache(maxsize=MAX_SUBJECTS)
def network_of(address: str) -> str:
    """Return what counts as one address: an IPv6 client has a whole /64 to itself."""
    try:
        given = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(given, ipaddress.IPv4Address):
        return str(given)
    if given.ipv4_mapped is not None:
        return str(given.ipv4_mapped)
    return str(ipaddress.ip_network((given, 64), strict=False))
