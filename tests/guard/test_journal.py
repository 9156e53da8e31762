"""The journal: what is written survives, is delivered in order, at least once, and is bounded."""

import contextlib
import errno
import json
import mmap
import os
import threading
import time

import msgspec
import pytest
from authority_stub import AuthorityStub
from kit.engine import API, KEY, answer, failed
from kit.processes import in_a_child, python, together
from kit.states import NOW, approval, state_at

from ascend_middleware.client.core import ClientCore
from ascend_middleware.client.http import ConnectFailed, Response
from ascend_middleware.config import Settings
from ascend_middleware.exceptions import AscendError, ConfigurationError
from ascend_middleware.flow import Sleep, drive
from ascend_middleware.fork import FileLock
from ascend_middleware.journal.delivery import Delivery
from ascend_middleware.journal.files import read_lines, size_of
from ascend_middleware.journal.journal import Journal, JournalError, Limits, directory_of, open_journal
from ascend_middleware.journal.lines import decode_line, encode_line, unseal
from ascend_middleware.journal.memory import MemoryLog
from ascend_middleware.journal.recovery import adopt, bytes_of_others, names_of
from ascend_middleware.journal.room import ROOM_BYTES, room_in
from ascend_middleware.journal.segments import FileLog

SETTINGS = Settings(api_url=API, api_key=KEY, max_retries=0)
ENTRY = {"id": "7", "how": "allowed", "rule": "refund", "agent": "bot"}
ACTION = {"agent_id": "bot", "agent_name": "bot", "action_type": "transaction", "resource": "r"}
OPEN = {"id": "", "how": "open", "rule": "refund", "agent": "bot", "action": ACTION}


class Authority:
    """Takes what is delivered; each answer may be a status, an error or None for a success."""

    def __init__(self):
        self.got = []
        self.answers = []
        self.keys = []

    def __call__(self, step):
        if isinstance(step, Sleep):
            return None
        self.keys.append(dict(step.request.headers).get("Idempotency-Key"))
        found = self.answers.pop(0) if self.answers else None
        if isinstance(found, Exception):
            raise found
        if found is not None:
            return failed(found)
        if step.request.method == "GET":
            return Response(200, {}, b"{}")
        body = json.loads(step.request.content)
        place = step.request.url.rpartition("/")[2]
        if place == "submit":
            self.got.append(("submit", body["resource"], body["context"]))
            return answer(action_id="70")
        self.got.append((place, body["action_id"], body.get("error")))
        return Response(200, {}, b'{"success": true}')

    @property
    def said(self):
        return [(place, what) for place, what, _ in self.got]


@pytest.fixture
def authority():
    return Authority()


@pytest.fixture
def core():
    return ClientCore(SETTINGS, random=lambda: 0.0)


def journal_of(directory, *, segment_bytes=None, **more):
    journal = Journal(directory, now=lambda: NOW, **more)
    if segment_bytes is not None:
        durable = {"power_safe": more.get("power_safe", False)}
        journal._log = FileLog(directory, journal.process, segment_bytes=segment_bytes, **durable)
    return journal


def refusing_room(code):
    """Return what stands in for reserving room, where that is not to be had."""

    def refuse(*_):
        raise OSError(code, os.strerror(code))

    return refuse


def seal(content):
    return encode_line(msgspec.Raw(content))


def delivery_of(journal, core):
    return Delivery(journal.log, process=journal.process, core=core, now=lambda: NOW)


def deliver_all(delivery, authority):
    while drive(delivery.deliver_next(), authority):
        pass


def run(journal, fields=ENTRY, *, error=None):
    number = journal.next_number()
    journal.enter(number, fields)
    journal.conclude(number, error=error, duration_ms=12)
    return number


def contents(directory):
    return {path.name: path.read_bytes() for path in directory.glob("*.journal")}


@pytest.fixture(params=["memory", "file"])
def journal(request, tmp_path):
    made = journal_of(None if request.param == "memory" else tmp_path / "journal")
    yield made
    made.close(remove=True)


