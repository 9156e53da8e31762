"""One writer: what is written together stands or falls together, and nothing is told before it is durable."""

import contextlib
import json
import shutil
import threading

import pytest
from kit.databases import behind

from ascend_middleware.authority import Store
from ascend_middleware.authority.store import audit
from ascend_middleware.authority.store.audit import Head, entries, head
from ascend_middleware.authority.store.schema import SQLITE
from ascend_middleware.authority.store.verification import verify
from ascend_middleware.exceptions import AscendError, ConfigurationError, StorageError
from ascend_middleware.sqlite import open_database

file = pytest.mark.sqlite_file


@pytest.fixture
def path(engine_kind, new_place, tmp_path):
    """Where a database is, a file or a URL."""
    return tmp_path / "a.db" if engine_kind == "sqlite" else new_place()


@pytest.fixture
def store(store_of, path):
    return store_of(path, now=lambda: 1_700_000_000.0)


def note(store, event="E", **data):
    store.audit(event, tenant="t", actor="a", data=data)


def events(store):
    return [entry["event"] for entry in entries(store)]


def test_a_group_is_one_commit_and_its_parts_stand_alone(path, store, store_of):
    other = store_of(path, now=lambda: 0.0)
    told = []
    with store.group():
        with store.write():
            note(store, "first")
            store.after_commit(lambda: told.append("first"))
        with pytest.raises(ZeroDivisionError), store.write():
            note(store, "undone")
            store.after_commit(lambda: told.append("undone"))
            raise ZeroDivisionError
        with store.write():
            note(store, "second")
            assert events(store) == ["first", "second"]  # the writer sees its own transaction
        assert events(other) == [] and told == []
    assert events(other) == ["first", "second"] and told == ["first"]
    assert verify(store).whole


def test_a_group_that_fails_keeps_nothing(store):
    told = []
    with pytest.raises(ZeroDivisionError), store.group():
        note(store)
        store.after_commit(lambda: told.append("told"))
        raise ZeroDivisionError
    note(store, "later")
    assert events(store) == ["later"] and told == []


def test_a_group_without_changes_takes_no_lock(path, store, store_of):
    other = store_of(path, now=lambda: 0.0)
    with other.write():
        note(other)
        with store.group():
            assert events(store) == []


@file
def test_a_transaction_undone_by_the_database_is_no_success(store):
    """SQLite may undo the whole transaction when one statement fails; earlier parts must not pass for kept."""
    with pytest.raises(StorageError, match="undid"), store.group():
        with store.write():
            note(store, "first")
        store.engine.connection.execute("ROLLBACK")  # as a full disk does
        with pytest.raises(StorageError, match="undid"), store.write():
            note(store, "second")
    assert events(store) == []
    note(store)
    assert verify(store).whole


def test_groups_do_not_nest_and_changes_need_a_transaction(store):
    with store.group(), pytest.raises(RuntimeError), store.group():
        pass
    with store.write(), pytest.raises(RuntimeError), store.group():
        pass
    with pytest.raises(RuntimeError, match="within write"):
        store.execute("DELETE FROM answers")


def test_readers_are_not_held_up_by_a_writer(store):
    note(store, "kept")
    seen = []
    with store.write():
        note(store, "coming")
        reader = threading.Thread(target=lambda: seen.append(events(store)))
        reader.start()
        reader.join(10)
    assert seen == [["kept"]]


@file
def test_what_is_done_in_the_background_comes_one_by_one_and_asks_whether_a_decision_waits(store):
    asked, going = [], threading.Event()

    def urgent():
        asked.append(threading.current_thread())
        going.wait(30)
        return False

    def forget():
        store.aside("UPDATE revision SET n = n + 1 RETURNING n")

    store.urgent, before = urgent, store.revision()
    threads = [threading.Thread(target=forget) for _ in range(4)]
    for thread in threads:
        thread.start()
    while not asked:
        threads[0].join(0.01)
    threads[0].join(0.05)
    assert len(asked) == 1 and store.revision() == before
    # Meanwhile the lock is free for what is decided.
    note(store, "decided")
    going.set()
    for thread in threads:
        thread.join(30)
    assert {*asked} == {*threads} and store.revision() == before + 4


