"""Conditions in CEL: checked when they are written, bounded in size and in the work of one evaluation."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from ascend_middleware.api.bodies import MAX_CONDITION
from ascend_middleware.api.models import AgentAction

from .regex_size import regex_size
from .risk_score import containers

__all__ = ["Condition", "Fault", "compile_condition", "longest"]

_MAX_NESTING: Final = 16
_MAX_OPERATORS: Final = 100
_MAX_MACROS: Final = 4
# Steps of one evaluation, about a fifth of a second at the worst. The library walks a list anew for each element that
# `map` and `filter` keep, so these count twice.
_MAX_WORK: Final = 250_000
_OPERATOR = re.compile(r"[-+*/%?!<>]|==|&&|\|\|")
_ACTION_FIELDS: Final = frozenset(AgentAction.__struct_fields__)
_FUNCTIONS: Final = frozenset(
    (
        *("size", "contains", "startsWith", "endsWith", "matches", "has", "type", "dyn"),
        *("number", "int", "uint", "double", "string", "bytes", "timestamp", "duration"),
        *("getFullYear", "getMonth", "getDate", "getDayOfMonth", "getDayOfWeek", "getDayOfYear"),
        *("getHours", "getMinutes", "getSeconds", "getMilliseconds"),
    )
)
# A number as JSON spells it, alone in a text: what web frameworks make of decimals. Not all that Python would take.
_NUMBER = re.compile(r"[+-]?[0-9]{1,40}(?:\.[0-9]{1,40})?(?:[eE][+-]?[0-9]{1,3})?", re.ASCII)
# What is written in other languages, and how CEL says it.
_SLIPS: Final = (
    (re.compile(r"(?<![=!<>:])=(?!=)|={3,}|:="), "=="),
    (re.compile(r"<>"), "!="),
    (re.compile(r"(?<![\w.])and\b|(?<!&)&(?!&)", re.IGNORECASE), "&&"),
    (re.compile(r"(?<![\w.])or\b|(?<!\|)\|(?!\|)", re.IGNORECASE), "||"),
    (re.compile(r"(?<![\w.])is\s+not\b", re.IGNORECASE), "!="),
    (re.compile(r"(?<![\w.])is\b(?!\s+not\b)", re.IGNORECASE), "=="),
    (re.compile(r"(?<![\w.])(?<!is )not\b", re.IGNORECASE), "!"),
)
_NAMES: Final = {"True": "true", "False": "false", "TRUE": "true", "FALSE": "false", "None": "null", "nil": "null"}
_CALLS: Final = {"len": "size", "float": "number", "decimal": "number", "Number": "number", "str": "string"}
_READ = re.compile(r"(?<![\w.])number\s*\([^()]*\)")
_KINDS: Final = {str: "a text", bool: "true or false", type(None): "null", list: "a list", dict: "an object"}
# What the library says, which often repeats values of the action, and what is said instead.
_CAUSES: Final = (
    (
        re.compile(r"No such overload"),
        "values of kinds that do not go together, such as a text and a number; number(…) reads a number from a text",
    ),
    (re.compile(r"Function '(\w+)' error: '.*' not a valid regex"), "{}(…) was given no regular expression"),
    (re.compile(r"Function '(\w+)' error"), "{}(…) cannot read what it was given"),
    (re.compile(r"(Undefined variable or function: '\w+')"), "{}"),
    (re.compile(r"(Unsupported operation: \w+ \S{1,2} \w+)\."), "{}: values of different kinds; convert one of them"),
    (re.compile(r"(Unexpected type: got '[\w|]+', want '[\w|]+')"), "{}"),
    (re.compile(r".*(?:division|modulo) by zero"), "a division by zero"),
    (re.compile(r"Arithmetic overflow"), "a result too large for its kind of number"),
    (re.compile(r"index out of bounds"), "an index beyond the end of a list"),
)
_MACRO = re.compile(r"\.\s*(all|exists|exists_one|existsOne|map|filter)\s*\(\s*([A-Za-z_]\w*)\s*,")
_OUTER = re.compile(r"(?<![\w.])action\b|\.\s*matches\b")
_ACTION = re.compile(r"(?<![\w.])action\b")
_FIELD = re.compile(r"(?<![\w.])action\s*\.\s*([A-Za-z_]\w*)")
_EQUAL = re.compile(r"(?<![\w.])action\s*\.\s*(agent_id|resource)\s*==\s*(\"[^\"]*\"|'[^']*')")
_ALTERNATIVE = re.compile(r"\|\||\?|\[|\{")
_STRING = re.compile(r"'(?:\\.|[^'\\])*'|\"(?:\\.|[^\"\\])*\"")
_MATCHES: Final = re.compile(r"\.\s*matches\s*\((?:\s*('[^']*')\s*\))?")
# The size of a condition's regular expressions, about a tenth of a second for the longest text. Within a macro there
# are as many texts as the list is long.
_MAX_REGEXES: Final = 1000
_MACRO_FACTOR: Final = 5
# What would make other characters texts than `_STRING` finds.
_ODD_TEXT = re.compile(r"(?<![\w])[rRbB]{1,2}(?=['\"])|//")
_TRIPLE = re.compile(r"'''|\"\"\"")
# Each step down is a step of recursion, and names are short.
_MAX_CHAIN: Final = 48
_CHAIN = re.compile(rf"(?:\.\s*[A-Za-z_]\w*\s*|\[[^\[\]]*\]\s*|\([^()]*\)\s*){{{_MAX_CHAIN + 1},}}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What is wrong with a condition, and where: line and column count from 1, 0 means the whole."""

    message: str
    hint: str = ""
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        return f"line {self.line}, column {self.column}: {self.message}" if self.line else self.message


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """A checked condition.

    Attributes:
        source: as it was written.
        run: evaluates it.
        weight: the power of a list's length that its evaluation may cost.
        states: the size of its regular expressions; see `regex_size`.
        fields: those of the action that it names; None where it may look at all of them.
        constant: a field of the action and the one text with which the condition can hold, where there is such.
    """

    source: str
    run: Callable[[dict[str, Any]], object] = field(compare=False)
    weight: int = 0
    states: int = 0
    fields: frozenset[str] | None = None
    constant: tuple[str, str] | None = None

    def holds(self, action: Mapping[str, Any], *, entries: int | None = None) -> bool:
        """Evaluate the condition; raise `ValueError` with the cause if the answer is neither true nor false.

        `entries` is how long the action's longest list or object is, if that is known.
        """
        if entries is None:
            entries = longest(action) if self.weight else 0
        if entries**self.weight > _MAX_WORK:
            raise ValueError(f"a list or object of {entries} entries is too long for this condition")
        # Handing a value over to the library costs more than most conditions do.
        seen = action if self.fields is None else {name: action[name] for name in self.fields if name in action}
        try:
            answer = self.run({"action": seen})
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # the CEL library's panics are no Exceptions
            raise ValueError(_cause(error, self.source)) from None
        if not isinstance(answer, bool):
            raise ValueError(f"the condition gave a {type(answer).__name__}, not true or false")
        return answer