class TestDelivery:
    def test_outcomes_in_the_order_of_the_journal(self, journal, core, authority):
        for number in range(3):
            run(journal, {**ENTRY, "id": str(number)}, error="it raised" if number == 1 else None)
        deliver_all(delivery_of(journal, core), authority)
        assert authority.got == [("complete", "0", None), ("fail", "1", "it raised"), ("complete", "2", None)]
        assert len(set(authority.keys)) == 3
        assert journal.backlog == 0

    def test_a_line_that_cannot_be_delivered_stays_next_under_the_same_key(self, journal, core, authority):
        run(journal)
        delivery = delivery_of(journal, core)
        drive(delivery.deliver_next(), authority)  # the entry itself is nothing to deliver
        authority.answers = [ConnectFailed("no"), 503, 401]
        for _ in range(3):
            with pytest.raises(AscendError):
                drive(delivery.deliver_next(), authority)
        deliver_all(delivery, authority)
        assert authority.said == [("complete", "7")]
        assert len(set(authority.keys)) == 1

    def test_an_entry_without_an_outcome_waits_for_it(self, journal, core, authority):
        journal.enter(1, ENTRY)
        delivery = delivery_of(journal, core)
        deliver_all(delivery, authority)
        assert (authority.got, delivery.open_entries) == ([], 1)
        journal.conclude(1, error=None, duration_ms=1)
        deliver_all(delivery, authority)
        assert (authority.said, delivery.open_entries) == ([("complete", "7")], 0)

    def test_what_passed_open_is_submitted_marked_before_its_outcome_is_told(self, journal, core, authority):
        run(journal, OPEN)
        authority.answers = [ConnectFailed("still away")]
        delivery = delivery_of(journal, core)
        with pytest.raises(AscendError):
            drive(delivery.deliver_next(), authority)
        deliver_all(delivery, authority)
        assert authority.said == [("submit", "r"), ("complete", "70")]
        assert authority.got[0][2] == {"passed_open": True, "passed_open_at": "2027-01-15T08:00:00.000Z"}
        assert authority.keys[0] == authority.keys[1]

    @pytest.mark.parametrize("fields", [ENTRY, OPEN], ids=["outcome", "passed open"])
    @pytest.mark.parametrize("fails", [500, ConnectFailed("no")], ids=["fails", "silent"])
    def test_what_is_delivered_counts_nothing_where_it_is_decided(self, journal, authority, fields, fails):
        core = ClientCore(SETTINGS, random=lambda: 0.0)
        core.breaker.acquire().fail()  # by a decision
        run(journal, fields)
        delivery = delivery_of(journal, core)
        authority.answers = [fails] * 20
        while authority.answers:
            with contextlib.suppress(AscendError):
                drive(delivery.deliver_next(), authority)
        assert (core.breaker.state, core.breaker.failures) == ("closed", 1)
        deliver_all(delivery, authority)
        assert authority.got and core.breaker.failures == 1

    @pytest.mark.parametrize("status", [403, 404, 409, 422])
    def test_what_the_authority_will_never_take_is_set_aside_loudly(self, tmp_path, core, authority, caplog, status):
        journal = journal_of(tmp_path)
        run(journal)
        run(journal, {**ENTRY, "id": "8"})
        authority.answers = [status]
        deliver_all(delivery_of(journal, core), authority)
        assert authority.said == [("complete", "8")]
        assert "set aside" in caplog.text
        [kept] = tmp_path.glob("*.rejected")
        assert decode_line(kept.read_bytes())["n"] == 1
        journal.close(remove=True)
        assert kept.exists()

    def test_a_line_at_which_the_authority_always_fails_does_not_stand_in_the_way_for_ever(
        self, journal, core, authority, caplog
    ):
        run(journal)
        run(journal, {**ENTRY, "id": "8"})
        delivery = delivery_of(journal, core)
        authority.answers = [500] * 24 + [502]
        failed = 0
        while journal.backlog:
            try:
                deliver_all(delivery, authority)
            except AscendError:
                failed += 1
        assert (failed, authority.said) == (24, [("complete", "8")])
        assert "set aside" in caplog.text

    def test_while_the_authority_is_away_no_line_is_given_up(self, journal, core, authority):
        run(journal)
        delivery = delivery_of(journal, core)
        drive(delivery.deliver_next(), authority)
        # Each 25th time it is asked for something else, and fails at that, too.
        authority.answers = [500] * 25 + [ConnectFailed("no")] + [500] * 25 + [503] + [ConnectFailed("no")] * 40
        while authority.answers:
            with pytest.raises(AscendError):
                drive(delivery.deliver_next(), authority)
        deliver_all(delivery, authority)
        assert authority.said == [("complete", "7")]

    def test_a_damaged_line_is_skipped_loudly(self, journal, core, authority, caplog):
        journal.log.append(b"00000000 {}\n")
        run(journal)
        deliver_all(delivery_of(journal, core), authority)
        assert authority.said == [("complete", "7")]
        assert "damaged" in caplog.text

    @pytest.mark.parametrize("remove", [False, True])
    def test_what_is_in_memory_only_outlives_a_close_unless_it_is_to_go(self, core, authority, remove):
        """A server may start again in the same process."""
        journal = journal_of(None)
        run(journal)
        journal.close(remove=remove)
        assert journal.is_open is not remove
        run(journal, {**ENTRY, "id": "8"})
        deliver_all(delivery_of(journal, core), authority)
        assert authority.said == [("complete", "7")] * (not remove) + [("complete", "8")]


