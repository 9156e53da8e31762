"""The answer that most requests get, a permission, known at one glance.

`read_permission` looks at what decides, and knows a plain permission by it; every other answer is for `decode_decision`
to judge. What else a permission says is decoded when somebody asks.
"""

from __future__ import annotations

from typing import Final

import msgspec

from .decode import APPROVALS, may_repeat_a_name, repeats_a_name
from .models import AuthorizationDecision, Decision, DecisionStatus

__all__ = ["Permission", "read_permission"]

_MOST_DIGITS: Final = 19
_APPROVALS: Final = APPROVALS | {None}


class _Deciding(msgspec.Struct, gc=False):
    """What decides, as `decode_decision` reads it."""

    status: str | None = None
    decision: str | None = None
    enforcement_decision: str | None = None
    execution_allowed: bool | None = None
    approved: bool | None = None
    success: bool | None = None
    requires_approval: bool | None = None
    action_id: int | str | None = None
    id: int | str | None = None
    policy_state: str | None = None


_decode: Final = msgspec.json.Decoder(_Deciding).decode
_decode_all: Final = msgspec.json.Decoder(dict).decode
# Behind a name, they hide the colon.
_BLANKS: Final = (b'" ', b'"\n', b'"\r', b'"\t')


class Permission(msgspec.Struct, eq=False):
    """A permission, with the id of its action.

    Attributes:
        action_id: see `AuthorizationDecision`.
        policy_state: the authority's word for its present policies, if it told one.
    """

    action_id: str
    policy_state: str | None
    _content: bytes
    _decision: AuthorizationDecision | None = None

    @property
    def decision(self) -> AuthorizationDecision:
        """All that the authority answered."""
        found = self._decision
        if found is None:
            try:
                fields = _decode_all(self._content)
            except (msgspec.DecodeError, RecursionError):
                fields = {}  # what does not decide cannot be read
            if may_repeat_a_name(self._content, fields) and repeats_a_name(self._content):
                fields = {}  # nor what can be read in two ways: conditions, for one
            found = self._decision = AuthorizationDecision(
                fields, action_id=self.action_id, decision=Decision.ALLOWED, status=DecisionStatus.APPROVED
            )
        return found

    def __repr__(self) -> str:
        return f"Permission(action_id={self.action_id!r})"


def read_permission(content: bytes) -> Permission | None:
    """Return the permission that an answer is; None where only `decode_decision` can tell what it is."""
    try:
        found = _decode(content)
    except (msgspec.DecodeError, RecursionError):
        return None
    status, decision, enforcement = found.status, found.decision, found.enforcement_decision
    action_id, other, asks = found.action_id, found.id, found.requires_approval
    words = (decision is not None) + (enforcement is not None)
    if (
        not _APPROVALS.issuperset((status, decision, enforcement))
        or not (words or status is not None)
        or False in (found.execution_allowed, found.approved, found.success)
        or asks
    ):
        return None
    count = content.count
    if (
        # Where it is plain ASCII, each name stands in the bytes as it is.
        not content.isascii()
        or b"\\" in content
        # Of two equal names the decoder keeps the last, which may be the permissive one.
        or count(b'"status"') != (status is not None)
        or count(b'decision"') != words
        or count(b'"requires_approval"') > 1
        or count(b'"action_id"') != (action_id is not None)
        or count(b'"id"') != (other is not None)
        # The one "false" of most answers says that no approval is required.
        or (count(b"false") > (asks is False) and _forbids_twice(content, found, (status, decision, enforcement)))
    ):
        return None
    if action_id is None:
        action_id = other
    elif other is not None and str(other) != str(action_id):  # one of them may be a number
        return None
    if type(action_id) is not str:
        action_id = str(action_id)
    if not action_id.isdecimal() or len(action_id) > _MOST_DIGITS:
        return None
    return Permission(action_id, found.policy_state, content)


def _forbids_twice(content: bytes, found: _Deciding, words: tuple[str | None, ...]) -> bool:
    """Say whether a flag that forbids when it is false may stand twice, once with another value."""
    count = content.count
    if count(b'"execution_allowed"') > 1:
        return True
    # "approved" and "success" are words, too: of most answers all are accounted for.
    names = words.count("approved") + (found.approved is not None), words.count("success") + (found.success is not None)
    if (count(b'"approved"'), count(b'"success"')) == names:
        return False
    return count(b'"approved":') > 1 or count(b'"success":') > 1 or any(map(content.__contains__, _BLANKS))