def longest(value: object) -> int:
    """Return the length of the longest list or object within a value."""
    return max(map(len, containers(value)), default=0)


def compile_condition(source: str) -> Condition | list[Fault]:
    """Check and compile a condition, or return everything that is wrong with it."""
    import cel  # an extra: only the authority needs it

    if not source.strip():
        return [Fault(message="the condition is empty")]
    if len(source) > MAX_CONDITION:
        return [Fault(message=f"the condition is longer than {MAX_CONDITION} characters")]
    if _TRIPLE.search(source):
        return [Fault(message="texts in three quotes are not taken", hint="use one quote at each end")]
    # Texts are blanked, not cut, so that what is found in the rest has its place.
    plain = _STRING.sub(lambda match: "'" + " " * (len(match[0]) - 2) + "'", source)

    def at(place: re.Match[str] | str | int, message: str, hint: str = "") -> Fault:
        """Return a fault at a match, at an index, or where a pattern is found first, if it is."""
        found = re.search(place, plain) if isinstance(place, str) else place
        if found is None:
            return Fault(message=message, hint=hint)
        start = found if isinstance(found, int) else found.start()
        line, column = source.count("\n", 0, start) + 1, start - source.rfind("\n", 0, start)
        return Fault(message=message, hint=hint, line=line, column=column)

    if odd := _ODD_TEXT.search(plain):
        return [at(odd, "comments, raw texts and bytes are not taken")]
    if chain := _CHAIN.search(plain):
        return [at(chain, f"more than {_MAX_CHAIN} steps down, calls and indexes in a row")]
    macros = list(_macros(plain))
    weight = _weight(macros)
    if (
        _nesting(plain) > _MAX_NESTING
        or len(_OPERATOR.findall(plain)) > _MAX_OPERATORS
        or len(macros) > _MAX_MACROS
        or sum(macro.name == "map" for macro in macros) > 1
        or weight > _MAX_MACROS
    ):
        hint = (
            f"at most {_MAX_NESTING} brackets deep, {_MAX_OPERATORS} operators, {_MAX_MACROS} macros and one map;"
            " split it into two policies"
        )
        return [Fault(message="the condition is too complicated", hint=hint)]
    try:
        program = cel.compile(source)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # the CEL library's panics are no Exceptions
        slips = [(found, word) for sign, word in _SLIPS for found in sign.finditer(plain)]
        return [at(found, f"{found[0]!r} means nothing in CEL", f"write {word}") for found, word in slips] or [
            _parse_fault(str(error))
        ]
    states = _states(source, plain, macros)
    if isinstance(states, tuple):
        return [at(states[0], *states[1:])]
    faults = []
    for macro in macros:
        if macro.name == "map" and "+" in macro.body:
            faults.append(at(macro.start, "map must not add: what it builds would have no bound"))
        if macro.variable == "action":
            faults.append(at(macro.start, "a macro must not name its variable action"))
    for name in sorted(set(program.variables()) - {macro.variable for macro in macros} - {"action"}):
        meant = f"write {_NAMES[name]}" if name in _NAMES else f"the only one is action; a text is quoted: '{name}'"
        faults.append(at(rf"(?<![\w.]){re.escape(name)}\b", f"unknown name {name!r}", meant))
    for name in sorted(set(program.functions()) - _FUNCTIONS):
        if name.isidentifier() and not name.startswith("_"):
            meant = f"write {_CALLS[name]}" if name in _CALLS else f"known: {', '.join(sorted(_FUNCTIONS))}"
            faults.append(at(rf"\b{re.escape(name)}\s*\(", f"unknown function {name!r}", meant))
    hint = f"the agent's own parameters are in action.action_details; known: {', '.join(sorted(_ACTION_FIELDS))}"
    for name in dict.fromkeys(_FIELD.findall(plain)):
        if name not in _ACTION_FIELDS:
            place = rf"(?<![\w.])action\s*\.\s*{re.escape(name)}\b"
            faults.append(at(place, f"an action has no field {name!r}", hint))
    if faults:
        return faults
    named = _FIELD.findall(plain)
    whole = len(named) != len(_ACTION.findall(plain))  # it looks at the action otherwise than by its fields
    run = _with_number(program, source) if "number" in program.functions() else program.execute
    fields = None if whole else frozenset(named)
    constant = _constant(source, plain, weight)
    return Condition(source=source, run=run, weight=weight, states=states, fields=fields, constant=constant)