class TestSegments:
    def test_segments_go_when_they_are_delivered_and_concluded(self, tmp_path, core, authority):
        journal = journal_of(tmp_path, segment_bytes=400)
        delivery = delivery_of(journal, core)
        for _ in range(40):
            run(journal)
        assert len(list(tmp_path.glob("*.journal"))) > 10
        deliver_all(delivery, authority)
        assert len(list(tmp_path.glob("*.journal"))) <= 2
        assert len(authority.got) == 40
        journal.close(remove=True)
        assert list(tmp_path.iterdir()) == []

    def test_an_entry_that_stays_open_for_long_holds_up_no_segment_and_keeps_its_outcome(
        self, tmp_path, core, authority
    ):
        journal = journal_of(tmp_path, segment_bytes=400)
        delivery = delivery_of(journal, core)
        long_running = journal.next_number()
        journal.enter(long_running, {**OPEN, "id": ""})
        for _ in range(40):
            run(journal)
            deliver_all(delivery, authority)
        assert len(list(tmp_path.glob("*.journal"))) <= 8
        journal.conclude(long_running, error=None, duration_ms=1)
        deliver_all(delivery, authority)
        assert authority.said[-1] == ("complete", "70")
        assert [place for place, _ in authority.said].count("submit") == 1
        journal.close(remove=True)

    @pytest.mark.parametrize("status", [403, 422])
    def test_an_entry_that_was_refused_and_stays_open_is_not_submitted_again(self, tmp_path, core, authority, status):
        journal = journal_of(tmp_path, segment_bytes=400)
        delivery = delivery_of(journal, core)
        long_running = journal.next_number()
        journal.enter(long_running, {**OPEN, "id": ""})
        authority.answers = [status]
        for _ in range(40):
            run(journal)
            deliver_all(delivery, authority)
        journal.conclude(long_running, error=None, duration_ms=1)
        deliver_all(delivery, authority)
        assert len([key for key in authority.keys if key.endswith("-submit")]) == 1
        assert len(list(tmp_path.glob("*.rejected"))) == 1
        journal.close(remove=True)

    def test_a_segment_with_an_open_entry_stays_until_that_is_written_again(self, tmp_path, core, authority):
        """A crash at any time: what never finished is reported, whatever was delivered behind it."""
        journal = journal_of(tmp_path, segment_bytes=400)
        delivery = delivery_of(journal, core)
        journal.enter(journal.next_number(), {**ENTRY, "id": "open"})
        for _ in range(30):
            run(journal)
            deliver_all(delivery, authority)
            left = [decode_line(line) for line, _ in read_lines(tmp_path, journal.process)]
            assert any(record["k"] == "entry" and record["id"] == "open" for record in left)
        assert len(list(tmp_path.glob("*.journal"))) <= 6
        journal._log.close()
        authority.got.clear()
        assert adopt(tmp_path, core=core, state=None, perform=authority, now=lambda: NOW) == 1
        assert authority.got == [("fail", "open", "process ended")]

    @pytest.mark.parametrize("torn", [b"0123 {", b"x", b"\n", b"x\n\n"])
    @pytest.mark.parametrize("next_file", [False, True])
    def test_a_torn_line_swallows_no_other_one(self, tmp_path, torn, next_file):
        """Whoever writes on in a dead process's file, or reads on in its next one, finds every whole line."""
        first = FileLog(tmp_path, "dead", segment_bytes=20)
        whole = [seal(b"%d" % number) for number in range(4)]
        first.append(whole[0])
        os.write(first._descriptor, torn)
        first.close()
        if next_file:
            (tmp_path / "dead-000002.journal").write_bytes(b"".join(whole[1:]))
        again = FileLog(tmp_path, "dead", segment_bytes=20)
        for line in whole[1:] if not next_file else ():
            again.append(line)
        read = []
        while (found := again.peek()) is not None:
            again.advance()
            read.append(found[1])
        assert [line for line in read if unseal(line) is not None] == whole
        assert again.backlog == 0
        again.release(99)
        again.close(remove=True)

    def test_what_is_written_while_the_journal_is_closed_is_found_by_who_adopts_it(self, tmp_path):
        closes = []
        journal = Journal(tmp_path, now=lambda: closes.pop()() if closes else NOW)

        def close():
            journal.close(remove=True, unread=False)
            return NOW

        journal.enter(1, {})
        journal.log.peek()
        journal.log.advance()
        closes.append(close)  # when the next entry has its log in hand
        assert journal.enter(2, {})
        close()  # nobody has read that one
        (name,) = names_of(tmp_path)
        assert [decode_line(line)["n"] for line, _ in read_lines(tmp_path, name)] == [2]

    def test_reader_and_writers_at_once(self, tmp_path, core, authority):
        journal = journal_of(tmp_path, segment_bytes=2000)
        delivery = delivery_of(journal, core)
        threads = [threading.Thread(target=lambda: [run(journal) for _ in range(100)]) for _ in range(4)]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            deliver_all(delivery, authority)
        for thread in threads:
            thread.join()
        deliver_all(delivery, authority)
        assert len(authority.got) == 400
        assert journal.backlog == 0
        journal.close(remove=True)


CRASHING = """
import os, sys
from pathlib import Path
from ascend_middleware.journal.files import read_lines, size_of
from ascend_middleware.journal.journal import Journal
journal = Journal(Path(sys.argv[1]))
{body}
print(journal.process, flush=True)
os.kill(os.getpid(), 9)
"""