def test_readers_cannot_write(store):
    with store.reading() as reader, pytest.raises(StorageError):
        reader.rows("DELETE FROM keys")


@file
def test_a_full_database_refuses_and_recovers(store):
    note(store)
    pages = store.engine.connection.execute("PRAGMA page_count").fetchone()[0]
    store.engine.connection.execute(f"PRAGMA max_page_count={pages + 1}")
    with pytest.raises(StorageError, match="full"):
        for _ in range(20):
            note(store, filler="x" * 4000)
    assert verify(store).whole
    store.engine.connection.execute("PRAGMA max_page_count=100000")
    note(store, "after")
    assert events(store)[-1] == "after" and verify(store).whole


@file
def test_a_file_that_becomes_read_only_refuses(store):
    note(store)
    store.engine.connection.execute("PRAGMA query_only=ON")
    with pytest.raises(StorageError, match="readonly"):
        note(store)
    with pytest.raises(StorageError, match="readonly"), store.group(), store.write():
        note(store)
    store.engine.connection.execute("PRAGMA query_only=OFF")
    note(store)
    assert verify(store).entries == 2


@file
def test_a_backup_is_one_whole_state_while_the_database_is_in_use(path, store, tmp_path):
    for number in range(50):
        note(store, number=number)
    stop = threading.Event()

    def write_on():
        while not stop.is_set():
            note(store, "meanwhile")

    writer = threading.Thread(target=write_on)
    writer.start()
    try:
        size = store.backup(tmp_path / "copy.db")
    finally:
        stop.set()
        writer.join()
    assert size > 0 and sorted(p.name for p in tmp_path.iterdir() if "copy" in p.name) == ["copy.db"]
    assert (tmp_path / "copy.db").stat().st_mode & 0o077 == 0
    copy = Store.open(tmp_path / "copy.db", now=lambda: 0.0, create=False)
    assert verify(copy).whole and len(events(copy)) >= 50
    copy.close()
    with pytest.raises(AscendError, match="exists already"):
        store.backup(tmp_path / "copy.db")
    with pytest.raises(AscendError, match="cannot be written"):
        store.backup(tmp_path / "none" / "copy.db")


@file
def test_a_database_of_the_first_version_gets_its_head(path):
    old = open_database(path, migrations=SQLITE[:1])
    previous = "0" * 64
    for seq in (1, 2):
        entry = audit.canonical_json({"seq": seq, "tenant": "t", "action_id": None, "event": "E", "data": {}})
        digest = audit.chained(previous, entry)
        old.execute("INSERT INTO audit VALUES (?, ?, 't', NULL, ?, ?)", (seq, entry, previous, digest))
        previous = digest
    old.close()
    store = Store.open(path, now=lambda: 0.0)
    assert head(store) == Head(2, previous)
    note(store)
    assert verify(store).whole and verify(store).entries == 3
    store.close()


# --- a file that loses its name


def moved(path, target):
    for suffix in ("", "-wal", "-shm"):
        (path.parent / f"{path.name}{suffix}").rename(target.parent / f"{target.name}{suffix}")


def replaced(path):
    moved(path, path.with_name("old.db"))
    other = Store.open(path, now=lambda: 0.0)
    note(other, "theirs")
    return other


LOSSES = {
    "moved away": lambda path: moved(path, path.with_name("old.db")),
    "deleted": lambda path: [file.unlink() for file in path.parent.glob("a.db*")],
    "replaced": replaced,
    "emptied": lambda path: path.write_bytes(b""),
    "its log deleted": lambda path: path.with_name("a.db-wal").unlink(),
}


