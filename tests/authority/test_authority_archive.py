"""What is old goes into archives: nothing is lost or there twice, and the log is whole with them and without them."""

import asyncio
import contextlib
import gzip
import json
import os
import shutil
import signal

import pytest
from kit.databases import change, keep
from kit.desk import POLICY, Desk
from kit.forger import Forger

from ascend_middleware.authority import parse_policy
from ascend_middleware.authority.retention import Retirement
from ascend_middleware.authority.store import archiver as module
from ascend_middleware.authority.store import audit
from ascend_middleware.authority.store.archiver import Archiver
from ascend_middleware.authority.store.archives import as_numbers, as_ranges, write_archive
from ascend_middleware.authority.store.audit import Head, iso_time
from ascend_middleware.authority.store.database import Database
from ascend_middleware.authority.store.store import Store
from ascend_middleware.authority.store.verification import verify
from ascend_middleware.cli import main
from ascend_middleware.exceptions import AscendError, ConfigurationError, ConflictError, StorageError

DAY = 86_400.0
DENIED, PENDING, APPROVED = "database_schema", "transaction", "data_access"


def fill(desk, rounds=10):
    """Submit denied, pending and approved actions; of the approved ones every second is reported."""
    for number in range(rounds):
        desk.submit(DENIED)
        desk.submit(PENDING, amount=5000)
        _, answer = desk.submit(APPROVED)
        if number % 2:
            desk.post(f"/api/agent-action/{answer['id']}/complete", {"result": {"n": number}})
    desk.post("/api/v1/actions/2/approve", {"comments": "fine"}, key="admin")
    desk.post("/api/agent-action/2/complete", {})
    desk.time += 40 * DAY
    desk.submit(APPROVED)


@pytest.fixture
def small(monkeypatch):
    """Make the files and the parts small, so that there are some of each."""
    monkeypatch.setattr(module, "_ACTIONS_IN_FILE", 7)
    monkeypatch.setattr(module, "_ENTRIES_IN_FILE", 20)
    monkeypatch.setattr(module, "_AT_ONCE", 3)
    monkeypatch.setattr(module, "_READ_AT_ONCE", 2)


@pytest.fixture
def old(desk_of, database, tmp_path, small):
    """An authority on either engine with actions that are forty days old, and its policy file."""
    (tmp_path / "policy.toml").write_text(POLICY)
    desk = desk_of(path=database)
    fill(desk)
    desk.folder = tmp_path / "archive"
    desk.folder.mkdir()
    return desk


def archive(desk, *, before=20 * DAY, **options):
    moment = iso_time(desk.time - before)
    return list(Archiver(desk.store, desk.folder, **options).run(actions=moment, audit=moment))


def stored(desk):
    return {row["id"]: dict(row) for row in desk.store.rows("SELECT * FROM actions")}


def lines(desk, kind):
    """Return what the files of a kind hold, as far as an entry names them."""
    rows = desk.store.rows("SELECT name FROM archives WHERE kind = ? AND state <> 'planned' ORDER BY first", (kind,))
    return [
        json.loads(line)
        for row in rows
        for line in gzip.decompress((desk.folder / row["name"]).read_bytes()).splitlines()
    ]


def test_old_actions_and_entries_go_into_files_and_nothing_is_lost(old):
    before, log = stored(old), [tuple(row) for row in old.store.rows("SELECT * FROM audit ORDER BY seq")]
    made = archive(old)
    assert [one.kind for one in made] == ["actions"] * 3 + ["audit"] * 3
    archived, left = lines(old, "actions"), stored(old)
    assert sorted([*left, *(row["id"] for row in archived)]) == sorted(before)
    for row in archived:
        assert {**row, "approvals": []} == {**before[row["id"]], "approvals": []}
    # What waits, or whose outcome is not known, stays; and so does what is new.
    assert {row["status"] for row in left.values()} == {"pending", "approved"} and max(before) in left
    assert not [row for row in left.values() if row["outcome"]]
    entries = lines(old, "audit")
    assert [
        tuple(row[name] for name in ("seq", "entry", "tenant", "action_id", "previous", "hash")) for row in entries
    ] == [row for row in log if row[0] <= made[-1].last]