def crash(directory, body):
    """Run a process that writes to a journal and is killed."""
    done = python("-c", CRASHING.format(body=body), directory)
    assert done.returncode == -9, done.stderr
    return done.stdout.strip()


class TestAdoption:
    def adopt(self, directory, core, authority, state=None, **more):
        return adopt(directory, core=core, state=state, perform=authority, now=lambda: NOW, **more)

    def test_what_a_killed_process_left_is_delivered_and_what_it_never_finished_has_failed(
        self, tmp_path, core, authority, caplog
    ):
        crash(
            tmp_path,
            f"journal.enter(1, {ENTRY!r}); journal.conclude(1, error=None, duration_ms=1)\n"
            f"journal.enter(2, { ({**ENTRY, 'id': '8'})!r})",
        )
        assert self.adopt(tmp_path, core, authority) == 1
        assert authority.got == [("complete", "7", None), ("fail", "8", "process ended")]
        assert list(tmp_path.iterdir()) == []
        assert "process that ended" in caplog.text

    def test_a_journal_at_which_the_authority_fails_keeps_no_other_one(self, tmp_path, core, authority, caplog):
        for name in ("7", "8"):
            crash(tmp_path, f"journal.enter(1, { ({**ENTRY, 'id': name})!r})")
        authority.answers = [500]
        assert self.adopt(tmp_path, core, authority) == 1
        assert len(authority.got) == 1
        assert "cannot be delivered now" in caplog.text
        assert self.adopt(tmp_path, core, authority) == 0  # left alone for a while
        assert len(list(tmp_path.glob("*.lock"))) == 1

    def test_a_living_process_keeps_its_journal(self, tmp_path, core, authority):
        journal = journal_of(tmp_path)
        run(journal)
        program = (
            "import sys; from pathlib import Path; from ascend_middleware.fork import FileLock\n"
            "print([FileLock.take(path, create=False) for path in Path(sys.argv[1]).glob('*.lock')])"
        )
        other = python("-c", program, tmp_path)
        assert other.stdout.strip() == "[None]"
        assert self.adopt(tmp_path, core, authority) == 0
        assert authority.got == []
        journal.close(remove=False)
        assert self.adopt(tmp_path, core, authority) == 1

    def test_an_authority_that_is_away_leaves_everything_for_the_next_time(self, tmp_path, core, authority):
        crash(tmp_path, "".join(f"journal.enter({n}, { ({**ENTRY, 'id': str(n)})!r})\n" for n in (1, 2)))
        authority.answers = [None, ConnectFailed("no")]
        with pytest.raises(AscendError):
            self.adopt(tmp_path, core, authority)
        assert len(names_of(tmp_path)) == 1
        self.adopt(tmp_path, core, authority)
        assert {what for _, what in authority.said} == {"1", "2"}
        # What was told twice was told under one key, so that the authority keeps it once.
        assert len(authority.got) == 3
        assert len(set(authority.keys)) == 2

    def test_what_was_delivered_before_the_death_is_not_told_again(self, tmp_path, core, authority):
        journal = journal_of(tmp_path)
        for number in ("1", "2", "3"):
            run(journal, {**ENTRY, "id": number})
        delivery = delivery_of(journal, core)
        for _ in range(4):
            drive(delivery.deliver_next(), authority)
        journal.close(remove=False)
        assert authority.said == [("complete", "1"), ("complete", "2")]
        self.adopt(tmp_path, core, authority)
        assert authority.said[2:] == [("complete", "3")]

    def test_a_pass_without_a_decision_keeps_the_id_it_was_submitted_under(self, tmp_path, core, authority):
        journal = journal_of(tmp_path)
        journal.enter(1, OPEN)
        journal.conclude(1, error="x", duration_ms=1)
        drive(delivery_of(journal, core).deliver_next(), authority)
        journal.close(remove=False)
        self.adopt(tmp_path, core, authority)
        assert authority.said == [("submit", "r"), ("fail", "70")]

    def test_half_a_line_at_the_end_is_what_never_ran(self, tmp_path, core, authority):
        crash(
            tmp_path,
            f"journal.enter(1, {ENTRY!r})\nos.write(journal.log._descriptor, b'0123 {{')",
        )
        self.adopt(tmp_path, core, authority)
        assert authority.got == [("fail", "7", "process ended")]

    def test_a_claim_between_whose_state_and_whose_journal_the_process_died(self, tmp_path, core, authority):
        state = state_at()
        process = crash(tmp_path, "journal.log")
        for number, action_id in enumerate(("7", "8"), 1):
            state.hold(approval(action_id), now=NOW)
            owner = process if action_id == "7" else "another process"
            state.claim(action_id, by="x", process=owner, entry=json.dumps({"n": number}), now=NOW)
        self.adopt(tmp_path, core, authority, state)
        assert authority.got == [("fail", "7", "process ended")]
        assert [state.find(handle).outcome for handle in ("7", "8")] == ["unknown", ""]

    def test_the_outcome_of_a_claim_that_only_the_journal_knows(self, tmp_path, core, authority):
        state = state_at()
        process = crash(tmp_path, f"journal.enter(1, {ENTRY!r}); journal.conclude(1, error=None, duration_ms=1)")
        state.hold(approval("7"), now=NOW)
        state.claim("7", by="x", process=process, entry='{"n": 1}', now=NOW)
        self.adopt(tmp_path, core, authority, state)
        assert authority.got == [("complete", "7", None)]
        assert state.find("7").outcome == "completed"

    def test_another_services_dead_are_left_to_it_until_they_are_too_old(self, tmp_path, core, authority, caplog):
        crash(tmp_path, f"journal._now = lambda: {NOW}\njournal.enter(1, {ENTRY!r})")
        authority.answers = [404, 404]
        assert self.adopt(tmp_path, core, authority) == 0
        assert "left for the service that wrote it" in caplog.text
        assert self.adopt(tmp_path, core, authority) == 0  # not asked again at once
        assert len(authority.keys) == 1
        assert len(names_of(tmp_path)) == 1

    @pytest.mark.parametrize(("status", "seconds"), [(404, 600), (500, 60)])
    def test_what_cannot_be_delivered_is_tried_again_after_a_while(self, tmp_path, authority, status, seconds):
        crash(tmp_path, f"journal._now = lambda: {NOW}\njournal.enter(1, {ENTRY!r})")
        time = [1000.0]
        core = ClientCore(SETTINGS, random=lambda: 0.0, clock=lambda: time[0])
        for passed, asked in ((0, 1), (seconds - 1, 1), (1, 2), (seconds - 1, 2), (1, 3)):
            authority.answers = [status, status]
            time[0] += passed
            assert self.adopt(tmp_path, core, authority) == 0
            assert len(authority.keys) == asked

    def test_too_old_ones_are_set_aside(self, tmp_path, core, authority):
        crash(tmp_path, f"journal._now = lambda: {NOW - 100}\njournal.enter(1, {ENTRY!r})")
        authority.answers = [404]
        assert self.adopt(tmp_path, core, authority, max_age=99) == 1
        assert [path.suffix for path in tmp_path.iterdir()] == [".rejected"]

    def test_the_dead_count_towards_the_limit(self, tmp_path):
        crash(tmp_path, f"journal.enter(1, {ENTRY!r})")
        journal = journal_of(tmp_path)
        run(journal)
        assert 50 < bytes_of_others(tmp_path, besides=journal.process) < 300
        journal.close(remove=True)


