"""The kinds of values in requests, as msgspec types: they check bodies and make the OpenAPI document."""

from __future__ import annotations

from typing import Annotated, Final, Literal, TypeAlias, get_args

from msgspec import Meta

__all__ = [
    "EVENTS",
    "MAX_CONDITION",
    "MAX_LIMIT",
    "MAX_NAME",
    "MAX_OFFSET",
    "MAX_ORCHESTRATION_DEPTH",
    "MAX_TEXT",
    "NAME_PATTERN",
    "BlankOrExactName",
    "BlankOrName",
    "BlankOrText",
    "CommandType",
    "ComponentType",
    "ConditionText",
    "Count",
    "Depth",
    "Event",
    "Events",
    "Moment",
    "Name",
    "Needed",
    "Number",
    "PolicyDecision",
    "Reason",
    "RiskLevelWord",
    "RiskScore",
    "RuleAction",
    "Secret",
    "Text",
    "Url",
    "Words",
]

MAX_NAME: Final = 255
MAX_TEXT: Final = 4096
# Rows of a list's page, and how many may be left out before it.
MAX_LIMIT: Final = 1000
MAX_OFFSET: Final = 2**53
MAX_ORCHESTRATION_DEPTH: Final = 5
# The CEL library works by recursion, and a stack that overflows in it ends the process; threads may have small stacks.
MAX_CONDITION: Final = 2048
# No control characters, no line separators, nothing that turns the writing direction or cannot be seen, and no blanks
# at the ends: two names that look the same to a person must not be two names. The end is spelt so because Python's `$`
# also stands before a last newline, and other readers of the OpenAPI document know no `\Z`.
_UNSEEN: Final = r"\x00-\x1f\x7f-\x9f\xad\u061c\u180e\u200b-\u200f\u2028-\u202f\u205f-\u206f\u3000\ufeff\ufff9-\uffff"
NAME_PATTERN: Final = rf"^[^\s{_UNSEEN}](?:[^{_UNSEEN}]*[^\s{_UNSEEN}])?$(?!\n)"

Name: TypeAlias = Annotated[str, Meta(min_length=1, max_length=MAX_NAME, pattern=NAME_PATTERN)]
Text: TypeAlias = Annotated[str, Meta(max_length=MAX_TEXT)]
Needed: TypeAlias = Annotated[str, Meta(min_length=1, max_length=MAX_TEXT, pattern=r"\S")]
# What may be left out may also be sent empty.
BlankOrExactName: TypeAlias = Annotated[str, Meta(max_length=MAX_NAME, pattern=f"^$|{NAME_PATTERN}")]
BlankOrName: TypeAlias = Annotated[str, Meta(max_length=MAX_NAME, pattern=r"^$|\S")]
BlankOrText: TypeAlias = Annotated[str, Meta(max_length=MAX_TEXT, pattern=r"^$|\S")]
Depth: TypeAlias = Annotated[int, Meta(ge=0, le=MAX_ORCHESTRATION_DEPTH)]
Count: TypeAlias = Annotated[int, Meta(ge=0, le=2**53)]
Number: TypeAlias = Annotated[int, Meta(ge=1, le=2**53)]
Words: TypeAlias = Annotated[tuple[Name, ...], Meta(max_length=200)]
Moment: TypeAlias = Annotated[str, Meta(extra_json_schema={"anyOf": [{"format": "date"}, {"format": "date-time"}]})]
Reason: TypeAlias = Annotated[str, Meta(min_length=1, max_length=1000, pattern=r"\S")]
RiskScore: TypeAlias = Annotated[int, Meta(ge=0, le=100)]
RiskLevelWord: TypeAlias = Literal["low", "medium", "high", "critical"]
CommandType: TypeAlias = Literal["BLOCK", "UNBLOCK", "SUSPEND", "QUARANTINE", "RATE_LIMIT"]
ComponentType: TypeAlias = Literal["library", "model", "dataset", "framework", "tool", "service"]
RuleAction: TypeAlias = Literal["allow", "require_approval", "deny"]
PolicyDecision: TypeAlias = Literal["approved", "pending", "denied"]
ConditionText: TypeAlias = Annotated[
    str, Meta(min_length=1, max_length=MAX_CONDITION, extra_json_schema={"format": "cel"})
]
Event: TypeAlias = Literal[
    "action.submitted",
    "action.pending",
    "action.approved",
    "action.denied",
    "action.completed",
    "action.failed",
    "policy.violation",
    "agent.trust_changed",
    "agent.blocked",
    "mcp.server.deactivated",
]
EVENTS: Final[tuple[str, ...]] = get_args(Event)
Events: TypeAlias = Annotated[tuple[Event, ...], Meta(min_length=1, max_length=len(EVENTS))]
Url: TypeAlias = Annotated[str, Meta(min_length=1, max_length=2048, extra_json_schema={"format": "uri"})]
Secret: TypeAlias = Annotated[str, Meta(min_length=16, max_length=255, pattern=r"^[!-~]+$(?!\n)")]