@file
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("when", ["before", "while it is written"])
@pytest.mark.parametrize("together", [False, True])
def test_what_went_to_a_file_without_its_name_is_told_to_nobody(path, store, loss, when, together):
    note(store, "kept")
    told, other = [], None
    with pytest.raises(StorageError, match=r"a\.db was moved away, deleted, replaced or emptied"):
        if when == "before":
            other = LOSSES[loss](path)
        with store.group() if together else contextlib.nullcontext(), store.write():
            note(store)
            store.after_commit(lambda: told.append("told"))
            if when != "before":
                other = LOSSES[loss](path)
    assert told == []
    before = sorted(path.parent.iterdir())
    for look in (store.probe, lambda: events(store), lambda: note(store)):
        with pytest.raises(StorageError, match="moved away"):
            look()
    assert sorted(path.parent.iterdir()) == before  # no empty file takes its place
    if loss == "replaced":
        assert events(other) == ["theirs"]
        other.close()


@file
def test_a_file_that_is_put_back_is_used_again(path, store):
    moved(path, path.with_name("old.db"))
    with pytest.raises(StorageError):
        store.probe()
    moved(path.with_name("old.db"), path)
    store.probe()
    note(store, "after")
    assert events(store) == ["after"] and verify(store).whole


@file
def test_a_log_without_its_database_is_not_overwritten_by_a_new_one(path, store):
    note(store, "only in the log")
    for suffix in ("", "-wal"):
        shutil.copy(f"{path}{suffix}", path.with_name(f"copy.db{suffix}"))
    lost = path.with_name("copy.db")
    lost.rename(path.with_name("away.db"))
    with pytest.raises(ConfigurationError, match="Put the file back"):
        Store.open(lost, now=lambda: 0.0)
    path.with_name("away.db").rename(lost)
    again = Store.open(lost, now=lambda: 0.0)
    assert events(again) == ["only in the log"]
    again.close()


