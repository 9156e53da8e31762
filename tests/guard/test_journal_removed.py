"""Files of a journal that somebody removes under a running process: what stands in them is kept, or told to be lost."""

import shutil

import pytest
from kit.processes import in_a_child
from test_journal import NOW, Authority, contents, core, deliver_all, delivery_of, journal_of, run, seal
from test_keeper import Kept

from ascend_middleware.fork import FileLock
from ascend_middleware.journal.delivery import Delivery
from ascend_middleware.journal.files import read_lines
from ascend_middleware.journal.journal import JournalError
from ascend_middleware.journal.recovery import adopt, names_of

__all__ = ["core"]  # a fixture

LINES = [seal(b'{"k":"entry","n":%d}' % number) for number in range(10)]


def everything(directory):
    shutil.rmtree(directory)


def only(pattern):
    def remove(directory):
        for path in directory.glob(pattern):
            path.unlink()

    return remove


def replaced(directory):
    for path in [*directory.iterdir()]:
        path.unlink()
        path.write_bytes(b"another's")


REMOVED = {
    "everything": everything,
    "the lines": only("*.journal"),
    "the lock": only("*.lock"),
    "what was taken": only("*.progress"),
    "by others": replaced,
}


@pytest.mark.parametrize("power_safe", [False, True], ids=["mapped", "written"])
@pytest.mark.parametrize("remove", REMOVED.values(), ids=REMOVED)
def test_what_was_written_is_there_again_and_outlives_the_process(tmp_path, core, caplog, remove, power_safe):
    directory, authority = tmp_path / "j", Authority()
    journal = journal_of(directory, power_safe=power_safe)
    run(journal)
    deliver_all(delivery_of(journal, core), authority)
    number = journal.next_number()
    journal.enter(number, {"id": "8", "how": "allowed", "rule": "r", "agent": "bot"})
    remove(directory)
    run(journal, {"id": "9", "how": "allowed", "rule": "r", "agent": "bot"})  # nobody has noticed
    journal.look()
    assert "were removed or replaced; they are there again" in caplog.text
    journal.conclude(number, error="x", duration_ms=1)
    run(journal, {"id": "10", "how": "allowed", "rule": "r", "agent": "bot"})
    said = len(caplog.records)
    journal.look()
    assert len(caplog.records) == said
    assert names_of(directory) == [journal.process]
    assert in_a_child(lambda: FileLock.take(directory / f"{journal.process}.lock") is None)
    lines = [was_taken for _, was_taken in read_lines(directory, journal.process)]
    assert lines == [True] * 2 + [False] * 6
    # As if the process had died: nothing is told twice, and nothing is missing.
    journal.log._process_lock.release()
    adopt(directory, core=core, state=None, perform=authority, now=lambda: NOW)
    assert sorted(authority.said) == [("complete", "10"), ("complete", "7"), ("complete", "9"), ("fail", "8")]
    journal.close(remove=True)


def test_what_cannot_be_put_back_refuses_until_it_can(tmp_path, caplog):
    directory = tmp_path / "j"
    journal = journal_of(directory)
    run(journal)
    everything(directory)
    directory.write_text("in its place")
    journal.look()
    assert "cannot be put back, actions are refused" in caplog.text
    with pytest.raises(JournalError):
        run(journal)
    journal.conclude(1, error=None, duration_ms=1)  # is kept for later
    directory.unlink()
    journal.look()
    run(journal)
    assert sum(1 for _ in read_lines(directory, journal.process)) == 5
    journal.close(remove=True)


def test_of_earlier_segments_that_are_gone_it_is_told_how_much_is_lost(tmp_path, core, caplog):
    journal, authority = journal_of(tmp_path, segment_bytes=len(LINES[0]) * 3), Authority()
    for line in LINES:
        journal.log.append(line)
    assert [line for line, _ in journal.log.ahead(1)] == LINES[:1]  # what was read ahead is not lost
    first, second, *_ = sorted(contents(tmp_path))
    for name in (first, second):
        (tmp_path / name).unlink()
    journal.look()
    assert f"without {len(LINES[0]) * 3} bytes of earlier lines" in caplog.text
    taken = Delivery(journal.log, process=journal.process, core=core, now=lambda: NOW)
    deliver_all(taken, authority)
    assert taken.open_entries == 7 and journal.backlog == 0
    journal.close(remove=True)


def test_the_worker_looks_each_second_also_while_the_authority_is_away(tmp_path):
    kept = Kept()
    kept.worker._journal = kept.journal = journal_of(tmp_path / "j")
    kept.run()
    kept.turns(20)
    everything(tmp_path / "j")
    kept.turns(1)
    assert names_of(tmp_path / "j") == [kept.journal.process]
    kept.journal.close(remove=True)
