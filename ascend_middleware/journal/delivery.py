"""Tell the authority what a journal holds: in its order, at least once, with a key for each line that makes it once.

A line that the authority cannot take now stays next. One that it will never take is set aside, loudly.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final

import msgspec

from ..api.batches import ReportedOutcome
from ..api.models import AgentAction
from ..api.values import iso_time
from ..exceptions import (
    AscendError,
    AuthorizationDeniedError,
    ConflictError,
    KillSwitchError,
    NotFoundError,
    ProtocolError,
    ServerError,
    ValidationError,
)
from ..masking import get_logger
from .lines import decode_as, decode_line, encode_line, unseal

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..client.core import ClientCore
    from ..flow import Flow
    from ..state.base import State
    from .segments import Log

__all__ = ["Delivery", "Foreign"]

logger = get_logger("ascend_middleware.journal")

# What one call may take; it is nobody's request that waits.
_CALL_SECONDS: Final = 10.0
_FINAL: Final = (AuthorizationDeniedError, ConflictError, KillSwitchError, NotFoundError, ValidationError)
# Outcomes told at once, if the authority takes so many.
_MOST_AT_ONCE: Final = 200
# So often in a row the authority may fail at a line: with the pauses between, for some ten minutes.
_PATIENCE: Final = 25
# An entry that stays open while so many segments fill up is written again, so that they can go.
_CARRIED_SEGMENTS: Final = 3
# By these an authority says that it knows no batches.
_NO_BATCHES: Final = frozenset({404, 405, 410, 501})
_PROCESS_ENDED: Final = "process ended"
_REUSED: Final = frozenset({"cached", "coalesced"})


class Foreign(AscendError):  # noqa: N818 - says what it is
    """The authority lets another service speak about a dead process's action."""


class _Open(msgspec.Struct, gc=False):
    """An entry whose outcome was not seen yet."""

    segment: int
    line: bytes
    action_id: str
    # Of one that passed by the decision about another request: how, and when.
    reuse: str = ""
    at: float = 0.0


class _Record(msgspec.Struct, gc=False):
    """A line of any kind; `journal` says what stands in it."""

    k: str = ""
    n: int = 0
    at: float = 0.0
    id: str = ""
    how: str = ""
    rule: str = ""
    action: msgspec.Raw = msgspec.Raw(b"null")  # is read where it is submitted late
    error: str | None = None
    ms: int | None = None
    given_back: int | None = None


class _Told(ReportedOutcome, omit_defaults=True, kw_only=True, gc=False):
    """An outcome as one of many. Made directly, since there are as many as requests."""


# Of a line; None if it is damaged.
_read: Final = partial(decode_as, msgspec.json.Decoder(_Record).decode)
_read_all: Final = msgspec.json.Decoder(list[_Record]).decode
_read_action: Final = msgspec.json.Decoder(dict[str, Any] | None).decode