def test_the_log_is_whole_with_the_archives_and_without_them(old):
    noted, early = verify(old.store).head, Head(5, old.store.rows("SELECT hash FROM audit WHERE seq = 5")[0][0])
    made = archive(old)
    alone = verify(old.store)
    assert alone.whole and alone.archived == made[-1].last
    both = verify(old.store, archive=old.folder, known=(noted, early))
    assert both.whole and both.archived == 0 and both.entries == both.head.seq
    assert verify(old.store, start=noted).whole
    # What is archived cannot be compared without the archives.
    assert [one.kind for one in verify(old.store, known=(early,)).findings] == ["archived"]
    assert verify(old.store, archive=old.folder, start=early).whole


def test_an_action_that_stays_keeps_its_trail(old):
    archive(old)
    status, answer = old.get("/api/v1/actions/3")
    assert status == 200 and [one["event"] for one in answer["audit_trail"]] == ["ACTION_SUBMITTED"]
    assert old.get("/api/v1/actions/1")[0] == 404
    # Once it is finished and old, it goes with its entries.
    old.post("/api/agent-action/3/complete", {})
    old.time += 60 * DAY
    archive(old)
    assert not old.store.rows("SELECT 1 FROM audit WHERE action_id = 3")
    assert verify(old.store).whole and verify(old.store, archive=old.folder).whole


def test_what_nobody_told_an_outcome_of_goes_too_if_that_is_said(old):
    moment = iso_time(old.time - 20 * DAY)
    archiver = Archiver(old.store, old.folder)
    # Not before its own time, and what waits not at all.
    early = iso_time(old.time - 60 * DAY)
    made = list(archiver.run(actions=moment, audit=None, without_outcome=early))
    unknown = {number for number, row in stored(old).items() if row["status"] == "approved"}
    assert len(unknown) == 6 and not [data for _, data in old.audit() if "without_outcome" in data]
    made = list(archiver.run(actions=moment, audit=moment, without_outcome=moment))
    (told,) = [data for _, data in old.audit() if "without_outcome" in data]
    numbers = [n for first, last in as_numbers(told["without_outcome"]) for n in range(first, last + 1)]
    assert numbers == sorted(unknown - {max(unknown)}) and made[0].rows == 5
    assert {row["status"] for row in stored(old).values()} == {"pending", "approved"}
    assert verify(old.store).whole and verify(old.store, archive=old.folder).whole
    assert old.post(f"/api/agent-action/{numbers[0]}/complete", {})[0] == 404


def test_an_outcome_that_is_told_meanwhile_is_archived_with_its_action(old):
    moment, told = iso_time(old.time - 20 * DAY), []

    def pause():
        if not told:
            told.append(old.post("/api/agent-action/3/complete", {}))

    list(Archiver(old.store, old.folder, pause=pause).run(actions=moment, audit=None, without_outcome=moment))
    assert told[0][0] == 200 and stored(old)[3]["outcome"]  # it is new again
    assert verify(old.store).whole and verify(old.store, archive=old.folder).whole


def test_what_is_counted_stays(old):
    paths = {"/api/analytics/executive/dashboard": "days=90", "/api/analytics/trends": "days=90"}
    before = [old.get(path, query=query, key="admin") for path, query in paths.items()]
    archive(old)
    assert [old.get(path, query=query, key="admin") for path, query in paths.items()] == before


def test_nothing_is_archived_before_a_subscriber_was_told(old):
    hook = {"target_url": "https://hooks.example.com/a", "event_types": ["action.denied"]}
    assert old.post("/api/webhooks", hook, key="admin")[0] == 201
    assert archive(old) == []
    old.store.rows("SELECT 1")
    with old.store.write():
        old.store.execute("UPDATE webhook_scan SET seq = 12")
    made = archive(old)
    assert made[-1].kind == "audit" and made[-1].last == 12