class TestLimits:
    def test_full_refuses_by_default_and_is_loud_before(self, tmp_path, caplog):
        journal = journal_of(tmp_path, limits=Limits(size=1000))
        for _ in range(20):
            try:
                run(journal)
            except JournalError as error:
                assert error.full
                break
        else:
            pytest.fail("never full")
        assert caplog.text.index("nearly full") < caplog.text.index("actions are refused")
        journal.close(remove=True)

    def test_full_passes_without_an_entry_where_that_is_configured(self, tmp_path, caplog):
        journal = journal_of(tmp_path, limits=Limits(size=1000, when_full="pass"))
        for _ in range(20):
            run(journal)
        assert journal.unjournalled > 5
        assert journal.enter(journal.next_number(), ENTRY, wait=False) is True, "nothing is there to be waited for"
        assert "run without an entry" in caplog.text
        journal.close(remove=True)

    def test_too_old_is_full(self, tmp_path, caplog):
        journal = journal_of(tmp_path, limits=Limits(age=100))
        run(journal)
        journal.waiting_since = NOW - 81
        run(journal)
        assert "nearly full" in caplog.text
        journal.waiting_since = NOW - 100
        with pytest.raises(JournalError):
            run(journal)
        journal.close(remove=True)

    def test_outcomes_are_written_even_when_it_is_full(self, tmp_path, core, authority):
        journal = journal_of(tmp_path, limits=Limits(size=200))
        journal.enter(1, ENTRY)
        with pytest.raises(JournalError):
            for number in range(2, 5):
                journal.enter(number, ENTRY)
        journal.conclude(1, error=None, duration_ms=1)
        deliver_all(delivery_of(journal, core), authority)
        assert authority.said == [("complete", "7")]
        journal.close(remove=True)


# File systems that write a change where the file stands, and some that do not, or of which nobody knows.
IN_PLACE = ("ext2", "ext3", "ext4", "tmpfs", "xfs")
ELSEWHERE = ("btrfs", "zfs", "overlay", "nfs4", "fuse.sshfs", "cifs", "ext4x")


