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
# The names that decide; "decision" ends two of them.
_NAMES: Final = (b'"status"', b'decision"', b'"action_id"', b'"id"', b'"requires_approval"')
# The shape of an answer is the answer without what differs from the next one's: numbers, dates, identifiers. In it
# names may have become equal that differ, never the other way round: where no name stands twice in the shape, none does
# in any answer of that shape. What the names say is decoded of each answer.
_BLUR: Final = bytes.maketrans(b"0123456789abcdef", b"0" * 16)
_BLURRED_NAMES: Final = tuple(name.translate(_BLUR) for name in _NAMES)
_BLURRED_FALSE: Final = b"false".translate(_BLUR)
_MAX_SHAPE_BYTES: Final = 2048
_MOST_SHAPES: Final = 64
# By their shape, what decided in the last permissions.
_shapes: Final[dict[bytes, tuple[object, ...]]] = {}


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
    action_id, other = found.action_id, found.id
    decides = (
        found.status,
        found.decision,
        found.enforcement_decision,
        found.requires_approval,
        found.execution_allowed,
        found.approved,
        found.success,
        action_id is None,
        other is None,
    )
    shape = content.translate(_BLUR)
    if _shapes.get(shape) != decides and not _permits(content, shape, found, decides):
        return None
    number = other if action_id is None else action_id
    if type(number) is not str:
        number = str(number)  # "None" is none
    # One of them may be a number.
    if action_id is not None and other is not None and other != number and str(other) != number:
        return None
    if not number.isdecimal() or len(number) > _MOST_DIGITS:
        return None
    return Permission(number, found.policy_state, content)


def _permits(content: bytes, shape: bytes, found: _Deciding, decides: tuple[object, ...]) -> bool:
    """Say whether an answer permits, and no name that decides stands in it twice; keep a shape that says so."""
    status, asks, words = found.status, found.requires_approval, (found.decision, found.enforcement_decision)
    if (
        not _APPROVALS.issuperset((status, *words))
        or False in (found.execution_allowed, found.approved, found.success)
        or asks
        # Where it is plain ASCII, each name stands in the bytes as it is.
        or not content.isascii()
        or b"\\" in content
    ):
        return False
    count = (status is not None), 2 - words.count(None), (found.action_id is not None), (found.id is not None)
    if not any(count[:2]):
        return False
    # The one "false" of most answers says that no approval is required.
    falses = int(asks is False)
    if _stand_once(shape, _BLURRED_NAMES, count) and shape.count(_BLURRED_FALSE) <= falses:
        if len(shape) <= _MAX_SHAPE_BYTES:
            if len(_shapes) >= _MOST_SHAPES:
                _shapes.clear()
            _shapes[shape] = decides
        return True
    # Of two equal names the decoder keeps the last, which may be the permissive one.
    return _stand_once(content, _NAMES, count) and (
        content.count(b"false") <= falses or not _forbids_twice(content, (status, *words), found)
    )


def _stand_once(content: bytes, names: tuple[bytes, ...], expected: tuple[int, ...]) -> bool:
    status, words, action_id, other, asks = map(content.count, names)
    return (status, words, action_id, other) == expected and asks <= 1


def _forbids_twice(content: bytes, words: tuple[str | None, ...], found: _Deciding) -> bool:
    """Say whether a flag that forbids when it is false may stand twice, once with another value."""
    count = content.count
    if count(b'"execution_allowed"') > 1:
        return True
    # "approved" and "success" are words, too: of most answers all are accounted for.
    names = words.count("approved") + (found.approved is not None), words.count("success") + (found.success is not None)
    if (count(b'"approved"'), count(b'"success"')) == names:
        return False
    return count(b'"approved":') > 1 or count(b'"success":') > 1 or any(map(content.__contains__, _BLANKS))