def test_a_second_run_finds_nothing_more_and_one_runs_at_a_time(old):
    archive(old)
    assert archive(old) == []
    running = Archiver(old.store, old.folder).run(actions=iso_time(old.time), audit=None)
    old.submit(DENIED)
    old.time += 1
    running = Archiver(old.store, old.folder).run(actions=iso_time(old.time), audit=None)
    assert next(running).rows == 1
    with pytest.raises(ConflictError, match="another process"):
        archive(old)
    old.time += 60  # as if it had been killed
    assert archive(old) == []


# --- what is not as it was


def test_what_was_tampered_with_is_not_archived(old, database):
    change(database, "UPDATE actions SET submission = '{}' WHERE id = 1")
    with pytest.raises(AscendError, match="audit verify"):
        archive(old)
    assert not list(old.folder.iterdir()) or stored(old)[1]


def test_a_tampered_entry_is_not_archived(old, database):
    change(database, "UPDATE audit SET entry = replace(entry, 'KEY', 'kEY') WHERE seq = 2")
    with pytest.raises(AscendError, match="entry 2 is not what was written"):
        list(Archiver(old.store, old.folder).run(actions=None, audit=iso_time(old.time - 20 * DAY)))
    assert old.store.rows("SELECT count(*) FROM audit WHERE seq < 10")[0][0] == 9


@pytest.mark.parametrize("kind", ["actions", "audit"])
def test_a_changed_or_missing_file_is_found(old, kind):
    made = archive(old)
    path = old.folder / next(one.file for one in made if one.kind == kind)
    content = path.read_bytes()
    path.write_bytes(gzip.compress(gzip.decompress(content).replace(b"default", b"defauLt", 1)))
    assert "was changed" in verify(old.store, archive=old.folder).findings[0].message
    path.unlink()
    assert "cannot be read" in verify(old.store, archive=old.folder).findings[0].message
    path.write_bytes(content)
    assert verify(old.store, archive=old.folder).whole


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("DELETE FROM archives WHERE kind = 'audit'", "entries 1 to"),
        ("UPDATE archives SET last = last + 1 WHERE seq = (SELECT max(seq) FROM archives)", "name"),
        ("DELETE FROM audit WHERE seq = (SELECT max(last) + 1 FROM archives WHERE kind = 'audit')", "removed"),
        ("UPDATE audit SET entry = replace(entry, 'ACTION', 'aCTION') WHERE action_id = 3", "changed"),
        ("DELETE FROM actions WHERE id = 3", "3 is gone"),
    ],
)  # fmt: skip
def test_what_is_removed_beside_the_archives_is_found(old, database, statement, words):
    archive(old)
    change(database, statement)
    assert words in " ".join(one.message for one in verify(old.store).findings)


REFUSED = {
    "an entry after the archives": "DELETE FROM audit WHERE seq = (SELECT max(last) + 1 FROM archives WHERE kind = 'audit')",
    "an entry of an action that is there": "DELETE FROM audit WHERE action_id = 3",
    "any change": "UPDATE audit SET entry = '{}' WHERE action_id = 3",
    "a change that says it erases": """UPDATE audit SET entry = '{"erased": 99}' WHERE action_id = 3""",
    "what was planned is named anew": "UPDATE archives SET seq = 7",
    "a file is forgotten": "DELETE FROM archives",
}


def rewritten(forger, folder, change):
    """Write an archive of actions anew, and have an entry name it that is appended to the log."""
    name, seq = forger.rows("SELECT name, seq FROM archives WHERE kind = 'actions' ORDER BY first")[0]
    rows = [json.loads(line) for line in gzip.decompress((folder / name).read_bytes()).splitlines()]
    rows = change(rows)
    digest, count = write_archive(folder / name, rows)
    (text,) = forger.rows("SELECT entry FROM audit WHERE seq = ?", seq)[0]
    data = {
        **json.loads(text)["data"],
        "sha256": digest,
        "actions": count,
        "ids": as_ranges([row["id"] for row in rows]),
    }
    forger.append("ACTIONS_ARCHIVED", data, action_id=None)
    forger.change("UPDATE archives SET seq = ?, sha256 = ? WHERE name = ?", forger.last, digest, name)