class TestRoom:
    """Lines are copied into room that was reserved ahead, where the system can."""

    LINES = tuple(seal(b'{"k":"entry","n":%d}' % number) for number in range(40))

    @pytest.mark.parametrize("room", [0, 1, 100, 5000])
    def test_however_lines_are_kept_the_same_ones_stand_there(self, tmp_path, room):
        log = FileLog(tmp_path, "one", segment_bytes=300, room_bytes=room)
        for line in self.LINES:
            assert log.keep(line) or log.append(line)
            found = log.peek()
            assert found is not None and found[1] == line
            log.advance()
        log.close()
        read = b"".join(content for _, content in sorted(contents(tmp_path).items()))
        assert read == b"".join(self.LINES)

    @pytest.mark.parametrize("at", range(1, 5))
    def test_a_segment_that_fills_up_while_its_reader_looks_for_its_end_is_read_whole(self, tmp_path, at):
        log, calls, rest = FileLog(tmp_path, "one", segment_bytes=300), [], iter(self.LINES[1:])
        size = log._size

        def slowly():
            found = size()
            calls.append(found)
            if len(calls) == at:  # other threads are quick
                assert all(log.append(line) for line in rest)
            return found

        log._size = slowly
        log.append(self.LINES[0])
        taken = []
        while len(calls) < 100:
            if (found := log.peek()) is not None:
                taken.append(found[1])
                log.advance()
        assert taken == list(self.LINES)
        log.close()

    def test_a_line_is_there_for_everybody_as_soon_as_it_is_kept(self, tmp_path):
        log = FileLog(tmp_path, "one")
        for number, line in enumerate(self.LINES, 1):
            log.append(line)
            assert [line for line, _ in read_lines(tmp_path, "one")] == list(self.LINES[:number])
        log.close()

    @pytest.mark.parametrize("torn", [b"", b"0", LINES[1][:-1]])
    @pytest.mark.parametrize("room", [0, 1, 10_000, 300_000])
    def test_the_room_of_a_dead_process_is_given_back(self, tmp_path, torn, room):
        path = tmp_path / "dead-000001.journal"
        path.write_bytes(self.LINES[0] + torn + bytes(room))
        assert size_of(path) == len(self.LINES[0] + torn)
        assert bytes_of_others(tmp_path, besides="mine") in (0, size_of(path))
        log = FileLog(tmp_path, "dead")
        assert path.stat().st_size == log.appended == size_of(path)
        log.append(self.LINES[2])
        read = []
        while (found := log.peek()) is not None:
            read.append(found[1])
            log.advance()
        assert (read[0], read[-1]) == (self.LINES[0], self.LINES[2])
        log.close()

    def test_a_file_of_room_only_holds_nothing(self, tmp_path):
        path = tmp_path / "dead-000001.journal"
        path.write_bytes(bytes(300_000))
        assert size_of(path) == 0
        log = FileLog(tmp_path, "dead")
        assert (log.peek(), log.backlog, path.stat().st_size) == (None, 0, 0)
        log.close()

    def test_where_no_room_is_left_a_line_is_refused_and_nothing_of_it_stays(self, tmp_path, monkeypatch):
        log, reserve = FileLog(tmp_path, "one", room_bytes=100), os.posix_fallocate
        log.append(self.LINES[0])
        monkeypatch.setattr(os, "posix_fallocate", refusing_room(errno.ENOSPC))
        with pytest.raises(OSError, match="No space left"):
            for line in self.LINES[1:]:
                log.append(line)
        kept = [line for line, _ in read_lines(tmp_path, "one")]
        assert contents(tmp_path)["one-000001.journal"] == b"".join(kept)
        monkeypatch.setattr(os, "posix_fallocate", reserve)
        for line in self.LINES[len(kept) :]:
            log.append(line)
        assert [line for line, _ in read_lines(tmp_path, "one")] == list(self.LINES)
        log.close()

    @pytest.mark.parametrize(("module", "name"), [(os, "posix_fallocate"), (mmap, "mmap")])
    @pytest.mark.parametrize("at", [0, 3])
    def test_a_file_system_that_maps_nothing_is_written_to(self, tmp_path, monkeypatch, module, name, at):
        log = FileLog(tmp_path, "one", room_bytes=1)
        for number, line in enumerate(self.LINES):
            if number == at:
                monkeypatch.setattr(module, name, refusing_room(errno.ENODEV))
            log.append(line)
        assert contents(tmp_path)["one-000001.journal"] == b"".join(self.LINES)
        log.close()

    @pytest.mark.parametrize(
        ("system", "room"), [*((name, ROOM_BYTES) for name in IN_PLACE), *((name, 0) for name in ELSEWHERE)]
    )
    def test_room_is_reserved_only_where_it_is_kept(self, tmp_path, system, room):
        device = tmp_path.stat().st_dev
        mounts = tmp_path / "mountinfo"
        mounts.write_text(
            "22 27 0:999 / /proc rw,relatime - proc proc rw\n"
            f"43 27 {os.major(device)}:{os.minor(device)} / /a\\040b rw shared:1 - {system} /dev/x rw,ext4\n"
            f"44 27 {os.major(device)}:{os.minor(device)} / /later rw - ext4 /dev/x rw\n"
        )
        assert room_in(tmp_path, mounts=mounts) == room

    @pytest.mark.parametrize("listed", [None, "", "22 27 0:999 / /proc rw - ext4 x rw\n", "22\n", "\n"])
    def test_where_the_file_system_is_not_known_no_room_is_reserved(self, tmp_path, listed):
        if listed is not None:
            (tmp_path / "mountinfo").write_text(listed)
        assert room_in(tmp_path, mounts=tmp_path / "mountinfo") == 0

    def test_a_line_is_kept_in_its_room_without_a_call_of_the_system(self, tmp_path, monkeypatch):
        log = FileLog(tmp_path, "one", room_bytes=ROOM_BYTES)
        log.append(self.LINES[0])
        monkeypatch.setattr(os, "write", refusing_room(errno.EIO))
        for line in self.LINES[1:]:
            log.append(line)
        monkeypatch.undo()
        assert [line for line, _ in read_lines(tmp_path, "one")] == list(self.LINES)
        log.close()


