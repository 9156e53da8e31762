"""What conditions give for one action, within a budget of time, and how long they may take at the most."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeAlias

from .conditions import Condition, compile_condition, longest

__all__ = ["Held", "Load", "Shape", "condition_of", "evaluate", "evaluate_sources", "longest_time", "not_compiled"]

# Seconds of processor time for all conditions about one action; one that has no time left denies.
_BUDGET: Final = 0.25
# Of compiled conditions, so many are kept.
_MOST_COMPILED: Final = 16_384
# Seconds that an evaluation takes at the most, rounded up: by itself, for each value that is handed over to the
# library, for each step of a macro, for each state of an automaton that is built, and for each state at each byte.
_ITSELF: Final = 20e-6
_VALUE: Final = 1e-6
_STEP: Final = 1e-6
_STATE: Final = 2e-6
_STATE_AT_BYTE: Final = 1e-9
_LARGEST: Final = 2**31
# Fields of an action that hold more than one value.
_CONTAINERS: Final = frozenset({"action_details", "context", "risk_indicators"})

# Whether a condition holds, or in words why that cannot be said.
Held: TypeAlias = "bool | str"


class Shape(NamedTuple):
    """How large a submission is: its bytes, and the most values that it can hold."""

    size: int
    values: int

    @classmethod
    def of(cls, body: bytes) -> Shape:
        """Return the shape of what a body holds as JSON."""
        return cls(len(body), body.count(b",") + body.count(b"[") + body.count(b"{"))


_compiled: Final[dict[str, Condition]] = {}


def condition_of(source: str) -> Condition:
    """Return the condition of a text that was checked when it was written; most are compiled only once."""
    known = _compiled.get(source)
    if known is not None:
        return known
    condition = compile_condition(source)
    if isinstance(condition, list):
        # What a newer version takes no more must not be skipped, but deny.
        condition = Condition(source=source, run=lambda _: None)
    while len(_compiled) >= _MOST_COMPILED:
        _compiled.pop(next(iter(_compiled)), None)
    _compiled[source] = condition
    return condition


def not_compiled(sources: Iterable[str]) -> tuple[str, ...]:
    """Return those of the conditions that `condition_of` would have to compile."""
    return tuple(source for source in sources if source not in _compiled)


def evaluate(conditions: Iterable[Condition | None], action: Mapping[str, Any], *, bounded: bool = True) -> list[Held]:
    """Return what each condition gives for an action as the conditions see it; what is no condition holds.

    `bounded`: together they may take so much time that it has to be looked at.
    """
    held: list[Held] = []
    until: float | None = None
    entries: int | None = None
    for condition in conditions:
        if condition is None:
            held.append(True)
            continue
        try:
            if not bounded:
                pass
            elif until is None:
                until = time.thread_time() + _BUDGET
            elif time.thread_time() > until:
                raise ValueError("the policies before it have used up the time for judging this action")
            if condition.weight and entries is None:
                entries = longest(action)
            held.append(condition.holds(action, entries=entries))
        except ValueError as error:
            held.append(str(error))
    return held


def evaluate_sources(sources: Sequence[str | None], action: Mapping[str, Any]) -> list[Held]:
    """Do the same by the texts of conditions, in a process that knows nothing of those who wrote them."""
    return evaluate([source if source is None else condition_of(source) for source in sources], action)


class Load(NamedTuple):
    """What conditions cost together: how many they are, how many look into lists and objects, and their automata.

    Of macros it is not known without the action.
    """

    conditions: int
    looking: int
    states: int
    macros: bool

    @classmethod
    def of(cls, conditions: Iterable[Condition | None]) -> Load:
        """Add up what conditions cost."""
        those = [one for one in conditions if one is not None]
        looking = sum(one.fields is None or not one.fields.isdisjoint(_CONTAINERS) for one in those)
        return cls(len(those), looking, sum(one.states for one in those), any(one.weight for one in those))

    def plus(self, other: Load) -> Load:
        """Return what these and others cost together."""
        return Load(
            self.conditions + other.conditions,
            self.looking + other.looking,
            self.states + other.states,
            self.macros or other.macros,
        )

    def size_within(self, seconds: float) -> int:
        """Return up to which size a submission takes no more than that, whatever it holds; less than 0 if none does."""
        rest = seconds - self.conditions * _ITSELF - self.states * _STATE
        # At the most every byte is a value.
        each = self.looking * _VALUE + self.states * _STATE_AT_BYTE
        return -1 if self.macros or rest < 0 else int(min(rest / each if each else math.inf, _LARGEST))

    def seconds(self, shape: Shape) -> float:
        """Return how many seconds of processor time they may take at the most, rounded up, without macros."""
        size, values = shape
        return (
            self.conditions * _ITSELF + self.looking * values * _VALUE + self.states * (_STATE + size * _STATE_AT_BYTE)
        )


def longest_time(conditions: Iterable[Condition | None], action: Mapping[str, Any], shape: Shape) -> float:
    """Return how many seconds an evaluation for an action may take at the most, rounded up."""
    seconds, entries = 0.0, 0
    for condition in conditions:
        if condition is None:
            continue
        once = Load.of((condition,)).seconds(shape)
        if condition.weight:
            entries = entries or max(1, longest(action))
            # What stands in a macro is done for each entry.
            once = once + entries**condition.weight * _STEP + entries * condition.states * _STATE
        seconds += once
    return seconds