def other_archived_submission(forger, folder):
    rewritten(forger, folder, lambda rows: [{**rows[0], "submission": '{"resource":"the weather"}'}, *rows[1:]])


def other_archived_decision(forger, folder):
    rewritten(forger, folder, lambda rows: [{**row, "status": "approved"} for row in rows])


def other_archived_approval(forger, folder):
    rewritten(forger, folder, lambda rows: [{**row, "approvals": [{"approver": "x", "at": ""}]} for row in rows])


def one_archived_action_less(forger, folder):
    rewritten(forger, folder, lambda rows: rows[1:])


def archived_before_its_time(forger, folder):
    """An action that is there is taken away, and an entry says that it is archived."""
    forger.change("DELETE FROM actions WHERE id = 5")
    data = {"file": "actions-5-5-0.jsonl.gz", "first": 5, "last": 5, "actions": 1, "ids": "5"}
    digest, _ = write_archive(folder / data["file"], [])
    forger.append("ACTIONS_ARCHIVED", {**data, "sha256": digest}, action_id=None)
    row = (data["file"], "actions", 5, 5, "done", forger.last, digest)
    forger.change("INSERT INTO archives (name, kind, first, last, state, seq, sha256) VALUES (?,?,?,?,?,?,?)", *row)


def a_file_that_was_replaced_by_none(forger, folder):
    (name,) = forger.rows("SELECT name FROM archives WHERE kind = 'actions' ORDER BY first")[0]
    (folder / name).unlink()
    forger.change("UPDATE archives SET state = 'replaced' WHERE name = ?", name)


def a_file_that_is_forgotten(forger, folder):
    (name,) = forger.rows("SELECT name FROM archives WHERE kind = 'actions' ORDER BY first")[0]
    (folder / name).unlink()
    forger.change("DELETE FROM archives WHERE name = ?", name)


COLUMNS = ("name", "kind", "first", "last", "state", "seq", "sha256")
HIDING = (
    other_archived_submission,
    other_archived_decision,
    other_archived_approval,
    one_archived_action_less,
    archived_before_its_time,
    a_file_that_was_replaced_by_none,
    a_file_that_is_forgotten,
)


@pytest.mark.parametrize("state", ["planned", "named", "done"])
@pytest.mark.parametrize("name", ["precious.txt", "../precious.txt", "{absolute}"])
def test_the_database_chooses_no_file_of_the_machine(old, name, state):
    """Who may write the database, perhaps on another machine, deletes and reads nothing by the names in it."""
    for precious in (old.folder / "precious.txt", old.folder.parent / "precious.txt"):
        precious.write_text("a word of somebody else")
    row = (name.format(absolute=precious), "audit", 1, 1, state, 1, "0" * 64)
    with old.store.write():
        old.store.insert("archives", dict(zip(COLUMNS, row, strict=True)))
    with pytest.raises(AscendError, match="see `audit verify`" if state == "done" else "no name of one"):
        archive(old)
    assert precious.exists() and (old.folder / "precious.txt").exists()
    found = verify(old.store, archive=old.folder)
    assert state == "planned" or "no name of one" in str(found.findings)