class TestDisk:
    @pytest.fixture(autouse=True)
    def written(self, monkeypatch):
        """No room is reserved here: what a disk says comes with each line."""
        monkeypatch.setattr(os, "posix_fallocate", refusing_room(errno.EOPNOTSUPP))

    def test_a_disk_that_is_full_refuses_the_entry_and_leaves_no_half_line(
        self, tmp_path, core, authority, monkeypatch
    ):
        journal = journal_of(tmp_path)
        run(journal)
        write = os.write

        def half(descriptor, content):
            if b"entry" in content:
                return write(descriptor, content[:20])
            raise OSError(28, "No space left on device")

        whole = contents(tmp_path)
        monkeypatch.setattr(os, "write", half)
        with pytest.raises(JournalError):
            journal.enter(2, {**ENTRY, "id": "8"})
        assert contents(tmp_path) == whole
        journal.conclude(1, error=None, duration_ms=1)
        monkeypatch.setattr(os, "write", write)
        run(journal, {**ENTRY, "id": "9"})
        deliver_all(delivery_of(journal, core), authority)
        assert authority.said == [("complete", "7"), ("complete", "9")]
        journal.close(remove=True)

    def test_an_outcome_that_could_not_be_written_is_written_before_the_next_entry(
        self, tmp_path, core, authority, monkeypatch
    ):
        journal = journal_of(tmp_path)
        journal.enter(1, ENTRY)
        write = os.write
        monkeypatch.setattr(os, "write", lambda *_: 0)
        journal.conclude(1, error=None, duration_ms=1)
        monkeypatch.setattr(os, "write", write)
        run(journal, {**ENTRY, "id": "8"})
        deliver_all(delivery_of(journal, core), authority)
        assert authority.said == [("complete", "7"), ("complete", "8")]
        journal.close(remove=True)

    @pytest.mark.parametrize("power_safe", [True, False])
    def test_a_power_safe_entry_is_on_the_disk_when_it_is_said_to_be(self, tmp_path, monkeypatch, power_safe):
        """Its file, to its last byte, and the directory that names a new file; otherwise nobody waits for a disk."""
        synced, fsync = {}, os.fsync

        def watched(descriptor):
            fsync(descriptor)
            found = os.fstat(descriptor)
            synced[found.st_ino] = found.st_size

        monkeypatch.setattr(os, "fsync", watched)
        journal = journal_of(tmp_path, power_safe=power_safe, segment_bytes=400)
        for _ in range(8):
            known = set(tmp_path.glob("*.journal"))
            synced.pop(tmp_path.stat().st_ino, None)
            journal.enter(journal.next_number(), ENTRY)
            files = {path.stat().st_ino: path.stat().st_size for path in tmp_path.glob("*.journal")}
            is_new = set(tmp_path.glob("*.journal")) != known
            on_disk = {number: size for number, size in synced.items() if number in files}
            assert on_disk == (files if power_safe else {})
            assert (tmp_path.stat().st_ino in synced) == (is_new and power_safe)
        assert len(files) > 1
        journal.close(remove=True)

    def test_power_safe_entries_are_synced_together(self, tmp_path, monkeypatch):
        synced, fsync = [], os.fsync
        monkeypatch.setattr(os, "fsync", lambda descriptor: (synced.append(1), fsync(descriptor)))
        journal = journal_of(tmp_path, power_safe=True)
        assert journal.enter(1, ENTRY, wait=False) is False  # an event loop does not wait for a disk
        together(*[lambda: run(journal)] * 16)
        assert 1 <= len(synced) <= 34
        log = journal.log
        assert log._synced == log._written == 32
        journal.close(remove=True)

    @pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="open files cannot be counted here")
    def test_a_journal_keeps_no_file_open_for_what_lies_behind(self, tmp_path):
        """Not for a segment that is full, for what is set aside, or for the disk."""
        journal = journal_of(tmp_path, power_safe=True, segment_bytes=100)
        run(journal)
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(5):
            run(journal)
            journal.log.set_aside(b"x\n")
        assert len(list(tmp_path.glob("*.journal"))) > 2
        assert len(os.listdir("/proc/self/fd")) == before
        journal.close(remove=True)
        assert len(os.listdir("/proc/self/fd")) < before

    def test_it_is_its_owners_only(self, tmp_path):
        journal = journal_of(tmp_path / "j")
        run(journal)
        assert all(path.stat().st_mode & 0o077 == 0 for path in [tmp_path / "j", *(tmp_path / "j").iterdir()])
        journal.close(remove=True)

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
    def test_a_forked_child_writes_a_journal_of_its_own(self, tmp_path):
        journal = journal_of(tmp_path)
        run(journal)
        for does, left in ((lambda: journal.close(remove=True), 1), (lambda: run(journal), 2)):
            assert in_a_child(lambda does=does, left=left: (does(), len(names_of(tmp_path)) == left)[1])
            assert (tmp_path / f"{journal.process}-000001.journal").exists()
        assert sum(1 for _ in read_lines(tmp_path, journal.process)) == 2
        journal.close(remove=True)
        assert len(names_of(tmp_path)) == 1