@file
def test_the_working_directory_may_change(path, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    store = Store.open("a.db", now=lambda: 0.0)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    note(store)
    store.probe()
    assert events(store) == ["E"] and not list((tmp_path / "elsewhere").iterdir())
    store.close()


@file
def test_a_look_leaves_the_patience_of_decisions_as_it_was(path, store):
    store.probe()
    assert store.engine.connection.execute("PRAGMA busy_timeout").fetchone()[0] == 5000


# --- what the verification finds


@pytest.fixture
def tampered(store):
    for number in range(1, 11):
        note(store, f"E{number}")

    def tamper(*statements):
        behind(store, *statements, guarded=False)
        return [(finding.seq, finding.kind) for finding in verify(store).findings]

    return tamper


def test_a_whole_log(store):
    assert verify(store).whole and str(verify(store).head) == f"0:{'0' * 64}"
    note(store)
    assert (verify(store).entries, verify(store).head) == (1, head(store))


@pytest.mark.parametrize(
    ("statements", "findings"),
    [
        (["UPDATE audit SET entry = replace(entry, 'E4', 'E5') WHERE seq = 4"], [(4, "changed")]),
        (["UPDATE audit SET entry = 'nonsense' WHERE seq = 4"], [(4, "changed")]),
        (["UPDATE audit SET tenant = 'u' WHERE seq = 4"], [(4, "changed")]),
        (["UPDATE audit SET hash = previous WHERE seq = 10"], [(10, "changed")]),
        (["DELETE FROM audit WHERE seq BETWEEN 5 AND 7"], [(5, "removed")]),
        (["DELETE FROM audit WHERE seq = 1"], [(1, "removed")]),
        (["DELETE FROM audit WHERE seq > 8"], [(9, "removed")]),
        (["DELETE FROM audit"], [(1, "removed")]),
        (
            [f"UPDATE audit SET seq = {to} WHERE seq = {at}" for at, to in ((4, 99), (5, 4), (99, 5))],
            [(4, "reordered"), (5, "reordered")],
        ),
        (["UPDATE audit_head SET seq = 8"], [(9, "inserted")]),
        (["DELETE FROM audit_head"], [(10, "head")]),
        (
            ["UPDATE audit SET entry = 'x' WHERE seq = 2", "DELETE FROM audit WHERE seq = 9"],
            [(2, "changed"), (9, "removed")],
        ),
    ],
)
def test_what_was_done_to_a_log_is_found_and_named(tampered, statements, findings):
    assert tampered(*statements) == findings


def rechained(store, seq, event):
    """Rewrite one entry and everything after it, head included, as whoever owns the database can."""
    rows = store.rows("SELECT seq, entry, previous FROM audit WHERE seq >= ? ORDER BY seq", (seq,))
    previous, statements = rows[0]["previous"], []
    for row in rows:
        entry = json.loads(row["entry"])
        if row["seq"] == seq:
            entry["event"] = event
        text = audit.canonical_json(entry)
        digest = audit.chained(previous, text)
        new = f"entry = '{text}', previous = '{previous}', hash = '{digest}'"
        statements.append(f"UPDATE audit SET {new} WHERE seq = {row['seq']}")
        previous = digest
    behind(store, *statements, f"UPDATE audit_head SET hash = '{previous}'", guarded=False)


def test_a_log_made_anew_is_found_by_a_head_kept_elsewhere(store, tampered):
    noted = head(store)
    note(store, "E11")
    assert verify(store, known=(noted,)).whole
    rechained(store, 4, "FORGED")
    assert verify(store).whole  # nothing inside the file can tell
    assert [(f.seq, f.kind) for f in verify(store, known=(noted,)).findings] == [(10, "changed")]


def test_a_truncated_log_stays_truncated(store, tampered):
    tampered("DELETE FROM audit WHERE seq > 8")
    note(store, "E11")
    assert [(f.seq, f.message) for f in verify(store).findings] == [(9, "entries 9 to 10 were removed")]


def test_a_noted_head_beyond_the_end(store):
    note(store)
    gone = Head(7, "a" * 64)
    assert [(f.seq, f.kind) for f in verify(store, known=(gone,)).findings] == [(2, "removed")]


def test_heads_are_read_strictly():
    assert Head.parse(f" 7:{'a' * 64}\n") == Head(7, "a" * 64)
    for text in ("", "7", "7:a", f"x:{'a' * 64}", f"7:{'G' * 64}", f"٧:{'a' * 64}", f"²:{'a' * 64}", f"7:{'a' * 65}"):
        with pytest.raises(ValueError, match="expected NUMBER:HASH"):
            Head.parse(text)


def test_the_last_entry_replaced_with_a_fitting_hash_is_found(store):
    for number in (1, 2, 3):
        note(store, f"E{number}")
    row = store.rows("SELECT * FROM audit WHERE seq = 3")[0]
    entry = row["entry"].replace("E3", "E9")
    new = f"entry = '{entry}', hash = '{audit.chained(row['previous'], entry)}'"
    behind(store, f"UPDATE audit SET {new} WHERE seq = 3", guarded=False)
    (found,) = verify(store).findings
    assert (found.seq, found.kind) == (3, "changed") and "recorded as the last" in found.message


def test_from_a_verified_head_on_only_what_follows_is_read(store, tampered):
    noted = verify(store).head
    for number in (11, 12):
        note(store, f"E{number}")
    found = verify(store, start=noted)
    assert (found.whole, found.entries, found.head.seq) == (True, 3, 12)
    assert tampered("UPDATE audit SET entry = 'x' WHERE seq IN (4, 11)") == [(4, "changed"), (11, "changed")]
    assert [(f.seq, f.kind) for f in verify(store, start=noted).findings] == [(11, "changed")]
    other = Head(noted.seq, "a" * 64)
    assert [f.seq for f in verify(store, start=other).findings] == [10, 11]