@pytest.mark.parametrize("kind", ["actions", "audit"])
def test_an_archive_is_removed_only_for_one_that_lost_personal_data_and_nothing_else(old, database, kind):
    """Whoever appends to the log that another file takes its place has nothing removed by that."""
    archive(old)
    (row,) = old.store.rows("SELECT * FROM archives WHERE kind = ? ORDER BY first LIMIT 1", (kind,))
    other = f"{kind}-{row['first']}-{row['last']}-00000000.jsonl.gz"
    rows = lines(old, kind)[: 7 if kind == "actions" else 20]
    forged = [{**rows[0], "submission" if kind == "actions" else "entry": "{}"}, *rows[1:]]
    digest, _ = write_archive(old.folder / other, forged)
    old.store.close()
    forger = Forger(database)
    data = {"file": other, "sha256": digest, "first": row["first"], "last": row["last"], "replaces": row["name"]}
    forger.append(f"{'AUDIT' if kind == 'audit' else 'ACTIONS'}_ARCHIVED", data, action_id=None)
    forger.change("UPDATE archives SET state = 'replaced' WHERE name = ?", row["name"])
    values = (other, kind, row["first"], row["last"], "done", forger.last, digest)
    forger.change(f"INSERT INTO archives ({', '.join(COLUMNS)}) VALUES (?,?,?,?,?,?,?)", *values)
    forger.close()
    with contextlib.closing(Store.open(database, now=lambda: old.time)) as store:
        with pytest.raises(AscendError, match="does not hold the same"):
            list(Archiver(store, old.folder).run(actions=None, audit=None))
    assert (old.folder / row["name"]).exists()


def _kept(place, folder):
    """Make a database with archives; return where it is, and a head that was noted then."""
    desk = Desk(path=place)
    for _ in range(2):
        desk.submit(DENIED)
        desk.submit(PENDING, amount=5000)
        desk.post(f"/api/agent-action/{desk.submit(APPROVED)[1]['id']}/complete", {})
    desk.time += 40 * DAY
    desk.submit(APPROVED)
    desk.folder = folder
    archive(desk)
    noted = audit.head(desk.store)
    assert verify(desk.store, archive=desk.folder, known=(noted,)).whole
    desk.authority.close()
    return place, folder, noted


@pytest.fixture(scope="module")
def kept_file(tmp_path_factory):
    return _kept(tmp_path_factory.mktemp("kept") / "a.db", tmp_path_factory.mktemp("archive"))


@pytest.fixture(scope="module")
def kept_url(cluster, tmp_path_factory):
    made = _kept(cluster.fresh(), tmp_path_factory.mktemp("archive"))
    return made, keep(made[0])


@pytest.fixture
def kept(engine_kind, request, tmp_path):
    """A database with archives, their folder, and a head that was noted then."""
    if engine_kind == "sqlite":
        place, folder, noted = request.getfixturevalue("kept_file")
        place = shutil.copy(place, tmp_path / "a.db")
    else:
        (place, folder, noted), put_back = request.getfixturevalue("kept_url")
        put_back()
    return place, shutil.copytree(folder, tmp_path / "archive"), noted


@pytest.mark.parametrize("hide", HIDING, ids=lambda hide: hide.__name__)
def test_archiving_is_no_way_to_hide_an_action(kept, hide):
    """What archives hold is compared with the log too, whatever else was appended to it."""
    place, folder, noted = kept
    with Forger(place) as forger:
        hide(forger, folder)
    with Database.evidence(place) as evidence:
        assert not verify(evidence, archive=folder, known=(noted,)).whole


@pytest.mark.parametrize("what", REFUSED)
def test_the_database_refuses_what_is_no_step_of_archiving(old, what):
    archive(old)
    with pytest.raises(StorageError, match="kept|fixed"), old.store.write():
        old.store.execute(REFUSED[what])


def test_nothing_may_be_deleted_for_a_file_that_no_entry_names(old):
    with old.store.write():
        row = {"name": "x", "kind": "audit", "first": 1, "last": 9, "state": "named", "seq": 3, "sha256": ""}
        old.store.insert("archives", row)
    for statement in ("DELETE FROM audit WHERE seq = 1", "DELETE FROM audit"):
        with pytest.raises(StorageError, match="kept"), old.store.write():
            old.store.execute(statement)