class TestOpening:
    def test_a_directory_that_cannot_be_written_names_path_and_setting(self, tmp_path):
        (tmp_path / "file").write_text("")
        with pytest.raises(ConfigurationError, match=r"file/.*setting journal \(ASCEND_JOURNAL\)"):
            open_journal(Settings(journal=str(tmp_path / "file"), agent_id="bot"))

    @pytest.mark.parametrize("code", [errno.ENOSPC, errno.EOPNOTSUPP])
    def test_a_disk_that_is_full_is_told_at_once(self, tmp_path, monkeypatch, code):
        monkeypatch.setattr(os, "posix_fallocate", refusing_room(code))
        monkeypatch.setattr(os, "write", lambda *_: 0)
        with pytest.raises(ConfigurationError, match=r"setting journal \(ASCEND_JOURNAL\)"):
            open_journal(Settings(journal=str(tmp_path), agent_id="bot"))

    def test_where_it_is(self, tmp_path, monkeypatch):
        assert open_journal(Settings(journal="off")) is None
        assert directory_of(Settings(state="memory:")) is None
        assert directory_of(Settings(journal="memory:")) is None
        given = Settings(journal=str(tmp_path), agent_id="billing api/../x")
        directory = directory_of(given)
        assert directory.parent == tmp_path
        assert directory != directory_of(Settings(journal=str(tmp_path), agent_id="billing_api_.._x"))
        assert open_journal(given).directory == directory
        assert list(directory.iterdir()) == []
        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
        assert directory_of(Settings(state="redis://x")).is_relative_to(tmp_path / "state")


ENDING = """
import sys
from wsgiref.util import setup_testing_defaults
from ascend_middleware.wsgi import AscendMiddleware

def handler(environ, start_response):
    start_response("200 OK", [])
    return [b""]

app = AscendMiddleware(handler, rules={"rule": [{"match": "GET /", "action_type": "read"}]}, agent_id="bot",
    api_url=sys.argv[1], api_key="owkai_test_0123456789abcdef", kill_switch="off", state="memory:", journal="memory:")
for _ in range(5):
    setup_testing_defaults(environ := {})
    for _ in app(environ, lambda status, headers, error=None: None):
        pass
"""


def test_a_process_that_ends_by_itself_delivers_first_what_is_in_its_memory_only():
    """A server of WSGI, or without lifespan, closes nothing."""

    class Slow(AuthorityStub):
        def post(self, path, body, key):
            if not path.endswith("/submit"):
                time.sleep(0.05)
            return super().post(path, body, key)

    authority = Slow()
    done = python("-c", ENDING, authority.url)
    authority.stop()
    assert (done.returncode, done.stderr) == (0, "")
    assert list(authority.outcomes.values()) == [["completed"]] * 5


def test_a_lock_is_this_processs_once(tmp_path):
    first = FileLock.take(tmp_path / "a.lock")
    assert FileLock.take(tmp_path / "a.lock") is None
    assert FileLock.take(tmp_path / "b.lock", create=False) is None
    first.release(remove=False)
    assert in_a_child(lambda: FileLock.take(tmp_path / "a.lock", create=False))
    FileLock.take(tmp_path / "a.lock", create=False).release(remove=True)
    assert not (tmp_path / "a.lock").exists()


def test_a_line_tells_whether_it_is_whole():
    line = seal(b'{"k": "entry"}')
    assert decode_line(line) == {"k": "entry"}
    for damaged in (line[:-3], b"0" + line[1:], b"x\n", b"\n", seal(b"[]"), seal(b"nonsense")):
        assert decode_line(damaged) is None
    assert MemoryLog().peek() is None


def test_a_name_that_somebody_locks_is_told_apart_and_another_is_taken(tmp_path):
    """A background worker that sweeps may lock a file just made: the journal then opens under another name, and goes by that."""
    held = FileLog(tmp_path, "name")
    with pytest.raises(FileExistsError, match="in use"):
        FileLog(tmp_path, "name")
    held.close(remove=True)
    journal = Journal(tmp_path)
    assert journal.log.name == journal.process
    journal.close(remove=True)