def _constant(source: str, plain: str, weight: int) -> tuple[str, str] | None:
    """Return what one of the conjuncts compares for equality: the others may fail, and the whole is false all the same.

    Not so beside a macro, whose work is bounded before, nor behind `number`, which remembers what it could not read.
    """
    if weight or _ALTERNATIVE.search(plain):
        return None
    for found in _EQUAL.finditer(plain):
        before, after = plain[: found.start()], plain[found.end() :]
        text = source[found.start(2) + 1 : found.end(2) - 1]
        conjunct = before.rstrip().endswith("&&") or not before.strip()
        conjunct &= after.lstrip().startswith("&&") or not after.strip()
        if conjunct and before.count("(") == before.count(")") and "number" not in before and "\\" not in text:
            return found[1], text
    return None


def _with_number(program: Any, source: str) -> Callable[[dict[str, Any]], object]:
    """Return what evaluates a program that calls `number`."""
    import cel

    read_from = " or ".join(dict.fromkeys(_READ.findall(source))) or "number(…)"

    def run(values: dict[str, Any]) -> object:
        context, odd = cel.Context(values), []

        def number(value: object) -> float:
            read = _number(value)
            if read is None:
                # Not raised: the library would print it, and a condition could take an error for an answer.
                odd.append(f"{read_from} was given {_KINDS.get(type(value), 'something')} that is no number")
                return 0.0
            return read

        context.add_function("number", number)
        answer = program.execute(context)
        if odd:
            raise _NoNumberError(odd[0])
        return answer

    return run