def test_deleting_goes_on_only_if_the_file_is_still_there(old):
    def enough():
        if old.store.rows("SELECT 1 FROM archives WHERE state = 'named'"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        archive(old, pause=enough)
    (row,) = old.store.rows("SELECT * FROM archives WHERE state = 'named'")
    away = old.folder / row["name"]
    away.rename(away.with_suffix(".away"))
    with pytest.raises(AscendError, match=r"missing or was changed.*Put it back"):
        archive(old)
    away.with_suffix(".away").rename(away)
    archive(old)
    assert verify(old.store, archive=old.folder).whole


# --- kill -9


class Mortal(Store):
    """Kills its process before or after one of its commits."""

    left = None
    after = False

    def group(self):
        inner = super().group()
        if self.left is None:
            return inner
        self.left -= 1
        last = self.left < 0

        @contextlib.contextmanager
        def dying():
            with inner:
                yield
                if last and not self.after:
                    os.kill(os.getpid(), signal.SIGKILL)
            if last:
                os.kill(os.getpid(), signal.SIGKILL)

        return dying()


def _killed(place, folder, moment, left, *, after=False, pauses=None):
    """Archive in a process that ends itself; say whether it did, or came to an end before."""
    child = os.fork()
    if not child:
        store = Mortal.open(place, now=lambda: moment)
        store.left, store.after = left, after
        count = iter(range(10**9 if pauses is None else pauses))

        def pause():
            if next(count, None) is None:
                os.kill(os.getpid(), signal.SIGKILL)

        cut = iso_time(moment - 20 * DAY)
        try:
            list(Archiver(store, folder, pause=pause).run(actions=cut, audit=cut))
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


@pytest.mark.skipif(os.name != "posix", reason="kills a fork of itself")
@pytest.mark.sqlite_file
@pytest.mark.parametrize("how", ["before a commit", "after a commit", "between two parts"])
def test_kill_9_at_any_step_loses_nothing_and_a_second_run_ends_it(old, database, tmp_path, how, full):
    before = stored(old)
    old.authority.close()
    rounds = 0
    for step in range(0, 1000, 1 if full else 11):
        place, folder = tmp_path / f"{step}.db", tmp_path / f"archive-{step}"
        shutil.copy(database, place)
        folder.mkdir()
        options = {"pauses": step} if how == "between two parts" else {"after": how == "after a commit"}
        if not _killed(place, folder, old.time, None if "pauses" in options else step, **options):
            break
        rounds += 1
        store = Store.open(place, now=lambda: old.time + 60)
        found = verify(store), verify(store, archive=folder)
        assert all(one.whole for one in found), (step, [one.findings for one in found])
        cut = iso_time(old.time - 20 * DAY)
        list(Archiver(store, folder).run(actions=cut, audit=cut))
        assert verify(store).whole and verify(store, archive=folder).whole
        desk = type("Ended", (), {"store": store, "folder": folder})
        numbers = [row["id"] for row in lines(desk, "actions")]
        assert sorted([*numbers, *stored(desk)]) == sorted(before), step
        entries = [row["seq"] for row in lines(desk, "audit")]
        assert entries == list(range(1, len(entries) + 1))
        assert {path.name for path in folder.iterdir()} == {
            row["name"] for row in store.rows("SELECT name FROM archives")
        }
        store.close()
    assert rounds > 2


# --- which actions


@pytest.mark.parametrize("numbers", [[], [7], [1, 2, 3], [1, 3, 4, 9]])
def test_numbers_and_their_ranges(numbers):
    found = [n for first, last in as_numbers(as_ranges(numbers)) for n in range(first, last + 1)]
    assert found == numbers


def test_a_folder_that_is_missing_is_told(old):
    old.folder = old.folder / "none"
    with pytest.raises(AscendError, match="no folder"):
        archive(old)


# --- who archives

RETENTION = '[retention]\nactions = "20d"\naudit = "1y"\narchive_to = "archive"\n'


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ('actions = "1s"\narchive_to = "x"', "no such age: '1s'"),
        ('actions = 400\narchive_to = "x"', "no such age: 400"),
        ('audit = "0d"\narchive_to = "x"', "no such age: '0d'"),
        ('audit = "101y"\narchive_to = "x"', "no such age"),
        ('actions = "400d"', "the folder for the archives is missing"),
        ('actions = "2y"\naudit = "1y"\narchive_to = "x"', "audit entries cannot go before the actions"),
        ('keep = "2y"', "keep"),
        ('without_outcome = "2y"\narchive_to = "x"', "without_outcome: it is for actions that are old already"),
        ('actions = "2y"\nwithout_outcome = "1y"\narchive_to = "x"', "without_outcome: it is for actions"),
        ('actions = "1y"\naudit = "2y"\nwithout_outcome = "3y"\narchive_to = "x"', "audit entries go after them"),
    ],
)
def test_a_retention_that_makes_no_sense_is_refused(table, words):
    with pytest.raises(ConfigurationError, match="retention.*" + words.replace("(", "")):
        parse_policy(f"[retention]\n{table}\n")