class Delivery:
    """Deliver one log, of which this is the only reader.

    The process of one that is `adopted` is dead; what nobody may deliver for it is set aside after `max_age` seconds.

    Attributes:
        delivered: how many outcomes were told.
    """

    def __init__(
        self,
        log: Log,
        *,
        process: str,
        core: ClientCore,
        adopted: bool = False,
        max_age: float = 604_800.0,
        now: Callable[[], float],
    ) -> None:
        self._log = log
        self._process = process
        self._core = core
        self._adopted = adopted
        self._max_age = max_age
        self._now = now
        self.delivered = 0
        self._open: dict[int, _Open] = {}
        self._known: dict[int, str] = {}
        self._carried: set[int] = set()
        self._concluded: set[int] = set()
        self._segment = 0
        self._failures = 0
        # How many lines are told one by one, after the authority did not take them at once.
        self._alone = 0
        # Of an adopted log: every entry's outcome, `completed`, `failed` or, where it has none, `unknown`.
        self._outcomes: dict[int, str] = {}

    @property
    def open_entries(self) -> int:
        """How many entries have no outcome yet, as far as was read."""
        return len(self._open)

    def known(self, number: int, action_id: str) -> None:
        """Say beforehand under which id the authority knows an entry."""
        self._known[number] = action_id

    @property
    def waiting_since(self) -> float | None:
        """When the line was written that is next; None when there is none."""
        found = self._log.peek()
        record = None if found is None else _read(found[1])
        return None if record is None else record.at

    def deliver_next(self) -> Flow[bool]:
        """Deliver the next line; False when there is none. What is raised tells that it stays next."""
        found = self._log.peek()
        if found is None:
            return False
        segment, line = found
        record = _read(line)
        if record is not None:
            try:
                yield from self._deliver(record, segment, line)
            except _FINAL as error:
                self._give_up(record, line, error)
            except (ServerError, ProtocolError) as error:
                self._failures += 1
                if self._failures < _PATIENCE:
                    raise
                # It stands before all others. Where the authority answers else, it is this line.
                self._failures = 0
                yield from self._core.try_key(seconds=_CALL_SECONDS)
                self._give_up(record, line, error)
        elif line.strip():
            logger.error("a damaged line of the journal %s is skipped", self._process)
            self._log.set_aside(line)
        self._failures = 0
        self._alone = max(0, self._alone - 1)
        self._take(1, segment)
        return True

    def deliver_many(self) -> Flow[bool]:
        """Deliver the next lines, as many outcomes at once as the authority takes; else as `deliver_next`.

        What is read ahead is told again after a crash, under the same keys.
        """
        most = min(self._core.outcomes_at_once, _MOST_AT_ONCE)
        found = self._log.peek() if most > 1 and not self._alone else None
        if found is None:
            return (yield from self.deliver_next())
        segment, told = found[0], self._read_ahead(found[0], most)
        outcomes = [body for _, _, body in told if body is not None]
        if not told or len(outcomes) < 2:
            return (yield from self.deliver_next())
        try:
            deadline = self._core.clock() + _CALL_SECONDS
            errors = iter((yield from self._core.report_many(outcomes, deadline=deadline, breaker=self._core.unbroken)))
        except (*_FINAL, ServerError, ProtocolError) as error:
            # That one of them is why cannot be known, nor which.
            self._alone = len(told)
            if error.status_code in _NO_BATCHES:
                self._core.outcomes_at_once = 0
            elif not isinstance(error, _FINAL):
                raise
            return (yield from self.deliver_next())
        taken = 0
        try:
            for record, line, body in told:
                refusal = None if body is None else next(errors)
                if refusal is not None:
                    self._refused(record, line, refusal)
                elif record.k == "outcome":
                    self._concluded_as(record)
                taken += 1
        finally:
            if taken:
                self._take(taken, segment)
        return True

    def _read_ahead(self, segment: int, most: int) -> list[tuple[_Record, bytes, _Told | None]]:
        """Return the next lines, up to one that has to be told alone; each with what is to be told of it, if any."""
        told: list[tuple[_Record, bytes, _Told | None]] = []
        ahead = self._log.ahead(2 * most)
        for (line, was_delivered), record in zip(ahead, _read_many(ahead), strict=True):
            if record is None:
                break
            kind, number, body = record.k, record.n, None
            if kind == "outcome":
                opened = self._open.get(number)
                if opened is not None and opened.action_id and not was_delivered:
                    most -= 1
                    body = self._outcome(record, opened)
            elif kind == "entry":
                if number not in self._open and self._is_unsubmitted(record):
                    break
                self._note_entry(record, segment, line)
            elif kind == "submitted":
                self._note_submitted(record)
            told.append((record, line, body))
            if not most:
                break
        return told

    def _refused(self, record: _Record, line: bytes, error: AscendError) -> None:
        if not isinstance(error, _FINAL):
            self._alone = 1
            raise error
        self._give_up(record, line, error)

    def _take(self, count: int, segment: int) -> None:
        self._log.advance(count)
        if segment != self._segment:
            self._segment = segment
            self._make_room(segment)

    def finish(self, state: State | None) -> Flow[None]:
        """Conclude what a dead process left without an outcome, and its claims."""
        for number, opened in sorted(self._open.items()):
            record = _Record(k="outcome", n=number, at=self._now(), error=_PROCESS_ENDED)
            try:
                yield from self._report(record, opened)
            except _FINAL as error:
                self._give_up(record, opened.line, error)
            self._open.pop(number, None)
        if state is None:
            return
        # Also the claim between which and whose journal line it died.
        for row in state.unsettled(self._process):
            number = _number_in(row.entry)
            outcome = self._outcomes.get(number)
            if outcome is None:
                how = {"at": row.claimed_at, **self._how(number, "outcome")}
                try:
                    yield from self._core.report(row.action_id, failed=True, error=_PROCESS_ENDED, **how)
                except _FINAL as error:
                    logger.error("a dead process's claim of action %s cannot be reported: %s", row.action_id, error)
            state.settle(row.handle, outcome=outcome or "unknown")

    def _deliver(self, record: _Record, segment: int, line: bytes) -> Flow[None]:
        if record.k == "entry":
            yield from self._enter(record, segment, line)
        elif record.k == "submitted":
            self._note_submitted(record)
        elif record.k == "outcome":
            opened = self._open.get(record.n)
            if opened is not None and not self._log.was_delivered:
                yield from self._report(record, opened)
            self._concluded_as(record)

    def _note_submitted(self, record: _Record) -> None:
        if record.n in self._open:
            self._open[record.n].action_id = record.id

    def _concluded_as(self, record: _Record) -> None:
        self._conclude(record.n)
        self.delivered += 1
        if self._adopted:
            self._outcomes[record.n] = "completed" if record.error is None else "failed"

    def _conclude(self, number: int) -> None:
        self._open.pop(number, None)
        if self._known:
            self._known.pop(number, None)
        if self._adopted or number in self._carried:
            self._concluded.add(number)

    def _enter(self, record: _Record, segment: int, line: bytes) -> Flow[None]:
        number = record.n
        if self._adopted:
            self._outcomes.setdefault(number, "unknown")
        if number not in self._open and self._is_unsubmitted(record):
            self._known[number] = yield from self._submit(record)
        self._note_entry(record, segment, line)

    def _is_unsubmitted(self, record: _Record) -> bool:
        named = record.how != "open" or record.id or self._known.get(record.n)
        return not named and record.n not in self._concluded

    def _note_entry(self, record: _Record, segment: int, line: bytes) -> None:
        number = record.n
        if self._adopted:
            self._outcomes.setdefault(number, "unknown")
        if number in self._concluded:
            return  # written again just before its outcome
        opened = self._open.get(number)
        if opened is not None:
            opened.segment = segment
            return
        opened = self._open[number] = _Open(segment, line, self._known.get(number) or record.id)
        if record.how in _REUSED:
            opened.reuse, opened.at = record.how, record.at

    def _submit(self, record: _Record) -> Flow[str]:
        """Submit what was passed while the authority was away, marked as such."""
        action = AgentAction(**(_read_action(record.action) or {}))
        action.context = {**(action.context or {}), "passed_open": True, "passed_open_at": iso_time(record.at)}
        decision = yield from self._core.submit(action, **self._how(record.n, "submit"))
        if not decision.is_approved():
            logger.error(
                "an action that ran because on_failure is open is %s, says the authority now: action %s under %s",
                decision.status,
                decision.action_id,
                record.rule,
            )
        self._log.append(encode_line({"k": "submitted", "n": record.n, "at": self._now(), "id": decision.action_id}))
        return decision.action_id

    def _report(self, record: _Record, opened: _Open) -> Flow[None]:
        if not opened.action_id:
            return  # it was set aside when it could not be submitted
        if opened.reuse:
            yield from self._report_use(record, opened)
            return
        yield from self._core.report(
            opened.action_id,
            failed=record.error is not None,
            error=record.error,
            at=record.at,
            duration_ms=record.ms,
            given_back=record.given_back,
            **self._how(record.n, "outcome"),
        )

    def _outcome(self, record: _Record, opened: _Open) -> _Told:
        """Return an outcome as one of many; see `_report`."""
        error, at = record.error, iso_time(record.at)
        word: Final = "completed" if error is None else "failed"
        told = _Told(
            action_id=opened.action_id,
            status=word,
            idempotency_key=self._key(record.n, "outcome"),
            duration_ms=record.ms,
        )
        if error is None:
            told.completed_at = at
        else:
            told.failed_at, told.error = at, error
        told.given_back = record.given_back
        if opened.reuse:
            # What the action itself came to is another one's to tell.
            told.outcome, told.status = word, "used"
            told.how = opened.reuse  # type: ignore[assignment]  # as it was journalled
            told.used_at = iso_time(opened.at)
            told.use = f"{self._process}-{record.n}"
        return told

    def _report_use(self, record: _Record, opened: _Open) -> Flow[None]:
        """Report a use by itself, which is as one of many, too: there is no other way."""
        use, deadline = self._outcome(record, opened), self._core.clock() + _CALL_SECONDS
        (error,) = yield from self._core.report_many([use], deadline=deadline, breaker=self._core.unbroken)
        if error is not None:
            raise error

    def _how(self, number: int, what: str) -> dict[str, Any]:
        deadline = self._core.clock() + _CALL_SECONDS
        return {"deadline": deadline, "idempotency_key": self._key(number, what), "breaker": self._core.unbroken}

    def _key(self, number: int, what: str) -> str:
        return f"journal-{self._process}-{number}-{what}"

    def _give_up(self, record: _Record, line: bytes, error: AscendError) -> None:
        number = record.n
        if self._adopted and isinstance(error, AuthorizationDeniedError | NotFoundError):
            opened = self._open.get(number)
            entry = record if opened is None else _read(opened.line) or record
            if self._now() - entry.at < self._max_age:
                raise Foreign(f"the authority refuses: {error}") from error
        logger.error("the authority does not take a line of the journal; it is set aside: %s", error)
        self._log.set_aside(line)
        if record.k == "entry":
            # Its outcome is then nobody's, but the entry is still open until it is seen.
            self._open[number] = _Open(self._segment, line, "")
        else:
            self._conclude(number)

    def _make_room(self, segment: int) -> None:
        for number, opened in self._open.items():
            if opened.segment < segment - _CARRIED_SEGMENTS and not self._adopted:
                self._log.append(encode_line({**(decode_line(opened.line) or {}), "id": opened.action_id}))
                self._carried.add(number)
                opened.segment = self._log.segment
        oldest = min((opened.segment for opened in self._open.values()), default=segment)
        self._log.release(min(oldest, segment))


def _read_many(lines: list[tuple[bytes, bool]]) -> list[_Record] | list[_Record | None]:
    """Return what stands in each line, None in one that is damaged."""
    contents = [unseal(line) or b"" for line, _ in lines]
    try:
        records = _read_all(b"[%b]" % b",".join(contents))  # in one call, in a fifth of the time
    except msgspec.DecodeError:
        records = []
    return records if len(records) == len(lines) else [_read(line) for line, _ in lines]


def _number_in(entry: str) -> int:
    """Return the number of the entry that was kept with a claim, 0 if it is damaged."""
    try:
        return int(msgspec.json.decode(entry.encode(), type=dict[str, Any]).get("n", 0))
    except msgspec.DecodeError:
        return 0