class _NoNumberError(ValueError):
    """What `number` was given cannot be read; the text names no value."""


def _number(value: object) -> float | None:
    """Return a number, or one that is written in a text, such as "5000.00"; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    if isinstance(value, str) and not _NUMBER.fullmatch(value):
        return None
    read = float(value)
    return read if math.isfinite(read) else None


def _cause(error: BaseException, source: str) -> str:
    """Return in a few words why a condition could not be evaluated, without any value of the action: it is logged."""
    if isinstance(error, KeyError):
        name = str(error.args[0]) if error.args else ""
        written = re.search(rf"(?<!\w){re.escape(name)}(?!\w)", source) if name else None
        return f"no field {name!r}" if written else "no field of the name that an index gave"
    text = str(error).split("\n", 1)[0]
    if isinstance(error, _NoNumberError):
        return text
    for sign, words in _CAUSES:
        found = sign.match(text)
        if found is not None:
            return words.format(*found.groups())
    return f"the evaluation failed ({type(error).__name__})"


class _Macro(NamedTuple):
    name: str
    variable: str
    start: int
    end: int
    body: str


def _macros(plain: str) -> list[_Macro]:
    found = []
    for match in _MACRO.finditer(plain):
        depth, end = 1, match.end()
        while end < len(plain) and depth:
            depth += (plain[end] in "([{") - (plain[end] in ")]}")
            end += 1
        found.append(_Macro(match[1], match[2], match.start(), end, plain[match.end() : end]))
    return found


def _weight(macros: list[_Macro]) -> int:
    """Return the highest sum of powers along a chain of macros within each other."""
    weights: list[int] = []
    for number, macro in enumerate(macros):
        own = (2 if macro.name in ("map", "filter") else 1) + bool(_OUTER.search(macro.body))
        around = [weights[n] for n, outer in enumerate(macros[:number]) if outer.start < macro.start < outer.end]
        weights.append(own + max(around, default=0))
    return max(weights, default=0)


def _states(source: str, plain: str, macros: list[_Macro]) -> int | tuple[int, str, str]:
    """Return the size of a condition's regular expressions, or where one may take too long, and why.

    They take time in proportion to their size, with what is repeated written out, and to the text.
    """
    states, left = 0, _MAX_REGEXES
    for call in _MATCHES.finditer(plain):
        if call[1] is None:
            return call.start(), "matches takes a regular expression that is written in the condition", ""
        size = regex_size(source[call.start(1) + 1 : call.end(1) - 1])
        within = any(one.start < call.start() < one.end for one in macros)
        states += size
        left -= size * _MACRO_FACTOR if within else size
        if left < 0:
            hint = "repeat less within what is repeated; [a-z0-9_] is smaller than \\w"
            return call.start(), "the regular expressions of this condition are too large", hint
    return states


def _nesting(source: str) -> int:
    depth = deepest = 0
    for char in source:
        depth += (char in "([{") - (char in ")]}")
        deepest = max(deepest, depth)
    return deepest


def _parse_fault(text: str) -> Fault:
    """Shorten the parser's message to its place and cause: `1:4: Syntax error: …`."""
    match = re.search(r"<input>:(\d+):(\d+): (.*)", text)
    if match is None:
        return Fault(message=text.split("\n", 1)[0][:200])
    return Fault(message=match[3][:200], line=int(match[1]), column=int(match[2]))