def test_the_command_archives_what_is_older_than_a_date_and_verify_reads_it(old, database, tmp_path, capsys):
    old.authority.close()
    place = ["--db", str(database), "--policy", str(tmp_path / "policy.toml")]
    run = ["authority", "archive", *place, "--to", str(old.folder)]
    assert main([*run, "--before", "2023-12-10"]) == 0
    assert capsys.readouterr().out.count("jsonl.gz") == 6
    assert main([*run, "--before", "2023-12-10"]) == 0
    assert capsys.readouterr().out == "nothing is old enough\n"
    assert main(["audit", "verify", *place]) == 0
    assert "are archived and were not read" in capsys.readouterr().out
    assert main(["audit", "verify", *place, "--archive", str(old.folder)]) == 0
    assert "archived" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], "say what is old"),
        (["--before", "soon"], "expected a date"),
        (["--without-outcome"], "goes with --before"),
        (["--before", "2999-01-01"], "in the future"),
        (["--before", "2020-01-01"], "name the folder"),
        (["--before", "2020-01-01", "--to", "/nowhere"], "no folder"),
        (["there", "--before", "2020-01-01"], "unexpected argument"),
    ],
)
def test_the_command_refuses_what_it_cannot_do(old, database, tmp_path, capsys, options, words):
    old.authority.close()
    place = ["--db", str(database), "--policy", str(tmp_path / "policy.toml")]
    assert main(["authority", "archive", *options, *place]) != 0
    assert words in capsys.readouterr().err


def test_a_server_archives_what_the_policy_file_says(old, tmp_path, caplog):
    caplog.set_level("INFO")
    old.authority.use(parse_policy(RETENTION, folder=tmp_path))

    async def serve():
        task = asyncio.create_task(Retirement(old.authority, first=0, period=60).run())
        async with asyncio.timeout(60):
            while len(old.store.rows("SELECT 1 FROM archives WHERE state = 'done'")) < 3:
                await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(serve())
    assert "archived 7 rows, actions" in caplog.text
    # The log is kept for a year.
    assert verify(old.store).archived == 0 and verify(old.store, archive=old.folder).whole


def test_a_server_that_cannot_archive_says_why_and_one_that_stops_goes_on_later(old, tmp_path, caplog):
    caplog.set_level("INFO", "ascend_middleware")
    old.authority.use(parse_policy(RETENTION, folder=tmp_path))
    old.folder.rmdir()
    Retirement(old.authority).look()
    assert "what is old is not archived: " in caplog.text and "there is no folder" in caplog.text
    old.folder.mkdir()
    stopped = Retirement(old.authority)
    stopped.stop()
    stopped.look()
    assert not old.store.rows("SELECT 1 FROM archives WHERE state = 'done'")
    Retirement(old.authority).look()
    assert verify(old.store, archive=old.folder).whole and len(lines(old, "actions")) == 16
